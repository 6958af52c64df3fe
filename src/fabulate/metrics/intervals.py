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
        """The mean of independent values (N,)."""
        values = values.double()
        return cls.about(float(values.mean()), float(values.std()) / sqrt(len(values)) if len(values) > 1 else nan)

    def __str__(self) -> str:
        """The value with its interval: 12.3 (11.9 to 12.7)."""
        if self.low != self.low:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
