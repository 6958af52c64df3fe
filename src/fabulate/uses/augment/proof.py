"""Do synthetic images help? The same classifier, trained in six ways, tested on images that nothing was learnt from.

A generator cannot know more than its training images; what it may add is what its network assumes about how images of a
class vary. So the question is not whether synthetic images beat doing nothing, but whether they beat what is free. The
ways to train are told apart by what is done about rare classes and nothing else:

| baseline | images | classes weighed | shifted at random |
|---|---|---|---|
| real | real | no | no |
| weights | real | equally | no |
| classic | real | no | yes |
| smote | real and, between neighbours, points on the line in pixels | no | no |
| synthetic | real and synthetic | no | no |
| both | real and synthetic | no | yes |

Two comparisons decide: `both` against `classic`, and `synthetic` against `real`, the same training with and without
synthetic images. SMOTE (Chawla et al., "SMOTE: synthetic minority over-sampling technique", 2002,
https://doi.org/10.1613/jair.953) makes as many images of each class as there are synthetic ones.

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
nothing of the generator's own chance: the synthetic images are the same for all seeds. Every sentence of a verdict
follows from an interval; where it holds 0, nothing is claimed.

Legend: S seeds, N test images, K classes.
"""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.features import predict, train_classifier
from fabulate.features.trained import enough_steps
from fabulate.metrics.intervals import Estimate
from fabulate.report import Grade
from fabulate.report import points as points_to
from fabulate.seeds import seed_at
from fabulate.types import Progress
from fabulate.uses.augment.filters import inverse_counts
from fabulate.uses.augment.folder import joined

NEIGHBOURS = 5  # of SMOTE, as in the paper
WITH = ("both", "synthetic")  # the ways with synthetic images
FEW = 30  # test images of a class below which its recall is hardly known

BEST: dict[tuple[int, int], tuple[str, Grade, str]] = {
    (1, 1): ("yes", "good", "Synthetic images helped, with and without random shifts."),
    (1, 0): ("yes", "good", "Synthetic images helped on top of random shifts."),
    (1, -1): ("yes", "good", "Synthetic images helped on top of random shifts; without shifts they did harm."),
    (0, 1): ("only a little", "fair", "Synthetic images helped only where nothing else was done: random shifts, which "
             "cost nothing, make up for them."),
    (0, 0): ("no", "poor", "Synthetic images did not help here, or by less than this test can see."),
    (0, -1): ("no", "poor", "Synthetic images did not help here; without random shifts they did harm."),
    (-1, 1): ("no", "poor", "Synthetic images did harm on top of random shifts: leave them out, and shift."),
    (-1, 0): ("no", "poor", "Synthetic images did harm on top of random shifts."),
    (-1, -1): ("no", "poor", "Synthetic images did harm, with and without random shifts."),
}  # fmt: skip
"""By the signs of both - classic and of synthetic - real: in a word, the grade, in a sentence."""


class Baseline(NamedTuple):
    """One way to train."""

    words: str
    images: Callable[[Images, Images, int], Images]
    """From real images, synthetic ones and a seed."""
    weights: bool = False
    augment: bool = False


def plain(real: Images, synthetic: Images, seed: int) -> Images:
    """The real images."""
    return real


def together(real: Images, synthetic: Images, seed: int) -> Images:
    """Real and synthetic images."""
    return joined(real, synthetic)


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


BASELINES: dict[str, Baseline] = {
    "real": Baseline("real images", plain),
    "weights": Baseline("real images, classes weighed equally", plain, weights=True),
    "classic": Baseline("real images, shifted at random", plain, augment=True),
    "smote": Baseline("real images and SMOTE's", smote),
    "synthetic": Baseline("real and synthetic images", together),
    "both": Baseline("real and synthetic images, shifted at random", together, augment=True),
}
"""Ways to train by name, the last two with synthetic images. Colour images are mirrored as well as shifted."""
PAIRS = [(first, second) for first in WITH for second in BASELINES if second not in WITH]


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
    """Images each learnt from."""
    steps: int

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
    y, weights = torch.from_numpy(test.y), inverse_counts(real, len(classes))
    total, done, sizes = seeds * len(BASELINES) * steps, 0, {}
    right: dict[str, list[Tensor]] = {name: [] for name in BASELINES}
    for seed in range(seeds):
        for name, way in BASELINES.items():
            images = way.images(real, synthetic, seed)

            def told(step: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + step, total)

            classifier = train_classifier(
                images,
                classes,
                seed=seed,
                steps=steps,
                weights=weights if way.weights else None,
                augment=way.augment,
                device=device,
                progress=told,
            )
            right[name].append(predict(classifier, test) == y)
            sizes[name] = len(images)
            done += steps
    return Proof(classes, {name: torch.stack(rows) for name, rows in right.items()}, y, sizes, steps)


def over_classes(values: Tensor, y: Tensor, lowest: float) -> Estimate:
    """The mean over classes of values (S, N) within [lowest, 1], of images of classes y (N,), with its 95 % interval.

    One seed leaves the interval open: nan.

    >>> y = torch.tensor([0, 0, 0, 1])
    >>> over_classes(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), y, 0.0).value
    0.25
    """
    from scipy.stats import t

    values = values.double()
    own = [values[:, y == k] for k in sorted(set(y.tolist()))]
    by_seed = torch.stack([part.mean(1) for part in own]).mean(0)  # (S,)
    value = float(by_seed.mean())
    if len(values) < 2:
        return Estimate(value)
    parts = [(float(by_seed.var()) / len(values), len(values) - 1)]  # variances and their degrees of freedom
    ends = torch.tensor([lowest, 1.0], dtype=torch.float64)
    for part in own:
        n = part.shape[1]
        parts.append((float(torch.cat([part.mean(0), ends]).var()) / n / len(own) ** 2, n + 1))
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    reach = float(t.ppf(0.975, freedom)) * sqrt(variance)
    return Estimate(value, value - reach, value + reach).within(lowest, 1.0)


# What it says


class Verdict(NamedTuple):
    """The answer to "did synthetic images help?"."""

    word: str
    grade: Grade
    sentences: tuple[str, ...]


def verdict(proof: Proof) -> Verdict:
    """What the differences say.

    The first sentence answers; then the numbers behind it, the classes that gained or lost, and what must be known.
    """
    with_shifts, without = proof.difference("both", "classic"), proof.difference("synthetic", "real")
    word, grade, first = BEST[with_shifts.value.sign, without.value.sign]
    plain = [name for name in BASELINES if name not in WITH]
    best = max(WITH, key=lambda name: proof.accuracy(name).value)
    better = [name for name in plain if proof.difference(best, name).value.sign < 0]
    if better and with_shifts.value.sign >= 0:
        word, grade = "no", "poor"
        first = (
            f"Synthetic images did not help here: {listed(better)} without them is better than either way with them."
        )
    sentences = [
        first,
        f"Balanced accuracy: {points(with_shifts.value)} with random shifts (both against classic), "
        f"{points(without.value)} without (synthetic against real).",
    ]
    beaten = [name for name in plain if proof.difference(best, name).value.sign > 0]
    rest = [name for name in plain if name not in beaten]
    sentences.append(
        f"The better way with synthetic images, {best}, is significantly better than {listed(beaten)}"
        + (f", and not than {listed(rest)}." if rest else ".")
        if beaten
        else f"The better way with synthetic images, {best}, is not significantly better than any without them."
    )
    sentences += changed(proof, with_shifts)
    counts = {name: int((proof.y == k).sum()) for k, name in enumerate(proof.classes)}
    few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
    if few:
        sentences.append(f"Few test images, so little is known of: {', '.join(few)}.")
    return Verdict(word, grade, tuple(sentences))


def changed(proof: Proof, difference: Difference) -> list[str]:
    """Which classes gained and which lost, for certain."""
    by_class = list(zip(proof.classes, difference.by_class, strict=True))
    found = []
    for words, told in (
        ("Found more often", [(name, d) for name, d in by_class if d.low > 0]),
        ("Found less often", [(name, d) for name, d in by_class if d.high < 0]),
    ):
        if told:
            found.append(f"{words} than with random shifts alone: " + "; ".join(f"{n}: {points(d)}" for n, d in told))
    return [f"{sentence}." for sentence in found]


def points(difference: Estimate) -> str:
    """To hundredths of a point: intervals here are that narrow."""
    return points_to(difference, 2)


def listed(names: list[str]) -> str:
    """Names with commas and an "and".

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
