"""Do synthetic images help? The same classifier, trained in six ways, tested on images that nothing was learnt from.

A generator cannot know more than its training images; what it may add is what its network assumes about how images of a
class vary. So the question is not whether synthetic images beat doing nothing, but whether they beat what is free:
class weights, SMOTE, random shifts. Two comparisons decide: `both` against `classic`, the same training with and
without synthetic images where images are shifted, and `synthetic` against `real`, where they are not.

Legend: A arms, S seeds, N test images, K classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.features import predict, train_classifier
from fabulate.features.classifier import enough_steps
from fabulate.metrics.intervals import Estimate
from fabulate.uses.augment.rules import even
from fabulate.uses.prove.arms import ARMS, Material
from fabulate.uses.prove.intervals import over_classes

PAIRS = [(first, second) for first in ("both", "synthetic") for second in ARMS if second not in ("both", "synthetic")]

Progress = Callable[[int, int], None]


class Difference(NamedTuple):
    """How much more one arm finds than another, on the same test images with the same seeds."""

    first: str
    second: str
    value: Estimate
    """Of balanced accuracy."""
    by_class: tuple[Estimate, ...]
    """Of each class's recall."""

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is above or below 0, else 0."""
        return int(self.value.low > 0) - int(self.value.high < 0)


class Proof(NamedTuple):
    """What came out."""

    classes: tuple[str, ...]
    right: dict[str, Tensor]
    """For each arm, which test images it found: bool (S, N)."""
    y: Tensor
    """The classes of the test images (N,)."""
    sizes: dict[str, int]
    """Images each arm learnt from."""
    steps: int

    def accuracy(self, arm: str) -> Estimate:
        """The balanced accuracy of an arm, 0 to 1, over all seeds."""
        return over_classes(self.right[arm], self.y, 0.0)

    def recalls(self, arm: str) -> list[Estimate]:
        """The share found of each class, over all seeds; nan for a class without test images."""
        return [self._of_class(self.right[arm], k, 0.0) for k in range(len(self.classes))]

    def difference(self, first: str, second: str) -> Difference:
        """What the first arm finds more than the second."""
        values = self.right[first].double() - self.right[second].double()
        by_class = tuple(self._of_class(values, k, -1.0) for k in range(len(self.classes)))
        return Difference(first, second, over_classes(values, self.y, -1.0), by_class)

    def _of_class(self, values: Tensor, k: int, lowest: float) -> Estimate:
        own = self.y == k
        return over_classes(values[:, own], self.y[own], lowest) if own.any() else Estimate(float("nan"))


def prove(
    real: Images,
    synthetic: Images,
    test: Images,
    classes: tuple[str, ...],
    *,
    seeds: int = 5,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Proof:
    """Train every arm with `seeds` seeds and test it; no test image may have been learnt from, by the generator either.

    All images are labelled by `classes`. `steps`: of 128 images each, the same for all arms; None: what is enough for
    the real images (40 epochs, but 300 to 2,000 steps). `progress`: called with (steps trained, in all).
    Errors: `ConfigError` for fewer than two seeds or images of unequal shapes; `DataError` for no test images.
    """
    if seeds < 2:
        raise ConfigError(f"a difference needs at least two seeds to have an interval; given {seeds}")
    if not real.shape == synthetic.shape == test.shape:
        raise ConfigError(f"images must be of one shape; given {real.shape}, {synthetic.shape} and {test.shape}")
    if not len(test) or test.y is None:
        raise DataError("there are no test images with classes")
    steps = steps or enough_steps(len(real))
    material, y = Material(real, synthetic), torch.from_numpy(test.y)
    weights = even(real, len(classes))
    total, done, sizes = seeds * len(ARMS) * steps, 0, {}
    right: dict[str, list[Tensor]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name, arm in ARMS.items():
            images = arm.images(material, seed)

            def told(step: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + step, total)

            classifier = train_classifier(
                images,
                classes,
                seed=seed,
                steps=steps,
                weights=weights if arm.weights else None,
                augment=arm.augment,
                device=device,
                progress=told,
            )
            right[name].append(predict(classifier, test) == y)
            sizes[name] = len(images)
            done += steps
    return Proof(classes, {name: torch.stack(rows) for name, rows in right.items()}, y, sizes, steps)
