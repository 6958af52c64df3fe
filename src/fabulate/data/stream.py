"""Images that are read as training goes, row group by row group, instead of all being decoded first.

An epoch goes through the row groups in a new order, and through a window of them at a time in a new order within: as
well shuffled as a window is large, and every file is read from one end to the other. The order is a function of (seed,
epoch), and who asks for images asks by number; so a training resumes at the exact image, and several processes share
each batch, as with images in memory. Held are the encoded images of two windows, this one and the next, which is read
while this one is in use; an image is decoded, in threads, when its batch is asked for.

Legend: N images, B batch, C H W image.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabulate.config import DataSpec
from fabulate.data.decode import decode
from fabulate.data.images import Images
from fabulate.data.listing import Labels, Pixels
from fabulate.data.opening import UnreadableError, formats
from fabulate.data.shards import Columns, Group, read_images
from fabulate.errors import DataError
from fabulate.seeds import permutation
from fabulate.types import Batch, ImageShape, Ordered

SHUFFLED = 10_000  # images shuffled together, where
HELD = 128 << 20  # these many bytes of encoded images hold them
CERTAIN = 1000  # images that must have been seen before a share of them is held against the rest
_WORKERS = min(4, os.cpu_count() or 1)


class Stream(Images, Ordered):
    """Images of parquet row groups, of one shape, read as `spec` says: without a size those of others are set aside."""

    def __init__(
        self,
        groups: Sequence[Group],
        columns: Columns,
        shape: ImageShape,
        labels: Labels | None = None,
        spec: DataSpec | None = None,
    ) -> None:
        self.groups, self.columns, self.labels = tuple(groups), columns, labels
        self._shape, self.spec = shape, spec or DataSpec()
        self.starts = np.cumsum([0, *(group.rows for group in groups)])
        rows, nbytes = (
            max(1, sum(column) // len(groups)) for column in zip(*[(g.rows, g.nbytes) for g in groups], strict=True)
        )
        self.window = max(1, min(SHUFFLED // rows, HELD // nbytes, len(groups)))  # row groups shuffled together
        self.broken: dict[int, str] = {}  # numbers of the images met so far that cannot be used, and why
        self.seen = np.zeros(len(self), bool)
        self.held: OrderedDict[int, Future[Any]] = OrderedDict()
        self.windows: list[list[int]] = []  # of the latest epoch, and
        self.turns: dict[int, int] = {}  # the window of each row group
        self.lock = Lock()
        self.readers = ThreadPoolExecutor(_WORKERS, "fabulate-read")
        self.decoders = ThreadPoolExecutor(_WORKERS, "fabulate-decode")
        formats()  # Pillow loads its readers on first use, and not safely from several threads

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return self._shape

    @property
    def x(self) -> Pixels:
        """Not at hand. Errors: `DataError` that says what to do."""
        raise DataError(NOT_AT_HAND)

    @property
    def y(self) -> Labels | None:
        """Classes (N,): they are a column of their own, and small."""
        return self.labels

    def order(self, seed: int, epoch: int) -> Tensor:
        """Every image once: windows of row groups in the epoch's order, each shuffled; int64 (N,)."""
        windows = torch.split(permutation(len(self.groups), seed, "row groups", epoch), self.window)
        self.windows = [window.tolist() for window in windows]
        self.turns = {group: turn for turn, window in enumerate(self.windows) for group in window}
        return torch.cat([self._shuffled(window, seed, "order", epoch, turn) for turn, window in enumerate(windows)])

    def some(self, n: int, *address: int | str) -> Tensor:
        """Numbers of n images of two windows of row groups, or of as many as these hold."""
        return self._shuffled(permutation(len(self.groups), *address)[: 2 * self.window], *address, "images")[:n]

    def pixels(self, indices: Tensor) -> Pixels:
        """The images at `indices` (B,): uint8 (B, C, H, W). See `stored`."""
        return self._decoded(indices)[0]

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), uint8 (B, C, H, W), and their classes (B,) int64 or None.

        The next readable image of the same row group stands in for one that cannot be read, with its own class.
        Errors: `DataError` when a file cannot be read any more, or when more images than `limit_broken` cannot be.
        """
        x, found = self._decoded(indices)
        return Batch(torch.from_numpy(x), None if self.labels is None else torch.from_numpy(self.labels[found]))

    def warnings(self) -> list[str]:
        """A sentence about unreadable images met so far, the same one until they are ten times as many."""
        if not self.broken:
            return []
        first, reason = next(iter(self.broken.items()))
        return [
            f"{10 ** (len(str(len(self.broken))) - 1):,} or more of the streamed images cannot be used; others of "
            f"their row group stand in for them (the first: {self.name(first)}, {reason})"
        ]

    def name(self, index: int) -> str:
        """What an image is called in reports: its file and its row there."""
        home = int(np.searchsorted(self.starts, index, side="right")) - 1
        group = self.groups[home]
        return f"{group.shard.name}[{group.first + index - int(self.starts[home])}]"

    def _shuffled(self, groups: Tensor, *address: int | str) -> Tensor:
        rows = torch.cat([torch.arange(self.starts[group], self.starts[group + 1]) for group in groups.tolist()])
        return rows[permutation(len(rows), *address)]

    def _decoded(self, indices: Tensor) -> tuple[Pixels, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """The images (B, C, H, W) at `indices` (B,), and the numbers (B,) of those that stand there."""
        wanted = indices.numpy()
        homes = np.searchsorted(self.starts, wanted, side="right") - 1
        x = np.empty((len(wanted), *self.shape), np.uint8)
        found = np.empty(len(wanted), np.int64)
        self.seen[wanted] = True

        def fill(rows: Sequence[int], cells: dict[int, Any]) -> None:
            for row in rows:
                found[row], x[row] = self._readable(int(wanted[row]), int(homes[row]), cells[int(homes[row])])

        with warnings.catch_warnings():  # the filters are the process's, so this holds in the threads too
            warnings.simplefilter("ignore")
            needed = np.unique(homes)
            for some in np.split(needed, range(2 * self.window, len(needed), 2 * self.window)):  # scattered: in turn
                reading = {int(group): self._fetched(int(group)) for group in some}
                cells = {group: future.result() for group, future in reading.items()}
                rows = np.flatnonzero(np.isin(homes, some))
                jobs = [self.decoders.submit(fill, part.tolist(), cells) for part in np.array_split(rows, _WORKERS)]
                for job in jobs:
                    job.result()
        turns = sorted({self.turns[group] for group in needed.tolist()} if self.turns else ())
        if len(turns) <= 2:  # in the order of the epoch, not scattered
            for turn in turns:
                for group in self.windows[turn + 1] if turn + 1 < len(self.windows) else ():
                    self._fetched(group)
        return x, found

    def _fetched(self, group: int) -> "Future[Any]":
        """A row group being read, or held already; those not asked for longest make room."""
        with self.lock:
            if group not in self.held:
                self.held[group] = self.readers.submit(read_images, self.groups[group], self.columns)
            self.held.move_to_end(group)
            while len(self.held) > 2 * self.window:
                self.held.popitem(last=False)
            return self.held[group]

    def _readable(self, index: int, home: int, cells: Any) -> tuple[int, Pixels]:
        """The image at `index`, or the next readable one of its row group, and its number."""
        first, n = int(self.starts[home]), self.groups[home].rows
        spec, fitted = self.spec, self.spec.size is not None
        for step in range(n):
            place = (index - first + step) % n
            if first + place in self.broken:
                continue
            try:
                only = None if fitted else self.shape[1:]
                raw = cells[place].as_py() or b""
                pixels, found, *_ = decode(raw, spec.size, self.shape.channels, only, spec.span, spec.cap)
            except UnreadableError as error:
                self._set_aside(first + place, str(error))
                continue
            if pixels is not None:
                return first + place, pixels
            self._set_aside(
                first + place, f"{found[0]}x{found[1]}, the others are {self.shape.height}x{self.shape.width}"
            )
        raise DataError(
            f"no image of row group {self.groups[home].number} of {self.groups[home].shard.name} can be read"
        )

    def _set_aside(self, index: int, reason: str) -> None:
        with self.lock:
            self.broken[index] = reason
            seen = max(int(self.seen.sum()), min(len(self), CERTAIN))
            if len(self.broken) > self.spec.limit_broken * seen:
                told = "\n  ".join(f"{self.name(i)}: {self.broken[i]}" for i in list(self.broken)[:20])
                raise DataError(
                    f"{len(self.broken):,} of {int(self.seen.sum()):,} streamed images cannot be used, more than the "
                    f"limit of {self.spec.limit_broken:.0%}:\n  {told}\nRepair or remove them, or raise --limit-broken."
                )


NOT_AT_HAND = (
    "the images are streamed: they are read in the order of training only. `fabulate train`, `data`, `reconstruct` and "
    "`traverse` can do with that; for all else leave out `stream:`, so that they are decoded once and kept, or give "
    "--data a folder with some of the files"
)
