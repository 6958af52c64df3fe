"""How long a training will take, measured before it begins where images are large enough that it could be too long.

A model of the same kind takes a few steps on noise and is thrown away. From the seconds of a step follow those of the
budget, and from a pass forward those of a sample. What takes too long is said, with a smaller size that was measured to
fit: networks that fold pixels into patches take hardly less time for fewer pixels, so no rule would know it.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.config import Training, override, written_size
from fabulate.errors import ConfigError
from fabulate.models.base import SHOWN, GenerativeModel
from fabulate.seeds import generator
from fabulate.training.loop import Learner, total_steps
from fabulate.training.progress import lasting
from fabulate.training.session import BACKWARD, PICTURES
from fabulate.types import Batch, BatchSource, ImageShape

LARGE = 64 * 64  # numbers of an image: up to these a step of the default networks is a fraction of a second
LONG = 3600.0  # seconds of a training that are worth a word
ENDLESS = 7 * 24 * 3600.0  # and those that nobody can mean
FEW, HOPELESS = 200, 10  # steps within a budget in minutes: too few to learn much, and to learn anything
SLOW = 10.0  # seconds for the fewest samples that are drawn together
FIRST, SECOND = 2, 8  # images of the steps that are measured: part of a step's time does not grow with its images
MANY = 1000  # steps of a budget that is begun here and there
LATE = 2.0  # seconds of the first from which on that part is small, and the second would take too long
SMALLER = (3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8)  # of the sides, in this order

Make = Callable[[ImageShape], GenerativeModel]


class Pace(NamedTuple):
    """Seconds of a step, and of an image that is drawn; how many images are drawn together, and are in a step."""

    step: float
    image: float
    together: int
    batch: int


class Foreseen(NamedTuple):
    """What a training will take."""

    pace: Pace
    steps: float
    """Of the whole budget, or as many as its minutes allow."""
    seconds: float
    minutes: float | None

    @property
    def fits(self) -> bool:
        """Whether nothing of it takes too long."""
        return not (self.long or self.few or self.slow)

    @property
    def long(self) -> bool:
        """Whether it takes longer than anybody expects who gave no minutes."""
        return self.minutes is None and self.seconds > LONG

    @property
    def few(self) -> bool:
        """Whether its minutes are over before much is learnt."""
        return self.minutes is not None and self.steps < FEW

    @property
    def slow(self) -> bool:
        """Whether one has to wait for samples."""
        return self.pace.together * self.pace.image > SLOW


class Noise(BatchSource):
    """Images of a shape that are uniform noise, with classes in turn where there are any."""

    def __init__(self, n: int, shape: ImageShape, classes: int) -> None:
        self.n, self.shape, self.classes = n, shape, classes

    def __len__(self) -> int:
        return self.n

    def stored(self, indices: Tensor) -> Batch:
        x = torch.randint(256, (len(indices), *self.shape), dtype=torch.uint8, generator=generator(0, "noise images"))
        return Batch(x, indices % self.classes if self.classes else None)


def estimate(make: Make, training: Training, shape: ImageShape, n: int) -> list[str]:
    """Sentences on what takes too long in a training on n images of a shape; none where all is well.

    `make`: a new model for images of any shape. `training`: with a batch size of None where the images are to choose.
    Errors: `ConfigError` with the same sentences where no training can come of it.
    """
    if shape.size <= LARGE:
        return []
    found = foresee(make, training, shape, n)
    if found.fits:
        return []
    told = [*in_words(found, shape), fitting(make, training, shape, n)]
    if found.seconds > ENDLESS or (found.few and found.steps < HOPELESS):
        raise ConfigError(" ".join(told))
    return told


def foresee(make: Make, training: Training, shape: ImageShape, n: int) -> Foreseen:
    """What a training on n images of a shape will take, by the pace of its first steps."""
    pace = measured(make(shape), training)
    total = total_steps(training, n, pace.batch)
    minutes = training.minutes
    if minutes is not None and (total is None or total * pace.step > 60 * minutes):
        return Foreseen(pace, 60 * minutes / pace.step, 60 * minutes, minutes)
    assert total is not None  # there is a budget
    pictures = 2 * SHOWN * (PICTURES + 1)  # a saved model draws its own
    return Foreseen(pace, total, total * pace.step + pictures * pace.image, None)


def measured(model: GenerativeModel, training: Training) -> Pace:
    """The pace of a model, which is trained a little by that, on two images and on eight."""
    batch, first = training.batch(model.numbers), seconds(model, training, FIRST)
    more = 0.0 if first > LATE else max(0.0, seconds(model, training, SECOND) - first)
    each = more / (SECOND - FIRST) or first / FIRST
    step = first + each * (batch - FIRST)
    passes = max(1, sum(model.repeated().values()))
    return Pace(step, step / batch / BACKWARD * passes, model.rows, batch)


def seconds(model: GenerativeModel, training: Training, batch: int) -> float:
    """Of a step of so many images, the second: the first is slow. Of several where players do not move at each, and on
    average over the budget where they have spans of it.

    On a CPU those in which this process computes, where they are fewer: other programs will not be there for hours.
    """
    quick = {"compile": "off", "epochs": None, "minutes": None, "steps": MANY, "accumulate": 1, "batch_size": batch}
    learner = Learner(model, override(training, quick), Noise(batch, model.shape, len(model.classes)))
    edges = sorted({0.0, 1.0, *(edge for player in learner.players.values() for edge in player.span)})
    turns, average = max(player.every for player in learner.players.values()), 0.0
    for first, last in pairwise(edges):
        learner.step = ceil(first * MANY)
        steps = learner.steps()
        next(steps)
        began, computing = time.perf_counter(), time.process_time()
        for _ in range(turns):
            next(steps)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
            taken = time.perf_counter() - began
        else:
            taken = min(time.perf_counter() - began, time.process_time() - computing)
        average += (last - first) * taken / turns
    return average


def in_words(found: Foreseen, shape: ImageShape) -> list[str]:
    """What takes too long, and how long it takes."""
    pace, told = found.pace, []
    if found.long:
        told.append(
            f"At {shape} a step of {pace.batch} images takes about {pace.step:.2g} s here, and {found.steps:,.0f} of "
            f"them with their pictures about {found.seconds / 60:,.0f} minutes; --minutes N ends by the clock."
        )
    if found.few:
        told.append(
            f"At {shape} a step of {pace.batch} images takes about {pace.step:.2g} s here, so about {found.steps:,.0f} "
            f"fit into {found.minutes:g} minutes, and models learn in thousands."
        )
    if found.slow:
        told.append(
            f"The fewest samples that are drawn together at {shape}, {pace.together}, will take about "
            f"{lasting(pace.together * pace.image)}."
        )
    return told


def fitting(make: Make, training: Training, shape: ImageShape, n: int) -> str:
    """The largest smaller size that was measured to take its time and no more."""
    tried = []
    for part in SMALLER:
        sides = [max(8, 8 * round(part * side / 8)) for side in shape[1:]]
        smaller = ImageShape(shape.channels, *sides)
        if smaller in tried or smaller.size >= shape.size:
            continue
        tried.append(smaller)
        found = foresee(make, training, smaller, n)
        if found.fits:
            what = f"{found.steps:,.0f} steps" if found.minutes else f"about {found.seconds / 60:,.0f} minutes"
            return f"What fits is --size {written_size(*sides)}: {what}."
    return "No smaller size that was tried fits either."
