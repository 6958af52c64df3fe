"""Proposals: densities to draw likely failures from. The default: a mixture in few directions, noise in the others.

    q(x) = t-mixture(U'x) N(the rest of x; 0, s^2 I),            U (D, R) orthonormal

where U and s^2 come from `signal_subspace`. Only ratios to the nominal density p = N(0, I) are ever needed, and in
log q / p the D - R directions without signal nearly cancel: weights do not degenerate as D grows.

A proposal of importance sampling must have heavier tails than its target, or single weights decide the estimate: a
Gaussian fitted to the failures beyond a plane is narrower than p, and the variance of its weights is infinite.
Student's t has polynomial tails, so p never outweighs it by much. The fit is that of Peel, McLachlan, "Robust mixture
modelling using the t distribution", 2000, https://doi.org/10.1023/A:1008981510081, with the degrees of freedom given.
The number of components is the one with the least Schwarz, "Estimating the dimension of a model", 1978 (BIC).

Every proposal is used defended: a fixed share of the draws comes from p itself, so that no weight exceeds 1 / share,
failures that a proposal has missed are still met, and their weights then show in the standard error (Hesterberg,
"Weighted average importance sampling and defensive mixture distributions", 1995,
https://doi.org/10.1080/00401706.1995.10484303).

Legend: N points, D dimensions, R directions, K components.
"""

from collections.abc import Callable
from math import inf, lgamma, log, pi
from typing import Protocol

import torch
from torch import Tensor

from fabulate.uses.rare.signal_subspace import signal_subspace
from fabulate.uses.weighting import effective_size, systematic

POINTS = 1_000  # that a mixture is fitted to at most: its error is then small beside that of the directions
FEWEST = 50  # that a mixture is fitted to, however little the weights are worth

FREEDOM = 10  # degrees: 3, 5 and 10 did alike in few directions, 10 best in five
COMPONENTS = 10  # at most
EM_ROUNDS = 25  # of expectation-maximisation at most
ENOUGH = 1e-3  # nats per point: a smaller gain ends the fit
FLOOR = 1e-4  # of variance, in units of the nominal one's: points that all lie in a plane give no singular matrix
VAIN = 2  # numbers of components tried in vain before the search ends


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


class Nominal:
    """N(0, I) of `dim` numbers."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, dtype=torch.float64)

    def log_ratio(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.float64)


class SubspaceMixture:
    """A mixture (None when R is 0) in the directions `basis` (D, R), N(0, variance) in all others."""

    def __init__(self, basis: Tensor, variance: float, mixture: "TMixture | None") -> None:
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
    basis, variance = signal_subspace(x, weights)
    if not basis.shape[1]:
        return SubspaceMixture(basis, variance, None)
    worth = int(min(POINTS, max(effective_size(weights), FEWEST)))
    rows = systematic(weights, worth, generator)
    return SubspaceMixture(basis, variance, fit_t_mixture((x @ basis)[rows], generator))


class Defended:
    """A proposal with a share of plain draws: of n points the first round(share n) come from the prior."""

    def __init__(self, inner: Proposal, dim: int, share: float) -> None:
        self.inner, self.nominal, self.share = inner, Nominal(dim), share

    def plain(self, n: int) -> int:
        """How many of n draws come from the prior."""
        return round(self.share * n)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        few = self.plain(n)
        return torch.cat([self.nominal.draw(few, generator), self.inner.draw(n - few, generator)])

    def log_ratio(self, x: Tensor) -> Tensor:
        if self.share == 1:
            return self.nominal.log_ratio(x)
        inner = self.inner.log_ratio(x) + log(1 - self.share)
        return torch.logaddexp(inner, torch.full_like(inner, log(self.share)))


class TMixture:
    """sum_k shares_k t(z; centres_k, roots_k roots_k', freedom)."""

    def __init__(self, shares: Tensor, centres: Tensor, roots: Tensor, freedom: int) -> None:
        self.shares, self.centres, self.roots, self.freedom = shares, centres, roots, freedom  # (K,), (K, R), (K, R, R)

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of each component times its share (K, N), and squared distances to its centre (K, N)."""
        size, nu = z.shape[1], self.freedom
        away = torch.linalg.solve_triangular(self.roots, (z - self.centres[:, None]).mT, upper=False)  # (K, R, N)
        squared = away.square().sum(1)
        volume = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = lgamma((nu + size) / 2) - lgamma(nu / 2) - size / 2 * log(nu * pi)
        density = constant - volume[:, None] - (nu + size) / 2 * torch.log1p(squared / nu)
        return self.shares.log()[:, None] + density, squared

    def log_density(self, z: Tensor) -> Tensor:
        """Of points (N, R): (N,)."""
        return self.parts(z)[0].logsumexp(0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points (n, R)."""
        kind = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.centres.shape[1], generator=generator, dtype=torch.float64)
        chi_square = torch.randn(n, self.freedom, generator=generator, dtype=torch.float64).square().sum(1)
        stretch = (self.freedom / chi_square).sqrt()
        return self.centres[kind] + stretch[:, None] * (self.roots[kind] @ noise[:, :, None]).squeeze(2)


def fit_t_mixture(z: Tensor, generator: torch.Generator, freedom: int = FREEDOM) -> TMixture:
    """The mixture with the least BIC for points (N, R)."""
    best, least, vain = expectation_maximisation(z, torch.zeros(len(z), dtype=torch.int64), freedom), inf, 0
    for count in range(1, COMPONENTS + 1):
        model = expectation_maximisation(z, groups(z, count, generator), freedom)
        if model is None:
            break
        size = z.shape[1]
        numbers = count * (1 + size + size * (size + 1) / 2) - 1
        bic = numbers * log(len(z)) - 2 * float(model.log_density(z).sum())
        best, least, vain = (model, bic, 0) if bic < least else (best, least, vain + 1)
        if vain == VAIN:
            break
    assert best is not None
    return best


def groups(z: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points (N, R) in `count` groups (N,) around centres drawn far from each other (k-means++), a few rounds."""
    centres = z[torch.randint(len(z), (1,), generator=generator)]
    while len(centres) < count:
        gap = torch.cdist(z, centres).amin(1).square() + 1e-12
        centres = torch.cat([centres, z[torch.multinomial(gap, 1, generator=generator)]])
    for _ in range(5):
        group = torch.cdist(z, centres).argmin(1)
        sizes = torch.bincount(group, minlength=count).clamp_min(1)
        centres = torch.zeros_like(centres).index_add_(0, group, z) / sizes[:, None]
    return group


def expectation_maximisation(z: Tensor, group: Tensor, freedom: int) -> TMixture | None:
    """Expectation-maximisation from a first grouping (N,); None when a component is left with too few points."""
    size, before = z.shape[1], -inf
    member = torch.nn.functional.one_hot(group).double().T  # (K, N)
    pull = torch.ones_like(member)
    floor = FLOOR * torch.eye(size, dtype=torch.float64)
    few = 2 * (size + 1)
    for _ in range(EM_ROUNDS):
        counts = member.sum(1)
        if counts.min() < few < len(z):
            return None
        heavy = member * pull
        centres = heavy @ z / heavy.sum(1, keepdim=True)
        away = z - centres[:, None]  # (K, N, R)
        spread = (away * heavy[:, :, None]).mT @ away / counts[:, None, None] + floor
        model = TMixture(counts / len(z), centres, torch.linalg.cholesky(spread), freedom)
        density, squared = model.parts(z)
        total = density.logsumexp(0)
        member, pull = (density - total).exp(), (freedom + size) / (freedom + squared)
        mean = float(total.mean())
        if mean - before < ENOUGH:
            break
        before = mean
    return model
