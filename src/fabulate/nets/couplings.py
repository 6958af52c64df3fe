"""Affine couplings: half of an image tells the other half how to be scaled and shifted.

    z = m x + (1 - m) (exp(s) x + t),   (s, t) = network(m x),   log det = sum (1 - m) s

The mask m lets half of the numbers pass. As they come out unchanged, the inverse knows s and t too and never inverts
the network, which may be anything (Dinh et al., "Density estimation using Real NVP", 2017,
https://arxiv.org/abs/1605.08803). The half is a half of the channels or the fields of one colour of a chessboard, which
serves a gray image of odd sides too.

The network is the sum of two. Convolutions (3x3, 1x1, 3x3, as in Glow) see a neighbourhood and draw smooth strokes; one
hidden layer over the whole image knows where strokes belong. Either alone draws worse on MNIST: dabs without order, or
digits made of sand. Images of more than `WHOLE` numbers have the convolutions alone.

Legend: B batch, C H W image (of this layer), K classes.
"""

import torch
from torch import Tensor, nn

from fabulate.nets.blocks import keep_variance, with_class
from fabulate.nets.invertible import Invertible
from fabulate.nets.mlp import MLPEncoder
from fabulate.types import ImageShape

WHOLE = 2048  # numbers of an image that a hidden layer may see at once; its weights grow with them
STEEPEST = 2.0  # bound of |s|: no step stretches by more than exp(2), so that none runs away
QUIET = 0.1  # size of s and t at first, beside the features they come from: a coupling begins near the identity


def channels(shape: ImageShape, parity: int) -> Tensor:
    """The mask (C, H, W) that lets the first half of the channels pass (parity 0), or the second.

    >>> channels(ImageShape(4, 1, 1), 0).flatten()
    tensor([1., 1., 0., 0.])
    """
    first = torch.arange(shape.channels) < (shape.channels + 1) // 2
    return (first != bool(parity)).to(torch.get_default_dtype())[:, None, None].repeat(1, *shape[1:])


def chessboard(shape: ImageShape, parity: int) -> Tensor:
    """The mask (C, H, W) that lets the fields of one colour pass.

    >>> chessboard(ImageShape(1, 2, 3), 0)
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
        self.place = nn.Parameter(torch.zeros(width, shape.height, shape.width))  # convolutions do not know where
        quieten(self.rest[-1])
        if self.whole is not None:
            quieten(self.whole.layers[-1])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(x) + self.place  # (B, width, H, W)
        if self.label is not None:
            label = self.label(with_class(x.new_zeros(len(x), 0), y, self.classes))  # (B, width)
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
