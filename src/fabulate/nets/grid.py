"""Convolutional networks between an image and a grid of vectors, for any sides from 8 to 256.

The encoder halves the image, rounding up, once and then until its grid has few enough cells (28 -> 14 -> 7 and
32 -> 16 -> 8 for 64 cells); residual blocks think at the grid's resolution, where it is cheap; the decoder walks the
same sizes back. This is the shape of the networks of van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937,
section 4.1: strided convolutions, then residual blocks of a 3x3 and a 1x1 convolution), with two changes: enlarging is
nearest-neighbour plus convolution, which leaves no checkerboard (Odena et al. 2016,
https://distill.pub/2016/deconv-checkerboard/), and each residual block begins with a normalisation over the whole image
(Wu, He 2018, https://arxiv.org/abs/1803.08494, one group), which makes blocks trainable and keeps images independent.

Legend: B batch, C H W image, D numbers in a cell's vector, h w grid, K classes, F features.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.nets.blocks import check_sides, keep_variance, pick
from fabulate.types import ImageShape


def scales(shape: ImageShape, cells: int) -> list[tuple[int, int]]:
    """Heights and widths from the whole image down to the grid, which has at most `cells` cells.

    >>> scales(ImageShape(1, 28, 28), 64)
    [(28, 28), (14, 14), (7, 7)]

    Errors: `ConfigError` for sides outside 8..256.
    """
    height, width = shape.height, shape.width
    check_sides("a grid of codes", shape)
    result = [(height, width)]
    while len(result) == 1 or height * width > cells:
        height, width = (height + 1) // 2, (width + 1) // 2
        result.append((height, width))
    return result


def channels(halvings: int, width: int) -> list[int]:
    """Channels after each halving: `width` at the grid, half as many at each larger size, never fewer than 8.

    >>> channels(2, 64)
    [32, 64]
    """
    return [max(width // 2**level, min(8, width)) for level in reversed(range(halvings))]


class Residual(nn.Module):
    """x + a small correction: normalise, 3x3, 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class GridEncoder(nn.Module):
    """Images (B, C, H, W) to grids of vectors (B, D, h, w)."""

    def __init__(self, shape: ImageShape, outputs: int, *, width: int, blocks: int, cells: int) -> None:
        super().__init__()
        sizes = channels(len(scales(shape, cells)) - 1, width)
        halvings = [
            layer
            for before, after in pairwise([shape.channels, *sizes])
            for layer in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU())
        ]
        thinking = [Residual(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*halvings[:-1], *thinking, nn.GroupNorm(1, width), nn.SiLU())
        self.last = nn.Conv2d(width, outputs, 1)
        keep_variance(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x))


class GridDecoder(nn.Module):
    """Grids of vectors (B, D, h, w) to images (B, C, H, W), unbounded; the class enters as a vector at each cell."""

    def __init__(
        self, inputs: int, shape: ImageShape, classes: int = 0, *, width: int, blocks: int, cells: int
    ) -> None:
        super().__init__()
        *larger, _ = scales(shape, cells)
        self.larger = larger[::-1]
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in pairwise([*channels(len(larger), width)[::-1], shape.channels])
        )
        keep_variance(self)
        self.classes = nn.Parameter(torch.randn(classes, width)) if classes else None

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.first(z)
        if self.classes is not None:
            assert y is not None, "a class-conditional network was called without classes"
            x = x + pick(self.classes, y)[:, :, None, None]
        x = self.blocks(x)
        for size, convolution in zip(self.larger, self.convolutions, strict=True):
            x = convolution(F.interpolate(F.silu(x), size=size))
        return x
