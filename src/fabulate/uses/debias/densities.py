"""The density of a factor's codes in each class, p(f | y): by a histogram, by a mixture of Gaussians, or by a flow.

The histogram is that of Amini, Soleimany, Schwarting, Bhatia, Rus ("Uncovering and mitigating algorithmic bias through
learned latent structure", 2019, https://doi.org/10.1145/3306618.3314243): every number of the code has bins of its own
and their densities are multiplied, as if they were independent, which principal axes come nearest to. The mixture has
Gaussians that all classes share, each class in shares of its own: bins of a shape that is learned. The flow is a
RealNVP (Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803) that is told the class, for densities of
any shape.

Legend: N codes, D numbers in a code, A axes of them along which they vary, K classes, G Gaussians.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fabulate.features.learning import fit
from fabulate.nets.flows import Coupling, Invertible, Mix, Scale, channels
from fabulate.prob import log_normal
from fabulate.seeds import permutation, seeded
from fabulate.types import ImageShape

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
LogDensity = Callable[[Numbers], Numbers]
"""Codes (N, D) -> log p(f | y) of each under each class, in nats (N, K); up to a constant. It can be pickled."""
Density = Callable[[Numbers, Labels, int, int], LogDensity]
"""Fitted to codes (N, D) of classes (N,), of which there are K, with a seed."""

BINS = 20
TAILS = 0.1  # per cent of codes at each end of an axis that share the outermost bins
GAUSSIANS, OF_EACH = 30, 100  # at most so many, each of so many codes at least: a bin of few tells by chance
NARROWEST = 0.03  # variance added to each, of the codes' own: finer than that a palette is one palette
MOST_CODES = 10_000  # that Gaussians are placed by; their shares in the classes are counted over all codes
PRIOR = 0.5  # codes that every class is taken to have in each bin or Gaussian beforehand: never a share of 0
FLATTEST = 1e-6  # an axis varies if its deviation is more than this share of the largest
LAYERS, WIDTH, STEPS = 6, 64, 800  # of the flow


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
    return partial(_turned, centre, turn if varying.any() else np.zeros((len(centre), 1)))


def _turned(centre: Numbers, turn: Numbers, new: Numbers) -> Numbers:
    """Codes (N, D) on the axes (D, A): (N, A)."""
    return (new - centre) @ turn


def shares(counts: Numbers) -> Numbers:
    """The logarithm of each row's shares, with a little in every column beforehand."""
    return np.log((counts + PRIOR) / (counts + PRIOR).sum(1, keepdims=True))


def histogram(codes: Numbers, y: Labels, classes: int, seed: int = 0) -> LogDensity:
    """The product of a histogram for each principal axis."""
    turn = whitening(codes)
    tables, places = [], []
    for axis in turn(codes).T:
        low, high = np.percentile(axis, [TAILS, 100 - TAILS])
        width = max(high - low, 1e-12) / BINS
        counts = np.zeros((classes, BINS))
        np.add.at(counts, (y, bins(axis, low, width)), 1)
        tables.append(shares(counts))
        places.append((low, width))

    return partial(_by_bins, turn, tables, places)


def _by_bins(turn: LogDensity, tables: list[Numbers], places: list[tuple[float, float]], new: Numbers) -> Numbers:
    parts = zip(turn(new).T, tables, places, strict=True)
    return np.sum([table[:, bins(axis, low, width)].T for axis, table, (low, width) in parts], axis=0)


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

    return partial(_log_parts, turn, found)


def _log_parts(turn: LogDensity, found: "GaussianMixture", new: Numbers) -> Numbers:
    whole = found.predict_proba(turn(new)).clip(1e-300)
    return np.log(whole) + found.score_samples(turn(new))[:, None]


def mixture(codes: Numbers, y: Labels, classes: int, seed: int = 0) -> LogDensity:
    """Gaussians that all classes share, each class in shares of its own."""
    from scipy.special import softmax

    parts = gaussians(codes, seed)
    own = softmax(parts(codes), axis=1)  # (N, G): whose each code is
    counts = np.stack([own[y == k].sum(0) for k in range(classes)])  # (K, G)
    relative = shares(counts) - shares(counts.sum(0, keepdims=True))  # `parts` has the shares of all classes in it

    return partial(_by_gaussians, parts, relative)


def _by_gaussians(parts: LogDensity, relative: Numbers, new: Numbers) -> Numbers:
    from scipy.special import logsumexp

    each = parts(new)
    return np.stack([logsumexp(each + row, axis=1) for row in relative], axis=1)


class Flow(nn.Module):
    """A RealNVP of codes (N, D), told the class."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        shape = ImageShape(dim, 1, 1)
        layers: list[Invertible] = []
        for i in range(LAYERS):
            layers += [Coupling(channels(shape, i % 2), WIDTH, WIDTH, classes), Scale(shape), Mix(shape)]
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """log p(f | y), in nats (N,)."""
        h, log_det = z[:, :, None, None], z.new_zeros(len(z))
        for layer in self.layers:
            h, change = layer(h, y)
            log_det = log_det + change
        return log_normal(h, torch.zeros_like(h), torch.zeros_like(h)).sum((1, 2, 3)) + log_det


def flow(codes: Numbers, y: Labels, classes: int, seed: int = 0) -> LogDensity:
    """A flow of the principal axes, trained for half a minute."""
    turn = whitening(codes)
    z, labels = torch.from_numpy(turn(codes)).float(), torch.from_numpy(y)
    with seeded(seed, "debias", "flow"):
        network = Flow(z.shape[1], classes)
    fit(network, lambda step, i: -network(z[i], labels[i]).mean(), len(z), seed=seed, steps=STEPS)

    return partial(_by_flow, turn, network, classes)


@torch.no_grad()
def _by_flow(turn: LogDensity, network: Flow, classes: int, new: Numbers) -> Numbers:
    given = torch.from_numpy(turn(new)).float()
    each = [network(given, torch.full((len(given),), k)) for k in range(classes)]
    return torch.stack(each, dim=1).double().numpy()


DENSITIES: dict[str, Density] = {"mixture": mixture, "histogram": histogram, "flow": flow}
