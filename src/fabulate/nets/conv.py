"""Convolutional networks for any side from 8 to 64, odd ones too.

The encoder halves the image, rounding up (28 -> 14 -> 7 -> 4), until a side is at most 4; the decoder walks the same
sizes back, enlarging to each exactly. As in DCGAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434) strides do
the halving and channels double on the way; unlike it, enlarging is nearest-neighbour plus convolution, which leaves no
checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard/), and there is no batch normalisation,
with which one image's gradient would depend on the others and a critic's gradient penalty would mean nothing.

Legend: B batch, C H W image, Z inputs or outputs, K classes.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.errors import ConfigError
from fabulate.nets.blocks import ACTIVATIONS, Activation, keep_variance, with_class
from fabulate.types import ImageShape

SMALLEST_SIDE, LARGEST_SIDE = 8, 64


@spec
class Conv:
    """Strided convolutions."""

    kind: Annotated[Literal["conv"], tyro.conf.Suppress] = "conv"
    width: PositiveInt = 16
    """Channels at half the image's size; they double at each halving, up to four times this."""
    activation: Activation = "silu"
    """Activation between layers."""

    def encoder(self, shape: ImageShape, outputs: int, classes: int = 0) -> nn.Module:
        """A network from images (B, C, H, W) to vectors (B, outputs)."""
        return ConvEncoder(self, shape, outputs, classes)

    def decoder(self, inputs: int, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to images (B, C, H, W), unbounded."""
        return ConvDecoder(self, inputs, shape, classes)

    def channels(self, level: int) -> int:
        """Channels after `level` halvings, level >= 1."""
        return self.width * min(2 ** (level - 1), 4)


def sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Heights and widths from the whole image down to the smallest.

    >>> sizes(ImageShape(1, 28, 28))
    [(28, 28), (14, 14), (7, 7), (4, 4)]

    Errors: `ConfigError` for sides outside 8..64.
    """
    _, height, width = shape
    if min(height, width) < SMALLEST_SIDE or max(height, width) > LARGEST_SIDE:
        raise ConfigError(
            f"the conv network takes sides from {SMALLEST_SIDE} to {LARGEST_SIDE}, and the images are {shape}; "
            f"use --size, e.g. --size 32, or --network mlp"
        )
    result = [(height, width)]
    while min(height, width) > 4:
        height, width = (height + 1) // 2, (width + 1) // 2
        result.append((height, width))
    return result


class ConvEncoder(nn.Module):
    """Images to vectors; the class enters as one learned plane beside the image's channels."""

    def __init__(self, config: Conv, shape: ImageShape, outputs: int, classes: int) -> None:
        super().__init__()
        self.classes, self.shape = classes, shape
        self.plane = nn.Linear(classes, shape.height * shape.width) if classes else None
        scales = sizes(shape)
        layers: list[nn.Module] = []
        before = shape.channels + bool(classes)
        for level in range(1, len(scales)):
            after = config.channels(level)
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), ACTIVATIONS[config.activation]()]
            before = after
        height, width = scales[-1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * width, outputs))
        keep_variance(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.plane is not None:
            empty = x.new_zeros(len(x), 0)
            plane = self.plane(with_class(empty, y, self.classes))  # (B, H * W)
            x = torch.cat([x, plane.unflatten(1, (1, self.shape.height, self.shape.width))], dim=1)
        return self.layers(x)  # (B, outputs)


class ConvDecoder(nn.Module):
    """Vectors to images; the class enters beside the vector."""

    def __init__(self, config: Conv, inputs: int, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.classes = classes
        *larger, smallest = sizes(shape)
        self.smallest, self.larger = smallest, larger[::-1]
        channels = [config.channels(level) for level in range(len(larger), 0, -1)]
        self.first = nn.Linear(inputs + classes, channels[0] * smallest[0] * smallest[1])
        self.activation = ACTIVATIONS[config.activation]()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise([*channels, shape.channels])
        )
        keep_variance(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.first(with_class(z, y, self.classes)).unflatten(1, (-1, *self.smallest))
        for size, convolution in zip(self.larger, self.convolutions, strict=True):
            x = convolution(F.interpolate(self.activation(x), size=size))
        return x  # (B, C, H, W)
