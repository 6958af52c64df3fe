"""What is evaluated, and what is found: each file that measures has a function from a `Subject` to `Findings`.

What is measured image by image costs as much as there are images, so it is measured on a `Subset`, and its findings say
how many it took. The choice is addressed: the same seed chooses the same images, the first of them whatever the number.

Legend: N images, C H W image.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image
from pydantic import ConfigDict, with_config
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.errors import ConfigError
from fabulate.features import Features
from fabulate.models import GenerativeModel
from fabulate.models.base import Labels
from fabulate.report import Absent, Card, Figure, Figures, Notes, Row, Rows, Section
from fabulate.seeds import permutation, seed_at
from fabulate.types import Progress

CHUNK = 100  # images given to a model at once

NO_CLASSES = "the model is one of p(x | class), and no image here is of a class that it knows"


@with_config(ConfigDict(arbitrary_types_allowed=True))
@dataclass(frozen=True, kw_only=True)
class Findings:
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
    cards: tuple[Card, ...] = ()
    """What stands at the head of the report."""

    def section(self) -> Section:
        """As it stands on a page."""
        pictures = [Figure(image, caption) for caption, image in self.pictures.items()]
        blocks = Rows(self.rows), Notes(self.sentences), Figures(pictures), Absent(list(self.absent.items()))
        return Section(self.title, blocks)


class Measured(NamedTuple):
    """What a report says of one medium."""

    reference: str
    real: int
    features: dict[str, Any]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    sections: tuple[Findings, ...]


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Notes how long the block takes."""
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 3)


class Chunk(NamedTuple):
    """Some images of a subset."""

    x: Tensor
    """uint8 (N, C, H, W)."""
    y: Labels
    """Names of classes (N,) for a conditional model, else None."""
    seed: int
    """Its own, for noise."""


class Subset(NamedTuple):
    """Images of a data set, chosen by a seed, with their classes as the model knows them."""

    x: Tensor
    """uint8 (N, C, H, W)."""
    y: list[str] | None
    seed: int

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> "Subset":
        """The first n of them, or all."""
        return Subset(self.x[:n], None if self.y is None else self.y[:n], self.seed)

    def chunks(self) -> Iterator[Chunk]:
        """The images in turn, a few at a time, each chunk with a seed of its own."""
        for first in range(0, len(self.x), CHUNK):
            y = None if self.y is None else self.y[first : first + CHUNK]
            yield Chunk(self.x[first : first + CHUNK], y, seed_at(self.seed, first))

    @torch.no_grad()
    def each(self, measure: Callable[[Chunk], Tensor], done: Callable[[int], None] | None = None) -> Tensor:
        """What a function says of every image, chunk by chunk: (N, ...) on the CPU; `done` hears how many more."""
        values = []
        for chunk in self.chunks():
            values.append(measure(chunk).cpu())
            if done is not None:
                done(len(chunk.x))
        return torch.cat(values)


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

    def known(self, images: Images) -> Tensor:
        """The numbers (N,) of images that the model can be asked about: of a conditional model, those of its classes.

        The model knows classes by their names: other images may number them otherwise.
        """
        if not self.model.classes:
            return torch.arange(len(images))
        if images.y is None:
            return torch.arange(0)
        numbers = [i for i, name in enumerate(self.data.classes) if name in self.model.places]
        return torch.isin(torch.from_numpy(images.y), torch.tensor(numbers, dtype=torch.int64)).nonzero()[:, 0]

    def subset(self, images: Images, n: int, name: str) -> Subset:
        """At most n images that the model can be asked about, by the seed and the name of what they are for.

        Errors: `ConfigError` for n below 1.
        """
        if n < 1:
            raise ConfigError(f"at least 1 image must be measured, given {n}")
        rows = self.known(images)
        rows = rows[permutation(len(rows), self.seed, "chosen", name)[:n]]
        y = None
        if self.model.classes and images.y is not None:
            y = [self.data.classes[int(c)] for c in images.y[rows.numpy()]]
        return Subset(torch.from_numpy(images.pixels(rows)), y, seed_at(self.seed, name))

    def measured(self, subset: Subset) -> str:
        """How many images were measured, and which, in a sentence."""
        where = "training images, as there are no others" if self.data.test is None else "images never trained on"
        of = len(self.known(self.reference))
        if len(subset) == of:
            return f"Measured on all {of:,} {where}."
        return f"Measured on {len(subset):,} of {of:,} {where}; seed {self.seed} chose them."


def counter(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """Turns "so many more" into (so many, of all)."""
    if progress is None:
        return None
    done = 0

    def more(n: int) -> None:
        nonlocal done
        done += n
        progress(done, total)

    return more
