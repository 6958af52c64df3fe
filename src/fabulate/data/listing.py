"""What a source offers, before anything is decoded: names, labels and the raw form of every image.

Each kind of source (folder, hub, arrays) ends in one `Listing`; from there on there is one road for all of them. A
listing is cheap to make and knows its fingerprint, so that a cached data set is found without opening the source.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fabulate.errors import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Label = str | int

Raw = Path | bytes | Pixels
"""An image not yet decoded: a file, the bytes of one, or an array (C, H, W), C 1, 3 or 4."""

Numbers = npt.NDArray[Any]
"""Images (N, C, H, W) of any numbers that can be made pixels."""


class Raws(Protocol):
    """The raw images of one part, read a slice at a time, from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Sequence[Raw] | Pixels: ...


@dataclass(frozen=True)
class Part:
    """One part (train or test) of a source: how each image is called, its raw form, and its label or None."""

    names: Sequence[str]
    raws: Raws | Numbers
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Contents:
    """What an opened source holds. Labels count through `classes`."""

    train: Part
    test: Part | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """A source that was found and fingerprinted, and that can be opened.

    The last three fields tell what was seen while listing and do not belong to the fingerprint: they are told anew on
    every load, also when the decoded images come from the cache.
    """

    name: str
    fingerprint: str
    open: Callable[[], AbstractContextManager[Contents]]
    set_aside: tuple[tuple[str, str], ...] = ()
    ignored: int = 0
    notes: tuple[str, ...] = ()


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key under which numbers inside names count as numbers.

    >>> sorted(["class 10", "class 9"], key=natural)
    ['class 9', 'class 10']
    """
    words = re.split(r"([0-9]+)", name)
    return [int(word) if i % 2 else word.casefold() for i, word in enumerate(words)], name


def number(train: Sequence[Label], test: Sequence[Label] | None) -> tuple[tuple[str, ...], Labels, Labels | None]:
    """Number the classes that occur in train, in natural order: (class names, train labels, test labels).

    Errors: `DataError` when test has classes that train lacks.

    >>> number(["dog", "cat", "dog"], ["cat"])
    (('cat', 'dog'), array([1, 0, 1]), array([0]))
    """
    classes = sorted({str(label) for label in train}, key=natural)
    place = {name: i for i, name in enumerate(classes)}
    unknown = sorted({str(label) for label in test or ()} - place.keys(), key=natural)
    if unknown:
        raise DataError(
            f"the test images have classes that the training images lack: {', '.join(unknown)}; "
            f"training classes: {', '.join(classes)}. Add training images of them, or take them out of the test part."
        )

    def numbers(labels: Sequence[Label]) -> Labels:
        return np.array([place[str(label)] for label in labels], np.int64)

    return tuple(classes), numbers(train), None if test is None else numbers(test)
