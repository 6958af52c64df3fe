"""What a report is made of: sections of rows, each a number with its interval and its anchors, words and pictures.

Each file of this room that measures something has one function from a `Subject` to a `Section`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal, NamedTuple

from PIL import Image
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.features import Features
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.processes import ALONE, Processes
from fabulate.seeds import permutation

CHUNK = 500  # images; whatever is asked about many takes so many at a time or a part of it, so that shares round alike

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a report."""

    name: str
    """In the field's words, e.g. "Fréchet distance"; with its unit, e.g. "ELBO (nats)"."""
    value: Estimate
    better: Better
    floor: float | None = None
    """What a perfect model would show with as many samples: training images in the place of samples."""
    noise: float | None = None
    """What uniform noise in the place of samples shows."""
    words: str = ""
    """What the number means, in a phrase."""


Grade = Literal["good", "fair", "poor", "unknown"]


class Answer(NamedTuple):
    """A question that people ask, and what the numbers of a section say to it."""

    question: str
    """e.g. "Is it good?"."""
    verdict: str
    """In a word or two, e.g. "mostly"."""
    because: str
    """The numbers behind it, in a sentence."""
    grade: Grade
    """For the colour beside it."""


def reached(row: Row, value: float) -> float:
    """Where a value lies between what noise shows (0) and what a perfect model shows (1).

    Distances to be made small are squares, so that the root of the share is taken; all other shares as they are.

    >>> row = Row(name="", value=Estimate(26), better="lower", floor=1, noise=101)
    >>> reached(row, 1), reached(row, 26), reached(row, 101), reached(row, 500)
    (1.0, 0.5, 0.0, 0.0)
    """
    assert row.floor is not None and row.noise is not None
    if row.floor == row.noise:
        return 1.0
    share = min(max((value - row.floor) / (row.noise - row.floor), 0.0), 1.0)
    return 1 - (sqrt(share) if row.better == "lower" else share)


# How much of the way from noise to a perfect model was made, and what that is called.
GRADES: list[tuple[float, str, Grade]] = [(0.95, "yes", "good"), (0.8, "mostly", "fair"), (0.5, "partly", "fair")]


def answer(question: str, row: Row, because: str) -> Answer:
    """An answer by where a row's value lies between its anchors.

    >>> row = Row(name="Precision", value=Estimate(0.6), better="higher", floor=0.8, noise=0.0)
    >>> answer("Is it good?", row, "60 % look real.").verdict
    'partly'
    """
    for least, verdict, grade in GRADES:
        if reached(row, row.value.value) >= least:
            return Answer(question, verdict, because, grade)
    return Answer(question, "no", because, "poor")


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one question was answered with."""

    title: str
    """The question in a few words, e.g. "Fidelity and diversity"."""
    rows: tuple[Row, ...] = ()
    sentences: tuple[str, ...] = ()
    """What must be known to read the rows: sample sizes, features, dequantisation; and warnings."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """Captions and pictures."""
    absent: dict[str, str] = field(default_factory=dict)
    """What is not measured, and why."""
    answers: tuple[Answer, ...] = ()
    """What stands at the head of the report."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: a model, the images it is compared with, and samples drawn once for all sections."""

    model: GenerativeModel
    data: Data
    samples: Tensor
    """uint8 (N, C, H, W)."""
    y: Tensor | None
    """The classes (N,) that samples were asked for, numbered as in `data.classes`; None when the model knows none."""
    features: Features
    """From images to the numbers in which they are compared."""
    seed: int
    processes: Processes = ALONE
    """Those that measure it together."""

    def featured(self, images: Tensor) -> Tensor:
        """The features (N, D) of images (N, C, H, W)."""
        return self.shared(images, self.features)

    def shared(self, images: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function says of each image, every process asking it about a part of them: (N, ...) in all."""
        part = self.processes.part(len(images), CHUNK)
        return self.processes.gathered(measure(images[part.start : part.stop]) if part else None)

    @property
    def reference(self) -> Images:
        """Real images to compare with: those never trained on, where there are any."""
        return self.data.train if self.data.test is None else self.data.test

    @property
    def real(self) -> Tensor:
        """Which of the reference are compared with: as many as there are samples, by chance, or all: numbers (R,)."""
        n = len(self.reference)
        most = n if self.data.test is not None else (n + 1) // 2  # without test images some are left to be `perfect`
        return permutation(n, self.seed, "evaluate", "real")[: min(len(self.samples), most)]

    @property
    def perfect(self) -> Tensor:
        """Which training images stand for samples of a perfect model: as many, none of them `real`: numbers (M,)."""
        if self.data.test is None:
            return permutation(len(self.reference), self.seed, "evaluate", "real").flip(0)[: len(self.real)]
        return permutation(len(self.data.train), self.seed, "evaluate", "perfect")[: len(self.samples)]

    @property
    def named(self) -> str:
        """What the reference is called in sentences."""
        return "training images" if self.data.test is None else "test images"
