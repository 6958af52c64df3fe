"""What fewer evaluations of the network cost in quality: a trained model against itself, and against a distilled one.

By how many evaluations an image takes: the Fréchet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500) of
samples to real images, in the features of the images' own classifier, and the time. Features of a classifier do not see
every blur, so what becomes of the same noise in each way stands side by side as well.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

from fabulate.data import Data
from fabulate.features import features_for
from fabulate.metrics.distances import Moments, frechet_distance
from fabulate.models.base import GenerativeModel
from fabulate.pictures import sheet
from fabulate.stats import reference
from fabulate.types import Progress, to_uint8

SHOWN = 10  # samples of each way in the picture


class Way(NamedTuple):
    """A model, and how many evaluations a sample of it is to take."""

    name: str
    model: GenerativeModel
    evaluations: int


class Quality(NamedTuple):
    """What samples drawn in a way are like."""

    way: Way
    distance: float
    """Fréchet distance to real images; lower is better."""
    seconds: float
    """For an image."""


def quality_by_steps(
    ways: Sequence[Way], data: Data, n: int, seed: int = 0, progress: Progress | None = None
) -> tuple[list[Quality], Image.Image]:
    """Draw n samples in each way, the same noise each time; tells their quality, and shows the first of each.

    The real images are the test images, or the training images where there are none.
    """
    features = features_for(data, device=ways[0].model.device)
    real = reference(data, "train" if data.test is None else "test", features=features).moments
    found, shown = [], []
    for done, way in enumerate(ways):
        if progress is not None:
            progress(done, len(ways))
        began = time.perf_counter()
        samples = way.model.sample(n, seed=seed, evaluations=way.evaluations)
        seconds = (time.perf_counter() - began) / n
        distance = frechet_distance(Moments.of(features(samples), "samples"), real)
        found.append(Quality(way, float(distance), seconds))
        shown.append(to_uint8(samples[:SHOWN]).cpu())
    rows = torch.arange(len(ways)).repeat_interleave(len(shown[0])).numpy()
    names = [f"{way.name}, {way.evaluations}" for way in ways]
    title, words = "The same noise by fewer evaluations", "each row: the model, and evaluations for an image"
    return found, sheet(torch.cat(shown).numpy(), title, words, rows, names, columns=SHOWN)
