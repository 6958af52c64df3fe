"""A number and how far it can be trusted: an estimate with its 95 % interval; and features that can be trusted at all.

A single NaN turns a Fréchet distance into NaN, a precision into 0 and a nearest neighbour into nonsense, without a
word. So each function that takes features passes them through `checked` first, and the error names the place.

Legend: N rows (images), D features.
"""

from math import nan, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import DataError

NORMAL_95 = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution


class Estimate(NamedTuple):
    """A value, and the interval that holds the truth 95 times in 100."""

    value: float
    low: float = nan
    high: float = nan

    @classmethod
    def about(cls, value: float, deviation: float) -> "Estimate":
        """A value with its standard error, taken to be normal.

        >>> Estimate.about(10.0, 1.0)
        Estimate(value=10.0, low=8.040036, high=11.959964)
        """
        return cls(value, value - NORMAL_95 * deviation, value + NORMAL_95 * deviation)

    @classmethod
    def of_mean(cls, values: Tensor) -> "Estimate":
        """The mean of independent values (N,), by Student's t: as few as two have an honest, wide interval.

        >>> import torch
        >>> print(Estimate.of_mean(torch.tensor([1.0, 2.0, 3.0])))
        2 (-0.4841 to 4.484)
        """
        from scipy.special import stdtrit

        values = values.double()
        if len(values) < 2:
            return cls(float(values.mean()))
        reach = float(stdtrit(len(values) - 1, 0.975)) * float(values.std()) / sqrt(len(values))
        return cls(float(values.mean()), float(values.mean()) - reach, float(values.mean()) + reach)

    @classmethod
    def of_share(cls, count: int, n: int) -> "Estimate":
        """The share count / n of n independent cases, by Wilson's interval: within [0, 1], and honest at both ends.

        (Wilson, "Probable inference, the law of succession, and statistical inference", 1927,
        https://doi.org/10.1080/01621459.1927.10502953)

        >>> print(Estimate.of_share(0, 100), Estimate.of_share(50, 100))
        0 (0 to 0.03699) 0.5 (0.4038 to 0.5962)
        """
        if n < 1:
            return cls(nan)
        share, z2 = count / n, NORMAL_95**2
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        reach = NORMAL_95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        # At the ends one border is the share itself, which rounding would miss.
        return cls(share, middle - reach if count else 0.0, middle + reach if count < n else 1.0)

    def within(self, low: float, high: float) -> "Estimate":
        """The same value, its interval cut to low..high, beyond which it cannot be."""
        return Estimate(self.value, max(self.low, low), min(self.high, high))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        """The value with its interval: 12.3 (11.9 to 12.7)."""
        if self.low != self.low:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def checked(at_least: int = 1, /, **sets: Tensor) -> list[Tensor]:
    """Sets of features (N, D), by their names, in float64; D is equal in all of them.

    Errors: `DataError` for anything but rows of numbers, for fewer than `at_least` rows, for sets of unequal D, and for
    numbers that are not finite: which set, how many, and the first row and column.

    >>> checked(2, real=torch.ones(3, 4), fake=torch.ones(2, 4))[1].dtype
    torch.float64
    >>> checked(real=torch.tensor([[0.0, 1.0], [2.0, float("nan")]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fabulate.errors.DataError: real: 1 of 4 numbers is not finite, the first in row 1, column 1 (nan); look at ...
    """
    for name, features in sets.items():
        if features.ndim != 2 or not features.shape[1]:
            raise DataError(f"{name}: features must be rows of numbers (N, D), not of shape {tuple(features.shape)}")
        if len(features) < at_least:
            raise DataError(f"{name}: {len(features)} rows of features are too few here; give {at_least} or more")
    first, *others = sets
    for name in others:
        if sets[name].shape[1] != sets[first].shape[1]:
            raise DataError(
                f"{name} has {sets[name].shape[1]} features a row and {first} has {sets[first].shape[1]}; "
                "compute both with the same features"
            )
    return [_finite(name, features) for name, features in sets.items()]


def _finite(name: str, features: Tensor) -> Tensor:
    features = features.detach().to("cpu", torch.float64)
    if torch.isfinite(features.sum()):  # one pass without a mask; a sum that overflows is looked at number by number
        return features
    bad = ~features.isfinite()
    count = int(bad.sum())
    if count:
        row, column = bad.nonzero()[0].tolist()
        raise DataError(
            f"{name}: {count:,} of {features.numel():,} numbers {'is' if count == 1 else 'are'} not finite, the first "
            f"in row {row}, column {column} ({float(features[row, column])}); look at the images these come from, and "
            "at the model that made them"
        )
    return features
