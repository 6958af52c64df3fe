"""A number and how far it can be trusted: an estimate with its 95 % interval."""

from math import nan, sqrt
from typing import NamedTuple

from torch import Tensor

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

    def __str__(self) -> str:
        """The value with its interval: 12.3 (11.9 to 12.7)."""
        if self.low != self.low:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
