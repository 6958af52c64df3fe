"""The kernel distance: the squared maximum mean discrepancy of two sets of features, unbiased at any sample size.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(a, b) = (a.b / D + 1)^3

(Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018, https://arxiv.org/abs/1801.01401: the kernel
inception distance). The cubic kernel sees differences in the first three moments. With pairs of a row and itself left
out of the means the estimate is unbiased, so it may fall below 0 where the distributions are equal: that is no error.
It is computed on disjoint random subsets, whose estimates are independent; their mean and its deviation are reported.

Legend: N rows (images), D features, S subsets.
"""

import torch
from torch import Tensor

from fabulate.metrics.inputs import checked
from fabulate.metrics.intervals import Estimate
from fabulate.seeds import permutation

FEWEST = 10  # subsets, where the images are enough: of fewer the deviation is not known well


def kernel_distance(a: Tensor, b: Tensor, *, size: int = 1000, seed: int = 0) -> Estimate:
    """The squared kernel distance of two sets of features (N, D); about 0 for equal distributions, lower is closer.

    Subsets hold `size` rows, or fewer so that there are ten of them. Below 40 rows in a set they are fewer than ten,
    and below 8 there is one, without an interval.
    Errors: `DataError` for fewer than 2 rows, unequal D or numbers that are not finite.
    """
    return Estimate.of_mean(kernel_distances(a, b, size=size, seed=seed))


def kernel_distances(a: Tensor, b: Tensor, *, size: int = 1000, seed: int = 0) -> Tensor:
    """The estimates on disjoint random subsets of both sets (N, D): (S,), float64."""
    a, b = checked(2, a=a, b=b)
    rows = min(len(a), len(b))
    size = min(size, max(rows // FEWEST, min(rows, 4)))
    order_a, order_b = (permutation(len(x), seed, "kernel", name) for name, x in (("a", a), ("b", b)))
    starts = range(0, rows - size + 1, size)
    parts = [(a[order_a[start : start + size]], b[order_b[start : start + size]]) for start in starts]
    return torch.stack([mmd2(*part) for part in parts])


def mmd2(a: Tensor, b: Tensor) -> Tensor:
    """The unbiased estimate of MMD^2 from all pairs of rows of a (N, D) and b (M, D), as a tensor without dimensions.

    >>> float(mmd2(torch.zeros(3, 2), torch.zeros(4, 2)))
    0.0
    """
    return _within(a) + _within(b) - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _within(a: Tensor) -> Tensor:
    """The mean of the kernel over pairs of different rows."""
    k = _kernel(a, a)
    return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))
