"""Intake: every image is decoded and checked before the first step of training, and the report says what was seen.

The first image that can be read settles the shape; room for all is made once; threads decode straight into it, so
that no more than a few full-size images are in memory at a time. Images of another size are only measured. Where colour
is met among gray, it begins anew with colour. Then the unreadable are left out and a test part is held out.

Legend: N images, C H W image.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fabulate.config import DataSpec, Fit, Reading, Training
from fabulate.data.arrays import scale, to_pixels, values_of
from fabulate.data.cache import allocate
from fabulate.data.decode import Decoded, Sides, Values, cut_away, decode, measured
from fabulate.data.images import Images, Stored
from fabulate.data.listing import Contents, Labels, Part, Pixels, Raw
from fabulate.data.reading import UnreadableError
from fabulate.data.report import ImageReport, counted, listed
from fabulate.errors import DataError, MixedSizesError
from fabulate.files import digest
from fabulate.seeds import permutation
from fabulate.types import Progress

WORKERS = min(4, os.cpu_count() or 1)
_CHUNK = 64  # images per job: enough to make the job worth its while
_COPY = 4096  # rows copied at a time between mapped arrays
_PAIRS = 5  # duplicates named in the report


FITS: dict[Fit, str] = {
    "crop": "centre-cropped",
    "pad": "kept whole between bars, white or transparent",
    "stretch": "stretched",
}


class Outcome(NamedTuple):
    """What became of one image: size, mode and values as found, what was converted, or why it cannot be read."""

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    changes: tuple[str, ...] = ()
    values: Values | None = None
    colour: bool = False
    reason: str = ""


def take_in(contents: Contents, spec: DataSpec, workspace: Path | None, progress: Progress | None = None) -> Stored:
    """Decode, check and split everything a source holds.

    Errors: `DataError` when nothing can be read, or when the images differ in size.
    """
    parts, said = _as_pixels(contents, spec)
    intake = Intake(parts, spec, workspace)
    intake.run(progress)
    sound = [row for row, outcome in enumerate(intake.outcomes) if not outcome.reason]
    border = len(contents.train)
    train, test = [row for row in sound if row < border], [row for row in sound if row >= border]
    if not train:
        raise DataError("none of the training images can be read, though some of the test images can")
    kept = [intake.outcomes[row] for row in sound]
    notes = [*contents.notes, *said]
    if not any(isinstance(part.raws, np.ndarray) for part in parts):  # an array's range was seen to above
        notes += scale([outcome.values for outcome in kept if outcome.values is not None], spec)
    if not test:
        train, test = _hold_out(train, notes)
    labels = _labels(contents)
    images = [_select(intake.rows, rows, labels, workspace, name) for name, rows in (("train", train), ("test", test))]
    notes = [*_conversions(kept, intake.rows.shape[1], spec), *notes, *_warnings(images[0], contents.classes)]
    names = [intake.names[row] for row in (*train, *test)]
    pairs, shared = _duplicates([part.x for part in images])
    report = ImageReport(
        found=len(intake.names),
        kept=len(sound),
        set_aside=tuple((intake.names[i], o.reason) for i, o in enumerate(intake.outcomes) if o.reason),
        train=len(train),
        test=len(test),
        channels=intake.rows.shape[1],
        height=intake.target[0],
        width=intake.target[1],
        sizes=sizes_of(kept),
        cut=cropped(((intake.names[row], intake.outcomes[row].size) for row in sound), spec),
        modes=frequencies(outcome.mode for outcome in kept),
        train_classes=per_class(images[0].y, contents.classes),
        test_classes=per_class(images[1].y, contents.classes),
        duplicates=len(pairs),
        duplicate_pairs=tuple((names[first], names[second]) for first, second in pairs[:_PAIRS]),
        shared=shared,
        notes=tuple(notes),
        warnings=contents.warnings,
    )
    return Stored(images[0], images[1] if test else None, contents.classes, report)


class _ColourError(Exception):
    """A colour image was met where the rows are gray."""


class Intake:
    """All images of a source on their way into one array of rows; test images follow the training images."""

    rows: Pixels
    target: tuple[int, int]

    def __init__(self, parts: Sequence[Part], spec: DataSpec, workspace: Path | None) -> None:
        self.parts, self.spec, self.workspace = parts, spec, workspace
        self.names = [name for part in parts for name in part.names]
        self.outcomes = [Outcome()] * len(self.names)

    def run(self, progress: Progress | None = None) -> None:
        """Decode everything into `rows` (N, C, H, W); rows whose outcome has a reason are left undefined."""
        with warnings.catch_warnings():  # the filters are the process's, so this holds in the threads too
            warnings.simplefilter("ignore")
            self.target, channels = self._first()
            try:
                self._fill(channels, progress)
            except _ColourError:
                self._fill(3, progress)
            self._check_sizes()

    def _raws(self, start: int, stop: int) -> Sequence[Raw] | Pixels:
        first = self.parts[0]
        if start < len(first):
            return first.raws[start:stop]
        return self.parts[1].raws[start - len(first) : stop - len(first)]

    def _spans(self, step: int) -> Iterator[tuple[int, int]]:
        """Spans of rows that cover everything; none crosses from one part to the next."""
        begin = 0
        for part in self.parts:
            end = begin + len(part)
            for start in range(begin, end, step):
                yield start, min(start + step, end)
            begin = end

    def _first(self) -> tuple[tuple[int, int], int]:
        """Height, width and channels of the first image that can be read."""
        reasons = []
        for start, stop in self._spans(1):
            try:
                pixels = self._decoded(self._raws(start, stop)[0], None).pixels
            except UnreadableError as error:
                reasons.append(f"{self.names[start]}: {error}")
                continue
            assert pixels is not None  # everything is decoded unless `only` is given
            return (pixels.shape[1], pixels.shape[2]), pixels.shape[0]
        raise DataError("no image can be read:\n  " + "\n  ".join(listed(reasons)))

    def _fill(self, channels: int, progress: Progress | None) -> None:
        """Decode all rows, in threads. Errors: `_ColourError`."""
        self.rows = allocate((len(self.names), channels, *self.target), self.workspace, f"{channels}-channels")
        spans, pool = list(self._spans(_CHUNK)), ThreadPoolExecutor(WORKERS)
        try:
            for (start, stop), outcomes in zip(spans, pool.map(self._decode_span, spans), strict=True):
                self.outcomes[start:stop] = outcomes
                if channels == 1 and any(outcome.colour for outcome in outcomes):
                    raise _ColourError
                if progress is not None:
                    progress(stop, len(self.names))
        finally:
            pool.shutdown(cancel_futures=True)  # nobody waits for the rest, at Ctrl-C either

    def _decode_span(self, span: tuple[int, int]) -> list[Outcome]:
        only = self.target if self.spec.size is None else None
        return [self._decode_row(span[0] + i, raw, only) for i, raw in enumerate(self._raws(*span))]

    def _decoded(self, raw: Raw, only: tuple[int, int] | None) -> Decoded:
        spec = self.spec
        return decode(raw, spec.sides, spec.channels, only, spec.span, spec.cap, spec.fit)

    def _decode_row(self, row: int, raw: Raw, only: tuple[int, int] | None) -> Outcome:
        try:
            pixels, size, mode, changes, values = self._decoded(raw, only)
        except UnreadableError as error:
            return Outcome(reason=str(error))
        if pixels is None:
            return Outcome(size, mode)
        if pixels.shape[1:] == self.target and len(pixels) <= self.rows.shape[1]:
            self.rows[row] = pixels  # a gray image spreads over three channels
        return Outcome(size, mode, changes, values, colour=len(pixels) >= 3)

    def _check_sizes(self) -> None:
        """Images of another size were only measured: the first sound one among them proves that sizes are mixed."""
        if self.spec.size is not None:
            return
        sizes = Counter(outcome.size for outcome in self.outcomes if not outcome.reason)
        for row, outcome in enumerate(self.outcomes):
            if outcome.size != self.target and not outcome.reason:
                self.outcomes[row] = outcome = self._decode_row(row, self._raws(row, row + 1)[0], None)
                if not outcome.reason and outcome.size != self.target:
                    raise mixed(sizes)


def spread(parts: Sequence[Part], cap: int, progress: Progress | None = None) -> tuple[float, float]:
    """The smallest and the largest value over all images that hold more than 8 bits, for one scale for all of them.

    Errors: `DataError` when there is no such image that can be read, or they are all of one value.
    """
    found: list[tuple[float, float]] = []

    def look(raw: Raw) -> Values | None:
        try:
            return measured(raw, cap)
        except UnreadableError:
            return None  # intake meets it again, and says so

    with ThreadPoolExecutor(WORKERS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in parts:
            if isinstance(part.raws, np.ndarray):
                found += [] if part.raws.dtype in (np.uint8, np.bool_) else [values_of(part.raws)]
                continue
            for start in range(0, len(part), _CHUNK):
                values = pool.map(look, part.raws[start : start + _CHUNK])
                found += [(value.low, value.high) for value in values if value is not None]
                if progress is not None:
                    progress(min(start + _CHUNK, len(part)), len(part))
    low, high = min((low for low, _ in found), default=0.0), max((high for _, high in found), default=0.0)
    if not low < high:
        seen = f"they all have the value {low:g}" if found else "there is no readable image of more than 8 bits"
        raise DataError(f"--range auto looks for the range of the values in images of more than 8 bits, and {seen}")
    return low, high


def mixed(sizes: Counter[tuple[int, int]]) -> MixedSizesError:
    """The error that tells the sizes (height, width) found and a size that would suit them."""
    told = [f"{height}x{width} ({n:,})" for (height, width), n in sizes.most_common()]
    shorter = sorted(min(size) for size in sizes.elements())
    middle = shorter[len(shorter) // 2]
    # a power of two that half of the images reach, small enough for a first try on a laptop
    size = max([n for n in (8, 16, 32, 64) if n <= middle], default=middle)
    return MixedSizesError(
        f"the images differ in size: {', '.join(listed(told, limit=5))} (height x width, and how many); "
        f"give --size N or HEIGHTxWIDTH to bring them all to it, for example --size {size}; "
        "--fit crop, pad or stretch says how",
        size=size,
    )


def check_broken(broken: Sequence[tuple[str, str]], n: int, limit: float, what: str = "images cannot be read") -> None:
    """Refuse images of which more than a share is broken, with their names and reasons. Errors: `DataError`."""
    if len(broken) > limit * n:
        told = "\n  ".join(listed([f"{name}: {reason}" for name, reason in broken]))
        raise DataError(
            f"{len(broken):,} of {n:,} {what}, more than the limit of {limit:.0%}:\n  {told}\nRepair or remove them, "
            "or raise --limit-broken."
        )


def held_out(n: int) -> tuple[list[int], list[int]]:
    """The numbers, of n images without a test part, of those that stay to train with, and of those held out.

    >>> [len(part) for part in held_out(105)]
    [95, 10]
    """
    picked = set(permutation(n, "holdout")[: n // 10].tolist())
    return [i for i in range(n) if i not in picked], sorted(picked)


def sizes_of(images: Iterable[Outcome | Decoded]) -> dict[str, int]:
    """How many images there are of each size, as they were found."""
    return frequencies(f"{height}x{width}" for height, width in (image.size for image in images))


def cropped(found: Iterable[tuple[str, Sides]], spec: Reading) -> tuple[float, float, str] | None:
    """What cropping cuts away of images, given by name and size as found: see `ImageReport.cut`."""
    if spec.sides is None or spec.fit != "crop":
        return None
    cut = [(cut_away(size, spec.sides), name) for name, size in found]
    most, name = max(cut, default=(0.0, ""))
    return (sum(share for share, _ in cut) / len(cut), most, name) if most else None


def frequencies(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def per_class(y: Labels | None, classes: Sequence[str]) -> dict[str, int]:
    """How many images there are of each class; nothing where labels are not known."""
    return {} if y is None else dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True))


def _as_pixels(contents: Contents, spec: DataSpec) -> tuple[list[Part], list[str]]:
    """The parts, arrays of other numbers made pixels, both by one scale; and notes on that."""
    parts, notes = contents.parts, dict[str, None]()
    for i, (name, part) in enumerate(zip(("train", "test"), contents.parts, strict=False)):
        if isinstance(part.raws, np.ndarray):
            what = "the array" if spec.source == "array" else f"{spec.source}: the {name} images"
            others = [
                other.raws for other in contents.parts if other is not part and isinstance(other.raws, np.ndarray)
            ]
            pixels, said = to_pixels(part.raws, what, spec.span, *others)
            parts[i] = replace(part, raws=pixels)
            notes |= dict.fromkeys(said)
    return parts, list(notes)


def _hold_out(train: list[int], notes: list[str]) -> tuple[list[int], list[int]]:
    """A tenth of the images to test with: the same ones every time, the order otherwise as it was."""
    kept, held = held_out(len(train))
    if held:
        counts = f"{len(held):,} of {len(train):,}"
        notes.append(f"no test part: every tenth image, picked at random, is held out ({counts})")
    else:
        notes.append("no test part, and too few images to hold any out")
    return [train[i] for i in kept], [train[i] for i in held]


def _labels(contents: Contents) -> Labels | None:
    """The labels of all rows, training images first; -1 for those of a test part without labels."""
    if contents.train.labels is None:
        return None
    parts = [np.full(len(part), -1, np.int64) if part.labels is None else part.labels for part in contents.parts]
    return np.concatenate(parts)


def _select(rows: Pixels, chosen: list[int], labels: Labels | None, workspace: Path | None, name: str) -> Images:
    x = allocate((len(chosen), *rows.shape[1:]), workspace, f"{name}_x")
    for start in range(0, len(chosen), _COPY):
        x[start : start + _COPY] = rows[chosen[start : start + _COPY]]
    y = None if labels is None else labels[chosen]
    return Images(x, None if y is None or (y < 0).any() else y)


def _duplicates(parts: Sequence[Pixels]) -> tuple[list[tuple[int, int]], int]:
    """Every image that equals an earlier one, as (earlier, later), and how many of the last part stand in the first."""
    seen: dict[str, int] = {}
    later = ((n, digest(image)) for n, image in enumerate(image for part in parts for image in part))
    pairs = [(earlier, n) for n, key in later if (earlier := seen.setdefault(key, n)) != n]
    border = len(parts[0])
    return pairs, sum(earlier < border <= n for earlier, n in pairs)


def _conversions(kept: Sequence[Outcome], channels: int, spec: DataSpec) -> list[str]:
    changes = frequencies(change for outcome in kept for change in outcome.changes)
    notes = [f"{counted(n, 'image')} {change}" for change, n in changes.items()]
    gray = sum(not outcome.colour for outcome in kept)
    if channels == 3 and gray:
        notes.append(
            f"gray and colour are mixed ({gray:,} gray, {len(kept) - gray:,} colour): gray repeated to three channels"
        )
    if spec.sides is not None and (resized := [o.size for o in kept if o.size != spec.sides]):
        high, wide = spec.sides
        smaller = all if spec.fit == "pad" else any  # a side that has to grow; of one that is filled up, both
        enlarged = sum(smaller((found[0] < high, found[1] < wide)) for found in resized)
        notes.append(
            f"{counted(len(resized), 'image')} resized to {high}x{wide} with antialiasing (Lanczos), {FITS[spec.fit]}"
            + (f"; {enlarged:,} of them enlarged" if enlarged else "")
        )
    return notes


def _warnings(train: Images, classes: tuple[str, ...]) -> list[str]:
    notes = []
    if len(train) == 1:
        notes.append("there is one training image only: a model can learn nothing but to repeat it")
    elif len(train) < (batch := Training().batch(train.shape.size)):
        notes.append(f"the {len(train):,} training images are fewer than one batch of the default size {batch}")
    bare = [name for name, count in per_class(train.y, classes).items() if count == 0]
    if bare:
        notes.append(f"classes without training images: {', '.join(listed(bare, limit=5))}")
    return notes
