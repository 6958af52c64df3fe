"""From images to the vectors in which they are compared: by a network, by one of ImageNet, or their pixels themselves.

The network that knows photographs is EfficientNet-Lite0 (`nets/lite0.py`): three depths of it, each averaged over all
places and divided by its length, one after the other. The length of such a vector says how contrasty an image is, its
direction what is in it. It saw photographs of 224x224: images below 96 pixels are enlarged, as it finds nothing in maps
of one pixel, and those above 224 made smaller. Gray becomes three equal channels, what is transparent lies on white.

Legend: N images, C H W image, D features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.errors import ConfigError, DataError
from fabulate.files import tensors_hash
from fabulate.nets.lite0 import coloured, pretrained
from fabulate.types import Progress, meant, to_float, unit

MOST_PIXELS = 1024  # numbers of an image: a Fréchet distance needs the root of a D x D matrix, and more images than D
AFTER = (12, 14, 15)  # blocks, all at stride 32: with those at stride 16 too no outliers are told better
SMALLEST, LARGEST = 96, 224  # sides of a square image as the network sees it
RECIPE = 1  # raised when anything here makes other features of ImageNet of the same images
CHUNK = 50
FLATTERS = (
    "The features are of ImageNet's photographs. They can flatter: a model that learnt from ImageNet, or whose critic "
    "used such features, looks better than it is, and what ImageNet does not know is not seen. Compare with the "
    "features 'classifier' or 'encoder', which know these images."
)


class Features(ABC):
    """A fixed map from images to vectors."""

    name: str
    """In a phrase, e.g. "pixels"."""
    key: str | None = None
    """Equal for equal maps, so that what was computed with one can be kept on disk; None when that cannot be told."""

    @abstractmethod
    def __call__(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Images (N, C, H, W), uint8 or floats in [-1, 1], to features (N, D), float32 on the CPU.

        `progress`: called with (images done, images in all).
        """

    def describe(self) -> dict[str, Any]:
        """What a report says of them: the name, a hash of the weights, the test accuracy where there is one."""
        return {"name": self.name}


class NetworkFeatures(Features):
    """The features that a network gives, images through it in chunks, in evaluation mode and without gradients."""

    def __init__(
        self,
        network: nn.Module,
        name: str,
        *,
        dim: int | None = None,
        facts: Mapping[str, Any] | None = None,
        chunk: int = 250,
        lasting: bool = True,
    ) -> None:
        """`network` takes floats in [-1, 1]. `dim`: D, where it is known before the first call.

        `facts`: what `describe` tells besides. `lasting`: the hash of the weights says all about the map, so results
        may be kept on disk.
        """
        self.network = network
        self.name = name
        self.facts = dict(facts or {})
        self.chunk = chunk
        self.sha256 = tensors_hash(network.state_dict())
        self.key = f"{name} {self.sha256}" if lasting else None
        self.dim = dim

    @torch.no_grad()
    def __call__(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Features (N, D). Errors: `ConfigError` when the network gives no floats (N, D); `DataError` if not finite."""
        if images.ndim != 4 or not len(images):
            raise ConfigError(f"features are of images (N, C, H, W), at least one; given {tuple(images.shape)}")
        meant(images)
        place = next((value.device for value in self.network.state_dict().values()), torch.device("cpu"))
        modes = [(layer, layer.training) for layer in self.network.modules()]
        self.network.eval()
        try:
            parts, done = [], 0
            for part in torch.split(images, self.chunk):
                result = self.network(to_float(part).to(place))
                parts.append(self._checked(result, part, first=done).float().cpu())
                done += len(part)
                if progress is not None:
                    progress(done, len(images))
        finally:
            for layer, training in modes:
                layer.training = training
        return torch.cat(parts)

    def _checked(self, result: Any, images: Tensor, first: int) -> Tensor:
        wanted = f"features (N, D), floats; the images were {tuple(images.shape)}"
        if not isinstance(result, Tensor):
            raise ConfigError(f"{self.name} must return {wanted}, and it returned a {type(result).__name__}")
        if result.ndim != 2 or len(result) != len(images) or not result.is_floating_point():
            raise ConfigError(f"{self.name} must return {wanted}, and it returned {result.dtype} {tuple(result.shape)}")
        bad = (~result.isfinite().all(1)).nonzero().flatten()
        if len(bad):
            raise DataError(
                f"{self.name} returned values that are not finite for {len(bad)} of images {first} to "
                f"{first + len(images) - 1}, the first of them image {first + int(bad[0])}"
            )
        self.dim = result.shape[1]
        return result

    def describe(self) -> dict[str, Any]:
        """Name, hash of the weights, dimension once known, and the facts the features were made with."""
        known = {} if self.dim is None else {"dimension": self.dim}
        return {"name": self.name, "sha256": self.sha256, **known, **self.facts}


class Pixels(Features):
    """Pixels in [0, 1], flattened; images of more than 1,024 numbers are averaged over squares of pixels first.

    >>> Pixels()(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8))
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """

    name = "pixels"
    key = f"pixels, at most {MOST_PIXELS}"

    def __call__(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Images (N, C, H, W), uint8 or floats in [-1, 1], to features (N, D) in [0, 1], float32 on the CPU."""
        side = square(images)
        parts = [
            F.avg_pool2d(unit(to_float(part).float().cpu()), side, ceil_mode=True).flatten(1)
            for part in torch.split(images, 1000)
        ]
        if progress is not None:
            progress(len(images), len(images))
        return torch.cat(parts)


def square(images: Tensor) -> int:
    """The side of the smallest squares that leave at most 1,024 numbers of an image.

    >>> square(torch.zeros(5, 1, 28, 28)), square(torch.zeros(5, 3, 32, 32)), square(torch.zeros(5, 3, 64, 64))
    (1, 2, 4)
    """
    _, channels, height, width = images.shape
    side = 1
    while channels * -(-height // side) * -(-width // side) > MOST_PIXELS:
        side += 1
    return side


class Pooled(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to features (N, 704)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pretrained()

    def forward(self, x: Tensor) -> Tensor:
        levels = self.network.pyramid(resized(coloured(x)), AFTER)
        return torch.cat([F.normalize(level.mean((2, 3))) for level in levels], dim=1)


def resized(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) at the size that the network works at; their shape stays.

    >>> [tuple(resized(torch.zeros(1, 3, *size)).shape[2:]) for size in ((32, 32), (150, 150), (448, 112))]
    [(96, 96), (150, 150), (448, 112)]
    """
    side = sqrt(x.shape[2] * x.shape[3])
    scale = min(max(side, SMALLEST), LARGEST) / side
    if scale == 1:
        return x
    size = [max(1, round(scale * length)) for length in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(-1, 1)


def lite0(device: torch.device | str = "cpu") -> NetworkFeatures:
    """The features. Errors: `ConfigError` where the extra `features` is not installed, or its weights are others."""
    network = Pooled().to(device)
    found = NetworkFeatures(network, "lite0, of ImageNet", dim=704, facts={"warning": FLATTERS}, chunk=CHUNK)
    found.key = f"{found.key} {RECIPE}"
    return found
