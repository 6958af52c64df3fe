"""Images that are read as training goes, row group by row group, instead of all being decoded first.

An epoch goes through the row groups in a new order, and through a window of them at a time in a new order within: as
well shuffled as a window is large, and every file is read from one end to the other. The order is a function of (seed,
epoch), and who asks for images asks by number; so a training resumes at the exact image, and several processes share
each batch, as with images in memory. Held are the encoded images of two windows, this one and the next, which is read
while this one is in use; an image is decoded, in threads, when its batch is asked for.

Before that a few hundred images from all over the files are looked at, and the report says so; a test part is held in
memory. Sizes that differ and too many unreadable images are refused then, as by intake; what only shows later is
counted as it is met.

Legend: N images, B batch, C H W image.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec
from fabulate.data.arrays import scale
from fabulate.data.decode import Decoded, decode
from fabulate.data.images import IN_ORDER_ONLY, Data, Images, Stored
from fabulate.data.intake import WORKERS, check_broken, cropped, frequencies, mixed, per_class, sizes_of
from fabulate.data.listing import Labels, Pixels, number
from fabulate.data.parquet import Columns, Group, Reader, Shards, read_images, read_labels
from fabulate.data.reading import UnreadableError
from fabulate.data.report import ImageReport, counted, listed
from fabulate.errors import DataError
from fabulate.seeds import permutation
from fabulate.types import Batch, ImageShape, Ordered, Progress

PREFIX = "stream:"
SHUFFLED = 10_000  # images shuffled together, where
HELD = 128 << 20  # these many bytes of encoded images hold them
CERTAIN = 1000  # images that must have been seen before a share of them is held against the rest
LOOKS, PLACES = 256, 16  # images looked at beforehand, in as many row groups
TESTED = 10_000  # test images, at most, in
TEST_BYTES = 256 << 20  # these many bytes of pixels
GATHERED, GATHERED_BYTES = 60_000, 512 << 20  # training images that stand for all, and bytes of them, at most
_PORTION = 500  # images decoded together that are then held


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
        self.groups, self.labels = tuple(groups), labels
        self._shape, self.spec = shape, spec or DataSpec()
        rows = max(1, sum(group.rows for group in groups) // len(groups))
        nbytes = max(1, sum(group.nbytes for group in groups) // len(groups))
        self.window = max(1, min(SHUFFLED // rows, HELD // nbytes, len(groups)))  # row groups shuffled together
        self.reader = Reader(groups, columns, most=2 * self.window, workers=WORKERS)
        self.starts = self.reader.starts
        self.broken: dict[int, str] = {}  # numbers of the images met so far that cannot be used, and why
        self.seen = np.zeros(len(self), bool)
        self.windows: list[list[int]] = []  # of the latest epoch, and
        self.window_of: dict[int, int] = {}  # the window of each row group
        self.lock = Lock()
        self.decoders = ThreadPoolExecutor(WORKERS, "fabulate-decode")

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def shape(self) -> ImageShape:
        return self._shape

    @property
    def x(self) -> Pixels:
        """Not at hand. Errors: `DataError` that says what to do."""
        raise DataError(IN_ORDER_ONLY)

    @property
    def y(self) -> Labels | None:
        """Classes (N,): they are a column of their own, and small."""
        return self.labels

    def order(self, seed: int, epoch: int) -> Tensor:
        """Every image once: windows of row groups in the epoch's order, each shuffled; int64 (N,)."""
        windows = torch.split(permutation(len(self.groups), seed, "row groups", epoch), self.window)
        self.windows = [window.tolist() for window in windows]
        self.window_of = {group: i for i, window in enumerate(self.windows) for group in window}
        return torch.cat([self._shuffled(window, seed, "order", epoch, i) for i, window in enumerate(windows)])

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
        group = self.reader.group_of(index)
        return f"{self.groups[group].shard.name}[{self.groups[group].first + index - int(self.starts[group])}]"

    def _shuffled(self, groups: Tensor, *address: int | str) -> Tensor:
        rows = torch.cat([torch.arange(self.starts[group], self.starts[group + 1]) for group in groups.tolist()])
        return rows[permutation(len(rows), *address)]

    def _decoded(self, indices: Tensor) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """The images (B, C, H, W) at `indices` (B,), and the numbers (B,) of those that stand there."""
        wanted = indices.numpy()
        groups = np.searchsorted(self.starts, wanted, side="right") - 1
        x = np.empty((len(wanted), *self.shape), np.uint8)
        found = np.empty(len(wanted), np.int64)
        self.seen[wanted] = True

        def fill(rows: Sequence[int], cells: dict[int, Any]) -> None:
            for row in rows:
                group = int(groups[row])
                found[row], x[row] = self._readable(int(wanted[row]), group, cells[group])

        needed = np.unique(groups)
        with warnings.catch_warnings():  # the filters are the process's, so this holds in the threads too
            warnings.simplefilter("ignore")
            for some in np.split(needed, range(2 * self.window, len(needed), 2 * self.window)):  # scattered: in turn
                reading = {int(group): self.reader.fetch(int(group)) for group in some}
                cells = {group: future.result() for group, future in reading.items()}
                rows = np.flatnonzero(np.isin(groups, some))
                jobs = [self.decoders.submit(fill, part.tolist(), cells) for part in np.array_split(rows, WORKERS)]
                for job in jobs:
                    job.result()
        windows = {self.window_of[group] for group in needed.tolist()} if self.window_of else set()
        if len(windows) <= 2:  # in the order of the epoch, not scattered: the next window is read meanwhile
            for window in sorted(windows):
                for group in self.windows[window + 1] if window + 1 < len(self.windows) else ():
                    self.reader.fetch(group)
        return x, found

    def _readable(self, index: int, group: int, cells: Any) -> tuple[int, Pixels]:
        """The image at `index`, or the next readable one of its row group, and its number."""
        first, n = int(self.starts[group]), self.groups[group].rows
        spec, fitted = self.spec, self.spec.size is not None
        for step in range(n):
            row = (index - first + step) % n
            if first + row in self.broken:
                continue
            try:
                only = None if fitted else self.shape[1:]
                raw = cells[row].as_py() or b""
                pixels, found, *_ = decode(raw, spec.sides, self.shape.channels, only, spec.span, spec.cap, spec.fit)
            except UnreadableError as error:
                self._set_aside(first + row, str(error))
                continue
            if pixels is not None:
                return first + row, pixels
            others = f"the others are {self.shape.height}x{self.shape.width}"
            self._set_aside(first + row, f"{found[0]}x{found[1]}, {others}")
        shard = self.groups[group].shard.name
        raise DataError(f"no image of row group {self.groups[group].number} of {shard} can be read")

    def _set_aside(self, index: int, reason: str) -> None:
        with self.lock:
            self.broken[index] = reason
            seen = max(int(self.seen.sum()), min(len(self), CERTAIN))
            broken = [(self.name(i), reason) for i, reason in self.broken.items()]
            check_broken(broken, seen, self.spec.limit_broken, "streamed images cannot be used")


def look(shards: Shards, spec: DataSpec, progress: Progress | None = None) -> Stored:
    """A stream of the training images, the test images, and what a sample showed.

    Errors: `DataError` when none of the sample can be read, more of it than `limit_broken` cannot, or sizes differ.
    """
    train, test, notes = _parts(shards)
    sample, broken = _sample(train, shards, spec)
    sizes = Counter(image.size for image in sample)
    if spec.size is None and len(sizes) > 1:
        raise mixed(sizes)
    pixels = [image.pixels for image in sample if image.pixels is not None]
    shape = ImageShape(max(len(x) for x in pixels), *pixels[0].shape[1:])
    labels = [read_labels(groups, shards.columns) for groups in (train, test)]
    classes, train_y, test_y, warnings = number(*labels, names=shards.columns.names)
    stream = Stream(train, shards.columns, shape, train_y, spec)
    tests = Stream(test, shards.columns, shape, test_y, spec) if test else None
    held, unread = (
        (None, []) if tests is None else _held(tests, torch.arange(_most(tests, TESTED, TEST_BYTES)), progress)
    )
    tested = (len(held) if held else 0) + len(unread)
    if tests is not None and tested < len(tests):
        notes.append(f"the test part is the first {tested:,} of {len(tests):,} test images")
    notes += scale([image.values for image in sample if image.values is not None], spec)
    changes = frequencies(change for image in sample for change in image.changes)
    notes += [f"of the images looked at, {counted(n, 'image')} {change}" for change, n in changes.items()]
    report = ImageReport(
        found=len(stream) + (len(tests) if tests else 0),
        kept=len(stream) + tested - len(unread),
        looked_at=len(sample) + len(broken) + tested,
        set_aside=(*broken, *unread),
        train=len(stream),
        test=tested - len(unread),
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        sizes=sizes_of(sample),
        cut=cropped(((f"one of {image.size[0]}x{image.size[1]}", image.size) for image in sample), spec),
        modes=frequencies(image.mode for image in sample),
        train_classes=per_class(train_y, classes),
        test_classes=per_class(held.y if held else None, classes),
        duplicates=0,
        duplicate_pairs=(),
        shared=0,
        notes=(*shards.notes, *notes, *_about(stream, len(sample) + len(broken))),
        warnings=(*shards.warnings, *warnings),
    )
    return Stored(stream, held, classes, report)


def _parts(shards: Shards) -> tuple[list[Group], list[Group], list[str]]:
    """Row groups to train on and to test on; without test files some of them, a tenth at most, are held out."""
    train = shards.parts["train"]
    if "test" in shards.parts:
        return train, shards.parts["test"], []
    room, held = min(sum(group.rows for group in train) // 10, TESTED), set()
    for i in permutation(len(train), "holdout").tolist():
        if train[i].rows <= room:
            room -= train[i].rows
            held.add(i)
    if not held:
        return train, [], ["no test files, and no row group is small enough to be held out: there is no test part"]
    parts = [[group for i, group in enumerate(train) if (i in held) == out] for out in (False, True)]
    return parts[0], parts[1], [f"no test files: {counted(len(held), 'row group')}, picked at random, held out"]


def _sample(groups: list[Group], shards: Shards, spec: DataSpec) -> tuple[list[Decoded], list[tuple[str, str]]]:
    """Images from all over the row groups: those that can be read, and the name and reason of each other."""
    sound, broken = [], []
    places = np.unique(np.linspace(0, len(groups) - 1, PLACES).round().astype(int)).tolist()
    for group in (groups[place] for place in places):
        cells = read_images(group, shards.columns)
        for row in np.unique(np.linspace(0, group.rows - 1, LOOKS // len(places)).round().astype(int)).tolist():
            try:
                raw = cells[row].as_py() or b""
                sound.append(decode(raw, spec.sides, spec.channels, None, spec.span, spec.cap, spec.fit))
            except UnreadableError as error:
                broken.append((f"{group.shard.name}[{group.first + row}]", str(error)))
    if not sound:
        told = "\n  ".join(listed([f"{name}: {reason}" for name, reason in broken]))
        raise DataError(f"no image of those looked at can be read:\n  {told}")
    check_broken(broken, len(sound) + len(broken), spec.limit_broken, "images looked at cannot be read")
    return sound, broken


def gathered(stream: Stream, progress: Progress | None = None) -> Images:
    """Images of a stream to be read in any order: all, or 60,000 of row groups that are picked at random, always alike.

    They stand in the order of the files, without those that cannot be read. `progress`: (images decoded, in all).
    """
    most = _most(stream, GATHERED, GATHERED_BYTES)
    picked = permutation(len(stream.groups), "gathered").tolist()
    rows = torch.cat([torch.arange(stream.starts[group], stream.starts[group + 1]) for group in picked])
    return _held(stream, rows[:most].sort().values, progress)[0]


def in_memory(data: Data, progress: Progress | None = None) -> Data:
    """Data whose images can be read in any order: of streamed ones those that are `gathered`."""
    return replace(data, train=gathered(data.train, progress)) if isinstance(data.train, Stream) else data


def _most(stream: Stream, n: int, nbytes: int) -> int:
    return min(len(stream), n, max(1, nbytes // stream.shape.size))


def _held(stream: Stream, rows: Tensor, progress: Progress | None) -> tuple[Images, list[tuple[str, str]]]:
    """Some images of a part (N,), decoded, without those that cannot be used: of these the names and reasons."""
    x = np.empty((len(rows), *stream.shape), np.uint8)
    for first in range(0, len(rows), _PORTION):
        last = min(first + _PORTION, len(rows))
        x[first:last] = stream.pixels(rows[first:last])
        if progress is not None:
            progress(last, len(rows))
    sound = [place for place, i in enumerate(rows.tolist()) if i not in stream.broken]
    unread = [(stream.name(i), stream.broken[i]) for i in rows.tolist() if i in stream.broken]
    return Images(x[sound], None if stream.y is None else stream.y[rows.numpy()[sound]]), unread


def _about(stream: Stream, looked: int) -> list[str]:
    """What is worth knowing about how these row groups will be read."""
    count, n = len(stream.groups), len(stream)
    size = sum(group.nbytes for group in stream.groups) / count / 2**20
    notes = [
        f"{counted(looked, 'training image')} from all over the files were looked at; sizes, modes and what cannot be "
        "read are theirs and the test part's. In training others of its row group stand in for an unreadable one",
        f"streamed: {counted(count, 'row group')}, each of about {n // count:,} images and {size:.1f} MB; "
        f"{stream.window:,} at a time are shuffled together, and twice as many held in memory",
    ]
    if stream.y is not None and len(stream.groups) > stream.window:
        parts = [stream.y[a:b] for a, b in pairwise(stream.starts)]
        alike = sum(len(np.unique(part)) == 1 for part in parts if len(part) > 1)
        if len(np.unique(stream.y)) > 1 and alike > len(parts) / 2:
            notes.append("most row groups hold one class only: shuffle the images before they are written into files")
    return notes
