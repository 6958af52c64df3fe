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

A normal that repeats another counts once, or the promise breaks. Of an image that is there three times, one copy is
held out while a fit has seen another: it scores as what was learnt does, the threshold comes out too high, and new
normals are called outliers far more often than promised. Near copies (saved again, a little noise) do the same. A row
repeats an earlier one when it is as good as equal: nearer to it than a tenth of what two rows usually lie apart, and
nearer than rows that have nothing to do with each other ever come. That depends on how many numbers they really vary
in: thousands of points on a line lie close together, digits never do. So the distances that say how the number of pairs
grows with distance (C(r) ~ r^d: Grassberger, Procaccia, "Characterization of strange attractors", 1983,
https://doi.org/10.1103/PhysRevLett.50.346) are followed down to where one row in a hundred would have a neighbour.

Legend: N rows, n held-out normals, D numbers.
"""

from math import log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.errors import ConfigError
from fabulate.metrics.intervals import Estimate
from fabulate.metrics.manifold import blocks
from fabulate.seeds import permutation

Numbers = npt.NDArray[np.float64]
TAIL = 0.1  # share of the normals that tell how the lowest scores fall off
NEAR = 0.1  # of the median distance. Of digits, MNIST and CIFAR-10 no two lie so near; noise of 8 in 255 moves less
ALONE = 0.01  # the share of rows that may have so near a neighbour by chance
SOME = 1000  # rows whose distances from each other tell what is usual
FEW, MANY = 0.1, 0.4  # shares of the pairs between whose distances d is measured


def p_values(scores: Numbers, normals: Numbers) -> Numbers:
    """The conformal p-values (N,) of scores (N,), from the scores (n,) of held-out normals.

    >>> p_values(np.array([-5.0, 2.5, 9.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    array([0.2, 0.6, 1. ])
    """
    return (1 + np.searchsorted(np.sort(normals), scores, side="right")) / (len(normals) + 1)


def rank(n: int, rate: float) -> int:
    """k = floor(rate (n + 1)): an outlier scores below the k-th lowest of n normals; 0 when n is too small.

    >>> rank(99, 0.01), rank(98, 0.01), rank(199, 0.05)
    (1, 0, 10)

    Errors: `ConfigError` for a rate outside 0..1.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"false_alarm is the share of normals that may be called outliers, 0 to 1; given {rate}")
    return int(rate * (n + 1) + 1e-9)  # 0.01 * 100 must be 1


def false_alarms(k: int, n: int) -> Estimate:
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


def repeats(x: Tensor) -> Tensor:
    """Which rows (N, D), float64, repeat one that comes before: bool (N,).

    >>> x = torch.eye(50).double()
    >>> repeats(torch.cat([x, x[:3], x[:2] + 1e-3])).nonzero().flatten().tolist()
    [50, 51, 52, 53, 54]
    """
    first = np.unique(x.numpy(), axis=0, return_index=True)[1]  # equal rows, however many, need no distances
    kept = torch.from_numpy(np.sort(first))
    found = torch.ones(len(x), dtype=torch.bool)
    found[kept] = False
    distinct = x[kept]
    near = radius(distinct) ** 2
    for block in blocks(distinct, distinct):
        before = torch.arange(len(distinct)) < torch.arange(block.rows.start, block.rows.stop)[:, None]
        found[kept[block.rows]] = ((block.squares < near) & before).any(1)
    return found


def radius(x: Tensor) -> float:
    """The distance below which two of these rows (N, D), no two of them equal, are near copies."""
    apart = torch.pdist(x[permutation(len(x), "outliers", "repeats")[:SOME]])
    if len(apart) < 1 / FEW:
        return 0.0
    few, many, half = (float(apart.kthvalue(max(1, int(share * len(apart)))).values) for share in (FEW, MANY, 0.5))
    if not 0 < few < many:
        return NEAR * half
    dimension = log(MANY / FEW) / log(many / few)
    return min(NEAR * half, few * (ALONE / (FEW * len(x))) ** (1 / dimension))
