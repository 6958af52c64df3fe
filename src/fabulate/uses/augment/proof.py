"""Do synthetic images help? One classifier, trained in eight ways, tested on images that nothing was learnt from.

A generator cannot know more than its training images; what it may add is what its network assumes about how images of a
class vary. So the question is not whether synthetic images beat doing nothing, but whether they beat what is free. The
ways to train differ in the images, in how classes count, and in the random changes:

| baseline | images | classes | changed at random |
|---|---|---|---|
| real | real | as they come | no |
| classic | real | as they come | shifted |
| weights | real | weighed equally in the loss | shifted |
| balanced | real | drawn equally often | shifted |
| randaugment | real | drawn equally often | RandAugment |
| smote | real and, between neighbours, points on the line in pixels | as they come | no |
| synthetic | real and synthetic | as they come | no |
| both | real and a share of the synthetic | drawn equally often | as `balanced` or as `randaugment` |

SMOTE (Chawla et al., "SMOTE: synthetic minority over-sampling technique", 2002, https://doi.org/10.1613/jair.953)
makes as many images of each class as there are synthetic ones. The share of `both`, and which of the two changes it
takes, are chosen on validation images: a fifth of the real ones, which are learnt from afterwards. Its twin is the
baseline with the same changes, without synthetic images.

How sure is a difference when both the training and the test images have chance in them? Let r_si be 1 where the
classifier of seed s is right about test image i, or, for two ways of training compared seed by seed and image by image,
the difference of two such numbers, -1 to 1. The value is the mean over classes of the mean over a class's images,
averaged over seeds. Its chance has two parts that cross,

    v_seeds  = Var_s(value of seed s) / S,          S - 1 degrees of freedom,
    v_images = 1/K^2 sum_k Var_{i in k}(mean_s r_si) / n_k,

and their sum is, if anything, too large: what depends on seed and image together is counted in both. The interval is
Student's, with the degrees of freedom of such a sum (Welch, "The generalization of Student's problem when several
different population variances are involved", 1947, https://doi.org/10.1093/biomet/34.1-2.28). Each class's variance is
taken with one image added at either end, so that a class of few images, all alike, does not count as certain. It says
nothing of the generator's own chance: the synthetic images are the same for all seeds.

Legend: S seeds, N test images, K classes.
"""

from collections.abc import Callable
from math import ceil, inf, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.features import predict, train_classifier
from fabulate.features.trained import Change, enough_steps
from fabulate.metrics.intervals import Estimate
from fabulate.nets import transforms
from fabulate.seeds import permutation, seed_at
from fabulate.types import Progress
from fabulate.uses.augment.filters import inverse_counts
from fabulate.uses.augment.folder import joined, taken
from fabulate.uses.augment.pipeline import Balanced

NEIGHBOURS = 5  # of SMOTE, as in the paper
WITH = ("both", "synthetic")  # the ways with synthetic images
SHARES = (0.25, 0.5, 1.0)  # of the synthetic images
FEWEST_STEPS, MOST_STEPS = 600, 1000  # with random changes a network learns more slowly


class Baseline(NamedTuple):
    """One way to train."""

    words: str
    images: Callable[[Images, Images, int], Images]
    """From real images, synthetic ones and a seed."""
    weights: bool = False
    change: Change | None = None


def plain(real: Images, synthetic: Images, seed: int) -> Images:
    """The real images."""
    return real


def balanced(real: Images, synthetic: Images, seed: int) -> Images:
    """The real images, each class drawn equally often."""
    return Balanced(real.x, real.y)


def together(real: Images, synthetic: Images, seed: int) -> Images:
    """Real and synthetic images."""
    return joined(real, synthetic)


def mixed(share: float) -> Callable[[Images, Images, int], Images]:
    """Real images and a share of the synthetic ones of each class, each class drawn equally often."""

    def images(real: Images, synthetic: Images, seed: int) -> Images:
        own = [np.flatnonzero(synthetic.y == k) for k in np.unique(synthetic.class_numbers)]
        some = np.concatenate([numbers[: ceil(share * len(numbers))] for numbers in own])
        both = joined(real, taken(synthetic, some))
        return Balanced(both.x, both.y)

    return images


def smote(real: Images, synthetic: Images, seed: int) -> Images:
    """Real images and as many of SMOTE's of each class as there are synthetic ones; copies of a class's only image."""
    from imblearn.over_sampling import SMOTE

    added = synthetic.class_numbers
    x, parts = real.x.reshape(len(real), -1), [real]
    for k in np.unique(added):
        own = x[real.y == k]
        n = int((added == k).sum())
        if len(own) < 2:
            made = np.repeat(own, n, axis=0)
        else:
            # One class at a time: imblearn wants a second, larger class beside it, which it leaves alone.
            other = np.zeros((len(own) + n, x.shape[1]), np.float32)
            which = np.repeat([1, 0], [len(own), len(other)])
            sampler = SMOTE(
                sampling_strategy={1: len(own) + n},
                k_neighbors=min(NEIGHBOURS, len(own) - 1),
                random_state=seed_at(seed, "smote", int(k)) % 2**32,
            )
            grown, _ = sampler.fit_resample(np.concatenate([own.astype(np.float32), other]), which)
            made = grown[len(which) :]
        pixels = np.rint(made).clip(0, 255).astype(np.uint8).reshape(-1, *real.shape)
        parts.append(Images(pixels, np.full(n, k, np.int64)))
    return joined(*parts)


FREE: dict[str, Baseline] = {
    "real": Baseline("real images", plain),
    "classic": Baseline("real images, shifted", plain, change=transforms.shifts),
    "weights": Baseline("real images, classes weighed equally, shifted", plain, weights=True, change=transforms.shifts),
    "balanced": Baseline("real images, classes drawn equally often, shifted", balanced, change=transforms.shifts),
    "randaugment": Baseline(
        "real images, classes drawn equally often, by RandAugment", balanced, change=transforms.randaugment
    ),
    "smote": Baseline("real images and SMOTE's", smote),
}
"""Ways to train without synthetic images, by name. Colour images are mirrored as well as shifted."""
TWINS = ("balanced", "randaugment")
NAMES = (*FREE, "synthetic", "both")


class Recipe(NamedTuple):
    """How `both` trains, as validation images chose it."""

    share: float = 1.0
    """Of the synthetic images."""
    twin: str = "balanced"
    """The way with the same changes, without synthetic images."""

    def baselines(self) -> dict[str, Baseline]:
        """All ways to train, by name."""
        twin = FREE[self.twin]
        words = f"the same as {self.twin} with {100 * self.share:.0f} % of the synthetic images"
        return FREE | {
            "synthetic": Baseline("real and synthetic images", together),
            "both": twin._replace(words=words, images=mixed(self.share)),
        }


class Difference(NamedTuple):
    """How much more one way finds than another, on the same test images with the same seeds."""

    first: str
    second: str
    value: Estimate
    """Of balanced accuracy."""
    by_class: tuple[Estimate, ...]
    """Of each class's recall."""


class Proof(NamedTuple):
    """What came out."""

    classes: tuple[str, ...]
    right: dict[str, Tensor]
    """For each way to train, which test images it found: bool (S, N)."""
    y: Tensor
    """The classes of the test images (N,)."""
    sizes: dict[str, int]
    """Images each learnt from, those drawn again not counted twice."""
    steps: int
    recipe: Recipe = Recipe()

    def accuracy(self, name: str) -> Estimate:
        """The balanced accuracy of a way to train, 0 to 1, over all seeds."""
        return over_classes(self.right[name], self.y, 0.0)

    def recalls(self, name: str) -> list[Estimate]:
        """The share found of each class, over all seeds; nan for a class without test images."""
        return [self._of_class(self.right[name], k, 0.0) for k in range(len(self.classes))]

    def difference(self, first: str, second: str) -> Difference:
        """What the first finds more than the second."""
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
    """Train in every way with `seeds` seeds and test it; the generator must not have seen the test images either.

    All images are labelled by `classes`. `steps`: of 128 images each, the same for all; None: what is enough for
    the real images (40 epochs, but 600 to 1,000 steps). `progress`: called with (steps trained, in all).
    Errors: `ConfigError` for fewer than two seeds or images of unequal shapes; `DataError` for no test images.
    """
    if seeds < 2:
        raise ConfigError(f"a difference needs at least two seeds to have an interval; given {seeds}")
    if not real.shape == synthetic.shape == test.shape:
        raise ConfigError(f"images must be of one shape; given {real.shape}, {synthetic.shape} and {test.shape}")
    if not len(test) or test.y is None:
        raise DataError("there are no test images with classes")
    steps = steps or max(FEWEST_STEPS, enough_steps(len(real), MOST_STEPS))
    trainings, done = seeds * len(NAMES) + len(TWINS) + len(SHARES), 0

    def found(way: Baseline, real: Images, shown: Images, seed: int) -> Tensor:
        """Which images (N,) a classifier trained in this way finds."""
        nonlocal done
        before = done * steps

        def told(step: int, _: int) -> None:
            if progress is not None:
                progress(before + step, trainings * steps)

        classifier = train_classifier(
            way.images(real, synthetic, seed),
            classes,
            seed=seed,
            steps=steps,
            weights=inverse_counts(real, len(classes)) if way.weights else None,
            change=way.change,
            device=device,
            progress=told,
        )
        done += 1
        return predict(classifier, shown) == torch.from_numpy(shown.class_numbers)

    recipe = choose(real, found)
    right: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    ways = recipe.baselines()
    for seed in range(seeds):
        for name, way in ways.items():
            right[name].append(found(way, real, test, seed))
    sizes = {name: len(way.images(real, synthetic, 0).x) for name, way in ways.items()}
    rows = {name: torch.stack(each) for name, each in right.items()}
    return Proof(classes, rows, torch.from_numpy(test.y), sizes, steps, recipe)


def choose(real: Images, found: Callable[[Baseline, Images, Images, int], Tensor]) -> Recipe:
    """The recipe of `both` that finds most of a fifth of the real images, when the rest is learnt from."""
    held = validation(real)
    if not held.any():
        return Recipe()
    rest, shown = taken(real, np.flatnonzero(~held)), taken(real, np.flatnonzero(held))
    y = torch.from_numpy(shown.class_numbers)

    def score(way: Baseline) -> float:
        return over_classes(found(way, rest, shown, 0)[None], y, 0.0).value

    twin = max(TWINS, key=lambda name: score(FREE[name]))
    recipes = [Recipe(share, twin) for share in SHARES]
    return max(recipes, key=lambda recipe: score(recipe.baselines()["both"]))


def validation(real: Images) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which images (N,) choose the recipe: a fifth of each class that has five or more."""
    held = np.zeros(len(real), bool)
    for k in np.unique(real.class_numbers):
        own = np.flatnonzero(real.y == k)
        order = permutation(len(own), 0, "prove", "validation", int(k)).numpy()
        held[own[order[: len(own) // 5]]] = True
    return held


def over_classes(values: Tensor, y: Tensor, lowest: float) -> Estimate:
    """The mean over classes of values (S, N) within [lowest, 1], of images of classes y (N,), with its 95 % interval.

    One seed leaves the interval open: nan.

    >>> y = torch.tensor([0, 0, 0, 1])
    >>> over_classes(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), y, 0.0).value
    0.25
    """
    from scipy.stats import t

    value, parts = variances(values, y, lowest)
    if len(values) < 2:
        return Estimate(value)
    reach = float(t.ppf(0.975, freedom(parts))) * sqrt(sum(v for v, _ in parts))
    return Estimate(value, value - reach, value + reach).within(lowest, 1.0)


def variances(values: Tensor, y: Tensor, lowest: float) -> tuple[float, list[tuple[float, int]]]:
    """The mean over classes, and its variances with their degrees of freedom: by seeds first, then by each class."""
    values = values.double()
    own = [values[:, y == k] for k in sorted(set(y.tolist()))]
    by_seed = torch.stack([part.mean(1) for part in own]).mean(0)  # (S,)
    if len(values) < 2:
        return float(by_seed.mean()), []
    parts = [(float(by_seed.var()) / len(values), len(values) - 1)]
    ends = torch.tensor([lowest, 1.0], dtype=torch.float64)
    for part in own:
        n = part.shape[1]
        parts.append((float(torch.cat([part.mean(0), ends]).var()) / n / len(own) ** 2, n + 1))
    return float(by_seed.mean()), parts


def freedom(parts: list[tuple[float, int]]) -> float:
    """Welch's degrees of freedom of a sum of variances; infinite where all are 0."""
    below = sum(v**2 / df for v, df in parts)
    return sum(v for v, _ in parts) ** 2 / below if below else inf
