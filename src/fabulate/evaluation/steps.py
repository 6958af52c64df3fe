"""What fewer evaluations of the network cost in quality: a trained model against itself, and against a distilled one.

By how many evaluations an image takes: the Fréchet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500) of
samples to real images, in features of a network that learnt these images, and the time. Such features do not see every
blur, so what becomes of the same noise in each way stands side by side as well.
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
from fabulate.stats import Part, reference
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
) -> tuple[list[Quality], Image.Image, str]:
    """Draw n samples (at least 2) in each way, the same noise each time: their quality, the first of each in a picture,
    and a phrase on what they are compared with: test images, or training images where there are none.
    """
    features = features_for(data, device=ways[0].model.device)
    part: Part = "train" if data.test is None else "test"
    real = reference(data, part, features=features).moments
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
    picture = sheet(torch.cat(shown).numpy(), title, words, rows, names, columns=SHOWN)
    return (
        found,
        picture,
        f"compared with {real.n:,} {'training' if part == 'train' else part} images, features: {features.name}",
    )
