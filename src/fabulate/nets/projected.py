"""A critic that sees images through features known beforehand, and a generator that few steps can train.

The critic (Sauer, Chitta, Mueller, Geiger, "Projected GANs converge faster", 2021, https://arxiv.org/abs/2111.01007)
learns no features. It looks at maps of EfficientNet-Lite0 (`lite0.py`), which ImageNet has taught what photographs are
made of. A critic would attend to a few telling channels of them and the generator would mend no others; so channels are
mixed at random within each map and with those of the smaller ones, by matrices that never learn:

    m_l = B_l (A_l f_l + enlarged m_(l+1))            f_l the frozen maps at strides 4, 8, 16;  A_l, B_l random
    score = D_l m_l at each place                     D_l learns: convolutions down to the smallest map's places

So there are several judges, one for each map and place, who count alike. The features belong to no model: they are in
neither its weights nor its file, and only training needs them.

The generator is that of Liu, Zhu, Song, Elgammal, "Towards faster and stabilized GAN training for high-fidelity
few-shot image synthesis", 2021, https://arxiv.org/abs/2101.04775: nearest-neighbour enlarging, convolution, batch
normalisation, gated linear units, and skip-layer excitation, by which a small map weighs the channels of a large one.

Legend: B batch, C H W image, Z inputs, M mixed channels, J judges, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.nets.blocks import ByClass, check_sides, with_class
from fabulate.nets.conv import kernel, sizes
from fabulate.nets.lite0 import coloured, frozen
from fabulate.types import ImageShape

LEVELS = {2: (4, 24), 4: (8, 40), 10: (16, 112)}  # a map of the features: after which block, its stride and channels
SIDE = 32  # of the square as large as which smaller images are made: at 64 a step takes twice the time (docs/LOG.md)
MIXED = 64  # M
SPREAD = 8.0  # standard deviation of the features, about: 5 to 10 on photographs of 32x32, at all three strides
SKIP = 3  # sizes between a map and the one whose channels it weighs


@spec
class Projected:
    """A generator of gated convolutions, and a critic on the features of ImageNet's photographs."""

    per_sample: ClassVar[bool] = False  # in training an image's output depends on the other images of its batch
    kind: Annotated[Literal["projected"], tyro.conf.Suppress] = "projected"
    width: PositiveInt = 8
    """Channels of the generator at the image's size; they double at each halving, up to eight times this."""

    def encoder(self, shape: ImageShape, outputs: int, classes: int = 0) -> nn.Module:
        """A critic from images (B, C, H, W) to scores (B, J): there are as many judges as the images' size asks for."""
        check_sides("the projected network", shape, otherwise=", or --network mlp")
        return ProjectedCritic(shape, classes)

    def decoder(self, inputs: int, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to images (B, C, H, W), unbounded."""
        check_sides("the projected network", shape, otherwise=", or --network mlp")
        return FastGenerator(self, inputs, shape, classes)

    def channels(self, level: int) -> int:
        """Channels after `level` halvings of the image."""
        return self.width * 2 ** min(level, 3)


def seen(shape: ImageShape) -> tuple[int, int]:
    """Height and width at which the features see images; small ones are enlarged, their proportions stay.

    >>> seen(ImageShape(1, 28, 28)), seen(ImageShape(3, 8, 32)), seen(ImageShape(3, 96, 128))
    ((32, 32), (16, 64), (96, 128))
    """
    scale = max(1.0, SIDE / sqrt(shape.height * shape.width))
    return round(scale * shape.height), round(scale * shape.width)


class Mix(nn.Module):
    """A random matrix on the channels of each place, (B, F, H, W) to (B, M, H, W), that never learns."""

    weight: Tensor

    def __init__(self, before: int, spread: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(MIXED, before, 1, 1) * (sqrt(2 / before) / spread))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


class Bounded(nn.Conv2d):
    """A convolution whose matrix, of its outputs by all that each reads, has the norm 1: no score outruns its image.

    Miyato et al., "Spectral normalization for generative adversarial networks", 2018, https://arxiv.org/abs/1802.05957:
    one step of power iteration a call. (torch's own cannot be pickled.)
    """

    direction: Tensor

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1) -> None:
        super().__init__(before, after, kernel, stride, padding=1)
        self.register_buffer("direction", F.normalize(torch.randn(after), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            read = F.normalize(self.direction @ matrix, dim=0)
            written = F.normalize(matrix @ read, dim=0)
            if self.training:
                self.direction.copy_(written)
        weight = self.weight / (written @ matrix @ read)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Judges(nn.Module):
    """Scores of a mixed map (B, M, H, W) at each place of the smallest, (B, J); the class weighs what is seen there.

    No batch normalisation: real and generated images come in batches of their own, whose mean colours it would hide.
    """

    def __init__(self, scales: Sequence[tuple[int, int]], classes: int) -> None:
        super().__init__()
        layers = [Bounded(MIXED, MIXED, kernel(larger), stride=2) for larger in scales[:-1]]
        layers.append(Bounded(MIXED, MIXED, 3))
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(0.2))))
        self.by_class = ByClass(MIXED, classes)
        self.last = Bounded(MIXED, 1, 3)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        x = self.layers(x)
        weights = self.by_class(x.new_ones(x.shape[:2]), y)  # (B, M)
        return self.last(x * weights[:, :, None, None]).flatten(1)


class ProjectedCritic(nn.Module):
    """The critic: images (B, C, H, W) to scores (B, J). Errors: `ConfigError` where the features are not installed."""

    def __init__(self, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.size = seen(shape)
        height, width = self.size
        scales = [(-(-height // stride), -(-width // stride)) for stride, _ in LEVELS.values()]
        self.within = nn.ModuleList(Mix(channels, SPREAD) for _, channels in LEVELS.values())
        self.across = nn.ModuleList(Mix(MIXED) for _ in LEVELS)
        self.judges = nn.ModuleList(Judges(scales[level:], classes) for level in range(len(LEVELS)))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        # What is transparent lies on a gray of its own each time: on one known gray, opacity could be any.
        background = 2 * torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 1 if x.shape[1] in (2, 4) else 1
        x = F.interpolate(coloured(x, background), size=self.size, mode="bilinear")
        maps = frozen(x.device, x.dtype).pyramid(x.contiguous(memory_format=torch.channels_last), tuple(LEVELS))
        mixed: Tensor | None = None
        scores = []
        for own, within, across, judges in reversed([*zip(maps, self.within, self.across, self.judges, strict=True)]):
            own = within(own)
            own = own if mixed is None else own + F.interpolate(mixed, size=own.shape[2:], mode="bilinear")
            mixed = across(own)
            scores.append(judges(mixed, y))
        return torch.cat(scores, dim=1)  # (B, J)


class Gated(nn.Sequential):
    """A convolution, normalised, half of which gates the other half."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, 2 * after, 3, padding=1, bias=False), nn.BatchNorm2d(2 * after), nn.GLU(dim=1)
        )


class Excitation(nn.Sequential):
    """What weighs the channels of a large map, by a small one: (B, F, h, w) to (B, C, 1, 1) in 0..1."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__(
            *(nn.AdaptiveAvgPool2d(4), nn.Conv2d(small, large, 4), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(large, large, 1), nn.Sigmoid()),
        )


class FastGenerator(nn.Module):
    """The generator: vectors to images; the class enters beside the vector."""

    def __init__(self, config: Projected, inputs: int, shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.classes = classes
        *larger, smallest = sizes(shape)
        self.larger = larger[::-1]
        channels = [config.channels(level) for level in range(len(larger), -1, -1)]
        begun, (height, width) = 2 * channels[0], smallest
        self.first = nn.Sequential(
            nn.Linear(inputs + classes, begun * height * width, bias=False),
            *(nn.Unflatten(1, (begun, height, width)), nn.BatchNorm2d(begun), nn.GLU(dim=1)),
        )
        self.blocks = nn.ModuleList(Gated(*ends) for ends in pairwise(channels))
        self.excitations = nn.ModuleList(Excitation(*ends) for ends in zip(channels, channels[SKIP:], strict=False))
        self.last = nn.Conv2d(channels[-1], shape.channels, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.first(with_class(z, y, self.classes)).contiguous(memory_format=torch.channels_last)
        maps = [x]
        for level, (size, block) in enumerate(zip(self.larger, self.blocks, strict=True), start=1):
            x = block(F.interpolate(x, size=size))
            if level >= SKIP:
                x = x * self.excitations[level - SKIP](maps[level - SKIP])
            maps.append(x)
        return self.last(x)  # (B, C, H, W)
