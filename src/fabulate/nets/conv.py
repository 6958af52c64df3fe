"""Convolutional networks for any side from 8 to 256, odd ones too.

The encoder halves the image, rounding up (28 -> 14 -> 7 -> 4), until a side is at most 4; the decoder walks the same
sizes back, enlarging to each exactly. As in DCGAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434) strides do
the halving and channels double on the way; unlike it, enlarging is nearest-neighbour plus convolution, which leaves no
checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard/), and there is no batch normalisation,
with which one image's gradient would depend on the others and a critic's gradient penalty would mean nothing.

After each halving, and before each enlarging, there is room for residual blocks; the whole image's size has none, where
they would cost most. Inside, the channels of a pixel lie side by side in memory (channels last): on a CPU the decoder
then takes about half the time, the encoder a tenth less.

Legend: B batch, C H W image, Z inputs or outputs, K classes.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import (
    ACTIVATIONS,
    NORMS,
    Activation,
    ByClass,
    Norm,
    Residual,
    check_sides,
    keep_variance,
    with_class,
)
from fabulate.types import ImageShape

SOFTLY = 0.3  # of a residual block's branch: two or three blocks in a row then add up to about the size of their input


@spec
class Conv:
    """Strided convolutions, with or without residual blocks."""

    per_sample: ClassVar[bool] = True  # an image's output never depends on the other images of its batch
    kind: Annotated[Literal["conv"], tyro.conf.Suppress] = "conv"
    width: PositiveInt = 16
    """Channels at half the image's size; they double at each halving, up to four times this."""
    blocks: Annotated[int, Field(ge=0)] = 0
    """Residual blocks at each size; with one a step takes two to three times as long."""
    activation: Activation = "leaky_relu"
    """Activation between layers."""
    norm: Norm = "none"
    """Normalisation before each activation."""

    def encoder(self, shape: ImageShape, outputs: int, classes: int = 0) -> nn.Module:
        """A network from images (B, C, H, W) to vectors (B, outputs)."""
        _check(shape)
        return ConvEncoder(self, shape, outputs, classes)

    def decoder(self, inputs: int, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to images (B, C, H, W), unbounded."""
        _check(shape)
        return ConvDecoder(self, inputs, shape, classes)

    def channels(self, level: int) -> int:
        """Channels after `level` halvings, level >= 1."""
        return self.width * min(2 ** (level - 1), 4)

    def residual(self, channels: int) -> list[nn.Module]:
        """The residual blocks of one size."""
        return [Residual(channels, self.norm, self.activation, SOFTLY) for _ in range(self.blocks)]

    def active(self, channels: int) -> list[nn.Module]:
        """What stands before a layer: normalisation, then activation."""
        return [NORMS[self.norm](channels), ACTIVATIONS[self.activation]()]


def _check(shape: ImageShape) -> None:
    check_sides("the conv network", shape, otherwise=", or --network mlp")


def sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Heights and widths from the whole image down to the smallest.

    >>> sizes(ImageShape(1, 28, 28))
    [(28, 28), (14, 14), (7, 7), (4, 4)]

    """
    _, height, width = shape
    result = [(height, width)]
    while min(height, width) > 4:
        height, width = (height + 1) // 2, (width + 1) // 2
        result.append((height, width))
    return result


def kernel(larger: tuple[int, int]) -> tuple[int, int]:
    """The kernel between a size and its half: with stride 2 and padding 1 it leads there and back exactly.

    4 for even sides covers each pixel as often as the next; 3 would draw a checkerboard into a critic's gradient.
    """
    height, width = larger
    return 4 - height % 2, 4 - width % 2


class ConvEncoder(nn.Module):
    """Images to vectors; the class weighs the last features."""

    def __init__(self, config: Conv, shape: ImageShape, outputs: int, classes: int) -> None:
        super().__init__()
        scales = sizes(shape)
        channels = [shape.channels, *(config.channels(level) for level in range(1, len(scales)))]
        layers: list[nn.Module] = []
        for larger, (before, after) in zip(scales[:-1], pairwise(channels), strict=True):
            layers.append(nn.Conv2d(before, after, kernel(larger), stride=2, padding=1))
            layers += [*config.residual(after), *config.active(after)]
        height, width = scales[-1]
        features = channels[-1] * height * width
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.by_class = ByClass(features, classes)
        self.last = nn.Linear(features, outputs)
        keep_variance(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        features = self.layers(x.contiguous(memory_format=torch.channels_last))  # (B, F)
        return self.last(self.by_class(features, y))  # (B, outputs)


class ConvDecoder(nn.Module):
    """Vectors to images; the class enters beside the vector."""

    def __init__(self, config: Conv, inputs: int, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.classes = classes
        *larger, smallest = sizes(shape)
        self.smallest, self.larger = smallest, larger[::-1]
        channels = [*(config.channels(level) for level in range(len(larger), 0, -1)), shape.channels]
        self.first = nn.Linear(inputs + classes, channels[0] * smallest[0] * smallest[1])
        self.blocks = nn.ModuleList(
            nn.Sequential(*config.residual(before), *config.active(before)) for before in channels[:-1]
        )
        self.convolutions = nn.ModuleList(nn.Conv2d(*ends, 3, padding=1) for ends in pairwise(channels))
        keep_variance(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.first(with_class(z, y, self.classes)).unflatten(1, (-1, *self.smallest))
        x = x.contiguous(memory_format=torch.channels_last)
        for size, block, convolution in zip(self.larger, self.blocks, self.convolutions, strict=True):
            x = convolution(F.interpolate(block(x), size=size))
        return x  # (B, C, H, W)
