"""The first two moments of features, in float64."""

from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """How many rows, their mean (D,) and their unbiased covariance (D, D), float64."""

    n: int
    mean: Tensor
    cov: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features (N, D), N >= 2."""
        features = features.double()
        mean = features.mean(0)
        rows = features - mean
        return cls(len(features), mean, rows.T @ rows / (len(features) - 1))
