"""Points of the plane to learn from, and what is known of them.

A point (a, b) in [-1, 1]^2 is an image of one row with two pixels, so every family takes it as it is.

Legend: N points.
"""

from collections.abc import Callable
from math import e, log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.seeds import generator
from fabulate.types import ImageShape

PAIR = ImageShape(1, 1, 2)
COUNT = 2000  # points of a data set
NOISE = 0.05  # standard deviation of a mode of the grid, of the ring's width and of the moons'
NEAR = 3  # standard deviations within which a point belongs to a mode
FAIR = 0.25  # of a mode's fair share: with fewer points it is not covered


def _normal(n: int, chance: torch.Generator) -> Tensor:
    return NOISE * torch.randn(n, 2, generator=chance)


def _ring(n: int, chance: torch.Generator) -> Tensor:
    angle = 2 * pi * torch.rand(n, generator=chance)
    return 0.65 * torch.stack([angle.cos(), angle.sin()], 1) + _normal(n, chance)


def _moons(n: int, chance: torch.Generator) -> Tensor:
    angle, lower = pi * torch.rand(n, generator=chance), torch.arange(n) % 2 == 1
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    points = torch.where(lower[:, None], -upper, upper)
    return 0.55 * points + _normal(n, chance)


CENTRES = 0.75 * torch.cartesian_prod(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0]))  # (9, 2)


def _grid(n: int, chance: torch.Generator) -> Tensor:
    return CENTRES[torch.arange(n) % len(CENTRES)] + _normal(n, chance)


TOYS: dict[str, Callable[[int, torch.Generator], Tensor]] = {"ring": _ring, "moons": _moons, "grid": _grid}

# The least loss that any model of the grid can reach, -E log p(x) in nats: nine Gaussians that do not overlap.
ENTROPY = log(len(CENTRES)) + log(2 * pi * e * NOISE**2)


def points_of(toy: str, seed: int) -> Tensor:
    """Points (N, 2) of a toy.

    >>> points_of("grid", seed=0).shape
    torch.Size([2000, 2])
    """
    return TOYS[toy](COUNT, generator(seed, "toy", toy)).clamp(-1, 1)


def as_images(points: Tensor) -> Tensor:
    """Points (N, 2) as images (N, 1, 1, 2)."""
    return points.view(-1, *PAIR)


class Coverage(NamedTuple):
    """How points lie among the grid's modes."""

    modes: int
    """Modes that have at least a quarter of their fair share of the points near."""
    near: float
    """Share of points within three standard deviations of a mode, 0..1."""


def coverage(points: Tensor) -> Coverage:
    """How drawn points (N, 2) lie among the modes of the grid.

    >>> coverage(CENTRES.repeat(10, 1)), coverage(CENTRES[:1].repeat(10, 1)).modes
    (Coverage(modes=9, near=1.0), 1)
    """
    distances, nearest = torch.cdist(points, CENTRES).min(1)
    near = distances <= NEAR * NOISE
    counts = torch.bincount(nearest[near], minlength=len(CENTRES))
    return Coverage(int((counts >= FAIR * len(points) / len(CENTRES)).sum()), float(near.float().mean()))
