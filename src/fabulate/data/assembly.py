"""From decoded rows to a data set: the unreadable left out, a test part held out, all of it reported.

Legend: N images, C H W image.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from fabulate.config import DataSpec, Training
from fabulate.data.cache import Stored, allocate
from fabulate.data.gate import scale, to_pixels
from fabulate.data.images import Images
from fabulate.data.intake import Intake, Progress
from fabulate.data.listing import Contents, Labels, Part, Pixels
from fabulate.data.report import Report, counted, listed
from fabulate.errors import DataError
from fabulate.seeds import permutation

_COPY = 4096  # rows copied at a time between mapped arrays
_PAIRS = 5  # duplicates named in the report


def take_in(contents: Contents, spec: DataSpec, workspace: Path | None, progress: Progress | None = None) -> Stored:
    """Decode, check and split everything a source holds. Errors: `DataError`, see `Intake.run`."""
    parts, told = _as_pixels(contents, spec)
    intake = Intake(parts, spec, workspace)
    intake.run(progress)
    sound = [row for row, outcome in enumerate(intake.outcomes) if not outcome.reason]
    border = len(contents.train)
    train, test = [row for row in sound if row < border], [row for row in sound if row >= border]
    if not train:
        raise DataError("none of the training images can be read, though some of the test images can")
    values = [outcome.values for outcome in intake.outcomes if outcome.values is not None and not outcome.reason]
    given = any(isinstance(part.raws, np.ndarray) for part in parts)  # an array's range was seen to above
    notes = [*contents.notes, *told, *([] if given else scale(values, spec))]
    if not test:
        train, test = _hold_out(train, notes)
    labels = _labels(contents)
    images = [_select(intake.rows, rows, labels, workspace, name) for name, rows in (("train", train), ("test", test))]
    notes = [*_conversions(intake, spec), *notes, *_warnings(len(train), images[0], contents.classes)]
    names = [intake.names[row] for row in (*train, *test)]
    pairs, shared = _duplicates([part.x for part in images])
    kept = [intake.outcomes[row] for row in sound]
    report = Report(
        found=len(intake.names),
        kept=len(sound),
        set_aside=tuple((intake.names[i], o.reason) for i, o in enumerate(intake.outcomes) if o.reason),
        train=len(train),
        test=len(test),
        channels=intake.rows.shape[1],
        height=intake.target[0],
        width=intake.target[1],
        sizes=_count(f"{o.size[0]}x{o.size[1]}" for o in kept),
        modes=_count(o.mode for o in kept),
        train_classes=_per_class(images[0], contents.classes),
        test_classes=_per_class(images[1], contents.classes),
        duplicates=len(pairs),
        duplicate_pairs=tuple((names[first], names[second]) for first, second in pairs[:_PAIRS]),
        shared=shared,
        notes=tuple(notes),
        warnings=contents.warnings,
    )
    return Stored(images[0], images[1] if test else None, contents.classes, report)


def _as_pixels(contents: Contents, spec: DataSpec) -> tuple[list[Part], list[str]]:
    """The parts, arrays of other numbers made pixels, both by one scale; and notes on that."""
    parts = {"train": contents.train} | ({"test": contents.test} if contents.test else {})
    arrays = {name: part.raws for name, part in parts.items() if isinstance(part.raws, np.ndarray)}
    notes: list[str] = []
    for name, x in arrays.items():
        what = "the array" if spec.source == "array" else f"{spec.source}: the {name} images"
        pixels, said = to_pixels(x, what, spec.span, next((y for other, y in arrays.items() if other != name), None))
        parts[name] = replace(parts[name], raws=pixels)
        notes += [note for note in said if note not in notes]
    return list(parts.values()), notes


def _hold_out(train: list[int], notes: list[str]) -> tuple[list[int], list[int]]:
    """A tenth of the images to test with: the same ones every time, the order otherwise as it was."""
    kept, held = held_out(len(train))
    if not held:
        notes.append("no test part, and too few images to hold any out")
    else:
        notes.append(
            f"no test part: every tenth image, picked at random, is held out ({len(held):,} of {len(train):,})"
        )
    return [train[i] for i in kept], [train[i] for i in held]


def held_out(n: int) -> tuple[list[int], list[int]]:
    """The places, of n images without a test part, that stay to train with, and those held out.

    >>> [len(part) for part in held_out(105)]
    [95, 10]
    """
    picked = set(permutation(n, "holdout")[: n // 10].tolist())
    return [i for i in range(n) if i not in picked], sorted(picked)


def _labels(contents: Contents) -> Labels | None:
    """The labels of all rows, training images first; -1 for those of a test part without labels."""
    if contents.train.labels is None:
        return None
    test = contents.test
    none = np.full(len(test) if test else 0, -1, np.int64)
    return np.concatenate([contents.train.labels, test.labels if test and test.labels is not None else none])


def _select(rows: Pixels, chosen: list[int], labels: Labels | None, workspace: Path | None, name: str) -> Images:
    x = allocate((len(chosen), *rows.shape[1:]), workspace, f"{name}_x")
    for start in range(0, len(chosen), _COPY):
        x[start : start + _COPY] = rows[chosen[start : start + _COPY]]
    y = None if labels is None else labels[chosen]
    return Images(x, None if y is None or (y < 0).any() else y)


def _duplicates(parts: Sequence[Pixels]) -> tuple[list[tuple[int, int]], int]:
    """Every image that equals an earlier one, as (earlier, later), and how many of the last part stand in the first."""
    seen: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    n, shared = 0, 0
    for part in parts:
        begin = n
        for image in part:
            earlier = seen.setdefault(blake2b(image, digest_size=16).digest(), n)
            if earlier != n:
                pairs.append((earlier, n))
            n += 1
        shared = sum(later >= begin and earlier < begin for earlier, later in pairs)
    return pairs, shared


def _conversions(intake: Intake, spec: DataSpec) -> list[str]:
    kept = [outcome for outcome in intake.outcomes if not outcome.reason]
    notes = [f"{counted(n, 'image')} {change}" for change, n in _count(c for o in kept for c in o.changes).items()]
    gray = sum(not outcome.colour for outcome in kept)
    if intake.rows.shape[1] == 3 and gray:
        notes.append(
            f"gray and colour are mixed ({gray:,} gray, {len(kept) - gray:,} colour): gray repeated to three channels"
        )
    size = spec.size
    if size is not None and (resized := [o.size for o in kept if o.size != (size, size)]):
        enlarged = sum(min(found) < size for found in resized)
        notes.append(
            f"{counted(len(resized), 'image')} resized to {size}x{size} with antialiasing (Lanczos), centre-cropped"
            + (f"; {enlarged:,} of them enlarged" if enlarged else "")
        )
    return notes


def _warnings(n: int, train: Images, classes: tuple[str, ...]) -> list[str]:
    notes = []
    if n == 1:
        notes.append("there is one training image only: a model can learn nothing but to repeat it")
    elif n < (batch := Training().batch(train.shape.size)):
        notes.append(f"the {n:,} training images are fewer than one batch of the default size {batch}")
    bare = [name for name, count in _per_class(train, classes).items() if count == 0]
    if bare:
        notes.append(f"classes without training images: {', '.join(listed(bare, limit=5))}")
    return notes


def _per_class(images: Images, classes: tuple[str, ...]) -> dict[str, int]:
    if images.y is None:
        return {}
    counts = np.bincount(images.y, minlength=len(classes))
    return {name: int(n) for name, n in zip(classes, counts, strict=True)}


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
