"""How far apart two clouds of features are: the Fréchet distance, as if both were Gaussian, and the kernel distance.

The Fréchet distance is

    d^2 = |mu_a - mu_b|^2  +  tr(S_a + S_b - 2 (S_a S_b)^(1/2))

(Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs trained by a two time-scale update rule converge to a local
Nash equilibrium", 2017, https://arxiv.org/abs/1706.08500). What is reported is d^2, as everywhere in the field. The
root of a product of covariances need not be symmetric, and library routines for it return complex numbers. With
S = F F^T for each, the eigenvalues of S_a S_b are the squared singular values of F_a^T F_b, so the trace of the root is
the sum of these: real, at least 0, and defined for singular covariances too.

The distance is biased: two samples of one distribution are a distance apart, because their covariances are noisy. The
bias falls as 1/n and depends on the model (Chong, Forsyth, "Effectively unbiased FID and Inception Score and where to
find them", 2020, https://arxiv.org/abs/1911.07023), so numbers are compared only at equal n. Two samples of
one Gaussian show about D/(2n) of the features' summed variance when all D vary alike.

The kernel distance is the squared maximum mean discrepancy of two sets of features, unbiased at any sample size.

    MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(a, b) = (a.b / D + 1)^3

(Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018, https://arxiv.org/abs/1801.01401: the kernel
inception distance). The cubic kernel sees differences in the first three moments. With pairs of a row and itself left
out of the means the estimate is unbiased, so it may fall below 0 where the distributions are equal: that is no error.
It is computed on disjoint random subsets, whose estimates are independent; their mean and its deviation are reported.

Legend: N rows (images), D features, S subsets.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import Estimate, checked
from fabulate.seeds import generator, permutation

ROWS_PER_FEATURE = 10  # n = 10 D: a bias of about 5 % of the summed variance, by the rule in the docstring above
FEWEST = 10  # subsets, where the images are enough: of fewer the deviation is not known well


class Moments(NamedTuple):
    """How many rows, their mean (D,) and their unbiased covariance (D, D), float64."""

    n: int
    mean: Tensor
    cov: Tensor

    @classmethod
    def of(cls, features: Tensor, name: str = "features") -> "Moments":
        """The moments of features (N, D), N >= 2; `name` is what an error calls them."""
        (features,) = checked(2, **{name: features})
        return cls._weighted(features, torch.ones(len(features), dtype=torch.float64))

    @classmethod
    def _weighted(cls, features: Tensor, counts: Tensor) -> "Moments":
        """The moments when each row is there as often as `counts` (N,) says."""
        n = int(counts.sum())
        mean = counts @ features / n
        rows = (features - mean) * counts.sqrt()[:, None]
        return cls(n, mean, rows.T @ rows / (n - 1))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """The squared Fréchet distance of two sets of features (N, D), or of their moments; 0 or more, lower is closer.

    Errors: `DataError` for fewer than 2 rows, unequal D or numbers that are not finite.

    >>> a = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    >>> round(frechet_distance(a, a + torch.tensor([3.0, 4.0])), 9)
    25.0
    """
    return _distance(*_moments(a, b))


def frechet_interval(a: Tensor, b: Tensor, *, resamples: int = 50, seed: int = 0) -> Estimate:
    """The squared Fréchet distance of features (N, D) with its chance: that of drawing these images and not others.

    Both sets are drawn anew from themselves, `resamples` times (the bootstrap). Each redraw adds the bias of a finite
    sample once more, so the redrawn distances lie too high, and only their deviation is used, about the plain value.
    The interval holds what other samples of the same size would show; it does not remove their common bias. For equal
    distributions it is too wide, up to about twice.
    Errors: as `frechet_distance`.

    >>> a = torch.arange(20.0)[:, None]
    >>> found = frechet_interval(a, a + 9)
    >>> round(found.value, 9), found.low < 81 < found.high
    (81.0, True)
    """
    a, b = checked(2, a=a, b=b)
    plain = frechet_distance(a, b)
    redrawn = []
    for i in range(resamples):
        chance = generator(seed, "frechet", i)
        moments = [Moments._weighted(features, _redraw(len(features), chance)) for features in (a, b)]
        redrawn.append(_distance(*moments))
    return Estimate.about(plain, float(torch.tensor(redrawn, dtype=torch.float64).std()))


def frechet_warning(n: int, dimensions: int) -> str:
    """In words, why n rows (of the smaller set) are too few for a Fréchet distance of so many features; else "".

    >>> frechet_warning(10_000, 128)
    ''
    >>> frechet_warning(100, 128)  # doctest: +ELLIPSIS
    'a Fréchet distance of 128 features from 100 images is mostly bias: the covariance cannot have full rank...'
    """
    if n >= ROWS_PER_FEATURE * dimensions:
        return ""
    if n <= dimensions:
        reason = "is mostly bias: the covariance cannot have full rank"
    else:
        reason = f"is biased upwards, by some {dimensions / (2 * n):.0%} of the features' summed variance"
    return (
        f"a Fréchet distance of {dimensions:,} features from {n:,} images {reason}. "
        f"Compare it only at equal numbers of images, or use {ROWS_PER_FEATURE * dimensions:,} or more"
    )


def _moments(a: Tensor | Moments, b: Tensor | Moments) -> tuple[Moments, Moments]:
    a = a if isinstance(a, Moments) else Moments.of(a, "a")
    b = b if isinstance(b, Moments) else Moments.of(b, "b")
    if a.mean.shape != b.mean.shape:
        raise DataError(f"a has {len(a.mean)} features a row and b has {len(b.mean)}; compute both with the same ones")
    return a, b


def _distance(a: Moments, b: Moments) -> float:
    means = (a.mean - b.mean).square().sum()
    roots = torch.linalg.svdvals(_factor(a.cov).T @ _factor(b.cov)).sum()
    return max(float(means + a.cov.trace() + b.cov.trace() - 2 * roots), 0.0)  # rounding may end below 0


def _factor(cov: Tensor) -> Tensor:
    """F with cov = F F^T (D, D)."""
    eigenvalues, vectors = torch.linalg.eigh(cov)
    return vectors * eigenvalues.clamp(min=0).sqrt()  # below 0 by rounding only


def _redraw(n: int, chance: torch.Generator) -> Tensor:
    """How often each of n rows comes up in n draws with replacement (n,)."""
    return torch.bincount(torch.randint(n, (n,), generator=chance), minlength=n).double()


def kernel_distance(a: Tensor, b: Tensor, *, size: int = 1000, seed: int = 0) -> Estimate:
    """The squared kernel distance of two sets of features (N, D); about 0 for equal distributions, lower is closer.

    Subsets hold `size` rows, or fewer so that there are ten of them. Below 40 rows in a set they are fewer than ten,
    and below 8 there is one, without an interval.
    Errors: `DataError` for fewer than 2 rows, unequal D or numbers that are not finite.

    >>> a = torch.linspace(-1, 1, 100)[:, None]
    >>> near, far = kernel_distance(a, a + 0.1), kernel_distance(a, a + 1)
    >>> near.value < far.low
    True
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
