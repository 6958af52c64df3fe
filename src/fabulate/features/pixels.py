"""Pixels themselves as features: nothing to train, and the same for everybody.

Legend: N images, C H W image, D features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.features.base import Features
from fabulate.types import Progress, to_float, unit

MOST = 1024  # numbers an image: a Fréchet distance takes the root of a D x D matrix, and wants more images than D


class Pixels(Features):
    """Pixels in [0, 1], flattened; images of more than 1,024 numbers are averaged over squares of pixels first.

    >>> Pixels()(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8))
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """

    name = "pixels"
    key = f"pixels, at most {MOST}"

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
    while channels * -(-height // side) * -(-width // side) > MOST:
        side += 1
    return side
