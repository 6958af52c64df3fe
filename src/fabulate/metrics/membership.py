"""Membership inference: can it be told from a number which images a model was trained on?

An attack gives each image a number, higher where it takes the image for one of the training set. It is judged by the
numbers of members and of non-members, images of the same distribution that the model never saw: the area under the ROC
curve, 0.5 for an attack that knows nothing, and, since an attack that is sure of a few is worse than one that is unsure
of all, its true-positive rate at a low false-positive rate (Carlini et al., "Membership inference attacks from first
principles", 2022, https://arxiv.org/abs/2112.03570).

Legend: M members, N non-members.
"""

from math import nan, sqrt

import numpy as np
import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import Estimate

RESAMPLES = 1000


def auc(members: Tensor, others: Tensor) -> Estimate:
    """The area under the ROC curve by the attack's numbers (M,) and (N,), with DeLong's interval.

    (DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic
    curves", 1988, https://doi.org/10.2307/2531595.) Equal numbers count one half.
    Errors: `DataError` for fewer than two of either, and for numbers that are not finite.

    >>> auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])).value
    0.875
    """
    members, others = _checked(members, others)
    beaten = _shares_below(members, others)  # (M,)
    above = 1 - _shares_below(others, members)  # (N,)
    error = sqrt(float(beaten.var()) / len(members) + float(above.var()) / len(others))
    return Estimate.about(float(beaten.mean()), error).within(0.0, 1.0)


def tpr_at(members: Tensor, others: Tensor, fpr: float = 0.01, *, seed: int = 0) -> Estimate:
    """The share of members that the attack finds when it takes at most a share `fpr` of non-members for members.

    The interval is that of drawing members and non-members again (bootstrap). NaN where fewer than 1 / fpr non-members
    are known: the rate cannot be seen then. Errors: as `auc`.

    >>> tpr_at(torch.arange(100.0) + 99, torch.arange(100.0)).value
    1.0
    """
    members, others = _checked(members, others)
    allowed = int(fpr * len(others))
    if allowed < 1:
        return Estimate(nan)
    a, b = members.numpy(), others.numpy()

    def rate(a: np.ndarray, b: np.ndarray) -> float:
        threshold = np.partition(b, -allowed - 1)[-allowed - 1] if allowed < len(b) else -np.inf
        return float((a > threshold).mean())

    chance = np.random.default_rng(seed)
    drawn = [
        rate(a[chance.integers(len(a), size=len(a))], b[chance.integers(len(b), size=len(b))]) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(rate(a, b), float(low), float(high))


def _shares_below(a: Tensor, b: Tensor) -> Tensor:
    """For each number of a (M,) the share of b (N,) that is less, equal ones counting one half: (M,)."""
    b = b.sort().values
    return (torch.searchsorted(b, a) + torch.searchsorted(b, a, right=True)).double() / (2 * len(b))


def _checked(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64; refuses what cannot be judged."""
    for name, values in (("members", members), ("non-members", others)):
        if values.ndim != 1 or len(values) < 2:
            raise DataError(f"an attack is judged by at least two numbers of {name}; given {tuple(values.shape)}")
        if not values.isfinite().all():
            raise DataError(f"{int((~values.isfinite()).sum())} of the attack's numbers of {name} are not finite")
    return members.double().cpu(), others.double().cpu()
