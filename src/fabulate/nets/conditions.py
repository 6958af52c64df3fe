"""What denoisers are told beside the noisy image: the time, the class, and how images become grids of patches.

Legend: B batch, E numbers of the embedding, K classes.
"""

from math import ceil, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.nets.blocks import pick
from fabulate.types import ImageShape

TIME_SCALE = 1001  # a time in [0, 1] as DDPM's step number: step i of 0..999 is the time (i + 1) / 1001
LONGEST = 10_000  # period of the slowest wave (Vaswani et al. 2017, section 3.5)


def waves(t: Tensor, size: int) -> Tensor:
    """Times (B,) in [0, 1] as cosines and sines of their step number at `size` / 2 frequencies: (B, size)."""
    half = size // 2
    frequencies = torch.exp(-log(LONGEST) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = (TIME_SCALE * t - 1).to(torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeLayers(nn.Module):
    """Two layers on the waves of the time."""

    def __init__(self, size: int, embedding: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(size, embedding), nn.Linear(embedding, embedding)

    def forward(self, time: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(time.to(self.linear_1.weight.dtype))))


class Condition(nn.Module):
    """Time, and class when there are any, as one vector (B, E). Class number K means "any", what guidance needs."""

    def __init__(self, size: int, embedding: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        self.time_embedding = TimeLayers(size, embedding)
        self.class_embedding = nn.Embedding(classes + 1, embedding) if classes else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        told = self.time_embedding(waves(t, self.size))
        if self.class_embedding is None:
            return told
        assert y is not None, "a class-conditional network was called without classes"
        return told + pick(self.class_embedding.weight, y)


def patch_for(shape: ImageShape, tokens: int) -> int:
    """The smallest power of two that cuts the longer side into at most `tokens` patches.

    >>> [patch_for(ImageShape(1, side, side), tokens=16) for side in (8, 16, 28, 32, 64)]
    [1, 1, 2, 2, 4]
    """
    return 1 << (ceil(max(shape.height, shape.width) / tokens) - 1).bit_length()
