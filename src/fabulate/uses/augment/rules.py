"""Which samples are kept: a rule that can be stated, and counts of what it turned away.

A sample asked to be of class k is kept when all of these hold.

* A classifier, trained on the same real images (shifted at random, classes weighed equally), takes it for a k. Samples
  that look like another class would teach errors (Ravuri, Vinyals, "Seeing is not necessarily believing: limitations of
  BigGANs for data augmentation", 2019, https://openreview.net/forum?id=rJMw747l_4).
* It is near its class. In the classifier's features the distance to the nearest real k is at most `FAR` times what it
  usually is between real ones: the median, over the real k, of the distance to the nearest other k.
* It is new. In pixels, no training image of any class is nearer than `COPY` of that median. A copy of an image adds
  nothing to it, and gives it away.

Legend: N samples, M images of a class, D features, C H W image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.features import Classifier, predict, train_classifier
from fabulate.features.base import NetworkFeatures
from fabulate.features.classifier import enough_steps
from fabulate.features.pixels import Pixels
from fabulate.metrics.distances import nearest_rows

FAR = 3.0
COPY = 0.25
STEPS = 600  # of the classifier at most: it must see what is plainly of another class, no more
Progress = Callable[[int, int], None]


class Verdict(NamedTuple):
    """What each rule says of samples: bool (N,) each, true where it turns a sample away."""

    misread: Tensor
    """The classifier sees another class."""
    far: Tensor
    """Unlike any real image of the class."""
    copied: Tensor
    """Too near to a training image."""

    @property
    def kept(self) -> Tensor:
        """Which samples pass all rules (N,)."""
        return ~(self.misread | self.far | self.copied)


class Place(NamedTuple):
    """Real images of one class as vectors (M, D), float64, and how far each usually is from its nearest other."""

    rows: Tensor
    usual: float
    """nan for a class of one image, of which nothing is known: then no sample is far, and only an equal one copied."""

    @classmethod
    def of(cls, rows: Tensor) -> "Place":
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
class Judge:
    """What is known of the training images, and decides."""

    classifier: Classifier
    features: NetworkFeatures
    in_features: list[Place]
    """Of each class."""
    in_pixels: list[Place]

    @classmethod
    def of(
        cls, images: Images, classes: tuple[str, ...], *, seed: int = 0, progress: Progress | None = None
    ) -> "Judge":
        """A judge that knows these labelled images. `progress`: called with (steps trained, in all).

        Errors: `ConfigError` for images whose sides are not 8 to 64.
        """
        assert images.y is not None
        classifier = train_classifier(
            images,
            classes,
            seed=seed,
            steps=min(STEPS, enough_steps(len(images))),
            weights=even(images, len(classes)),
            augment=True,
            progress=progress,
        )
        features = NetworkFeatures(classifier.trunk, "referee", dim=classifier.trunk.dim)
        own = [torch.from_numpy(images.x[images.y == k]) for k in range(len(classes))]
        return cls(
            classifier,
            features,
            [Place.of(features(x)) for x in own],
            [Place.of(Pixels()(x)) for x in own],
        )

    def verdict(self, images: Tensor, k: int) -> Verdict:
        """What the rules say of uint8 samples (N, C, H, W) that are to be of class k."""
        copied = torch.zeros(len(images), dtype=torch.bool)
        pixels = Pixels()(images)
        for place in self.in_pixels:
            distances = place.distances(pixels)
            copied |= (distances == 0) | (distances < COPY * place.usual)
        place = self.in_features[k]
        return Verdict(
            misread=predict(self.classifier, Images(images.numpy())) != k,
            far=place.distances(self.features(images)) > FAR * place.usual,
            copied=copied,
        )


def even(images: Images, classes: int) -> Tensor:
    """Weights (K,) of classes under which all count alike; 0 for a class without images."""
    assert images.y is not None
    counts = np.bincount(images.y, minlength=classes)
    return torch.from_numpy(np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0))
