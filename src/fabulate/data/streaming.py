"""Before a streamed training: a look at a sample of the images, and a test part that is held in memory.

Looking at all is what streaming does without, so the report tells what a few hundred images from all over the shards
show, and says so. Sizes that differ and too many unreadable images are refused here, as by intake; what only shows
later is counted by the `Stream` as it is met.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import torch

from fabulate.config import DataSpec
from fabulate.data.cache import Stored
from fabulate.data.decode import Decoded, decode
from fabulate.data.gate import scale
from fabulate.data.images import Images
from fabulate.data.intake import Progress, mixed
from fabulate.data.listing import Labels, Numbered, label_of, number
from fabulate.data.opening import UnreadableError
from fabulate.data.report import Report, counted, listed
from fabulate.data.shards import Group, Shards, read_images, read_labels
from fabulate.data.stream import Stream
from fabulate.errors import DataError
from fabulate.seeds import permutation
from fabulate.types import ImageShape

PREFIX = "stream:"
LOOKS, PLACES = 256, 16  # images looked at, in as many row groups
TESTED = 10_000  # test images, at most, in
TEST_BYTES = 256 << 20  # these many bytes of pixels
_PORTION = 500  # test images decoded together


def look(shards: Shards, spec: DataSpec, progress: Progress | None = None) -> Stored:
    """A stream of the training images, the test images, and what a sample showed.

    Errors: `DataError` when none of the sample can be read, more of it than `limit_broken` cannot, or sizes differ.
    """
    train, test, notes = _parts(shards)
    sample, set_aside = _sample(train, shards, spec)
    sizes = Counter(image.size for image in sample)
    if spec.size is None and len(sizes) > 1:
        raise mixed(sizes)
    pixels = [image.pixels for image in sample if image.pixels is not None]
    shape = ImageShape(max(len(x) for x in pixels), *pixels[0].shape[1:])
    classes, train_y, test_y, warnings = _labels(train, test, shards)
    told: list[str] = []
    stream, *rest = [
        Stream(groups, shards.columns, shape, y, spec) for groups, y in ((train, train_y), (test, test_y)) if groups
    ]
    held, unread = _held(rest[0], progress) if rest else (None, [])
    tested = (len(held) if held else 0) + len(unread)
    if rest and tested < len(rest[0]):
        told.append(f"the test part is the first {tested:,} of {len(rest[0]):,} test images")
    changes = Counter(change for image in sample for change in image.changes)
    told += scale([image.values for image in sample if image.values is not None], spec)
    told += [f"of the images looked at, {counted(n, 'image')} {change}" for change, n in changes.items()]
    report = Report(
        found=len(stream) + sum(map(len, rest)),
        kept=len(stream) + tested - len(unread),
        looked_at=len(sample) + len(set_aside) + tested,
        set_aside=(*set_aside, *unread),
        train=len(stream),
        test=tested - len(unread),
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        sizes={f"{height}x{width}": n for (height, width), n in sizes.most_common()},
        modes=dict(Counter(image.mode for image in sample).most_common()),
        train_classes=_counts(train_y, classes),
        test_classes=_counts(held.y if held else None, classes),
        duplicates=0,
        duplicate_pairs=(),
        shared=0,
        notes=(*shards.notes, *notes, *told, *_about(stream, len(sample) + len(set_aside))),
        warnings=warnings,
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
    sound, unread = [], []
    places = np.unique(np.linspace(0, len(groups) - 1, PLACES).round().astype(int)).tolist()
    for group in (groups[place] for place in places):
        cells = read_images(group, shards.columns)
        for row in np.unique(np.linspace(0, group.rows - 1, LOOKS // len(places)).round().astype(int)).tolist():
            try:
                sound.append(decode(cells[row].as_py() or b"", spec.size, spec.channels, None, spec.span, spec.cap))
            except UnreadableError as error:
                unread.append((f"{group.shard.name}[{group.first + row}]", str(error)))
    told = "\n  ".join(listed([f"{name}: {reason}" for name, reason in unread]))
    if not sound:
        raise DataError(f"no image of those looked at can be read:\n  {told}")
    if len(unread) > spec.limit_broken * (looked := len(sound) + len(unread)):
        raise DataError(
            f"{len(unread):,} of {looked:,} images looked at cannot be read, more than the limit of "
            f"{spec.limit_broken:.0%}:\n  {told}\nRepair or remove them, or raise --limit-broken."
        )
    return sound, unread


def _labels(train: list[Group], test: list[Group], shards: Shards) -> Numbered:
    """Names of classes, labels of both parts, and what there is to say about them."""
    read = [
        read_labels(groups, shards.columns) or [None] * sum(group.rows for group in groups) for groups in (train, test)
    ]
    labels = [[None if label == -1 else label_of(label) for label in part] for part in read]
    return number(*labels, names=shards.columns.names)


def _held(stream: Stream, progress: Progress | None) -> tuple[Images, list[tuple[str, str]]]:
    """The first images of a part, decoded, without those that cannot be used: of these the names and reasons."""
    n = min(len(stream), TESTED, max(1, TEST_BYTES // stream.shape.size))
    x = np.empty((n, *stream.shape), np.uint8)
    for first in range(0, n, _PORTION):
        last = min(first + _PORTION, n)
        x[first:last] = stream.pixels(torch.arange(first, last))
        if progress is not None:
            progress(last, n)
    sound = [i for i in range(n) if i not in stream.broken]
    unread = [(stream.name(i), stream.broken[i]) for i in range(n) if i in stream.broken]
    return Images(x[sound], None if stream.y is None else stream.y[sound]), unread


def _counts(y: Labels | None, classes: tuple[str, ...]) -> dict[str, int]:
    if y is None:
        return {}
    return dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True))


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
