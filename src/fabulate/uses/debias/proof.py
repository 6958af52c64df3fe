"""Before and after: classifiers that saw images as they are, by weight, or with the factor of others; and who gains.

All are the same network, trained for as many steps, and tested on the same images. What counts is the worst group: the
lowest accuracy over pairs of class and group (Sagawa et al., "Distributionally robust neural networks for group
shifts", 2020, https://arxiv.org/abs/1911.08731). Where no groups are known for test images, there are two by the
factor: images whose weight says that they are rare in their class, and the others. A way that does not lift the worst
group by more than chance is not recommended, whatever else it does.

One way needs no factor: images that a classifier of the *other* images gets wrong count more, together as much as half
of their class. Who goes by the bias errs where it fails (Liu et al., "Just train twice", 2021,
https://arxiv.org/abs/2107.09044); a classifier of all images would have memorised some of its errors. Wrong labels are
errors too: the test tells whether it helped.

The difference of two minima has no simple interval. It is that of 95 in 100 draws of the accuracies, image by image
from what is known after the test (Rubin, "The Bayesian bootstrap", 1981, https://doi.org/10.1214/aos/1176345338), with
half an image of each kind beforehand.

Legend: N images, B batch, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from fabulate.data import Images
from fabulate.errors import DataError
from fabulate.features.trained import SMOOTHING, Classifier, fit, predict
from fabulate.metrics.intervals import Estimate
from fabulate.nets import transforms
from fabulate.report import Card, Grade, points
from fabulate.seeds import generator, permutation, seeded
from fabulate.types import Batch, Progress
from fabulate.uses.debias.debiaser import Debiaser
from fabulate.uses.debias.densities import Labels, Numbers

STEPS = 600
DRAWS = 2000
HEAVIEST = 50  # times what others of its class count: an image that is got wrong
RARE, USUAL = "rare in its class", "not rare"
LEAST = 5  # images of a pair of class and group, below which its accuracy is not told

Show = Callable[[int, torch.Tensor], Batch]
"""What a classifier sees: step, indices (B,) -> images (B, C, H, W) and classes (B,)."""


def as_it_is(images: Images) -> Show:
    """Images as they are."""
    return lambda step, indices: images.batch(indices)


def by_weight(images: Images, weights: Numbers, seed: int = 0) -> Show:
    """Images drawn by weights (N,) of one's own."""
    chances = torch.from_numpy(weights)

    def show(step: int, indices: torch.Tensor) -> Batch:
        chance = generator(seed, "debias", "weighted", step)
        return images.batch(torch.multinomial(chances, len(indices), replacement=True, generator=chance))

    return show


def recoloured(images: Images, debiaser: Debiaser) -> Show:
    """Images with the factor of others, drawn anew at every step."""

    def show(step: int, indices: torch.Tensor) -> Batch:
        x, y = images.batch(indices)
        return Batch(debiaser.recoloured(x, "step", step), y)

    return show


def ways(images: Images, debiaser: Debiaser) -> dict[str, Show]:
    """How a classifier may be taught by what a debiaser found, by name."""
    return {
        "plain": as_it_is(images),
        "weights": by_weight(images, debiaser.weights_, debiaser.seed),
        "recolour": recoloured(images, debiaser),
    }


def teach(
    images: Images,
    classes: Sequence[str],
    show: Show,
    *,
    seed: int = 0,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Classifier:
    """A classifier that learns from what it is shown, in evaluation mode; images are also shifted.

    Errors: `DataError` without classes, `ConfigError` for sides outside 8..256.
    """
    if images.y is None:
        raise DataError("a classifier needs the classes of its images, and these have none")
    with seeded(seed, "classifier"):
        classifier = Classifier(images.shape, classes)

    def loss(step: int, indices: torch.Tensor) -> torch.Tensor:
        x, y = show(step, indices)
        assert y is not None
        x = transforms.shift(x, generator(seed, "changes", step))
        return F.cross_entropy(classifier(x), y, label_smoothing=SMOOTHING)

    fit(classifier, loss, len(images), seed=seed, steps=steps, progress=progress)
    return classifier


def errors(
    images: Images, classes: Sequence[str], *, seed: int = 0, steps: int = STEPS, progress: Progress | None = None
) -> npt.NDArray[np.bool_]:
    """Which images (N,) a classifier gets wrong that learnt from the other half, in half of the steps."""
    wrong = np.zeros(len(images), bool)
    halves = permutation(len(images), seed, "debias", "errors")
    each = max(1, steps // 2)
    for i, (own, other) in enumerate(((halves[::2], halves[1::2]), (halves[1::2], halves[::2]))):

        def told(step: int, _: int, before: int = i * each) -> None:
            if progress is not None:
                progress(before + step, 2 * each)

        learnt, left = (Images(images.pixels(rows), images.class_numbers[rows]) for rows in (other, own))
        taught = teach(learnt, classes, as_it_is(learnt), seed=seed, steps=each, progress=told)
        wrong[own] = (predict(taught, left) != torch.from_numpy(left.class_numbers)).numpy()
    return wrong


def half_weights(wrong: npt.NDArray[np.bool_], y: Labels) -> Numbers:
    """Weights (N,) on average 1 under which errors are half of each class, unless they are more already.

    No image counts more than 50 times what the others of its class do, so that a few errors are less than half.

    >>> half_weights(np.array([True, False, False, False]), np.zeros(4, int)).round(2)
    array([2.  , 0.67, 0.67, 0.67])
    """
    found = np.ones(len(y))
    for k in np.unique(y):
        own = wrong & (y == k)
        rest = (~wrong & (y == k)).sum()
        if own.any():
            found[own] = np.clip(rest / own.sum(), 1, HEAVIEST)
    return found / found.mean()


class Accuracies(NamedTuple):
    """How often a classifier is right on test images."""

    overall: Estimate
    """Of all of them, as biased as they are."""
    unbiased: Estimate
    """Estimated for images whose factor is independent of the class, by weights."""
    groups: dict[str, Estimate]
    """Of each group that is known, or of what is rare in its class and what is not."""
    pairs: dict[str, Estimate]
    """Of each pair of class and group that has images enough."""
    right: npt.NDArray[np.bool_]
    """Which test images it found (N,)."""
    members: dict[str, npt.NDArray[np.bool_]]
    """Of each of those pairs, which test images (N,)."""

    @property
    def balanced(self) -> Estimate:
        """The mean over all pairs, with the interval that their intervals make."""
        return mean_of([*self.pairs.values()]).within(0.0, 1.0)

    @property
    def worst(self) -> tuple[str, Estimate]:
        """The pair with the lowest accuracy."""
        return min(self.pairs.items(), key=lambda pair: pair[1].value)


def tested(
    classifier: Classifier, images: Images, weights: Numbers, classes: Sequence[str], groups: Sequence[str] | None
) -> Accuracies:
    """Test a classifier on images of known classes, of given weights (N,) and, where known, groups (N,).

    Errors: `DataError` where no pair of class and group has images enough to be told of.
    """
    right = predict(classifier, images).numpy() == images.class_numbers
    of = np.where(weights > weights.mean(), RARE, USUAL) if groups is None else np.array(groups)
    named, paired, members = {}, {}, {}
    for group in sorted(set(of.tolist())):
        inside = of == group
        named[group] = share(right[inside])
        for k, name in enumerate(classes):
            own = inside & (images.y == k)
            if own.sum() >= LEAST:
                paired[f"{name}, {group}"], members[f"{name}, {group}"] = share(right[own]), own
    if not members:
        raise DataError(f"no pair of class and group has {LEAST} test images: give more, or fewer groups")
    return Accuracies(share(right), weighted_mean(right, weights).within(0.0, 1.0), named, paired, right, members)


def share(right: np.ndarray) -> Estimate:
    return Estimate.of_share(int(right.sum()), len(right))


def weighted_mean(values: np.ndarray, weights: Numbers) -> Estimate:
    """The mean of values (N,) by weights (N,), with its interval as the ratio of two means.

    >>> weighted_mean(np.array([True, True, False, False]), np.array([3.0, 3.0, 1.0, 1.0])).value
    0.75
    """
    mean = float((weights * values).sum() / weights.sum())
    return Estimate.about(mean, float(np.sqrt((weights**2 * (values - mean) ** 2).sum()) / weights.sum()))


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates."""
    mean = float(np.mean([part.value for part in parts]))
    reach = float(np.sqrt(sum(((part.high - part.low) / 2) ** 2 for part in parts))) / len(parts)
    return Estimate(mean, mean - reach, mean + reach)


QUESTIONS = {
    "weights": "Teach by weight?",
    "errors": "Teach by the weight of errors?",
    "recolour": "Teach with the factor of others?",
    "generated": "Teach with generated images?",
}


def verdict(way: str, found: Accuracies, plain: Accuracies) -> Card:
    """What a classifier that was taught in a way is worth beside the plain one."""
    gain, overall = worst_gain(found, plain), overall_gain(found, plain)
    grade: Grade
    if gain.low > 0:
        word, grade = ("it helps", "good") if overall.sign >= 0 else ("it helps, at a price", "fair")
    else:
        word, grade = "not recommended", "poor"
    (before, was), (after, now) = plain.worst, found.worst
    because = (
        f"The worst group goes from {100 * was.value:.1f} ({before}) to {100 * now.value:.1f} % ({after}), "
        f"{points(gain)}; all test images together {points(overall)}."
    )
    return Card(QUESTIONS[way], word, because, grade)


def verdicts(proofs: Mapping[str, Accuracies]) -> dict[str, Card]:
    """Of each way but the plain one."""
    return {way: verdict(way, found, proofs["plain"]) for way, found in proofs.items() if way != "plain"}


def advice(proofs: Mapping[str, Accuracies], words: Mapping[str, str]) -> Card:
    """How to teach: in the way that lifts the worst group most, or as the images are. `words`: of each way."""
    gains = {way: worst_gain(found, proofs["plain"]) for way, found in proofs.items() if way != "plain"}
    best = max(gains, key=lambda way: gains[way].value)
    if gains[best].low <= 0:
        because = "No other way lifts the worst group by more than chance."
        return Card("How to teach?", "as the images are", because, "unknown")
    (before, was), (_, now) = proofs["plain"].worst, proofs[best].worst
    because = f"The worst group goes from {100 * was.value:.1f} ({before}) to {100 * now.value:.1f} %."
    return Card("How to teach?", words[best], because, "good")


def overall_gain(found: Accuracies, plain: Accuracies) -> Estimate:
    """By how much the accuracy over all test images differs from the plain one's."""
    values = found.right.astype(np.float64) - plain.right
    return weighted_mean(values, np.ones(len(values)))


def worst_gain(found: Accuracies, plain: Accuracies) -> Estimate:
    """By how much the lowest accuracy over pairs differs from the plain one's."""
    chance = np.random.default_rng(0)
    lowest = np.ones((2, DRAWS))
    for own in plain.members.values():
        kinds = np.bincount(2 * found.right[own] + plain.right[own], minlength=4)  # neither, plain, found, both
        shares = chance.dirichlet(kinds + 0.5, DRAWS)  # (draws, 4)
        lowest = np.minimum(lowest, np.stack([shares[:, 2] + shares[:, 3], shares[:, 1] + shares[:, 3]]))
    low, high = np.quantile(lowest[0] - lowest[1], [0.025, 0.975])
    value = found.worst[1].value - plain.worst[1].value
    return Estimate(value, min(value, float(low)), max(value, float(high)))
