"""How much each image has to count, so that a factor of variation tells nothing of the class any more.

In class y a factor f has the density p(f | y). An image that counts

    w = target(f) / p(f | y)

makes the factor follow the target in every class. The target "overall" is p(f), the factor's density over all classes:
then f and y are independent, and w = p(y) / p(y | f) is large where the factor speaks against the class. The target
"even" is 1, as in Amini et al. 2019 (https://doi.org/10.1145/3306618.3314243): every value of the factor counts alike,
and what is rare counts much, the broken and the mislabelled first of all. So "overall" is the default wherever there
are classes: what is odd in every class gains nothing by it.

A density far from all codes is a guess. So p(f | y) has a small share of the target in it, and no image counts more
than 1 / RAREST times what it did.

Legend: N images, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from fabulate.seeds import generator
from fabulate.uses.debias.densities import Labels, Numbers

RAREST = 0.001

Target = Callable[[Numbers, Numbers], Numbers]
"""log p(f | y) of each image in each class (N, K), log p(y) (K,) -> the log-density aimed at (N,)."""


def overall(log_density: Numbers, log_prior: Numbers) -> Numbers:
    """The factor's density over all classes."""
    from scipy.special import logsumexp

    found: Numbers = logsumexp(log_density + log_prior, axis=1)
    return found


def even(log_density: Numbers, log_prior: Numbers) -> Numbers:
    """The same density everywhere: that of a usual code, so that what is rarer counts more."""
    return np.full(len(log_density), float(np.median(overall(log_density, log_prior))))


TARGETS: dict[str, Target] = {"overall": overall, "even": even}


def weights(log_density: Numbers, y: Labels, log_prior: Numbers, target: str = "overall") -> Numbers:
    """How much each image counts (N,), on average 1.

    `log_density`: log p(f | y) under each class (N, K). `log_prior`: log p(y) of the images the densities were fitted
    to (K,).

    >>> log_density = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])  # of one bit, seen in four images
    >>> weights(log_density, np.array([0, 0, 1, 1]), np.log([0.5, 0.5])).round(2)
    array([0.33, 0.33, 3.  , 0.33])
    """
    aim = TARGETS[target](log_density, log_prior)
    own = log_density[np.arange(len(y)), y]
    found: Numbers = np.exp(-np.logaddexp(np.log1p(-RAREST) + own - aim, np.log(RAREST)))
    return found / found.mean()


def effective(given: Numbers) -> float:
    """As how many images that count alike weighted ones teach (Kish 1965): (sum w)^2 / sum w^2.

    >>> effective(np.ones(10)), effective(np.array([1.0, 0.0]))
    (10.0, 1.0)
    """
    return float(given.sum() ** 2 / (given**2).sum())


def sampler(given: Numbers, *, seed: int = 0, n: int | None = None) -> WeightedRandomSampler:
    """For `torch.utils.data.DataLoader(..., sampler=...)`: n images (default: as many as there are) drawn by weight.

    >>> list(sampler(np.array([0.0, 1.0, 0.0])))
    [1, 1, 1]
    """
    return WeightedRandomSampler(given.tolist(), n or len(given), generator=generator(seed, "debias", "sampler"))


def drawn(given: Numbers, n: int, *address: int | str) -> Tensor:
    """n images by weight, with replacement (N,); systematic, so that each is drawn as often as it counts, give or take
    one (Kitagawa 1996, https://doi.org/10.1080/10618600.1996.10474692)."""
    start = torch.rand(1, generator=generator(*address), dtype=torch.float64)
    marks = (torch.arange(n, dtype=torch.float64) + start) / n
    edges = torch.from_numpy(np.cumsum(given) / np.sum(given))
    return torch.searchsorted(edges, marks).clamp(max=len(given) - 1)
