"""What a flow works on instead of images: u = E(x), and an image is D(u).

Legend: B batch, C H W image.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from fabulate.config import spec
from fabulate.models.base import Player
from fabulate.types import BatchSource, ImageShape


class Space(nn.Module, ABC):
    """What a flow works on instead of images of a shape."""

    method = ""
    """What is to be said of log p(x) in this space, after a comma."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape
        """That of u, (channels, height, width)."""

    def fit(self, images: BatchSource) -> None:
        """Set what the training images tell, before the flow's first step: by default nothing."""

    def players(self) -> dict[str, Player]:
        """Who moves before the flow does: by default nobody."""
        return {}

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to u (B, *shape)."""

    @abstractmethod
    def decode(self, u: Tensor) -> Tensor:
        """u (B, *shape) to images (B, C, H, W)."""

    def rest(self, x: Tensor) -> Tensor:
        """log p(x) - log p(u) in nats: (B,)."""
        return x.new_zeros(len(x))

    def evidence(self, x: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """u (B, *shape), and what log p(x) is more than log p(u) in nats (B,): exactly, or at least and on average."""
        return self.encode(x), self.rest(x)


class PixelSpace(Space):
    """u = x."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, u: Tensor) -> Tensor:
        return u


@spec
class Pixels:
    """The pixels."""

    kind: Annotated[Literal["pixels"], tyro.conf.Suppress] = "pixels"

    def of(self, image: ImageShape) -> Space:
        """The space of images of a shape."""
        return PixelSpace(image)

    def kept(self) -> "Pixels":
        """The space of a model that is trained on in it."""
        return self
