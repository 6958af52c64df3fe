"""Which family to train on some images within some minutes, and what its samples will be worth.

A few steps of each family's default model are timed on this machine, so it is known how many images it will see.
What samples are worth after that many was measured elsewhere: `learning_curves.csv` holds trainings of each family
on several data sets, each with the number of images seen and the coverage of its samples, the share of held-out images
that have a sample near them (Naeem et al. 2020, https://arxiv.org/abs/2002.09797), beside that of training images in
their place. Between two trainings it is read off a line over the logarithm of the images seen. Data sets differ, and by
how much is the range that is told: no data set is yours.

`python benchmarks/learning_curves.py` writes the table.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np

from fabulate.config import BUDGETS, Training
from fabulate.data import Data
from fabulate.errors import ConfigError
from fabulate.models.base import GenerativeModel
from fabulate.training.devices import flushed
from fabulate.training.estimate import LATE, estimate, seconds
from fabulate.training.loop import settled
from fabulate.training.train import choices_told, configure, fresh
from fabulate.types import ImageShape, Progress

CANDIDATES = ("vae", "gan", "flow")
TABLE = Path(__file__).with_name("learning_curves.csv")
STEPS = 5  # that are timed
NEAR = 4  # times as many pixels, or fewer, are of like size
WORDS = ((0.7, "hard to tell from real images"), (0.4, "recognisable"), (0.15, "soft shapes"), (0.0, "blots"))


class Measured(NamedTuple):
    """A training of the table, and 1,000 of its samples beside as many held-out images."""

    family: str
    data: str
    channels: int
    height: int
    width: int
    images: int
    """In the training set."""
    limit: float
    """Seconds of a core's work asked for, and those it took."""
    seconds: float
    images_seen: int
    """Steps times images of a step."""
    frechet: float
    frechet_perfect: float
    """The same number of training images in the place of samples."""
    frechet_noise: float
    """And of uniform noise."""
    coverage: float
    coverage_perfect: float
    coverage_noise: float

    @property
    def worth(self) -> float:
        """Coverage as a share of what training images reach, 0 to 1."""
        return min(1.0, self.coverage / self.coverage_perfect)


class Expected(NamedTuple):
    """What a family will come to."""

    family: str
    step: float
    """Seconds."""
    batch: int
    steps: int
    images_seen: int
    epochs: float
    worth: tuple[float, float]
    """The lowest and the highest coverage, as shares of what training images reach, over the data sets of the table."""
    sets: tuple[str, ...]
    """These data sets."""
    beyond: bool
    """Whether on some of them no training saw as many images, so that the longest stands for it."""
    notes: tuple[str, ...]
    """What the images chose, and what takes too long."""

    @property
    def middle(self) -> float:
        """What families are ranked by."""
        return mean(self.worth)

    @property
    def words(self) -> str:
        """What such samples looked like where the table was measured.

        >>> Expected("vae", 0.1, 32, 100, 3200, 2.0, (0.3, 0.6), (), False, ()).words
        'recognisable'
        """
        return next(words for least, words in WORDS if self.middle >= least)


def read_table(path: Path = TABLE) -> list[Measured]:
    """The trainings of the table.

    >>> {row.family for row in read_table()} == set(CANDIDATES)
    True
    """
    types = Measured.__annotations__
    with path.open(newline="", encoding="utf-8") as file:
        return [Measured(**{name: types[name](row[name]) for name in types}) for row in csv.DictReader(file)]


def plan(
    data: Data,
    minutes: float,
    *,
    families: Sequence[str] = CANDIDATES,
    device: str = "auto",
    conditional: bool = False,
    progress: Progress | None = None,
) -> list[Expected]:
    """What each family will come to on these images in so many minutes, the best first.

    Takes some seconds for each family. `device`, `conditional`: as in training. `progress`: called with (families
    timed, all). Errors: `ConfigError` for minutes that
    are not positive, for families that the table does not know, and for a medium of which it has no trainings.
    """
    if not minutes > 0:
        raise ConfigError(f"minutes are a positive number; given {minutes:g}")
    if unknown := [name for name in families if name not in CANDIDATES]:
        raise ConfigError(
            f"no learning curves were measured of {', '.join(unknown)}; there are {', '.join(CANDIDATES)}"
        )
    if data.shape.medium != "images":
        raise ConfigError(f"learning curves were measured of images only; {data.name} holds {data.shape.medium}")
    rows, found = alike(read_table(), data.shape), []
    classes = data.classes if conditional else ()
    for number, name in enumerate(families):
        if progress is not None:
            progress(number, len(families))
        config, schedule = configure(name, "default", {**dict.fromkeys(BUDGETS), "minutes": minutes})
        with flushed():
            found.append(expected(name, config, schedule, data, classes, device, rows))
    return sorted(found, key=lambda one: -one.middle)


def expected(
    name: str,
    config: Any,
    schedule: Training,
    data: Data,
    classes: Sequence[str],
    device: str,
    rows: Iterable[Measured],
) -> Expected:
    """What one family will come to, by the pace of its first steps here."""
    make = partial(fresh, name, config, schedule, classes=classes, device=device)
    model = make(data.shape)
    training = settled(schedule, model)[0]
    assert training.minutes is not None
    batch = training.batch(model.numbers)
    step = seconds_of_a_step(model, training)
    steps = max(1, int(60 * training.minutes / step))
    seen = steps * batch
    curves = sorted(by_data(row for row in rows if row.family == name), key=lambda curve: curve[0].data)
    worth = [at(curve, seen) for curve in curves]
    beyond = any(seen > curve[-1].images_seen for curve in curves)
    notes = (*choices_told(config, model), *estimate(make, schedule, data.shape, len(data.train)))
    return Expected(
        family=name,
        step=step,
        batch=batch,
        steps=steps,
        images_seen=seen,
        epochs=seen / len(data.train),
        worth=(min(worth), max(worth)),
        sets=tuple(curve[0].data for curve in curves),
        beyond=beyond,
        notes=notes,
    )


def seconds_of_a_step(model: GenerativeModel, training: Training) -> float:
    """Of the whole batch, the median of some steps; of one where that takes long. The model is trained a little."""
    batch = training.batch(model.numbers)
    taken = [seconds(model, training, batch)]
    if taken[0] < LATE:
        taken += [seconds(model, training, batch) for _ in range(STEPS - 1)]
    return median(taken)


def alike(rows: Iterable[Measured], shape: ImageShape) -> list[Measured]:
    """The trainings on gray images, or on those of colours, as these are; of like size where there are several.

    >>> sorted({row.data for row in alike(read_table(), ImageShape(3, 96, 64))})
    ['icons', 'photographs']
    """
    same = [row for row in rows if (row.channels in (1, 2)) == (shape.channels in (1, 2))]
    area = shape.height * shape.width
    near = [row for row in same if 1 / NEAR < row.height * row.width / area < NEAR]
    return near if len({row.data for row in near}) > 1 else same


def by_data(rows: Iterable[Measured]) -> list[list[Measured]]:
    """The trainings on each data set, by the images seen."""
    curves: dict[str, list[Measured]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.images_seen):
        curves[row.data].append(row)
    return [*curves.values()]


def at(curve: Sequence[Measured], seen: float) -> float:
    """The worth of samples after so many images, on a line over their logarithm; beyond its ends that of the end.

    >>> (curve,) = by_data(row for row in read_table() if row.family == "vae" and row.data == "digits")
    >>> at(curve, 0) == curve[0].worth
    True
    """
    places = np.log([row.images_seen for row in curve])
    return float(np.interp(np.log(max(seen, 1)), places, [row.worth for row in curve]))
