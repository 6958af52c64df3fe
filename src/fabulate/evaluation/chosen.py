"""Images chosen by a seed to be measured, with their classes as the model knows them.

What is measured image by image costs as much as there are images, so a section says how many it took. The choice is
addressed: the same seed chooses the same images, the first of them whatever the number asked for.

Legend: N images, C H W image.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.errors import ConfigError
from fabulate.evaluation.sections import Subject
from fabulate.models.base import Labels
from fabulate.seeds import permutation, seed_at
from fabulate.types import Progress

PORTION = 100  # images given to a model at once

NO_CLASSES = "the model is one of p(x | class), and no image here is of a class that it knows"


class Portion(NamedTuple):
    """Some of the chosen images."""

    x: Tensor
    """uint8 (N, C, H, W)."""
    y: Labels
    """Names of classes (N,) for a conditional model, else None."""
    seed: int
    """Its own, for noise."""


class Chosen(NamedTuple):
    """Images chosen from a data set."""

    x: Tensor
    """uint8 (N, C, H, W)."""
    y: list[str] | None
    seed: int

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> "Chosen":
        """The first n of them, or all."""
        return Chosen(self.x[:n], None if self.y is None else self.y[:n], self.seed)

    def portions(self, size: int = PORTION) -> Iterator[Portion]:
        """The images in turn, a few at a time, each portion with a seed of its own."""
        for first in range(0, len(self.x), size):
            y = None if self.y is None else self.y[first : first + size]
            yield Portion(self.x[first : first + size], y, seed_at(self.seed, first))

    @torch.no_grad()
    def each(
        self, measure: Callable[[Portion], Tensor], done: Callable[[int], None] | None = None, size: int = PORTION
    ) -> Tensor:
        """What a function says of every image, portion by portion: (N, ...) on the CPU; `done` hears how many more."""
        values = []
        for portion in self.portions(size):
            values.append(measure(portion).cpu())
            if done is not None:
                done(len(portion.x))
        return torch.cat(values)


def choose(subject: Subject, images: Images, n: int, name: str) -> Chosen:
    """At most n images, chosen by the subject's seed and the name of what they are for.

    Errors: `ConfigError` for n below 1.
    """
    if n < 1:
        raise ConfigError(f"at least 1 image must be measured, given {n}")
    rows = known(subject, images)
    rows = rows[permutation(len(rows), subject.seed, "chosen", name)[:n]]
    y = None
    if subject.model.classes and images.y is not None:
        y = [subject.data.classes[int(c)] for c in images.y[rows.numpy()]]
    return Chosen(torch.from_numpy(images.pixels(rows)), y, seed_at(subject.seed, name))


def known(subject: Subject, images: Images) -> Tensor:
    """The numbers (N,) of images that the model can be asked about: of a conditional model, those of its classes."""
    if not subject.model.classes:
        return torch.arange(len(images))
    if images.y is None:
        return torch.arange(0)
    numbers = [i for i, name in enumerate(subject.data.classes) if name in subject.model.places]
    return torch.isin(torch.from_numpy(images.y), torch.tensor(numbers, dtype=torch.int64)).nonzero()[:, 0]


def told(subject: Subject, chosen: Chosen) -> str:
    """How many images were measured, and which, in a sentence."""
    where = "training images, as there are no others" if subject.data.test is None else "images never trained on"
    of = len(known(subject, subject.reference))
    if len(chosen) == of:
        return f"Measured on all {of:,} {where}."
    return f"Measured on {len(chosen):,} of {of:,} {where}; seed {subject.seed} chose them."


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
