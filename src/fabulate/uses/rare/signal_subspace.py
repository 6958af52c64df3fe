"""The few directions in which failures differ from the prior, told from noise by random matrix theory.

In high dimension a failure is decided by a few directions; in all others the failing points are as the prior has
them. A density fitted to all D coordinates learns the noise of D (D + 1) / 2 covariances and its weights degenerate;
fitted in the few directions, with the rest left as it is, it does not (El Masri, Morio, Simatos, "Improvement of the
cross-entropy method in high dimension for failure probability estimation through a one-dimensional projection", 2021,
https://doi.org/10.1016/j.ress.2021.107991; "Optimal projection for parametric importance sampling in high dimensions",
2024, https://doi.org/10.24072/pcjournal.478).

The directions are eigenvectors of the weighted second moment about zero, M = sum_i w_i x_i x_i', sum_i w_i = 1: a
shifted mean, two opposite modes and a changed variance all show in it. Eigenvalues of pure noise x ~ N(0, I) fill an
interval around 1, the law of Marchenko and Pastur (1967), here with weights: its ends are the extrema of

    K(y) = 1 / y + sum_i w_i / (1 - D w_i y):    the maximum over y < 0, the minimum over 0 < y < 1 / (D max w)

(K is the inverse of the Stieltjes transform; Silverstein, Choi, "Analysis of the limiting spectral distribution of
large dimensional random matrices", 1995, https://doi.org/10.1006/jmva.1995.1058). What lies outside is signal. A mode
with a small share of the weight shows sooner in the mean than in the second moment, so the rest of the mean is asked
as well.

Legend: N points, D dimensions, R directions kept.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

MARGIN = 1.05  # the ends hold for infinite D; the extreme eigenvalues of finite noise lie a little beyond them
WORTH = 0.03  # nats that a variance of its own gains in a direction, or the direction is left to the noise
DEVIATIONS = 4  # standard deviations of its square length under noise that the mean must exceed
FEW = 5  # dimensions that a mixture takes as they are: there is no noise to compare them with
ROUNDS = 10  # of telling signal from noise; most often three change nothing more
STEPS = 40  # of the search for an end: each leaves 0.62 of the interval


def noise_edges(weights: Tensor, dim: int) -> tuple[float, float]:
    """The ends of the spectrum that noise N(0, I) of `dim` numbers shows under weights (N,) which sum to 1.

    >>> low, high = noise_edges(torch.full((400,), 1 / 400, dtype=torch.float64), 100)  # (1 -+ (100 / 400)^0.5)^2
    >>> round(low, 6), round(high, 6)
    (0.25, 2.25)
    """
    scaled = dim * weights

    def inverse(y: float) -> float:
        return 1 / y + float((weights / (1 - scaled * y)).sum())

    top = 1 / float(scaled.max())
    high = least(lambda part: inverse(part * top))
    low = -least(lambda part: -inverse(-part / (1 - part)))  # brings the half line to (0, 1)
    return max(low, 0.0), high


def least(function: Callable[[float], float]) -> float:
    """The least value between 0 and 1 of a function with one minimum there, by golden section.

    >>> round(least(lambda x: (x - 0.3) ** 2 + 1), 6)
    1.0
    """
    ratio = (5**0.5 - 1) / 2
    low, high, left, right = 0.0, 1.0, 1 - ratio, ratio
    at_left, at_right = function(left), function(right)
    for _ in range(STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return min(at_left, at_right)


def signal_subspace(x: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """The directions in which points (N, D) with weights (N,), which sum to 1, differ from noise of one variance: an
    orthonormal basis (D, R), R from 0 to D; and that variance.
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
