"""Pareto k: whether so few weights carry an estimate that its standard error cannot be believed.

The largest weights of importance sampling behave as a generalised Pareto law, P(w > u + x) = (1 + k x / s)^(-1 / k).
Weights have a variance for k < 1/2 and a mean for k < 1; in practice estimates and their errors can be relied on up to
k = 0.7 (Vehtari, Simpson, Gelman, Yao, Gabry, "Pareto smoothed importance sampling", 2015-2024,
https://arxiv.org/abs/1507.02646). k is fitted to the min(S / 5, 3 S^(1/2)) largest of S weights by the nearly Bayesian
estimate of Zhang and Stephens ("A new and efficient estimation method for the generalized Pareto distribution", 2009,
https://doi.org/10.1198/tech.2009.08017), drawn a little towards 1/2 where they are few, as in the paper.
"""

from math import ceil, nan, sqrt

import numpy as np
import numpy.typing as npt

RELIED = 0.7  # k up to which an estimate and its error can be relied on
FEWEST = 5  # weights that a tail is fitted to
DRAWN = 10  # as if so many more weights had been seen that say k = 1/2


def pareto_k(weights: npt.NDArray[np.float64]) -> float:
    """k of positive weights (S,), in any unit; nan where they are too few to tell, under 25.

    >>> chance = np.random.default_rng(0)
    >>> light, heavy = chance.uniform(size=4000), chance.uniform(size=4000) ** -0.9
    >>> pareto_k(light) < 0.2, 0.7 < pareto_k(heavy) < 1.1
    (True, True)
    """
    count = ceil(min(len(weights) / 5, 3 * sqrt(len(weights))))
    if count < FEWEST:
        return nan
    largest = np.sort(weights)[-count - 1 :]
    beyond = (largest[1:] - largest[0]) / largest[-1]
    if beyond[-1] <= 0 or beyond[round(count / 4 + 0.5) - 1] <= 0:  # equal weights have no tail
        return 0.0
    return (count * fitted(beyond) + DRAWN / 2) / (count + DRAWN)


def heavy(k: float) -> str:
    """A warning in words."""
    return f"Pareto k of the weights is {k:.2f}, above {RELIED}: a few failures carry the estimate, it may be far off"


def fitted(x: npt.NDArray[np.float64]) -> float:
    """k of a generalised Pareto law from what it gave (N,), rising: the mean of a posterior over theta = -k / s."""
    n = len(x)
    points = 30 + int(sqrt(n))
    quartile = x[round(n / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    k = np.log1p(-theta[:, None] * x).mean(1)
    likelihood = n * (np.log(-theta / k) - k - 1)
    posterior = np.exp(likelihood - likelihood.max())
    return float(np.log1p(-(posterior @ theta / posterior.sum()) * x).mean())
