"""A mixture of Student's t distributions, fitted by expectation-maximisation, their number by BIC.

A proposal of importance sampling must have heavier tails than its target, or single weights decide the estimate: a
Gaussian fitted to the failures beyond a plane is narrower than the prior, and the variance of its weights is infinite.
Student's t has polynomial tails, so no Gaussian prior outweighs it by much. The fit is that
of Peel, McLachlan, "Robust mixture modelling using the t distribution", 2000,
https://doi.org/10.1023/A:1008981510081, with the degrees of freedom given. The number of components is the one
with the least Schwarz, "Estimating the dimension of a model", 1978 (BIC).

Legend: N points, R dimensions, K components.
"""

from math import inf, lgamma, log, pi

import torch
from torch import Tensor

FREEDOM = 10  # degrees: 3, 5 and 10 did alike in few directions, 10 best in five
MOST = 10  # components
ROUNDS = 25  # of expectation-maximisation at most
ENOUGH = 1e-3  # nats per point: a smaller gain ends the fit
FLOOR = 1e-4  # of variance, in units of the prior's: points that all lie in a plane give no singular matrix
PATIENCE = 2  # numbers of components tried in vain before the search ends


class Students:
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


def fitted(z: Tensor, generator: torch.Generator, freedom: int = FREEDOM) -> Students:
    """The mixture with the least BIC for points (N, R)."""
    best, least, vain = maximised(z, torch.zeros(len(z), dtype=torch.int64), freedom), inf, 0
    for count in range(1, MOST + 1):
        model = maximised(z, groups(z, count, generator), freedom)
        if model is None:
            break
        size = z.shape[1]
        numbers = count * (1 + size + size * (size + 1) / 2) - 1
        bic = numbers * log(len(z)) - 2 * float(model.log_density(z).sum())
        best, least, vain = (model, bic, 0) if bic < least else (best, least, vain + 1)
        if vain == PATIENCE:
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


def maximised(z: Tensor, group: Tensor, freedom: int) -> Students | None:
    """Expectation-maximisation from a first grouping (N,); None when a component is left with too few points."""
    size, before = z.shape[1], -inf
    member = torch.nn.functional.one_hot(group).double().T  # (K, N)
    pull = torch.ones_like(member)
    floor = FLOOR * torch.eye(size, dtype=torch.float64)
    few = 2 * (size + 1)
    for _ in range(ROUNDS):
        counts = member.sum(1)
        if counts.min() < few < len(z):
            return None
        heavy = member * pull
        centres = heavy @ z / heavy.sum(1, keepdim=True)
        away = z - centres[:, None]  # (K, N, R)
        spread = (away * heavy[:, :, None]).mT @ away / counts[:, None, None] + floor
        model = Students(counts / len(z), centres, torch.linalg.cholesky(spread), freedom)
        density, squared = model.parts(z)
        total = density.logsumexp(0)
        member, pull = (density - total).exp(), (freedom + size) / (freedom + squared)
        mean = float(total.mean())
        if mean - before < ENOUGH:
            break
        before = mean
    return model
