"""The network of DCGAN: strided convolutions down, transposed ones up, batch normalisation between.

Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative adversarial networks",
2016, https://arxiv.org/abs/1511.06434. At 64x64 its generator is the paper's figure 1 with kernels of 4x4 (the figure
has 5x5; the authors' and most later code for torch has 4x4, which divide evenly by the stride):

    z (100) -> 1024 x 4x4 -> 512 x 8x8 -> 256 x 16x16 -> 128 x 32x32 -> 3 x 64x64

and its critic is the mirror image. Batch normalisation and ReLU stand between the layers of the generator, batch
normalisation and leaky ReLU between those of the critic, none at its input and none at the generator's output. Weights
begin as N(0, 0.02^2). At other sizes the same rule has fewer or more layers: the image is halved, rounding up, until a
side is at most 4, with never more channels than 8 times the first's; a layer between an odd side and its half has 3
pixels there instead of 4.

In training the batch normalisation of an image looks at the whole batch; in use it takes the averages it has kept.

Legend: B batch, C H W image, Z inputs or outputs, K classes.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import tyro
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import ByClass, check_sides, with_class
from fabulate.nets.conv import kernel, sizes
from fabulate.types import ImageShape


@spec
class DCGAN:
    """The network of DCGAN: transposed convolutions and batch normalisation."""

    per_sample: ClassVar[bool] = False  # in training an image's output depends on the other images of its batch
    kind: Annotated[Literal["dcgan"], tyro.conf.Suppress] = "dcgan"
    width: PositiveInt = 128
    """Channels at half the image's size; they double at each halving, up to eight times this."""

    def encoder(self, shape: ImageShape, outputs: int, classes: int = 0) -> nn.Module:
        """A network from images (B, C, H, W) to vectors (B, outputs)."""
        check_sides("the dcgan network", shape, otherwise=", or --network conv")
        return DCGANEncoder(self, shape, outputs, classes)

    def decoder(self, inputs: int, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to images (B, C, H, W), unbounded."""
        check_sides("the dcgan network", shape, otherwise=", or --network conv")
        return DCGANDecoder(self, inputs, shape, classes)

    def channels(self, shape: ImageShape) -> list[int]:
        """Channels at each size, from the whole image down."""
        return [shape.channels, *(self.width * 2 ** min(level, 3) for level in range(len(sizes(shape)) - 1))]


def begin(network: nn.Module) -> None:
    """All weights from N(0, 0.02^2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.02)


class DCGANEncoder(nn.Module):
    """The critic: images to vectors; the class weighs the last features."""

    def __init__(self, config: DCGAN, shape: ImageShape, outputs: int, classes: int) -> None:
        super().__init__()
        scales, channels = sizes(shape), config.channels(shape)
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise(channels)):
            layers.append(nn.Conv2d(before, after, kernel(scales[level]), stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(after)] if level else []  # none at the input
            layers.append(nn.LeakyReLU(0.2))
        height, width = scales[-1]
        features = channels[-1] * height * width
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.by_class = ByClass(features, classes)
        self.last = nn.Linear(features, outputs, bias=False)
        begin(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.last(self.by_class(self.layers(x), y))  # (B, outputs)


class DCGANDecoder(nn.Module):
    """The generator: vectors to images; the class enters beside the vector."""

    def __init__(self, config: DCGAN, inputs: int, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.classes = classes
        scales, channels = sizes(shape), config.channels(shape)[::-1]
        height, width = scales[-1]
        layers: list[nn.Module] = [
            nn.Linear(inputs + classes, channels[0] * height * width, bias=False),
            nn.Unflatten(1, (channels[0], height, width)),
        ]
        for larger, (before, after) in zip(scales[-2::-1], pairwise(channels), strict=True):
            layers += [nn.BatchNorm2d(before), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(before, after, kernel(larger), stride=2, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)
        begin(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(with_class(z, y, self.classes))  # (B, C, H, W)
