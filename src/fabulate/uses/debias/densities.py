"""How much each image has to count, so that a factor of variation tells nothing of the class any more.

In class y a factor f has the density p(f | y). An image that counts

    w = target(f) / p(f | y)

makes the factor follow the target in every class. The target "overall" is p(f), the factor's density over all classes:
then f and y are independent, and w = p(y) / p(y | f) is large where the factor speaks against the class. The target
"even" is 1, as in Amini, Soleimany, Schwarting, Bhatia, Rus ("Uncovering and mitigating algorithmic bias through
learned latent structure", 2019, https://doi.org/10.1145/3306618.3314243): every value of the factor counts alike, and
what is rare counts much, the broken and the mislabelled first of all. So "overall" is the default wherever there are
classes: what is odd in every class gains nothing by it.

The density is a histogram, as theirs: every number of the code has bins of its own and their densities are multiplied,
as if they were independent, which principal axes come nearest to. Or it is a mixture of Gaussians that all classes
share, each class in shares of its own: bins of a shape that is learned. A density far from all codes is a guess. So
p(f | y) has a small share of the target in it, and no image counts more than 1 / RAREST times what it did.

Legend: N codes or images, D latent dimension, A axes of it along which codes vary, K classes, G Gaussians.
"""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fabulate.seeds import permutation

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
LogDensity = Callable[[Numbers], Numbers]
"""Codes (N, D) -> log p(f | y) of each under each class, in nats (N, K); up to a constant."""
Density = Callable[[Numbers, Labels, int, int], LogDensity]
"""Fitted to codes (N, D) of classes (N,), of which there are K, with a seed."""

BINS = 20
TAILS = 0.1  # per cent of codes at each end of an axis that share the outermost bins
GAUSSIANS, OF_EACH = 30, 100  # at most so many, each of so many codes at least: a bin of few tells by chance
NARROWEST = 0.03  # variance added to each, of the codes' own: finer than that a palette is one palette
MOST_CODES = 10_000  # that Gaussians are placed by; their shares in the classes are counted over all codes
PRIOR = 0.5  # codes that every class is taken to have in each bin or Gaussian beforehand: never a share of 0
RAREST = 0.001
FLATTEST = 1e-6  # an axis varies if its deviation is more than this share of the largest


def whitening(codes: Numbers) -> LogDensity:
    """The map of codes (N, D) to their principal axes of variance 1, (N, A); where nothing varies, one axis of zeros.

    >>> whitening(np.array([[0.0, 1.0], [4.0, 1.0]]))(np.array([[2.0, 1.0], [4.0, 1.0]])).round(6)
    array([[0.],
           [1.]])
    """
    centre = codes.mean(0)
    _, deviations, axes = np.linalg.svd(codes - centre, full_matrices=False)
    varying = deviations > FLATTEST * max(float(np.abs(codes).max()), 1e-12) * len(codes) ** 0.5
    turn = axes[varying].T / deviations[varying] * len(codes) ** 0.5  # (D, A)
    turn = turn * np.where(turn.sum(0) < 0, -1, 1)  # one of two signs, always the same
    turn = turn if varying.any() else np.zeros((len(centre), 1))
    return lambda new: (new - centre) @ turn


def shares(counts: Numbers) -> Numbers:
    """The logarithm of each row's shares, with a little in every column beforehand."""
    return np.log((counts + PRIOR) / (counts + PRIOR).sum(1, keepdims=True))


def histogram(codes: Numbers, y: Labels, classes: int, seed: int = 0) -> LogDensity:
    """The product of a histogram for each principal axis."""
    turn = whitening(codes)
    parts = []
    for axis in turn(codes).T:
        low, high = np.percentile(axis, [TAILS, 100 - TAILS])
        width = max(high - low, 1e-12) / BINS
        counts = np.zeros((classes, BINS))
        np.add.at(counts, (y, bins(axis, low, width)), 1)
        parts.append((shares(counts), low, width))

    def log_density(new: Numbers) -> Numbers:
        axes = zip(turn(new).T, parts, strict=True)
        return np.sum([table[:, bins(axis, low, width)].T for axis, (table, low, width) in axes], axis=0)

    return log_density


def bins(axis: Numbers, low: float, width: float) -> Labels:
    """The bin of each value; what lies outside falls in the outermost."""
    return np.clip((axis - low) / width, 0, BINS - 1).astype(np.int64)


def gaussians(codes: Numbers, seed: int = 0) -> LogDensity:
    """The logarithm of share times density of each Gaussian of a mixture of all codes: (N, G)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    turn = whitening(codes)
    axes = turn(codes[permutation(len(codes), seed, "debias", "mixture")[:MOST_CODES].numpy()])
    most = max(1, min(GAUSSIANS, len(axes) // OF_EACH))
    found = GaussianMixture(most, max_iter=30, reg_covar=NARROWEST, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any good covering will do
        found.fit(axes)

    def log_parts(new: Numbers) -> Numbers:
        whole = found.predict_proba(turn(new)).clip(1e-300)
        return np.log(whole) + found.score_samples(turn(new))[:, None]

    return log_parts


def mixture(codes: Numbers, y: Labels, classes: int, seed: int = 0) -> LogDensity:
    """Gaussians that all classes share, each class in shares of its own."""
    from scipy.special import logsumexp, softmax

    parts = gaussians(codes, seed)
    own = softmax(parts(codes), axis=1)  # (N, G): whose each code is
    counts = np.stack([own[y == k].sum(0) for k in range(classes)])  # (K, G)
    relative = shares(counts) - shares(counts.sum(0, keepdims=True))  # `parts` has the shares of all classes in it

    def log_density(new: Numbers) -> Numbers:
        each = parts(new)
        return np.stack([logsumexp(each + row, axis=1) for row in relative], axis=1)

    return log_density


DENSITIES: dict[str, Density] = {"mixture": mixture, "histogram": histogram}

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


def log_prior_of(y: Labels, classes: int) -> Numbers:
    """log p(y) of each class (K,); a class without images counts as half of one."""
    counts = np.maximum(np.bincount(y, minlength=classes), 0.5)
    shares: Numbers = np.log(counts / counts.sum())
    return shares
