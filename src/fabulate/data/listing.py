"""What a source offers, before anything is decoded: names, labels and the raw form of every image.

Each kind of source (folder, parquet files, arrays) ends in one `Listing`; from there on all go the same way. A listing
is cheap to make and knows its fingerprint, so that a cached data set is found without opening the source.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fabulate.errors import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Label = str | int

Raw = Path | bytes | Pixels
"""An image not yet decoded: a file, the bytes of one, or an array (C, H, W), C 1 to 4."""

Numbers = npt.NDArray[Any]
"""Images (N, C, H, W) of any numbers that can be made pixels."""

LABELS = ("label", "labels", "class", "category")  # names of a column of them, in this order
_NAMED = 5  # classes that training lacks are named up to here


class Raws(Protocol):
    """The raw images of one part, read a slice at a time, from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Sequence[Raw] | Pixels: ...


@dataclass(frozen=True)
class Part:
    """One part (train or test) of a source: how each image is called, its raw form, and the labels, if all have one."""

    names: Sequence[str]
    raws: Raws | Numbers
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Contents:
    """What an opened source holds. Labels count through `classes`; a test part may have none where training has."""

    train: Part
    test: Part | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What every verb says, and not the report alone: what was left out, and labels that cannot be used."""

    @classmethod
    def of(
        cls,
        names: Sequence[Sequence[str]],
        raws: Sequence[Raws | Numbers],
        labels: Sequence[Sequence[Label | None]],
        classes: Sequence[str] = (),
        notes: Iterable[str] = (),
        warnings: Iterable[str] = (),
    ) -> "Contents":
        """Of the training part, and of the test part if there is one: names, raw images, and labels to be numbered."""
        numbered = number(*labels, names=classes)
        train, *test = map(Part, names, raws, (numbered.train, numbered.test))
        said = (*warnings, *numbered.warnings)
        return cls(train, test[0] if test else None, numbered.classes, tuple(notes), said)

    @property
    def parts(self) -> list[Part]:
        """The training part, and the test part if there is one."""
        return [self.train] if self.test is None else [self.train, self.test]


@dataclass(frozen=True)
class Listing:
    """A source that was found and fingerprinted, and that can be opened.

    The last four fields tell what was seen while listing and do not belong to the fingerprint: they are told anew on
    every load, also when the decoded images come from the cache.
    """

    name: str
    fingerprint: str
    open: Callable[[], AbstractContextManager[Contents]]
    set_aside: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files that are no images, by the ending of their names."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key under which numbers inside names count as numbers.

    >>> sorted(["class 10", "class 9"], key=natural)
    ['class 9', 'class 10']
    """
    words = re.split(r"([0-9]+)", name)
    return [int(word) if i % 2 else word.casefold() for i, word in enumerate(words)], name


def numbered_names(part: str, n: int) -> list[str]:
    """What images without names of their own are called.

    >>> numbered_names("train", 2)
    ['train[0]', 'train[1]']
    """
    return [f"{part}[{i}]" for i in range(n)]


def label_of(value: object) -> Label | None:
    """A label as a table gives it: None for what is none; floats that are whole are the numbers they stand for.

    >>> label_of(2.0), label_of(float("nan")), label_of(""), label_of("cat")
    (2, None, None, 'cat')
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, str | int) and value != "" else None


class Numbered(NamedTuple):
    """Labels as numbers: of each part, None where not all of its images have a class that training knows."""

    classes: tuple[str, ...] = ()
    train: Labels | None = None
    test: Labels | None = None
    warnings: tuple[str, ...] = ()


def number(
    train: Sequence[Label | None], test: Sequence[Label | None] | None = None, *, names: Sequence[str] = ()
) -> Numbered:
    """Number the classes that occur in train, in natural order; or, of labels that are numbers, by their `names`.

    A training image without a label leaves no classes. Test images without one, or of a class that train lacks, are
    worth having all the same: they are there without labels then, and a sentence says so.

    >>> classes, train, test, _ = number(["dog", "cat", "dog"], ["cat"])
    >>> classes, train.tolist(), test.tolist()
    (('cat', 'dog'), [1, 0, 1], [0])
    >>> number(["good"], ["good", "crack"]).warnings
    ('the test images are used without their classes, as training lacks some of them: crack (1)',)
    """
    without = sum(label is None for label in train)
    if without == len(train):
        lost = any(label is not None for label in test or ())
        return Numbered(warnings=("no classes: only the test images have labels, not the training images",) * lost)
    if without:
        return Numbered(warnings=(f"no classes: {without:,} of {len(train):,} training images have no label",))
    numbers: dict[Label | None, int]
    if names:
        classes, numbers = list(names), {i: i for i in range(len(names))}
        if strange := set(train) - numbers.keys():
            raise DataError(
                f"there are training images of class {next(iter(strange))}, and names of {len(names)} classes only"
            )
    else:
        classes = sorted({str(label) for label in train}, key=natural)
        order = {name: i for i, name in enumerate(classes)}
        numbers = {label: order[str(label)] for label in (*train, *(test or ())) if str(label) in order}
    unknown = Counter(str(label) for label in test or () if label is not None and label not in numbers)
    bare = sum(label is None for label in test or ())
    warning = None
    if unknown:
        told = ", ".join(f"{name} ({unknown[name]:,})" for name in sorted(unknown, key=natural)[:_NAMED])
        more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        warning = f"the test images are used without their classes, as training lacks some of them: {told}{more}"
    elif bare:
        warning = f"the test images are used without classes: {bare:,} of {len(test or ()):,} have none"

    def numbered(labels: Iterable[Label | None]) -> Labels:
        return np.array([numbers[label] for label in labels], np.int64)

    known = None if test is None or warning else numbered(test)
    return Numbered(tuple(classes), numbered(train), known, () if warning is None else (warning,))
