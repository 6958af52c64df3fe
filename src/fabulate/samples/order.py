"""Samples as they were asked for: which, of which classes, called what, by compiled networks or not; drawn in batches.

Sample i of a seed depends on the model, the seed and i alone, and on no batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NotRequired, cast, overload

import numpy as np
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.compiling import Say, announced, compiled
from fabulate.config import Compile, override, to_json
from fabulate.data.media import medium
from fabulate.errors import ConfigError
from fabulate.files import Name, folder_names
from fabulate.models import GenerativeModel
from fabulate.models.base import Labels
from fabulate.types import Progress

PICTURE, MANIFEST = "grid.png", "manifest.json"
ENOUGH_CALLS = 10_000  # of a network, that what compiling saves is more than what it costs


@with_config(ConfigDict(extra="forbid"))
class Head(TypedDict):
    """What a manifest says of all images: which model drew them, and how."""

    family: str
    model_sha256: str
    seed: int
    sampling: dict[str, Any]
    start: NotRequired[int]
    """The number of the first, where it is not 0."""
    n: int
    compiled: NotRequired[bool]
    """Whether compiled networks drew them, which changes how sums round."""
    classes: list[str]
    folders: NotRequired[dict[str, Name]]
    """Of each class, where they are not called as it is."""


class Order:
    """Samples start .. start + n - 1 of a seed, as they were asked for; they are drawn a batch at a time.

    `compile`: "auto" compiles networks where it pays for n images, but not where `start` is given, so that parts are
    drawn alike whatever their n: compiled networks round sums otherwise. `say` takes a sentence about that.
    Errors: `ConfigError` for classes that the model does not know, for a way of sampling that it does not have, and
    where networks are to be compiled and there are none.
    """

    def __init__(
        self,
        model: GenerativeModel,
        n: int,
        y: Labels = None,
        *,
        seed: int = 0,
        start: int | None = None,
        batch_size: int = 256,
        compile: Compile = "off",
        progress: Progress | None = None,
        say: Say = lambda sentence: None,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.n, self.seed, self.start, self.progress, self.say = model, n, seed, start or 0, progress, say
        self._y = model.labels(y, n) if y is not None and np.ndim(y) else y
        if self._y is y:  # one class for all, or each in turn: made when asked for, and refused now
            model.labels(y, 1)
        self.sampling = sampling or {}
        self.drawn_with = override(model.sampling, self.sampling)
        self.compile: Compile = "off" if compile == "auto" and start is not None else compile
        self.compiled = pays(model, n, self.compile, self.sampling)
        self.size = min(batch_size, -(-n // model.rows) * model.rows)

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.start + self.n

    def labels(self, first: int, last: int) -> Tensor | None:
        """The classes (last - first,) of samples first .. last - 1; None when the model knows no classes."""
        if isinstance(self._y, Tensor):
            return self._y[first - self.start : last - self.start]
        return self.model.labels(self._y, last - first, first)

    def classes(self) -> list[int]:
        """The numbers of the classes that occur, in order."""
        few = self.n if isinstance(self._y, Tensor) else min(self.n, len(self.model.classes))
        labels = self.labels(self.start, self.start + few)
        return [] if labels is None else sorted(set(labels.tolist()))

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first sample, the one after the last) of each batch."""
        return ((first, min(first + self.size, self.end)) for first in range(self.start, self.end, self.size))

    def batches(self) -> Iterator[tuple[int, Any]]:
        """All samples in order: (number of the first, uint8 images (B, C, H, W) or B texts)."""
        with faster(self.model, self.n, self.compile, self.say, self.sampling):
            for first, last in self.spans():
                yield first, self._batch(first, last)
                if self.progress is not None:
                    self.progress(last - self.start, self.n)

    def _batch(self, first: int, last: int) -> Any:
        y = self.labels(first, last)
        return self.model.items(self.model.sample(last - first, y, seed=self.seed, start=first, **self.sampling))

    def head(self) -> Head:
        """What the manifest says of all images."""
        head = Head(
            family=self.model.family,
            model_sha256=self.model.weights_hash(),
            seed=self.seed,
            sampling=to_json(self.drawn_with),
            n=self.n,
            classes=list(self.model.classes),
        )
        changed = {name: place for name, place in folders(self.model.classes).items() if name != place}
        more = {"start": self.start or None, "compiled": self.compiled or None, "folders": changed or None}
        return cast(Head, head | {key: value for key, value in more.items() if value is not None})


class Places(Sequence[Path]):
    """Where images go: folder/NUMBER.png, or folder/CLASS/NUMBER.png; each is made when it is asked for."""

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder, self.order, self.width = folder, order, width(order.end)
        self.within = list(folders(order.model.classes).values())
        self.ending = medium(order.model.shape).ending

    def __len__(self) -> int:
        return self.order.n

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> list[Path]: ...
    def __getitem__(self, i: int | slice) -> Path | list[Path]:
        numbers = range(self.order.start, self.order.end)[i]
        if isinstance(numbers, range):
            return [self.folder / name for k in numbers for name in self.names(k, k + 1)]
        return self.folder / next(self.names(numbers, numbers + 1))

    def __iter__(self) -> Iterator[Path]:
        return (self.folder / name for name in self.all_names())

    def names(self, first: int, last: int) -> Iterator[str]:
        """Of samples first .. last - 1, within the folder, with forward slashes."""
        labels = self.order.labels(first, last)
        within = [""] * (last - first) if labels is None else [f"{self.within[c]}/" for c in labels.tolist()]
        return (f"{place}{i:0{self.width}}{self.ending}" for i, place in enumerate(within, first))

    def all_names(self) -> Iterator[str]:
        """Of all of them, in order."""
        return chain.from_iterable(self.names(first, last) for first, last in self.order.spans())


def width(end: int) -> int:
    """How many digits the numbers in names have, of samples before `end`."""
    return max(5, len(str(end - 1)))


def pays(model: GenerativeModel, n: int, choice: Compile, sampling: Mapping[str, Any] | None = None) -> bool:
    """Whether n images are drawn by compiled networks: where that is wanted, or they are called often enough.

    Errors: `ConfigError` where it is wanted and the family has nothing to compile.
    """
    with model.drawing(sampling or {}):
        repeated = model.repeated()
    if choice == "on" and not repeated:
        raise ConfigError(f"drawing from {model.family} has nothing worth compiling; leave out --compile on")
    calls = -(-n // model.rows) * sum(repeated.values())
    return choice == "on" or (choice == "auto" and calls >= ENOUGH_CALLS)


def faster(
    model: GenerativeModel, n: int, choice: Compile, say: Say, sampling: Mapping[str, Any] | None = None
) -> AbstractContextManager[None]:
    """Within the block images are drawn by compiled networks, where that `pays`."""
    if not pays(model, n, choice, sampling):
        return nullcontext()
    say(announced("the network"))
    with model.drawing(sampling or {}):
        return compiled(model.repeated(), choice == "on", say)


def folders(classes: Sequence[str]) -> dict[str, str]:
    """The folder of each class."""
    return folder_names(classes, taken=(PICTURE, MANIFEST))
