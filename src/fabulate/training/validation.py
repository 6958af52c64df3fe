"""What chooses the weights that are kept: the loss of validation images and, if asked, the quality of samples.

A part of the training images is not learnt from. A model that memorises its images goes on to fit them better and new
ones worse (overfitting): the training loss falls while the validation loss rises. So the weights with the lowest
validation loss are kept, and training stops early once that loss keeps rising (early stopping; Prechelt 1998, "Early
stopping - but when?"). The test images have no say in it: what chooses must not be what judges in the end.
"""

import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.data.images import Items, Sequences
from fabulate.files import digest
from fabulate.models import GenerativeModel
from fabulate.seeds import permutation, seeded
from fabulate.training.devices import take
from fabulate.types import BatchSource

if TYPE_CHECKING:
    from fabulate.features import Features
    from fabulate.metrics.distances import Moments

TEST_BATCH = 500  # images scored together, fewer of large ones
VALIDATIONS = 40  # times in a run that the validation loss is measured
PATIENCE = 10  # validations without a better one, a quarter of the budget, before training may stop
RISE = 0.02  # of the way that the loss fell from the first validation to the best: a rise that is no noise
PORTION = 4096  # images hashed at a time: they may lie on the disk
FEWEST, MOST = 10, 2000  # validation images: a loss of fewer says too little, of more it costs too much

SHARE = 0.1  # of the training time that measuring samples may take
SAMPLES = 1000  # enough to rank the steps of one run; the distance itself would fall with more
REAL = 10_000  # training images compared with, at most


def split(images: BatchSource, share: float, seed: int) -> tuple[Tensor, Tensor] | None:
    """Numbers of the images to learn from and of those to validate with; None where these would be too few.

    The same share of each class is held out, rounded down, so that a rare class loses none of a handful of images.
    Images with equal pixels go to one side together, since on both memorising would look like generalising; one that
    has several classes is learnt from.
    `images`: those of a data set; streamed or weighted ones, which are read in an order of their own, are not split.

    >>> [len(part) for part in split(Images(np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)), 0.1, seed=0)]
    [180, 20]
    """
    if type(images) not in (Images, Sequences):  # its subclasses read in ways of their own
        return None
    assert isinstance(images, Items)
    n = len(images)
    y = np.zeros(n, np.int64) if images.y is None else images.y
    first = first_copies(images)
    copies = np.bincount(first, minlength=n)  # of each that is the first
    copies[first[y != y[first]]] = 0
    left = (min(share, MOST / n) * np.bincount(y)).astype(int)  # places of each class
    held = []
    for i in permutation(n, seed, "validation").tolist():
        if 0 < copies[i] <= left[y[i]]:
            left[y[i]] -= copies[i]
            held.append(i)
    validating = np.isin(first, held)
    if validating.sum() < FEWEST:
        return None
    return torch.from_numpy(np.flatnonzero(~validating)), torch.from_numpy(np.flatnonzero(validating))


def first_copies(images: Items) -> npt.NDArray[np.int64]:
    """For each of N images the number (N,) of the first one whose pixels equal its own.

    >>> first_copies(Images(np.array([7, 3, 7], np.uint8).reshape(3, 1, 1, 1))).tolist()
    [0, 1, 0]
    """
    seen: dict[str, int] = {}
    numbers = np.zeros(len(images), np.int64)
    for start in range(0, len(images), PORTION):
        part = torch.arange(start, min(start + PORTION, len(images)))
        numbers[part] = [seen.setdefault(digest(image), start + i) for i, image in enumerate(images.pixels(part))]
    return numbers


class Validation:
    """The validation losses of a training, and the weights of the best."""

    def __init__(self) -> None:
        self.first = float("nan")  # the loss at the first validation
        self.latest = float("nan")
        self.best: tuple[int, float, dict[str, Tensor]] | None = None  # step, loss, weights
        self.since = 0  # validations since then

    def record(self, step: int, loss: float, model: GenerativeModel) -> None:
        """Take in the loss of a step, and its model's weights where none before were better."""
        if self.best is None:
            self.first = loss
        self.latest = loss
        if isfinite(loss) and (self.best is None or loss < self.best[1]):  # nothing is less than what is no number
            self.best = step, loss, {name: value.clone() for name, value in model.state_dict().items()}
            self.since = 0
        else:
            self.since += 1

    @property
    def overfitting(self) -> bool:
        """Whether the loss has risen since the best validation, by more than noise."""
        return self.best is not None and self.latest - self.best[1] > RISE * (self.first - self.best[1])

    @property
    def should_stop(self) -> bool:
        """Whether the loss has been rising for so long that training on is in vain."""
        return self.overfitting and self.since >= PATIENCE

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {"first": self.first, "latest": self.latest, "best": self.best, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.first, self.latest, self.since = state["first"], state["latest"], state["since"]
        self.best = None if state["best"] is None else tuple(state["best"])


class SampleQuality:
    """The Fréchet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500) of samples to the training images.

    It is that of 1,000 samples, always from the same noise, after every so many steps, within a tenth of the training
    time: a measurement that would take more is skipped. How long one takes is first told by a few samples.
    """

    def __init__(self, every: int, features: "Features", real: "Moments") -> None:
        self.every, self.features, self.real = every, features, real
        self.spent = 0.0  # seconds, in this session
        self.expected: float | None = None  # seconds that a measurement takes
        self.measured, self.skipped = 0, 0

    @classmethod
    def of(cls, every: int, data: Data, device: torch.device) -> "SampleQuality":
        """Compares with the training images, whose features are made once and kept (`features_for`)."""
        from fabulate.features import features_for  # all features and metrics come with it
        from fabulate.stats import reference

        features = features_for(data, device=device)
        n = min(REAL, len(data.train))
        return cls(every, features, reference(data, "train", features=features, n=n).moments)

    def due(self, step: int, seconds: float, model: Callable[[], GenerativeModel]) -> bool:
        """Whether to measure after so many steps, which took so many seconds in this session."""
        if step % self.every:
            return False
        if self.expected is None:
            began = time.perf_counter()
            sampler = model()  # a family may fit something first, once for all samples
            ready = time.perf_counter()
            self.features(sampler.sample(sampler.rows))
            self.spent = time.perf_counter() - began
            self.expected = ready - began + (time.perf_counter() - ready) * SAMPLES / sampler.rows
        fits = self.spent + self.expected <= SHARE * seconds
        self.skipped += not fits
        return fits

    def measure(self, model: GenerativeModel) -> float:
        """The distance of a model's first 1,000 samples to the training images."""
        from fabulate.metrics.distances import Moments, frechet_distance

        began = time.perf_counter()
        distance = frechet_distance(Moments.of(self.features(model.sample(SAMPLES)), "samples"), self.real)
        self.expected = time.perf_counter() - began
        self.spent += self.expected
        self.measured += 1
        return distance

    def summary(self, seconds: float) -> str:
        """What it has cost, for the end of a session of so many seconds of training."""
        skipped = f"; {self.skipped} more were skipped to stay below {SHARE:.0%}" if self.skipped else ""
        return (
            f"Measuring samples {self.measured} times took {self.spent / max(seconds, 1e-9):.1%} of the time{skipped}."
        )


@torch.no_grad()
def score_images(model: GenerativeModel, images: BatchSource, seed: int) -> dict[str, float]:
    """The mean of the model's test terms over all images, each counted once; noise is addressed by the seed."""
    model.eval()
    sums: dict[str, float] = {}
    together = model.shape.together(TEST_BATCH)
    for first in range(0, len(images), together):
        batch = take(images, torch.arange(first, min(first + together, len(images))), model, model.device).floats()
        with seeded(seed, "test", first, device=model.device):
            terms = model.test_terms(batch)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.x) / len(images)
    return sums
