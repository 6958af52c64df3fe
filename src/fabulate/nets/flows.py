"""Normalizing flows: invertible layers whose log-determinant is cheap, and the multi-scale network made of them.

A layer f gives z = f(x) and log |det df/dx| in one pass, and x = f^-1(z) as cheaply:

    Logit     z = log p - log(1 - p), p the pixel in (0, 1)      log det = sum of log dp/dx - log p - log(1 - p)
    Squeeze   each 2x2 block becomes four channels               log det = 0
    Scale     z = exp(s) x + b, one s and b for each number      log det = sum s
    Mix       z = W x at each pixel, W = P L U                   log det = H W sum log |diag U|
    Coupling  z = m x + (1 - m) (exp(s) x + t),                  log det = sum (1 - m) s
              (s, t) = network(m x)

Mix is learnt as P L U with a fixed permutation P: its determinant is a product and never crosses zero, so W keeps its
inverse (Kingma, Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018,
https://arxiv.org/abs/1807.03039). Scale is that paper's ActNorm: the first batch that it sees in training sets it so
that each channel comes out with mean 0 and variance 1. That is no luxury: learnt from nothing, MNIST cost 3.0 bits/dim
after 180 steps instead of 1.9. A buffer remembers that it has happened, so a run that continues does not do it again.

A coupling's mask m lets half of the numbers pass: half of the channels, or the fields of one colour of a checkerboard,
which serves a gray image of odd sides too. As they come out unchanged, the inverse knows s and t too and never inverts
the network, which may be anything (Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2017,
https://arxiv.org/abs/1605.08803). It is the sum of two. Convolutions (3x3, 1x1, 3x3, as in Glow) see a neighbourhood
and draw smooth strokes; one hidden layer over the whole image knows where strokes belong. Either alone draws worse on
MNIST: dabs without order, or digits made of sand. Images of more than `WHOLE` numbers have the convolutions alone.

The whole flow, `MultiScale`, works at several sizes (Dinh et al., section 3.6):

    while both sides are even and stay at least 4:
        couplings on a checkerboard (as many as asked for)
        squeeze: 2x2 blocks become four channels
        steps of flow: scale, mix the channels, couple their halves
        half of the channels are done and leave as codes, unless this was the last size

28x28 goes 28 -> 14 -> 7. An image with an odd side is never squeezed, and is coupled on the checkerboard throughout.
The last step before channels leave is the one that scales and shifts just them, given those that stay: together a
learned p(leaving | staying), as in Glow. To leave early saves work and gives each size codes of its own.

Legend: B batch, C H W image (of this layer), K classes, Z = C H W.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import log
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.nets.blocks import keep_variance, with_class
from fabulate.nets.mlp import MLPEncoder
from fabulate.types import ImageShape

EDGE = 256 / 255  # 256 bins, as wide as the pixel values lie apart (2 / 255), tile [-EDGE, EDGE]: one about each value
FLATTEST = 1e-6  # a channel that varies less than this in the first batch is taken for constant
WHOLE = 2048  # numbers of an image that a hidden layer may see at once; its weights grow with them
STEEPEST = 2.0  # bound of |s|: no step stretches by more than exp(2), so that none runs away
QUIET = 0.1  # size of s and t at first, beside the features they come from: a coupling begins near the identity
SMALLEST = 4  # a side that is not halved further

Mixing = Literal["rotate", "swap"]


class Invertible(nn.Module, ABC):
    """z = f(x), with the logarithm of its Jacobian's determinant; and back."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z, and log |det df/dx| for each image (B,), or () where it is the same for all."""

    @abstractmethod
    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The x whose z this is."""


class Chain(Invertible):
    """One layer after another."""

    def __init__(self, layers: Iterable[Invertible]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, logdet = layer(x, y)
            total = total + logdet
        return x, total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in reversed(cast("list[Invertible]", list(self.layers))):
            z = layer.inverse(z, y)
        return z


class Logit(Invertible):
    """From pixels in [-EDGE, EDGE] to the whole line, as flows want it (Dinh et al. 2017, section 4.1).

    p is kept `margin` away from 0 and 1, where the logit is infinite.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin, self.slope = margin, (1 - 2 * margin) / (2 * EDGE)  # dp/dx

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_p = torch.log(self.margin + self.slope * (EDGE + x))
        log_q = torch.log(self.margin + self.slope * (EDGE - x))
        return log_p - log_q, (log(self.slope) - log_p - log_q).sum((1, 2, 3))

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (torch.sigmoid(z) - 0.5) / self.slope


class Squeeze(Invertible):
    """Each 2x2 block becomes four channels: (B, C, H, W) <-> (B, 4 C, H / 2, W / 2)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(())

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(z, 2)


class Scale(Invertible):
    """A scale and a shift for each number of the image, learnt from where the first batch sets them.

    The first micro-batch, to be exact; several processes would have to share what one of them found.
    """

    untouched: Tensor

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.shift = nn.Parameter(torch.zeros(shape))
        self.register_buffer("untouched", torch.tensor(True))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and self.untouched:
            self.standardise(x)
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum()

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z - self.shift) * torch.exp(-self.log_scale)

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Give each channel of these images mean 0 and variance 1; pixels share it, for some hardly ever vary."""
        std, mean = torch.std_mean(x, (0, 2, 3), correction=0, keepdim=True)  # (1, C, 1, 1)
        std = torch.where(std > FLATTEST, std, 1.0)
        self.log_scale.copy_(-std.log()[0].expand_as(self.log_scale))
        self.shift.copy_((-mean / std)[0].expand_as(self.shift))
        self.untouched.fill_(False)


class Mix(Invertible):
    """An invertible 1x1 convolution, W = P L U, that begins as a random rotation."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(shape.channels, shape.channels))
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))

    def factors(self) -> tuple[Tensor, Tensor]:
        """L, with ones on its diagonal, and U: (C, C) each."""
        lower = self.lower.tril(-1) + torch.diag(torch.ones_like(self.sign))
        return lower, self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        weight = self.permutation @ lower @ upper
        return F.conv2d(x, weight[:, :, None, None]), x.shape[2] * x.shape[3] * self.log_diagonal.sum()

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return F.conv2d(z, self.unmixing()[:, :, None, None])

    def unmixing(self) -> Tensor:
        """W^-1 = U^-1 L^-1 P': (C, C)."""
        lower, upper = self.factors()
        weight = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, weight, upper=True)


def channels(shape: ImageShape, parity: int) -> Tensor:
    """The mask (C, H, W) that lets the first half of the channels pass (parity 0), or the second.

    >>> channels(ImageShape(4, 1, 1), 0).flatten()
    tensor([1., 1., 0., 0.])
    """
    first = torch.arange(shape.channels) < (shape.channels + 1) // 2
    return (first != bool(parity)).to(torch.get_default_dtype())[:, None, None].repeat(1, *shape[1:])


def checkerboard(shape: ImageShape, parity: int) -> Tensor:
    """The mask (C, H, W) that lets the fields of one colour pass.

    >>> checkerboard(ImageShape(1, 2, 3), 0)
    tensor([[[0., 1., 0.],
             [1., 0., 1.]]])
    """
    rows, columns = torch.arange(shape.height)[:, None], torch.arange(shape.width)
    return ((rows + columns + parity) % 2).to(torch.get_default_dtype()).repeat(shape.channels, 1, 1)


class Coupling(Invertible):
    """What the mask lets pass scales and shifts the rest."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.network = CouplingNetwork(ImageShape(*mask.shape), width, hidden, classes)

    def scale_and_shift(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """s and t, (B, C, H, W) each: functions of what the mask lets pass, and 0 there."""
        s, t = self.network(self.mask * x, y).chunk(2, dim=1)
        return (1 - self.mask) * STEEPEST * torch.tanh(s / STEEPEST), (1 - self.mask) * t

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(x, y)
        return x * s.exp() + t, s.sum((1, 2, 3))

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        s, t = self.scale_and_shift(z, y)
        return (z - t) * torch.exp(-s)


class CouplingNetwork(nn.Module):
    """Images (B, C, H, W) to (B, 2 C, H, W): a look at each neighbourhood, plus a look at the whole."""

    def __init__(self, shape: ImageShape, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.first = nn.Conv2d(shape.channels, width, 3, padding=1)
        self.label = nn.Linear(classes, width, bias=False) if classes else None
        self.rest = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, 2 * shape.channels, 3, padding=1)
        )
        widths = [shape.size + classes, hidden, 2 * shape.size]
        self.whole = MLPEncoder(shape, widths, "silu", classes) if hidden and shape.size <= WHOLE else None
        keep_variance(self)
        self.position = nn.Parameter(torch.zeros(width, shape.height, shape.width))  # convolutions do not know where
        quieten(self.rest[-1])
        if self.whole is not None:
            quieten(self.whole.layers[-1])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(x) + self.position  # (B, width, H, W)
        if self.label is not None:
            label = self.label(with_class(x.new_zeros(x.shape[0], 0), y, self.classes))  # (B, width)
            h = h + label[:, :, None, None]
        out = self.rest(h)
        if self.whole is not None:
            out = out + self.whole(x, y).unflatten(1, (-1, *self.shape[1:]))
        return out


@torch.no_grad()
def quieten(last: nn.Module) -> None:
    """Make a layer's first outputs small, and not zero, or the class would make no difference at first."""
    assert isinstance(last, nn.Conv2d | nn.Linear)
    last.weight.mul_(QUIET)


def halves(shape: ImageShape) -> bool:
    """Whether images of this shape are squeezed.

    >>> [halves(ImageShape(1, side, side)) for side in (28, 14, 7)]
    [True, True, False]
    """
    _, height, width = shape
    return height % 2 == width % 2 == 0 and min(height, width) >= 2 * SMALLEST


class MultiScale(Invertible):
    """A flow from images (B, C, H, W) to codes (B, Z).

    `depth` steps at each size; `checkerboards` couplings on the checkerboard before each squeeze, and one more than
    that at the end; networks of `width` channels and `hidden` units; `mixing` of the channels before a coupling: rotate
    them by a learned matrix, or only swap which half passes.
    """

    def __init__(
        self, shape: ImageShape, depth: int, checkerboards: int, width: int, hidden: int, mixing: Mixing, classes: int
    ) -> None:
        super().__init__()

        def step(mask: Tensor) -> list[Invertible]:
            here = ImageShape(*mask.shape)
            mix = [Mix(here)] if mixing == "rotate" and here.channels > 1 else []
            return [Scale(here), *mix, Coupling(mask, width, hidden, classes)]

        levels: list[list[Invertible]] = []
        self.leaving: list[ImageShape] = []  # of the codes, level by level
        while halves(shape):
            layers = [layer for i in range(checkerboards) for layer in step(checkerboard(shape, i % 2))]
            layers.append(Squeeze())
            shape = ImageShape(4 * shape.channels, shape.height // 2, shape.width // 2)
            layers += [layer for i in reversed(range(depth)) for layer in step(channels(shape, i % 2))]
            levels.append(layers)
            if halves(shape) or checkerboards:
                shape = ImageShape(shape.channels // 2, *shape[1:])
                self.leaving.append(shape)
        last = checkerboards + 1 if checkerboards else 2 * depth * (not levels)
        if last:
            levels.append([layer for i in range(last) for layer in step(checkerboard(shape, i % 2))])
        levels[-1].append(Scale(shape))
        self.leaving.append(shape)
        self.levels = nn.ModuleList(Chain(layers) for layers in levels)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        codes: list[Tensor] = []
        total = x.new_zeros(x.shape[0])
        for level in self.levels:
            x, logdet = level(x, y)
            total = total + logdet
            if len(codes) < len(self.levels) - 1:
                x, leaving = x.chunk(2, dim=1)
                codes.append(leaving.flatten(1))
        return torch.cat([*codes, x.flatten(1)], dim=1), total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        parts = torch.split(z, [shape.size for shape in self.leaving], dim=1)
        *codes, x = (part.reshape(-1, *shape) for part, shape in zip(parts, self.leaving, strict=True))
        for level in reversed(self.levels):
            assert isinstance(level, Chain)
            x = level.inverse(x, y)
            x = torch.cat([x, codes.pop()], dim=1) if codes else x
        return x
