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

Equal distances, as for an image that is in both sets, count as held out: they are no evidence.

Often the two sets are not one distribution: those who wrote MNIST's training digits did not write its test digits, and
new digits by the former look like memories of them. So there is a control: training images, each with itself left out.
The share of these whose nearest real image is a training image is what new images of the training writers would show.
Where it is above p_0 it is what a model has to exceed.

Whether single samples are too close is asked by authenticity: a sample is authentic when it lies further from its
nearest training image than that one from its own nearest other training image (Alaa, van Breugel, Saveliev, van der
Schaar, "How faithful is your synthetic data?", 2022, https://arxiv.org/abs/2102.08921). Honest samples are so often,
but not always; `authenticity` of held-out images says how often.

Legend: N samples, D features, C H W image.
"""

from math import erfc, hypot, nan, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.files import digest
from fabulate.metrics.intervals import Estimate, checked
from fabulate.metrics.manifold import nearest_rows
from fabulate.seeds import permutation

CONTROL = 5000  # training images in the control, at most: its own chance is then below that of 5000 samples


class Memorisation(NamedTuple):
    """What `memorisation` found."""

    share: Estimate
    """Of samples whose nearest real image is a training image."""
    expected: float
    """That share for a model that copies nothing: by numbers, or that of the control where it is higher."""
    p_value: float
    """How probable a share so high, or higher, is for a model that copies nothing; at most that."""
    copied: Estimate
    """The share of samples that are copies, (share - expected) / (1 - expected); near 0, also below, for none."""
    by_numbers: float
    """N_train / (N_train + N_held_out)."""
    control: Estimate
    """Of training images, the share whose nearest other real image is a training image; well above `by_numbers` when
    held-out images are of another distribution, or training images come in nearly equal pairs."""
    deviation: float
    """The standard error of `share` for a model that copies nothing."""
    authenticity: Estimate
    """The share of authentic samples; compare it with `authenticity(held_out, train)`."""
    nearest_train: Tensor
    """For each sample the number of its nearest training image: (N,) int64."""
    train_distances: Tensor
    """How far that is, in features: (N,) float64; exactly 0 for equal features."""
    nearest_held_out: Tensor
    held_out_distances: Tensor


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor, *, seed: int = 0) -> Memorisation:
    """Does a model copy its training images? By features (N, D) of samples, of all training and of held-out images.

    `seed` chooses the training images of the control. A share of copies is found, most of the time, when it is three
    times the standard error of `copied`: from some 14 % on with 1,000 samples, training and held-out images each, and
    from 27 % where a few images are nearest to very many. A model that draws the same few images again and again is not
    found by the test, however exact the copies: few images are little evidence; see authenticity and `exact_copies`.
    Errors: `DataError` for no samples, fewer than 2 training images, no held-out ones, unequal D or numbers that are
    not finite.
    """
    samples, train, held_out = checked(samples=samples, train=train, held_out=held_out)
    _check_train(train)
    by_numbers = len(train) / (len(train) + len(held_out))
    at_train, to_train = nearest_rows(samples, train)
    at_held_out, to_held_out = nearest_rows(samples, held_out)
    share, deviation = _share(at_train, to_train, at_held_out, to_held_out, len(train), len(held_out))
    rows = permutation(len(train), seed, "control")[:CONTROL]
    others = nearest_rows(train[rows], train, but=rows)
    control, chance = _share(*others, *nearest_rows(train[rows], held_out), len(train), len(held_out))
    expected, doubt = (control, chance) if control > by_numbers else (by_numbers, 0.0)
    copied = (share - expected) / (1 - expected) if expected < 1 else 0.0
    # The chance in `copied`: how many samples are copies, where the nearest images lie, and what is expected. That of
    # the nearest images is taken whole, as if none were copies: a few blobs drawn again and again may have a training
    # image nearest by chance, every time, and are then no evidence however large their share is.
    m = min(max(copied, 0.0), 1.0)
    others_chance = deviation**2 + (1 - m) ** 2 * doubt**2
    spread = sqrt(m * (1 - m) / len(samples) + others_chance / (1 - expected) ** 2) if expected < 1 else nan
    return Memorisation(
        share=Estimate.about(share, sqrt((1 - expected) ** 2 * m * (1 - m) / len(samples) + deviation**2)),
        expected=expected,
        p_value=_above(share - expected, hypot(deviation, doubt)),
        copied=Estimate.about(copied, spread),
        by_numbers=by_numbers,
        control=Estimate.about(control, chance),
        deviation=deviation,
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
    _check_train(train)
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


def _share(
    at_train: Tensor, to_train: Tensor, at_held_out: Tensor, to_held_out: Tensor, n_train: int, n_held_out: int
) -> tuple[float, float]:
    """The share of rows with a training image nearest, and its deviation when the rows know nothing of the labels."""
    in_train = to_train < to_held_out
    nearest = torch.where(in_train, at_train, n_train + at_held_out)  # among all real images
    counts = torch.bincount(nearest, minlength=n_train + n_held_out)
    return float(in_train.double().mean()), _deviation(counts, n_train) / len(in_train)


def _deviation(counts: Tensor, n_train: int) -> float:
    """Of how many samples have a training image nearest, when labels are dealt anew over the real images (n,)."""
    n, counts = len(counts), counts.double()
    variance = n_train * (n - n_train) / (n * (n - 1)) * float((counts - counts.mean()).square().sum())
    return sqrt(variance)


def _above(excess: float, deviation: float) -> float:
    """How probable a normal number of this deviation exceeds this; 1/2 for certain numbers, which are as expected."""
    return erfc(excess / (deviation * sqrt(2))) / 2 if deviation else 0.5


def _check_train(train: Tensor) -> None:
    if len(train) < 2:
        raise DataError(
            f"train: {len(train)} image is too few to ask how far training images are apart; give 2 or more"
        )


def _authenticity(train: Tensor, nearest: Tensor, distances: Tensor) -> Estimate:
    asked = torch.bincount(nearest, minlength=len(train)).nonzero()[:, 0]  # training images nearest to some sample
    apart = torch.zeros(len(train), dtype=torch.float64)
    apart[asked] = nearest_rows(train[asked], train, but=asked)[1]
    return Estimate.of_share(int((distances > apart[nearest]).sum()), len(distances))


def _hashes(images: Tensor) -> list[str]:
    return [digest(row.tobytes()) for row in images.numpy()]
