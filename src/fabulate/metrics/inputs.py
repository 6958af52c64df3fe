"""What every metric asks of its features before it computes: rows of finite numbers, enough of them, equally long.

A single NaN turns a Fréchet distance into NaN, a precision into 0 and a nearest neighbour into nonsense, without a
word. So each function that takes features passes them through `checked` first, and the error names the place.

Legend: N rows (images), D features.
"""

import torch
from torch import Tensor

from fabulate.errors import DataError


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
