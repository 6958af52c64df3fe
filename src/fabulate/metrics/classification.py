"""How well a classifier finds each class, where classes are unequal: recall by class and its mean.

The share of right answers is ruled by the large classes. The balanced accuracy is the mean over classes of the share
that is found of each, so that a rare class counts as much as a frequent one; guessing gets 1/K (Brodersen, Ong,
Stephan, Buhmann, "The balanced accuracy and its posterior distribution", 2010, https://doi.org/10.1109/ICPR.2010.764).
All else that is asked of a classifier is in `sklearn.metrics`; what is here has intervals.

Legend: N images, K classes.
"""

from math import sqrt

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import Estimate


def recalls(truth: Tensor, predicted: Tensor, classes: int) -> list[Estimate]:
    """The share of each class's images (N,) that are predicted (N,) to be of it; nan for a class without images.

    Errors: `DataError` for unequal lengths, or a truth outside 0..classes-1.

    >>> [round(share.value, 9) for share in recalls(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)]
    [0.5, 1.0]
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise DataError(f"classes must be two lists (N,), not {tuple(truth.shape)} and {tuple(predicted.shape)}")
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < classes:
        raise DataError(f"classes are numbered 0 to {classes - 1}, but {int(truth.min())} to {int(truth.max())} came")
    found = torch.bincount(truth[truth == predicted], minlength=classes).tolist()
    there = torch.bincount(truth, minlength=classes).tolist()
    return [Estimate.of_share(count, n) for count, n in zip(found, there, strict=True)]


def balanced_accuracy(truth: Tensor, predicted: Tensor, classes: int) -> Estimate:
    """The mean over classes of the share found (N,), over those that have images; errors as above.

    The deviation of each share is taken with one right and one wrong answer added, so that a class of 3 images, all of
    them found, does not count as certain.
    """
    shares = [share for share in recalls(truth, predicted, classes) if share.value == share.value]
    there = torch.bincount(truth, minlength=classes)
    if not shares:
        raise DataError("no images to compute an accuracy of")
    variance = 0.0
    for share, n in zip(shares, there[there > 0].tolist(), strict=True):
        softened = (share.value * n + 1) / (n + 2)
        variance += softened * (1 - softened) / n
    return Estimate.about(sum(share.value for share in shares) / len(shares), sqrt(variance) / len(shares))
