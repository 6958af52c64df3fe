"""Proposals: densities to draw likely failures from. The default: a mixture in few directions, noise in the others.

    q(x) = t-mixture(U'x) N(the rest of x; 0, s^2 I),            U (D, R) orthonormal

where U and s^2 come from `signal_subspace`. Only ratios to the nominal density p = N(0, I) are ever needed, and in
log q / p the D - R directions without signal nearly cancel: weights do not degenerate as D grows.

A proposal of importance sampling must have heavier tails than its target, or single weights decide the estimate: a
Gaussian fitted to the failures beyond a plane is narrower than p, and the variance of its weights is infinite.
Student's t has polynomial tails, so p never outweighs it by much. The fit is that of Peel, McLachlan, "Robust mixture
modelling using the t distribution", 2000, https://doi.org/10.1023/A:1008981510081, with the degrees of freedom given.
The number of components is the one with the least Schwarz, "Estimating the dimension of a model", 1978 (BIC).

The directions matter in high dimension: a density fitted to all D coordinates learns the noise of D (D + 1) / 2
covariances and its weights degenerate; fitted in the few that decide, with the rest left as it is, it does not (El
Masri, Morio, Simatos, "Improvement of the cross-entropy method in high dimension for failure probability estimation
through a one-dimensional projection", 2021, https://doi.org/10.1016/j.ress.2021.107991; "Optimal projection for
parametric importance sampling in high dimensions", 2024, https://doi.org/10.24072/pcjournal.478).

Every proposal is used defended: a fixed share of the draws comes from p itself, so that no weight exceeds 1 / share,
failures that a proposal has missed are still met, and their weights then show in the standard error (Hesterberg,
"Weighted average importance sampling and defensive mixture distributions", 1995,
https://doi.org/10.1080/00401706.1995.10484303).

Legend: N points, D dimensions, R directions, K components.
"""

from collections.abc import Callable
from math import inf, lgamma, log, pi, sqrt
from typing import Protocol

import torch
from torch import Tensor

from fabulate.prob import effective_size, systematic

MARGIN = 1.05  # the ends hold for infinite D; the extreme eigenvalues of finite noise lie a little beyond them
WORTH = 0.03  # nats that a variance of its own gains in a direction, or the direction is left to the noise
DEVIATIONS = 4  # standard deviations of its square length under noise that the mean must exceed
FEW = 5  # dimensions that a mixture takes as they are: there is no noise to compare them with
ROUNDS = 10  # of telling signal from noise; most often three change nothing more

POINTS = 1_000  # that a mixture is fitted to at most: its error is then small beside that of the directions
FEWEST = 50  # that a mixture is fitted to, however little the weights are worth

FREEDOM = 10  # degrees: 3, 5 and 10 did alike in few directions, 10 best in five
COMPONENTS = 10  # at most
EM_ROUNDS = 25  # of expectation-maximisation at most
ENOUGH = 1e-3  # nats per point: a smaller gain ends the fit
FLOOR = 0.05  # of variance, in units of the nominal one's: a sliver that fits some points well misses those between
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


def noise_edges(weights: Tensor, dim: int) -> tuple[float, float]:
    """The ends of the spectrum that noise N(0, I) of `dim` numbers shows under weights (N,) which sum to 1.

    They are the extrema of the inverse of the Stieltjes transform,

        K(y) = 1 / y + sum_i w_i / (1 - D w_i y):    the maximum over y < 0, the minimum over 0 < y < 1 / (D max w)

    (Silverstein, Choi, "Analysis of the limiting spectral distribution of large dimensional random matrices", 1995,
    https://doi.org/10.1006/jmva.1995.1058); with equal weights, the law of Marchenko and Pastur (1967).

    >>> low, high = noise_edges(torch.full((400,), 1 / 400, dtype=torch.float64), 100)  # (1 -+ (100 / 400)^0.5)^2
    >>> round(low, 6), round(high, 6)
    (0.25, 2.25)
    """
    from scipy.optimize import minimize_scalar

    scaled = dim * weights
    top = 1 / float(scaled.max())

    def inverse(y: float) -> float:
        return 1 / y + float((weights / (1 - scaled * y)).sum())

    def least(function: Callable[[float], float]) -> float:
        return float(minimize_scalar(function, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).fun)

    high = least(lambda part: inverse(part * top))
    low = -least(lambda part: -inverse(-part / (1 - part)))  # brings the half line to (0, 1)
    return max(low, 0.0), high


def signal_subspace(x: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """The directions in which points (N, D) with weights (N,), which sum to 1, differ from noise of one variance: an
    orthonormal basis (D, R), R from 0 to D; and that variance.

    The directions are eigenvectors of the weighted second moment about zero, sum_i w_i x_i x_i', whose eigenvalues lie
    outside the edges of noise: a shifted mean, two opposite modes and a changed variance all show in it. A mode with a
    small share of the weight shows sooner in the mean, so the rest of the mean is asked as well.
    """
    dim = x.shape[1]
    if dim <= FEW:
        return torch.eye(dim, dtype=x.dtype), 1.0
    values, vectors = torch.linalg.eigh(x.T @ (x * weights[:, None]))
    low, high = noise_edges(weights, dim)
    variance = float(values[-len(x) :].median())  # of fewer points than dimensions the rest is 0
    for _ in range(ROUNDS):  # the noise's variance is that of the rest, which is known when the signals are
        ratio = values / variance
        gain = (ratio - 1 - ratio.clamp_min(1e-12).log()) / 2  # KL divergence of N(0, ratio) from N(0, 1)
        kept = ((ratio > MARGIN * high) | (ratio < low / MARGIN)) & (gain > WORTH)
        variance = float(values[~kept].mean()) if not kept.all() else 1.0
    basis = vectors[:, kept]
    mean = weights @ x
    rest = mean - basis @ (basis.T @ mean)
    noise = variance * float(weights.square().sum())  # of each coordinate of the mean; its square sum is chi-square
    if float(rest.square().sum()) > noise * (dim + DEVIATIONS * sqrt(2 * dim)):
        basis = torch.cat([basis, (rest / rest.norm())[:, None]], 1)
    return basis, variance


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
        if len(counts) > 1 and counts.min() < few:
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
