"""Images: one uint8 array that batches are sliced from without per-sample Python; in memory, in a file, on a GPU.

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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.data.arrays import to_pixels
from fabulate.data.listing import Labels, Pixels
from fabulate.data.report import Report
from fabulate.errors import DataError
from fabulate.types import Batch, BatchSource, ImageShape


@dataclass(frozen=True, eq=False, repr=False)
class Images(BatchSource):
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

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.shape})"

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return ImageShape(*self.x.shape[1:])

    @property
    def class_numbers(self) -> Labels:
        """The classes (N,) of images that are known to have them."""
        assert self.y is not None, "whoever asks has seen to it that these images have classes"
        return self.y

    def pixels(self, indices: Tensor) -> Pixels:
        """The images at `indices` (B,) as they are stored: uint8 (B, C, H, W), a copy."""
        return self._taken(indices).numpy()

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), uint8 (B, C, H, W), and their classes (B,) int64 or None."""
        y = None if self.y is None else torch.from_numpy(np.take(self.y, indices.numpy()))
        return Batch(self._taken(indices), y)

    @cached_property
    def _file(self) -> "FileRows | None":
        return FileRows(self.x) if FileRows.of(self.x) else None

    def _taken(self, indices: Tensor) -> Tensor:
        if self._file is not None:
            return torch.from_numpy(self._file[indices.numpy()])
        if self.x.flags.writeable:  # torch gathers with all its threads; whole rows: 5 times faster than [indices]
            return torch.from_numpy(self.x).index_select(0, indices)
        return torch.from_numpy(np.take(self.x, indices.numpy(), axis=0))


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
    report: Report
