"""Before and after: classifiers that saw images as they are, by weight, or with the factor of others; and who gains.

All are the same network, trained for as many steps, and tested on the same images. What counts is the accuracy where
the factor does not go along with the class. With groups that are known for test images it is the mean over pairs of
class and group; without, it is estimated by the weights of the test images, which undo the bias as those of training
images do. Ways are compared image by image; every word follows from an interval, and where it holds 0, nothing is
claimed.

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
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, Progress
from fabulate.uses.debias.debiaser import Debiaser
from fabulate.uses.debias.densities import Numbers

STEPS = 600
LEAST = 5  # images of a pair of class and group, below which its accuracy is not told

Show = Callable[[int, torch.Tensor], Batch]
"""What a classifier sees: step, indices (B,) -> images (B, C, H, W) and classes (B,)."""


def plain(images: Images, debiaser: Debiaser) -> Show:
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


WAYS: dict[str, Callable[[Images, Debiaser], Show]] = {
    "plain": plain,
    "weights": lambda images, debiaser: by_weight(images, debiaser.weights_, debiaser.seed),
    "recolour": recoloured,
}
"""How a classifier may be taught, by name."""


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


class Accuracies(NamedTuple):
    """How often a classifier is right on test images."""

    overall: Estimate
    """Of all of them, as biased as they are."""
    unbiased: Estimate
    """Estimated for images whose factor is independent of the class, by weights."""
    groups: dict[str, Estimate]
    """Of each group."""
    pairs: dict[str, Estimate]
    """Of each pair of class and group that has images enough."""
    right: npt.NDArray[np.bool_]
    """Which test images it found (N,)."""
    weights: Numbers
    """Of the test images (N,)."""
    members: dict[str, npt.NDArray[np.bool_]]
    """Of each of those pairs, which test images (N,)."""

    @property
    def balanced(self) -> Estimate | None:
        """The mean over all pairs, with the interval that their intervals make."""
        return mean_of([*self.pairs.values()]).within(0.0, 1.0) if self.pairs else None

    @property
    def worst(self) -> tuple[str, Estimate] | None:
        """The pair with the lowest accuracy."""
        return min(self.pairs.items(), key=lambda pair: pair[1].value, default=None)


def tested(
    classifier: Classifier, images: Images, weights: Numbers, classes: Sequence[str], groups: Sequence[str] | None
) -> Accuracies:
    """Test a classifier on images of known classes, of given weights (N,) and, where known, groups (N,)."""
    right = predict(classifier, images).numpy() == images.class_numbers
    named, paired, members = {}, {}, {}
    if groups is not None:
        of = np.array(groups)
        for group in sorted(set(groups)):
            inside = of == group
            named[group] = share(right[inside])
            for k, name in enumerate(classes):
                own = inside & (images.y == k)
                if own.sum() >= LEAST:
                    paired[f"{name}, {group}"], members[f"{name}, {group}"] = share(right[own]), own
    return Accuracies(
        share(right), weighted_mean(right, weights).within(0.0, 1.0), named, paired, right, weights, members
    )


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
    "recolour": "Teach with recoloured images?",
    "generated": "Teach with generated images?",
}
WORDS: dict[tuple[int, int], tuple[str, Grade]] = {
    (1, 1): ("it helps", "good"),
    (1, 0): ("it helps", "good"),
    (1, -1): ("it helps, at a price", "fair"),
    (0, 1): ("it helps, though not against the bias", "fair"),
    (0, 0): ("no difference to be seen", "unknown"),
    (0, -1): ("do not use this", "poor"),
    (-1, 1): ("do not use this", "poor"),
    (-1, 0): ("do not use this", "poor"),
    (-1, -1): ("do not use this", "poor"),
}
"""By the signs of the differences where the bias is undone and over all test images."""


def verdict(way: str, found: Accuracies, plain: Accuracies) -> Card:
    """What a classifier that was taught in a way is worth beside the plain one."""
    undone, overall = differences(found, plain)
    word, grade = WORDS[undone.sign, overall.sign]
    where = "on the mean of pairs of class and group" if plain.pairs else "with the bias undone by weights"
    because = f"Beside images as they are: {points(undone)} {where}, {points(overall)} over all test images."
    return Card(QUESTIONS[way], word, because, grade)


def verdicts(proofs: Mapping[str, Accuracies]) -> dict[str, Card]:
    """Of each way but the plain one."""
    return {way: verdict(way, found, proofs["plain"]) for way, found in proofs.items() if way != "plain"}


def differences(found: Accuracies, plain: Accuracies) -> tuple[Estimate, Estimate]:
    """By how much the accuracy differs from the plain one's: where the bias is undone, and over all test images."""
    values = found.right.astype(np.float64) - plain.right
    overall = weighted_mean(values, np.ones(len(values)))
    if not plain.members:
        return weighted_mean(values, plain.weights), overall
    parts = [weighted_mean(values[own], np.ones(int(own.sum()))) for own in plain.members.values()]
    return mean_of(parts), overall
