"""From images to the numbers in which they are compared.

Legend: N images, C H W image, D features.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Features(ABC):
    """A fixed map from images to vectors."""

    name: str
    """In a phrase, e.g. "pixels"."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), uint8 or floats in [-1, 1], to features (N, D), float32 on the CPU."""

    def describe(self) -> dict[str, Any]:
        """What a report says of them: the name, a hash of the weights, the test accuracy where there is one."""
        return {"name": self.name}
