"""Variants of normals: each a little moved, turned, slanted and stretched, as another hand would have drawn it.

A covariance of 1,225 numbers is hard to know from a few hundred images. Where place and angle mean nothing, each normal
says more: it may have been written a pixel to the left, or upright, and would still be normal (Simard, LeCun, Denker,
"Efficient pattern recognition using a new transformation distance", 1992,
https://proceedings.neurips.cc/paper/1992/hash/26408ffa703a72e8ac0117e74ad46f33-Abstract.html). A variant is resampled
between pixels, which blurs it; lines bear that, the textures of photographs do not. So variants are asked for, never
taken by default. They are learnt from and never calibrated with: held-out normals stay as they are.

Legend: N images, C H W image.
"""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.errors import ConfigError
from fabulate.seeds import generator

SHIFT = 1 / 28  # of a side, each way: a pixel of 28
TURN = 8 * pi / 180
STRETCH, SLANT = 0.08, 0.1  # of each side, and of a side for each side


def with_variants(images: Tensor, n: int, seed: int) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], then `n` variants of each: ((n + 1) N, C, H, W).

    >>> with_variants(torch.zeros(5, 1, 8, 8), 2, seed=0).shape
    torch.Size([15, 1, 8, 8])

    Errors: `ConfigError` for rows (N, D), and for less than 0.
    """
    if n < 0 or (n and images.ndim != 4):
        raise ConfigError(f"variants are slightly moved copies of each image, 0 or more, none of rows; given {n}")
    return torch.cat([images, *(bent(images, generator(seed, "variants", i)) for i in range(n))])


def bent(images: Tensor, chance: torch.Generator) -> Tensor:
    """Images (N, C, H, W), each with a move, turn, slant and stretch of its own; outside them their border goes on."""
    across, down, turn, slant, wide, high = 2 * torch.rand(6, len(images), generator=chance) - 1
    cos, sin = torch.cos(TURN * turn), torch.sin(TURN * turn)
    wide, high = torch.exp(STRETCH * wide), torch.exp(STRETCH * high)
    above = torch.stack([cos * wide, SLANT * slant - sin * high, 2 * SHIFT * across], dim=1)
    below = torch.stack([sin * wide, cos * high, 2 * SHIFT * down], dim=1)
    grid = F.affine_grid(torch.stack([above, below], dim=1), list(images.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
