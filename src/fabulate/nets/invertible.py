"""Invertible layers whose log-determinant is cheap: what a normalizing flow is made of.

A layer f gives z = f(x) and log |det df/dx| in one pass, and x = f^-1(z) as cheaply. Those of this file touch each
number, or each pixel, by itself; what lets one pixel depend on another is in `couplings.py`.

    Logit     z = log p - log(1 - p), p the pixel in (0, 1)      log det = sum of log dp/dx - log p - log(1 - p)
    Squeeze   each 2x2 block becomes four channels               log det = 0
    Scale     z = exp(s) x + b, one s and b for each number      log det = sum s
    Mix       z = W x at each pixel, W = P L U                   log det = H W sum log |diag U|

Mix is learnt as P L U with a fixed permutation P: its determinant is a product and never crosses zero, so W keeps its
inverse (Kingma, Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018,
https://arxiv.org/abs/1807.03039). Scale is that paper's ActNorm: the first batch that it sees in training sets it so
that each channel comes out with mean 0 and variance 1. That is no luxury: learnt from nothing, MNIST cost 3.0 bits/dim
after 180 steps instead of 1.9. A buffer remembers that it has happened, so a run that continues does not do it again.

Legend: B batch, C H W image (of this layer).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import log
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.types import ImageShape

EDGE = 256 / 255  # 256 bins, as wide as the pixel values lie apart (2 / 255), tile [-EDGE, EDGE]: one about each value
FLATTEST = 1e-6  # a channel that varies less than this in the first batch is taken for constant


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
        total = x.new_zeros(len(x))
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
        lower, upper = self.factors()
        weight = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, weight, upper=True)  # U^-1 L^-1 P'
        return F.conv2d(z, weight[:, :, None, None])
