"""Memorisation: does a model draw new images, or those it was trained on?

Training and held-out images come from one distribution. To a model that copies nothing, which of them it was trained on
is chance: the real image nearest to a sample is a training image with probability

    p_0 = N_train / (N_train + N_held_out).

A share above that is memory (after Meehan, Chaudhuri, Dasgupta, "A non-parametric test to detect data-copying in
generative models", 2020, https://arxiv.org/abs/2004.05675, and the nearest-neighbour test of Schilling, 1986). If a
share m of the samples are copies of training images and the rest know nothing of them, share = m + (1 - m) p_0.

Samples are not independent witnesses: some images, hubs, are nearest to very many. The variance is therefore that of
labels dealt anew over the real images, c_j being how many samples have image j nearest (of n real images in all):

    var(count) = N_train N_held_out / (n (n - 1)) * sum_j (c_j - mean c)^2.

Equal distances, as for an image that is in both sets, count as held out: they are no evidence. Whether single samples
are too close is asked by authenticity: a sample is authentic when it lies further from its nearest training image than
that one from its own nearest other training image (Alaa, van Breugel, Saveliev, van der Schaar, "How faithful is your
synthetic data?", 2022, https://arxiv.org/abs/2102.08921). Honest samples are so often, but not always;
`authenticity` of held-out images says how often.

Legend: N samples, D features, C H W image.
"""

from hashlib import blake2b
from math import erfc, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.distances import nearest_rows
from fabulate.metrics.inputs import checked
from fabulate.metrics.intervals import Estimate


class Memorisation(NamedTuple):
    """What `memorisation` found."""

    share: Estimate
    """Of samples whose nearest real image is a training image."""
    expected: float
    """That share for a model that copies nothing."""
    p_value: float
    """How probable a share so high, or higher, is for a model that copies nothing."""
    copied: Estimate
    """The share of samples that are copies, (share - expected) / (1 - expected); near 0, also below, for none."""
    authenticity: Estimate
    """The share of authentic samples; compare it with `authenticity(held_out, train)`."""
    nearest_train: Tensor
    """For each sample the number of its nearest training image: (N,) int64."""
    train_distances: Tensor
    """How far that is, in features: (N,) float64; exactly 0 for equal features."""
    nearest_held_out: Tensor
    held_out_distances: Tensor


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    """Does a model copy its training images? By features (N, D) of samples, of all training and of held-out images.

    POWER
    A model that draws the same few images again and again is not found by the test, however exact the copies: few
    images are little evidence; see `authenticity` and `exact_copies` then. Held-out images must come from the same
    distribution as training images: those of other writers or other days make any model look as if it copied.
    Errors: `DataError` for no samples, fewer than 2 real images, unequal D or numbers that are not finite.
    """
    samples, train, held_out = checked(samples=samples, train=train, held_out=held_out)
    at_train, to_train = nearest_rows(samples, train)
    at_held_out, to_held_out = nearest_rows(samples, held_out)
    in_train = to_train < to_held_out
    n = len(samples)
    expected = len(train) / (len(train) + len(held_out))
    share = float(in_train.double().mean())
    nearest = torch.where(in_train, at_train, len(train) + at_held_out)  # among the pooled real images
    deviation = _deviation(torch.bincount(nearest, minlength=len(train) + len(held_out)), len(train)) / n
    copied = (share - expected) / (1 - expected)
    # Chance of an interval: how many samples are copies, and where the nearest images of the others lie.
    m = min(max(copied, 0.0), 1.0)
    spread = sqrt(m * (1 - m) / n + (1 - m) * (deviation / (1 - expected)) ** 2)
    return Memorisation(
        share=Estimate.about(share, spread * (1 - expected)),
        expected=expected,
        p_value=erfc((share - expected) / (deviation * sqrt(2))) / 2 if deviation else 0.5,  # if not, they are equal
        copied=Estimate.about(copied, spread),
        authenticity=_authenticity(train, at_train, to_train),
        nearest_train=at_train,
        train_distances=to_train,
        nearest_held_out=at_held_out,
        held_out_distances=to_held_out,
    )


def authenticity(samples: Tensor, train: Tensor) -> Estimate:
    """The share of samples (N, D) further from their nearest training image than that is from its nearest other one.

    Errors: `DataError` for no samples, fewer than 2 training images, unequal D or numbers that are not finite.

    >>> train = torch.tensor([[0.0], [1.0], [2.0]])
    >>> authenticity(torch.tensor([[0.0], [1.1], [2.9], [3.5]]), train).value
    0.25
    """
    samples, train = checked(samples=samples, train=train)
    return _authenticity(train, *nearest_rows(samples, train))


def exact_copies(samples: Tensor, train: Tensor) -> Tensor:
    """Which samples are equal to a training image in every pixel, both uint8 (N, C, H, W): bool (N,).

    Errors: `DataError` for images of unequal shape or of another type.

    >>> image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    >>> exact_copies(torch.cat([image, image + 1]), image)
    tensor([ True, False])
    """
    if samples.shape[1:] != train.shape[1:] or not samples.dtype == train.dtype == torch.uint8:
        raise DataError(
            "exact copies are sought among uint8 images of one shape, not among "
            f"{samples.dtype} {tuple(samples.shape[1:])} and {train.dtype} {tuple(train.shape[1:])}"
        )
    known = set(_hashes(train))
    return torch.tensor([row in known for row in _hashes(samples)], dtype=torch.bool)


def _deviation(counts: Tensor, n_train: int) -> float:
    """Of how many samples have a training image nearest, when labels are dealt anew over the real images (n,)."""
    n, counts = len(counts), counts.double()
    variance = n_train * (n - n_train) / (n * (n - 1)) * float((counts - counts.mean()).square().sum())
    return sqrt(variance)


def _authenticity(train: Tensor, nearest: Tensor, distances: Tensor) -> Estimate:
    if len(train) < 2:
        raise DataError(
            f"train: {len(train)} image is too few to ask how far training images are apart; give 2 or more"
        )
    asked = torch.bincount(nearest, minlength=len(train)).nonzero()[:, 0]  # training images nearest to some sample
    apart = torch.zeros(len(train), dtype=torch.float64)
    apart[asked] = nearest_rows(train[asked], train, but=asked)[1]
    return Estimate.of_share(int((distances > apart[nearest]).sum()), len(distances))


def _hashes(images: Tensor) -> list[bytes]:
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in images.numpy()]
