"""Classes: does a generator cover all of them, and does a classifier find each?

Each sample takes the class of the real image nearest to it: one nearest neighbour on pixels is a classifier nobody has
to train, and it needs no features. On MNIST it is right for 95 % of real digits with 10,000 references. How evenly
classes are met is told by the entropy of their shares, and by how many are present at all.

The share of right answers is ruled by the large classes. The balanced accuracy is the mean over classes of the share
that is found of each, so that a rare class counts as much as a frequent one; guessing gets 1/K (Brodersen, Ong,
Stephan, Buhmann, "The balanced accuracy and its posterior distribution", 2010, https://doi.org/10.1109/ICPR.2010.764).
All else that is asked of a classifier is in `sklearn.metrics`; what is here has intervals.

Legend: N samples or images, R references, K classes, C H W image.
"""

from math import exp, sqrt

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import Estimate
from fabulate.types import to_float


def nearest(images: Tensor, references: Tensor) -> Tensor:
    """For each image (N, C, H, W) the number of the nearest reference (R, C, H, W) in pixels: (N,) int64.

    Both are uint8, or floats in [-1, 1].

    >>> nearest(torch.tensor([0.9, -0.2]).reshape(2, 1, 1, 1), torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
    tensor([0, 1])
    """
    flat = to_float(references).flatten(1)
    return torch.cat([torch.cdist(to_float(part).flatten(1), flat).argmin(1) for part in torch.split(images, 500)])


def class_shares(images: Tensor, references: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share of images in each class (K,), by the class of the nearest real image; it sums to 1.

    >>> real = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    >>> class_shares(torch.tensor([0.8, 0.9, -0.7, 0.1]).reshape(4, 1, 1, 1), real, torch.tensor([0, 1]), 2)
    tensor([0.2500, 0.7500])
    """
    counts = torch.bincount(labels[nearest(images, references)], minlength=classes)
    return counts / len(images)


def effective_classes(shares: Tensor) -> float:
    """How many equally large classes have the entropy of these shares (K,): between 1 and K.

    (Hill, "Diversity and evenness", 1973, https://doi.org/10.2307/1934352)

    >>> round(effective_classes(torch.tensor([0.5, 0.5, 0.0])), 9)
    2.0
    """
    return exp(max(0.0, float(torch.special.entr(shares.double()).sum())))


def modes(shares: Tensor, reference: Tensor, at_least: float = 0.1) -> int:
    """How many classes are present: those whose share (K,) is `at_least` this part of the real images' share (K,).

    A stray sample does not bring a class back that a model has dropped. Classes without real images do not count.

    >>> modes(torch.tensor([0.6, 0.39, 0.01]), torch.tensor([0.4, 0.3, 0.3]))
    2
    """
    return int(((shares >= at_least * reference) & (reference > 0)).sum())


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
    """The mean over classes of the share of their images (N,) that are predicted (N,) to be of them.

    Classes without images do not count. The deviation of each share is taken with one right and one wrong answer added,
    so that a class of 3 images, all of them found, does not count as certain.
    Errors: as `recalls`; `DataError` without images.

    >>> round(balanced_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0]), 2).value, 9)
    0.5
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
