"""Intake: every image is decoded and checked before the first step of training, and the report says what was seen.

The first image that can be read settles the shape; room for all is made once; threads decode straight into it, so
that no more than a few full-size images are in memory at a time. Images of another size are only measured, and
colour images met in a gray array wait until it has been widened.

Legend: N images, C H W image.
"""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fabulate.config import DataSpec
from fabulate.data.cache import allocate
from fabulate.data.decode import Decoded, Values, decode, measured
from fabulate.data.gate import values_of
from fabulate.data.listing import Part, Pixels, Raw
from fabulate.data.opening import UnreadableError, formats
from fabulate.data.report import listed
from fabulate.errors import DataError, MixedSizesError

Progress = Callable[[int, int], object]
Span = tuple[int, int]

_CHUNK = 64  # images per job: enough to make the job worth its while
_COPY = 4096  # rows copied at a time between mapped arrays
_WORKERS = min(4, os.cpu_count() or 1)


class Outcome(NamedTuple):
    """What became of one image: size, mode and values as found, what was converted, or the reason why it is unreadable.

    `waits`: it is sound as far as it was read, but its row was not written: it has another size, or colour where the
    rows are gray.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    changes: tuple[str, ...] = ()
    values: Values | None = None
    colour: bool = False
    reason: str = ""
    waits: bool = False


class Intake:
    """All images of a source on their way into one array of rows; test images follow the training images."""

    rows: Pixels
    target: tuple[int, int]

    def __init__(self, parts: Sequence[Part], spec: DataSpec, workspace: Path | None) -> None:
        self.parts, self.spec, self.workspace = parts, spec, workspace
        self.names = [name for part in parts for name in part.names]
        self.outcomes = [Outcome()] * len(self.names)

    def run(self, progress: Progress | None = None) -> None:
        """Decode everything into `rows` (N, C, H, W); rows whose outcome has a reason are left undefined.

        Errors: `DataError` when nothing can be read, or when the images differ in size.
        """
        formats()  # Pillow loads its readers on first use, and not safely from several threads
        with warnings.catch_warnings():  # the filters are the process's, so this holds in the threads too
            warnings.simplefilter("ignore")
            self.target, channels = self._first()
            self.rows = allocate((len(self.names), channels, *self.target), self.workspace, "gray")
            self._fill(self._spans(_CHUNK), progress)
            self._settle_sizes()
            colour = [row for row, outcome in enumerate(self.outcomes) if outcome.waits]
            if colour:
                self._widen()
                self._fill([(row, row + 1) for row in colour])

    def _raws(self, start: int, stop: int) -> Sequence[Raw] | Pixels:
        first = self.parts[0]
        if start < len(first):
            return first.raws[start:stop]
        return self.parts[1].raws[start - len(first) : stop - len(first)]

    def _spans(self, step: int) -> Iterator[Span]:
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

    def _fill(self, spans: Iterable[Span], progress: Progress | None = None) -> None:
        """Decode spans of rows in threads, a few ahead of the one that is waited for."""
        ahead: deque[tuple[Span, Future[list[Outcome]]]] = deque()

        def collect() -> None:
            (start, stop), future = ahead.popleft()
            self.outcomes[start:stop] = future.result()
            if progress is not None:
                progress(stop, len(self.names))

        with ThreadPoolExecutor(_WORKERS) as pool:
            for span in spans:
                ahead.append((span, pool.submit(self._decode_span, *span)))
                if len(ahead) > 2 * _WORKERS:
                    collect()
            while ahead:
                collect()

    def _decode_span(self, start: int, stop: int) -> list[Outcome]:
        only = self.target if self.spec.size is None else None
        return [self._decode_row(start + i, raw, only) for i, raw in enumerate(self._raws(start, stop))]

    def _decoded(self, raw: Raw, only: tuple[int, int] | None) -> Decoded:
        return decode(raw, self.spec.size, self.spec.channels, only, self.spec.span, self.spec.cap)

    def _decode_row(self, row: int, raw: Raw, only: tuple[int, int] | None) -> Outcome:
        try:
            pixels, size, mode, changes, values = self._decoded(raw, only)
        except UnreadableError as error:
            return Outcome(reason=str(error))
        if pixels is None:
            return Outcome(size, mode, waits=True)
        fits = pixels.shape[1:] == self.target and pixels.shape[0] <= self.rows.shape[1]
        if fits:
            self.rows[row] = pixels  # a gray image spreads over three channels
        return Outcome(size, mode, changes, values, colour=len(pixels) == 3, waits=not fits)

    def _settle_sizes(self) -> None:
        """Images of another size were only measured: the first sound one among them proves that sizes are mixed."""
        if self.spec.size is not None:
            return
        sizes = Counter(outcome.size for outcome in self.outcomes if not outcome.reason)
        for row, outcome in enumerate(self.outcomes):
            if outcome.size != self.target and not outcome.reason:
                self.outcomes[row] = outcome = self._decode_row(row, self._raws(row, row + 1)[0], None)
                if not outcome.reason and outcome.size != self.target:
                    raise mixed(sizes)

    def _widen(self) -> None:
        gray = self.rows
        self.rows = allocate((len(gray), 3, *self.target), self.workspace, "colour")
        for start in range(0, len(gray), _COPY):
            self.rows[start : start + _COPY] = gray[start : start + _COPY]


def spread(parts: Sequence[Part], cap: int, progress: Progress | None = None) -> tuple[float, float]:
    """The smallest and the largest value over all images that hold more than 8 bits, for one scale for all of them.

    Errors: `DataError` when there is no such image that can be read, or they are all of one value.
    """
    found: list[tuple[float, float]] = []
    formats()
    for part in parts:
        if isinstance(part.raws, np.ndarray):
            found += [] if part.raws.dtype in (np.uint8, np.bool_) else [values_of(part.raws)]
            continue

        def look(raw: Raw) -> Values | None:
            try:
                return measured(raw, cap)
            except UnreadableError:
                return None  # intake meets it again, and says so

        with ThreadPoolExecutor(_WORKERS) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
        f"give --size N to resize and crop them all, for example --size {size}",
        size=size,
    )
