"""From scores to promises: p-values, a threshold and its false-alarm rate, from held-out normals alone.

Let s be a score (higher = more normal) and s_1 .. s_n its values on normals that nothing was fitted to. For another
normal, s is as likely to be the lowest of all n + 1 as any of them, whatever their distribution is; hence

    p(x) = (1 + #{i: s_i <= s(x)}) / (n + 1)

is at most alpha with probability at most alpha (Vovk, Gammerman, Shafer, "Algorithmic learning in a random world",
2005, https://doi.org/10.1007/b106715; Laxhammar, Falkman, "Conformal prediction for distribution-independent anomaly
detection", 2010, https://doi.org/10.1145/1833280.1833287). So x is an outlier when s(x) is below the k-th lowest of the
s_i, k = floor(alpha (n + 1)). The share of normals below that threshold is a random number, because the s_i are: it
follows Beta(k, n + 1 - k), which gives its interval.

Several scores become one when each is first turned into its log p-value, and their mean is calibrated once more. Rank
p-values end at 1 / (n + 1), where all strange things look equally strange; `log_tails` goes on from there as an
exponential law does, so that what is stranger still ranks lower.

Several photographs of one thing are not exchangeable for those of others, but things are (`groups.py`). So each group
counts once: a score of one of m normals has the weight 1 / m. With G groups, c(s) is the weight of all scores up to s,

    p(x) = (1 + c(s(x))) / (G + 1),

and the interval is that of G normals (Dunn, Wasserman, Ramdas, "Distribution-free prediction sets for two-layer
hierarchical models", 2022, https://arxiv.org/abs/1809.07441). It holds however much alike those of a group are: the
less so, the lower and the steadier the rate.

Normals may have outliers among them, which lie in the fit and push the threshold out. How far normals lie out no law
tells: tails may be heavy. But the farther out, the fewer they are. `strays` are those beyond a place where they become
more again, by more than chance, in equal steps of the logarithm of the distance; or beyond a gap that no tail leaves.
Less sure are the `doubtful`, of which there are ten times as many as a tail that falls off as a power would have, when
it goes on as it does among the normals that are nearer: they may be outliers, or the tail is a heavy one.

Legend: N scores, n held-out normals, G their groups.
"""

import numpy as np
import numpy.typing as npt

from fabulate.errors import ConfigError
from fabulate.metrics.intervals import Estimate

Numbers = npt.NDArray[np.float64]
BULK = (0.6, 0.85)  # quantiles of the distances between which it is measured how they fall off; strays lie beyond
STEPS = (0.5, 1.0, 2.0, 4.0)  # widths, in units of that, in which more must follow than came before
CHANCE = 1e-4  # of so many more
GAP = 8.0  # such units without a normal
AS_MANY = 0.1  # of those found, that a usual tail would have
TAIL = 0.1  # share of the normals that tell how the lowest scores fall off


def weights(groups: npt.NDArray[np.int64]) -> Numbers:
    """1 / m for each of the m normals of a group: (n,), from their groups (n,).

    >>> weights(np.array([0, 1, 1, 7]))
    array([1. , 0.5, 0.5, 1. ])
    """
    _, place, times = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / times[place], float)


def _weighed(normals: Numbers, weight: Numbers | None) -> tuple[Numbers, Numbers]:
    """Scores of normals (n,), rising, and the weight of those before each and of all: (n + 1,)."""
    order = np.argsort(normals)
    return normals[order], np.append(0, np.cumsum(np.ones(len(normals)) if weight is None else weight[order]))


def p_values(scores: Numbers, normals: Numbers, weight: Numbers | None = None) -> Numbers:
    """The conformal p-values (N,) of scores (N,), from the scores (n,) of held-out normals and their weights (n,).

    >>> p_values(np.array([-5.0, 2.5, 9.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    array([0.2, 0.6, 1. ])
    """
    ordered, up_to = _weighed(normals, weight)
    return (1 + up_to[np.searchsorted(ordered, scores, side="right")]) / (up_to[-1] + 1)


def threshold(normals: Numbers, rate: float, weight: Numbers | None = None) -> tuple[float, float]:
    """The score below which p(x) is at most the rate, and (G + 1) p there. Of too few normals: the lowest score, and 1.

    >>> threshold(np.arange(1.0, 100.0), 0.05)
    (5.0, 5.0)
    """
    ordered, up_to = _weighed(normals, weight)
    place = max(int(np.searchsorted(up_to, rate * (up_to[-1] + 1) - 1 + 1e-9, side="right")) - 1, 0)
    place = int(np.searchsorted(ordered, ordered[place]))  # the first of equal ones
    return float(ordered[place]), 1 + float(up_to[place])


def rank(n: int, rate: float) -> int:
    """k = floor(rate (n + 1)): an outlier scores below the k-th lowest of n normals; 0 when n is too small.

    >>> rank(99, 0.01), rank(98, 0.01), rank(199, 0.05)
    (1, 0, 10)

    Errors: `ConfigError` for a rate outside 0..1.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"false_alarm is the share of normals that may be called outliers, 0 to 1; given {rate}")
    return int(rate * (n + 1) + 1e-9)  # 0.01 * 100 must be 1


def false_alarms(k: float, n: float) -> Estimate:
    """The share of normals that score below the k-th lowest of n: its mean and its interval.

    >>> print(false_alarms(10, 999))
    0.01 (0.00481 to 0.01703)
    """
    from scipy.stats import beta

    low, high = beta.ppf([0.025, 0.975], k, n + 1 - k)
    return Estimate(k / (n + 1), float(low), float(high))


def percent(rate: Estimate) -> str:
    """A share as people say it.

    >>> percent(Estimate(0.01, 0.0048, 0.017))
    '1 % (0.48 % to 1.7 %)'
    """
    return f"{100 * rate.value:.3g} % ({100 * rate.low:.2g} % to {100 * rate.high:.2g} %)"


def strays(distances: Numbers) -> npt.NDArray[np.bool_]:
    """Which normals (n,) lie so far out that they are no normals, by their distances (n,), of fits without them.

    >>> x = np.abs(np.random.default_rng(0).standard_t(3, size=1000))
    >>> int(strays(x).sum()), int(strays(np.append(x, np.linspace(30, 50, 40))).sum()) >= 39
    (0, True)
    """
    from scipy.stats import binom

    logs, scale, end = _tail(distances)
    ordered = np.sort(logs)
    places = ordered[(ordered >= end) & (ordered < ordered[-1])]
    if scale <= 0 or not len(places):
        return np.zeros(len(logs), bool)
    up_to = np.searchsorted(ordered, places, side="right")
    gaps = np.flatnonzero(ordered[up_to] - places > GAP * scale)
    if len(gaps):  # the last of them: one far row bends the distances of others
        return logs > places[gaps[-1]]
    chances = []
    for width in scale * np.array(STEPS):
        before = up_to - np.searchsorted(ordered, places - width, side="right")
        behind = np.searchsorted(ordered, places + width, side="right") - up_to
        chances.append(binom.sf(behind - 1, before + behind, 0.5))
    chance = np.min(chances, axis=0)
    return logs > places[chance.argmin()] if chance.min() < CHANCE else np.zeros(len(logs), bool)


def doubtful(distances: Numbers) -> float:
    """The share of normals that may be none, by their distances (n,), of fits without them.

    >>> x = np.linalg.norm(np.random.default_rng(0).normal(size=(1000, 6)), axis=1)
    >>> doubtful(x), doubtful(np.append(x, np.linspace(8, 30, 50))) > 0.04
    (0.0, True)
    """
    logs, scale, end = _tail(distances)
    if scale <= 0:
        return 0.0
    farthest = -np.sort(-logs)
    expected = (1 - BULK[1]) * len(logs) * np.exp(-(farthest - end) / scale)
    good = np.flatnonzero((expected <= AS_MANY * np.arange(1, len(logs) + 1)) & (farthest > end))
    return (int(good[-1]) + 1) / len(logs) if len(good) else 0.0


def _tail(distances: Numbers) -> tuple[Numbers, float, float]:
    """Logarithms of distances (n,), in what step of them a tail that is a power falls to 1 / e, and where it begins."""
    logs = np.log(np.maximum(distances, 1e-300))
    start, end = np.quantile(logs, BULK)
    return logs, float(end - start) / float(np.log((1 - BULK[0]) / (1 - BULK[1]))), float(end)


def log_tails(scores: Numbers, normals: Numbers) -> Numbers:
    """log p (N,), smooth and rising with the score, also below and above all held-out normals (n,).

    Between neighbouring normals p is interpolated; beyond the ends it falls off at the rate at which it does there.

    >>> normals = np.arange(1.0, 100.0)
    >>> np.exp(log_tails(np.array([1.0, 50.0]), normals))
    array([0.01, 0.5 ])
    >>> bool(log_tails(np.array([-1e6]), normals) < log_tails(np.array([-1e5]), normals))
    True
    """
    ordered = np.sort(normals)
    n = len(ordered)
    inside = np.log(np.interp(scores, ordered, np.arange(1, n + 1) / (n + 1)))
    below, above = ordered[0] - scores, scores - ordered[-1]
    low = -np.log(n + 1) - below / _fall(ordered)
    high = np.log1p(-np.exp(-np.maximum(above, 0) / _fall(-ordered[::-1])) / (n + 1))
    return np.where(below > 0, low, np.where(above > 0, high, inside))


def _fall(ordered: Numbers) -> float:
    """By how much scores must sink below all others for their share to shrink to 1 / e: the mean excess of the tail."""
    m = min(max(1, round(TAIL * len(ordered))), len(ordered) - 1)
    excess = float((ordered[m] - ordered[:m]).mean()) if m else 0.0
    return max(excess, 1e-9 * (1 + abs(float(ordered[0]))))  # equal scores have no tail
