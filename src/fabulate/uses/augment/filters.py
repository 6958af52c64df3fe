"""Rejection sampling: draw samples of a class until enough of them pass stated filters, and count what did not.

A sample asked to be of class k is kept when all of these hold.

* A classifier, trained on the same real images (shifted at random, classes weighed equally), takes it for a k. Samples
  that look like another class would teach errors (Ravuri, Vinyals, "Seeing is not necessarily believing: limitations of
  BigGANs for data augmentation", 2019, https://openreview.net/forum?id=rJMw747l_4).
* It is near its class. In the classifier's features the distance to the nearest real k is at most `FAR` times what it
  usually is between real ones: the median, over the real k, of the distance to the nearest other k.
* It is new. In pixels, no training image of any class is nearer than `COPY` of that median. A copy of an image adds
  nothing to it, and gives it away.

Samples are addressed (seed of the class, number), so that the manifest's seeds and numbers give every image again.

Legend: N samples, M images of a class, D features, C H W image, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.data.listing import Labels
from fabulate.errors import DataError
from fabulate.features import Classifier, predict, train_classifier
from fabulate.features.base import NetworkFeatures, Pixels
from fabulate.features.trained import enough_steps
from fabulate.metrics.manifold import nearest_rows
from fabulate.models import GenerativeModel
from fabulate.models.base import TILE
from fabulate.nets import transforms
from fabulate.seeds import seed_at
from fabulate.types import Progress, to_uint8

FAR = 3.0
COPY = 0.25
STEPS = 600  # of the classifier at most: it must see what is plainly of another class, no more
BATCH = 8 * TILE  # drawn and filtered at a time
PATIENCE = 10  # samples drawn for each that is wanted, at most


class Rejected(NamedTuple):
    """What each filter says of samples: bool (N,) each, true where it turns a sample away."""

    misread: Tensor
    """The classifier sees another class."""
    far: Tensor
    """Unlike any real image of the class."""
    copied: Tensor
    """Too near to a training image."""

    @property
    def kept(self) -> Tensor:
        """Which samples pass all filters (N,)."""
        return ~(self.misread | self.far | self.copied)


class Neighbours(NamedTuple):
    """Real images of one class as vectors (M, D), float64, and how far each usually is from its nearest other."""

    rows: Tensor
    usual: float
    """nan for a class of one image, of which nothing is known: then no sample is far, and only an equal one copied."""

    @classmethod
    def of(cls, rows: Tensor) -> "Neighbours":
        rows = rows.double()
        if len(rows) < 2:
            return cls(rows, nan)
        apart = nearest_rows(rows, rows, but=torch.arange(len(rows)))[1]
        apart = apart[apart > 0]  # images that somebody repeated say nothing of how images of the class differ
        return cls(rows, float(apart.median()) if len(apart) else nan)

    def distances(self, rows: Tensor) -> Tensor:
        """From vectors (N, D) to the nearest of the class (N,)."""
        return nearest_rows(rows.double(), self.rows)[1]


@dataclass(frozen=True, eq=False)
class Filters:
    """What is known of the training images, and decides which samples are kept."""

    classifier: Classifier
    features: NetworkFeatures
    in_features: list[Neighbours]
    """Of each class."""
    in_pixels: list[Neighbours]

    @classmethod
    def of(
        cls, images: Images, classes: tuple[str, ...], *, seed: int = 0, progress: Progress | None = None
    ) -> "Filters":
        """Filters that know these labelled images. `progress`: called with (steps trained, in all).

        Errors: `ConfigError` for images whose sides are not 8 to 256.
        """
        classifier = train_classifier(
            images,
            classes,
            seed=seed,
            steps=min(STEPS, enough_steps(len(images))),
            weights=inverse_counts(images, len(classes)),
            change=transforms.shifts,
            progress=progress,
        )
        features = NetworkFeatures(classifier.trunk, "referee", dim=classifier.trunk.dim)
        own = [torch.from_numpy(images.x[images.y == k]) for k in range(len(classes))]
        return cls(
            classifier,
            features,
            [Neighbours.of(features(x)) for x in own],
            [Neighbours.of(Pixels()(x)) for x in own],
        )

    def rejected(self, images: Tensor, k: int) -> Rejected:
        """What the filters say of uint8 samples (N, C, H, W) that are to be of class k."""
        copied = torch.zeros(len(images), dtype=torch.bool)
        pixels = Pixels()(images)
        for known in self.in_pixels:
            distances = known.distances(pixels)
            copied |= (distances == 0) | (distances < COPY * known.usual)
        known = self.in_features[k]
        return Rejected(
            misread=predict(self.classifier, Images(images.numpy())) != k,
            far=known.distances(self.features(images)) > FAR * known.usual,
            copied=copied,
        )


def inverse_counts(images: Images, classes: int) -> Tensor:
    """Weights (K,) of classes under which all count alike; 0 for a class without images."""
    counts = np.bincount(images.class_numbers, minlength=classes)
    return torch.from_numpy(np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0))


class Tally(NamedTuple):
    """What became of the samples of one class. A sample that two filters turn away counts for both."""

    wanted: int
    drawn: int = 0
    kept: int = 0
    misread: int = 0
    far: int = 0
    copied: int = 0

    def __str__(self) -> str:
        """In words.

        >>> print(Tally(wanted=50, drawn=256, kept=40, misread=200, far=30, copied=0))
        40 of 50 made from 256 samples; 200 look like another class, 30 unlike their own, 0 copy a training image
        """
        return (
            f"{self.kept:,} of {self.wanted:,} made from {self.drawn:,} samples; {self.misread:,} look like another "
            f"class, {self.far:,} unlike their own, {self.copied:,} copy a training image"
        )


class Synthetic(NamedTuple):
    """Samples that passed, and where each came from."""

    images: Images
    """Numbered by the classes of the data."""
    numbers: Labels
    """Of each, which sample of its class's seed it is (N,)."""
    seeds: dict[str, int]
    """Of each class that was drawn."""
    tallies: dict[str, Tally]


def rejection_sampling(
    model: GenerativeModel,
    filters: Filters,
    lacking: Mapping[str, int],
    classes: tuple[str, ...],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthetic:
    """Samples of each class that lacks some, as many as it lacks, or as pass of ten times as many.

    `classes`: the data's, by which the filters number them. `progress`: called with (kept, wanted) over all classes.
    Errors: `DataError` when not one sample passes.
    """
    total = sum(lacking.values())
    x, y, numbers, seeds, tallies = [], list[int](), list[int](), {}, {}
    for name, wanted in lacking.items():
        if not wanted:
            continue
        k, tally = classes.index(name), Tally(wanted)
        seeds[name] = seed_at(seed, "augment", name)
        while tally.kept < wanted and tally.drawn < max(BATCH, PATIENCE * wanted):
            images = to_uint8(model.sample(BATCH, name, seed=seeds[name], start=tally.drawn)).cpu()
            rejected = filters.rejected(images, k)
            passed = rejected.kept.nonzero().flatten()[: wanted - tally.kept]
            x.append(images[passed].numpy())
            y += [k] * len(passed)
            numbers += (tally.drawn + passed).tolist()
            counts = (BATCH, len(passed), *(int(part.sum()) for part in rejected))
            tally = Tally(wanted, *(before + more for before, more in zip(tally[1:], counts, strict=True)))
            if progress is not None:
                progress(len(numbers), total)
        tallies[name] = tally
    if not numbers:
        told = "; ".join(f"{name}: {tally}" for name, tally in tallies.items())
        raise DataError(f"no sample passes the filters ({told}): train longer, or give another family or --run")
    return Synthetic(Images(np.concatenate(x), np.array(y, np.int64)), np.array(numbers, np.int64), seeds, tallies)
