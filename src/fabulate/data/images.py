"""Images: one uint8 array that batches are sliced from without per-sample Python; in memory, in a file, on a GPU. And
`Data`: the images of a source, to train and to test with, their classes, and the report of what was seen.

Pages of a mapped file count as the process's own until the system takes them back, and a row at random brings its
neighbours with it: after an epoch all of the file is resident. Reading at a position leaves nothing behind. It costs
0.3 ms more for 128 colour images of 32x32 than the mapping does; a training step takes ten times that and more.

Legend: N images, B batch, C H W image.
"""

import mmap
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec
from fabulate.data.arrays import to_pixels
from fabulate.data.listing import Labels, Pixels
from fabulate.data.report import ImageReport, Report, rows
from fabulate.errors import DataError
from fabulate.types import Batch, BatchSource, ImageShape, Ordered, SequenceShape, some_of

if TYPE_CHECKING:
    from PIL.Image import Image


IN_ORDER_ONLY = (
    "the images are streamed: they are read in the order of training only. `fabulate train`, `data`, `reconstruct`, "
    "`traverse`, `evaluate` and `outliers score` can do with that; for all else leave out `stream:`, so that they are "
    "decoded once and kept, or give --data a folder with some of the files"
)


@dataclass(frozen=True, eq=False, repr=False)
class Items(BatchSource):
    """Items x (N, ...) of any medium as they are stored, and classes y, int64 (N,), or None."""

    x: npt.NDArray[Any]
    y: Labels | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.shape})"

    @property
    def shape(self) -> ImageShape:
        """The shape of one item: of images, which is what most rooms work on; they refuse others at their door."""
        raise NotImplementedError

    @property
    def class_numbers(self) -> Labels:
        """The classes (N,) of items that are known to have them."""
        assert self.y is not None, "whoever asks has seen to it that these items have classes"
        return self.y

    def pixels(self, indices: Tensor) -> npt.NDArray[Any]:
        """The items at `indices` (B,) as they are stored, a copy."""
        return self._taken(indices).numpy()

    def stored(self, indices: Tensor) -> Batch:
        """The items at `indices` (B,) as they are stored, and their classes (B,) int64 or None."""
        y = None if self.y is None else torch.from_numpy(np.take(self.y, indices.numpy()))
        return Batch(self._taken(indices), y)

    def _taken(self, indices: Tensor) -> Tensor:
        if self.x.flags.writeable:  # torch gathers with all its threads; whole rows: 5 times faster than [indices]
            return torch.from_numpy(self.x).index_select(0, indices)
        return torch.from_numpy(np.take(self.x, indices.numpy(), axis=0))


@dataclass(frozen=True, eq=False, repr=False)
class Sequences(Items):
    """Symbols x, int16 (N, T) or (N, T, V) of several voices, each ended by symbol 0 where it is shorter than T.

    `running`: the rows are windows of one running text, in its order, so that each begins where the one before ends.
    """

    symbols: tuple[str, ...] = ("",)
    medium: str = "texts"
    running: bool = False
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> ImageShape:
        voices = self.x.shape[2] if self.x.ndim == 3 else 1
        return SequenceShape(self.x.shape[1], self.symbols, voices, self.medium)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False, repr=False)
class Images(Items):
    """Images x, uint8 (N, C, H, W), in memory or memory-mapped, and classes y, int64 (N,), or None.

    Arrays of other layouts and numbers are made such, or refused with a `DataError`, by the rules of `arrays.py`.

    >>> images = Images(np.zeros((10, 1, 8, 8), np.uint8))
    >>> images, len(images), images.shape.size
    (Images(10 of 8x8 gray), 10, 64)
    >>> images.batch(torch.tensor([3, 1])).x.shape
    torch.Size([2, 1, 8, 8])
    """

    x: Pixels
    y: Labels | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype != np.uint8 or self.x.shape[1] not in (1, 2, 3, 4):
            object.__setattr__(self, "x", to_pixels(self.x, "the images")[0])
        if self.y is None:
            return
        y = np.asarray(self.y)
        if y.shape != (len(self.x),) or y.dtype.kind not in "iu":
            raise DataError(f"{len(self.x):,} images have as many integers as classes; given {y.dtype} {y.shape}")
        object.__setattr__(self, "y", y.astype(np.int64, copy=False))

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return ImageShape(*self.x.shape[1:])

    @cached_property
    def _file(self) -> "FileRows | None":
        return FileRows(self.x) if FileRows.of(self.x) else None

    def _taken(self, indices: Tensor) -> Tensor:
        if self._file is not None:
            return torch.from_numpy(self._file[indices.numpy()])
        return super()._taken(indices)


class FileRows:
    """The rows (N, ...) of a whole uint8 array that is mapped read-only from a file (`numpy.load`, `mmap_mode="r"`).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.arange(6, dtype=np.uint8).reshape(3, 2))
    ...     FileRows(np.load(f"{folder}/x.npy", mmap_mode="r"))[np.array([2, 0])].tolist()
    [[4, 5], [0, 1]]
    """

    def __init__(self, x: Pixels) -> None:
        assert self.of(x) and isinstance(x, np.memmap)
        self.name, self.n, self.row, self.start = str(x.filename), len(x), x.shape[1:], x.offset
        self.file = os.open(self.name, os.O_RDONLY)
        weakref.finalize(self, os.close, self.file)

    @staticmethod
    def of(x: Pixels) -> bool:
        """Whether an array is one of these; a view of one, or a system that cannot read at a position, is numpy's."""
        base: object = x.base
        whole = isinstance(base, mmap.mmap) and x.flags.c_contiguous
        return whole and isinstance(x, np.memmap) and x.mode == "r" and hasattr(os, "preadv")

    def __getitem__(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """The rows at `indices` (B,), from 0 to N - 1: (B, ...), a copy. Errors: `DataError` when the file was cut."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.n:
            raise IndexError(f"rows {indices.min()}..{indices.max()} of {self.n}")
        rows = np.empty((len(indices), *self.row), np.uint8)
        nbytes = rows[:1].nbytes
        for i in np.argsort(indices):  # one way through the file
            if os.preadv(self.file, [rows[i]], self.start + int(indices[i]) * nbytes) != nbytes:
                raise DataError(f"{self.name} is shorter than it was: something else writes to it, or has cut it")
        return rows


@dataclass(frozen=True, eq=False)
class Resident(BatchSource):
    """Images x, uint8 (N, C, H, W), and classes y, int64 (N,) or None, on one device, where batches are gathered.

    >>> Resident(torch.zeros(10, 1, 8, 8, dtype=torch.uint8)).batch(torch.tensor([3, 1])).x.shape
    torch.Size([2, 1, 8, 8])
    """

    x: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), on the device."""
        here = indices.to(self.x.device, non_blocking=True)
        return Batch(self.x.index_select(0, here), None if self.y is None else self.y.index_select(0, here))


def resident(images: BatchSource, device: torch.device) -> BatchSource:
    """The images on a GPU when they fit in half of its free memory; else, and on a CPU, as they are."""
    if device.type != "cuda" or type(images) is not Images:  # its subclasses read in ways of their own
        return images
    if images.x.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return images
    x, y = torch.tensor(images.x), None if images.y is None else torch.tensor(images.y)
    return Resident(x.to(device), None if y is None else y.to(device))


class Stored(NamedTuple):
    """A data set as intake makes it and the cache keeps it."""

    train: Images
    test: Images | None
    classes: tuple[str, ...]
    report: ImageReport


@dataclass(frozen=True, eq=False)
class Data:
    """A data set after intake: images, classes, and the report of what was seen."""

    train: Images
    """Or `Sequences`: typed as what most rooms work on, which get theirs through `whole`, and that refuses others."""
    test: Images | None
    classes: tuple[str, ...]
    """Names of the classes; empty when the images have no labels."""
    spec: DataSpec
    fingerprint: str
    """Hexadecimal; equal for equal images, labels and options, wherever they lie and whenever they were written."""
    report: Report
    name: str
    """Short, for run folders."""

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return self.train.shape

    def show(self, n: int = 64, *, seed: int = 0) -> "Image":
        """A picture of n training images, chosen by a seed, each class in rows of its own behind its name.

        Classes take turns, so that rare ones are seen (of streamed images, only those that happen to be chosen).
        """
        whole = not isinstance(self.train, Ordered)
        chosen = some_of(self.train, len(self.train) if whole else n, seed, "show")
        if whole and self.train.y is not None:
            chosen = chosen[in_turn(self.train.y[chosen])]
        x, y = self.train.stored(chosen[:n])
        legend = f"{len(x):,} of {len(self.train):,} training {self.shape.medium}, seed {seed}"
        legend += self.report.legend
        from fabulate.data.media import medium  # the media that read sources make `Data` of them

        title = f"{self.name}: training {self.shape.medium}"
        its = medium(self.shape)
        return its.sheet(its.items(x, self.shape), title, legend, None if y is None else y.numpy(), self.classes)

    def _repr_html_(self) -> str:
        """What a notebook shows: the intake report, and some of the images."""
        from fabulate.pictures import card

        return card(self.name, rows(self.report), self.show(min(64, 8 * max(4, len(self.classes)))))

    def unseen(self, labelled: bool = False) -> Images:
        """Images that were never trained on; the training images where there are none.

        `labelled`: with their classes, for who must know them; test images without any do not count then.
        """
        return self.train if self.test is None or (labelled and self.test.y is None) else self.test

    def tested(self) -> Images | None:
        """The test images with their classes; None when there are no test images.

        Errors: `DataError` when their classes are not known, or are others than those of the training images.
        """
        if self.test is not None and self.test.y is None and self.classes:
            raise DataError(
                f"{self.spec.source} has test images without classes, or of classes that training lacks, and this "
                "needs their classes: put each into a folder of its class, add training images of it, or take these "
                "test images out"
            )
        return self.test

    def whole(self) -> Self:
        """These data: images that can be read in any order. Errors: `DataError` for others, and for streamed ones."""
        if not isinstance(self.shape, ImageShape):
            raise DataError(
                f"this works on images, and {self.name} has {self.shape.medium}; `fabulate data`, `train`, `sample` "
                f"and `evaluate` take them"
            )
        if isinstance(self.train, Ordered):
            raise DataError(IN_ORDER_ONLY)
        return self


def in_turn(y: Labels) -> npt.NDArray[np.int64]:
    """An order in which the classes of labels (N,) take turns: first one image of each, then another of each.

    >>> in_turn(np.array([0, 0, 0, 1, 1, 2])).tolist()
    [0, 3, 5, 1, 4, 2]
    """
    by_class = np.argsort(y, kind="stable")
    place = np.empty(len(y), np.int64)
    place[by_class] = np.arange(len(y)) - np.searchsorted(y[by_class], y[by_class])
    return np.argsort(place, kind="stable")
