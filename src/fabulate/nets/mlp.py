"""Fully connected networks: the fastest on a CPU, and the textbook's choice.

Legend: B batch, C H W image, Z inputs or outputs.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import tyro
from torch import Tensor, nn

from fabulate.config import PositiveInt, spec
from fabulate.errors import ConfigError
from fabulate.nets.blocks import ACTIVATIONS, Activation, Condition, with_class
from fabulate.types import ImageShape

LARGEST_SIDE = 128  # beyond it the first layer alone outgrows a laptop: 3 * 128 * 128 inputs times 512


@spec
class MLP:
    """Fully connected layers with an activation between them."""

    per_sample: ClassVar[bool] = True  # an image's output never depends on the other images of its batch
    kind: Annotated[Literal["mlp"], tyro.conf.Suppress] = "mlp"
    hidden: tuple[PositiveInt, ...] = (512, 256)
    """Widths of the hidden layers, from the image inwards."""
    activation: Activation = "silu"
    """Activation between layers."""

    def encoder(self, shape: ImageShape, outputs: int, classes: int = 0) -> nn.Module:
        """A network from images (B, C, H, W) to vectors (B, outputs)."""
        _check(shape)
        return MLPEncoder(shape, [shape.size + classes, *self.hidden, outputs], self.activation, classes)

    def decoder(self, inputs: int, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from vectors (B, inputs) to images (B, C, H, W), unbounded."""
        _check(shape)
        return MLPDecoder(shape, [inputs + classes, *reversed(self.hidden), shape.size], self.activation, classes)

    def denoiser(self, shape: ImageShape, classes: int = 0) -> nn.Module:
        """A network from images (B, C, H, W), times (B,) in [0, 1] and classes (B,) to images (B, C, H, W)."""
        return MLPDenoiser(shape, self.hidden or (shape.size,), self.activation, classes)

    def check(self, shape: ImageShape) -> None:
        """Errors: `ConfigError` for images that it takes no noise off."""
        _check(shape)


def _check(shape: ImageShape) -> None:
    if max(shape.height, shape.width) > LARGEST_SIDE:
        raise ConfigError(
            f"the mlp network takes sides up to {LARGEST_SIDE}, and the images are {shape}; use --size, e.g. --size 64"
        )


def _layers(widths: list[int], activation: Activation) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class MLPEncoder(nn.Module):
    """Images, flattened, to vectors."""

    def __init__(self, shape: ImageShape, widths: list[int], activation: Activation, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.layers = _layers(widths, activation)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(with_class(x.flatten(1), y, self.classes))  # (B, outputs)


class MLPDecoder(nn.Module):
    """Vectors to images."""

    def __init__(self, shape: ImageShape, widths: list[int], activation: Activation, classes: int) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.layers = _layers(widths, activation)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(with_class(z, y, self.classes)).unflatten(1, self.shape)  # (B, C, H, W)


class MLPDenoiser(nn.Module):
    """Images and times to images: time and class are added to the first features."""

    def __init__(self, shape: ImageShape, hidden: tuple[int, ...], activation: Activation, classes: int) -> None:
        super().__init__()
        self.shape, width = shape, hidden[0]
        self.condition = Condition(width + width % 2, width, classes)
        self.first = nn.Linear(shape.size, width)
        self.layers = nn.Sequential(ACTIVATIONS[activation](), _layers([*hidden, shape.size], activation))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        features = self.first(x.flatten(1)) + self.condition(t, y)  # (B, F)
        return self.layers(features).unflatten(1, self.shape)  # (B, C, H, W)
