"""Proposals: densities to draw likely failures from. The default: a mixture in few directions, noise in the others.

    q(x) = t-mixture(U'x) N(the rest of x; 0, s^2 I),            U (D, R) orthonormal

where U and s^2 come from `subspace`, the mixture from `students`. Only ratios to the prior p = N(0, I) are ever
needed, and in log q / p the D - R directions without signal nearly cancel: weights do not degenerate as D grows.

Every proposal is used defended: a fixed share of the draws comes from the prior itself, so that no weight exceeds
1 / share, failures that a proposal has missed are still met, and their weights then show in the standard error
(Hesterberg, "Weighted average importance sampling and defensive mixture distributions", 1995,
https://doi.org/10.1080/00401706.1995.10484303).

Legend: N points, D dimensions, R directions.
"""

from collections.abc import Callable
from math import log, pi
from typing import Protocol

import torch
from torch import Tensor

from fabulate.uses.rare.students import Students, fitted
from fabulate.uses.rare.subspace import directions

POINTS = 1_000  # that a mixture is fitted to at most: its error is then small beside that of the directions
FEWEST = 50  # that a mixture is fitted to, however little the weights are worth


class Proposal(Protocol):
    """A density q to draw from; float64 tensors."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points (n, D)."""
        ...

    def log_ratio(self, x: Tensor) -> Tensor:
        """log q(x) - log N(x; 0, I) of points (N, D): (N,)."""
        ...


Fit = Callable[[Tensor, Tensor, torch.Generator], Proposal]
"""From points (N, D) and weights (N,) that sum to 1 to a proposal that resembles them; chance from the generator."""


class Prior:
    """N(0, I) of `dim` numbers."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    def log_ratio(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)


class SubspaceMixture:
    """A mixture (None when R is 0) in the directions `basis` (D, R), N(0, variance) in all others."""

    def __init__(self, basis: Tensor, variance: float, mixture: Students | None) -> None:
        self.basis, self.variance, self.mixture = basis, variance, mixture

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, len(self.basis), generator=generator, dtype=torch.float64) * self.variance**0.5
        if self.mixture is None:
            return x
        return x + (self.mixture.draw(n, generator) - x @ self.basis) @ self.basis.T

    def log_ratio(self, x: Tensor) -> Tensor:
        dim, size = self.basis.shape
        z = x @ self.basis  # (N, R)
        inside = z.square().sum(1)
        outside = x.square().sum(1) - inside
        ratio = -(dim - size) / 2 * log(self.variance) - outside / 2 * (1 / self.variance - 1)
        if self.mixture is None:
            return ratio
        return ratio + self.mixture.log_density(z) + size / 2 * log(2 * pi) + inside / 2


def subspace_mixture(x: Tensor, weights: Tensor, generator: torch.Generator) -> SubspaceMixture:
    """The default fit: directions by their second moment, then a mixture of Student's t in them."""
    basis, variance = directions(x, weights)
    if not basis.shape[1]:
        return SubspaceMixture(basis, variance, None)
    effective = float(1 / weights.square().sum())
    return SubspaceMixture(basis, variance, fitted((x @ basis)[drawn(weights, effective, generator)], generator))


def drawn(weights: Tensor, effective: float, generator: torch.Generator) -> Tensor:
    """Indices of as many equally weighted points as the weights are worth, by systematic resampling."""
    n = int(min(POINTS, max(effective, FEWEST)))
    steps = (torch.rand(1, generator=generator, dtype=torch.float64) + torch.arange(n)) / n
    return torch.searchsorted(weights.cumsum(0) / weights.sum(), steps).clamp_max(len(weights) - 1)


class Defended:
    """A proposal with a share of plain draws: of n points the first round(share n) come from the prior."""

    def __init__(self, inner: Proposal, dim: int, share: float) -> None:
        self.inner, self.prior, self.share = inner, Prior(dim), share

    def plain(self, n: int) -> int:
        """How many of n draws come from the prior."""
        return round(self.share * n)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        few = self.plain(n)
        return torch.cat([self.prior.draw(few, generator), self.inner.draw(n - few, generator)])

    def log_ratio(self, x: Tensor) -> Tensor:
        if self.share == 1:
            return self.prior.log_ratio(x)
        inner = self.inner.log_ratio(x) + log(1 - self.share)
        return torch.logaddexp(inner, torch.full_like(inner, log(self.share)))
