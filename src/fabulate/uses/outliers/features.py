"""What detectors look at: rows or images, and the vectors they are compared in.

Rows come as normal scores (`normal_scores.py`). Images are floats in [-1, 1]; as vectors they are their pixels,
averaged over squares where there are too many, or their scattering coefficients. Of these the logarithm is taken, as a
stroke twice as strong is no other stroke.

Legend: N rows or images, C H W image, D numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.features.base import Pixels
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import Reconstructs
from fabulate.types import to_float
from fabulate.uses.normal_scores import REACH
from fabulate.uses.outliers.quality import quality
from fabulate.uses.outliers.scattering import scattering

State = dict[str, Tensor]
"""What was fitted to normals, by name; all of it can be written to a file."""

TOGETHER = 500  # images through a model at a time
FAINT = 1e-4  # of the range of pixels: edges below it are none
LARGEST_GRAY, LARGEST_COLOUR = 64, 32  # sides of images that are scattered: some 5,000 numbers are the most


@dataclass(frozen=True)
class Inputs:
    """Rows (N, D), as normal scores, float64, or images (N, C, H, W) in [-1, 1], float32; a model of them, or None."""

    x: Tensor
    model: GenerativeModel | None = None
    deep: Tensor | None = None
    """What a network of ImageNet's photographs sees (N, 704), where a score asks: computed once, shared by all fits."""

    def __getitem__(self, rows: Tensor | slice) -> "Inputs":
        """Some of the rows or images."""
        return replace(self, x=self.x[rows], deep=None if self.deep is None else self.deep[rows])

    def __len__(self) -> int:
        return len(self.x)

    @property
    def images(self) -> Tensor:
        """What a model takes: images, or rows as images of one line (N, 1, 1, D), shrunk to about [-1, 1]."""
        return self.x if self.x.ndim == 4 else (self.x / REACH).float()[:, None, None]

    def through(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A model's function of the images, a portion at a time, on its device: float64 on the CPU."""
        assert self.model is not None
        parts = torch.split(self.images, TOGETHER)
        return torch.cat([function(part.to(self.model.device)).double().cpu() for part in parts])

    @cached_property
    def reconstructions(self) -> Tensor:
        """The model's reconstructions of the images (N, C, H, W), float64."""
        model: object = self.model
        assert isinstance(model, Reconstructs)  # `scores.named` refused other families
        return self.through(model.reconstruct)

    @cached_property
    def plain(self) -> Tensor:
        """Rows, or pixels: (N, D), float64."""
        return self.x if self.x.ndim == 2 else Pixels()(self.x).double()

    @cached_property
    def scattered(self) -> Tensor:
        """Logarithms of scattering coefficients (N, D), float64."""
        return scattered(self.x)

    @cached_property
    def photographed(self) -> Tensor:
        """The network's features (N, 704), float64."""
        assert self.deep is not None  # `OutlierDetector` computes them where a score is `deep`
        return self.deep.double()

    @cached_property
    def quality(self) -> Tensor:
        """Sharpness, contrast and exposure of images (N, 11), float64."""
        return quality(self.x)


def scattered(images: Tensor) -> Tensor:
    """The logarithms of the scattering coefficients of images (N, C, H, W): (N, D), float64."""
    larger = max(images.shape[2:])
    largest = LARGEST_GRAY if images.shape[1] == 1 else LARGEST_COLOUR
    if larger > largest:
        size = [max(1, round(side * largest / larger)) for side in images.shape[2:]]
        images = F.interpolate(images.float(), size=size, mode="area")
    return (scattering(images).abs() + FAINT).log().double()


def taken_images(x: npt.NDArray[np.generic]) -> Tensor:
    """Images (N, C, H, W), uint8 or floats in [-1, 1], as float32."""
    return to_float(torch.from_numpy(np.ascontiguousarray(x))).float()
