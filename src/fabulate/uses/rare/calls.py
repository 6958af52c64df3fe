"""Asking a simulator: in parts, by several workers, and so that nothing it has said is lost.

A simulator is somebody's program. It may take minutes a point, fail at one point of a thousand, and be killed at night.
So points go to it in parts, which workers share; where it raises, the part is halved until the points that it fails at
stand alone, and those count as NaN; and what it says can be kept in a file, part by part. A call with the same seed
draws the same points again, finds them in the file and goes on where it was stopped: points are known by their digest.
The first point that is found is asked once more, lest the answers be those of another simulator.

Legend: N points, D dimensions.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from os import cpu_count
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from fabulate.errors import ConfigError, DataError, FabulateError, RunError
from fabulate.files import digest, place_file

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Any]
FAILURES = (ArithmeticError, ValueError, RuntimeError, OSError)
"""What a simulator raises at a point that it cannot do; anything else is a bug in it, and ends the estimate."""

PARTS = 8  # of a round, or of each worker's share: what is lost at most when it is killed
OTHERS = 16  # workers that an executor is taken to have: it does not say


class Answer(NamedTuple):
    """What a simulator says of points (N, D)."""

    values: Array  # (N,), NaN where it failed
    error: str = ""
    """The last that it raised."""


class Calls:
    """Asks `g` in parts. `workers`: processes (-1: one for each core), or an executor of one's own. `file`: an .npz of
    what it has said, read first and written after each part.

    >>> Calls(lambda x: 1 / (x[:, 0] > 0))(np.array([[1.0], [2.0]])).values
    array([1., 1.])

    Errors: `ConfigError` for workers that are none, `RunError` for a file that holds something else.
    """

    def __init__(self, g: Function, workers: int | Executor = 1, file: str | Path | None = None) -> None:
        if isinstance(workers, int) and (workers < -1 or workers == 0):
            raise ConfigError(
                f"workers is a number of processes, -1 for one of each core, or an executor; got {workers}"
            )
        self.g = g
        self.workers = (cpu_count() or 1) if workers == -1 else workers
        self.file = None if file is None else Path(file)
        self.known = {} if self.file is None else read(self.file)
        self.doubted = bool(self.known)

    def __call__(self, x: Array) -> Answer:
        """What it says of points (N, D). Errors: `DataError` for what are no N numbers."""
        if self.workers == 1 and self.file is None:
            return ask(self.g, x)
        count = PARTS * (self.workers if isinstance(self.workers, int) else OTHERS)
        parts = np.array_split(x, max(1, min(count, len(x))))
        names = [digest(np.ascontiguousarray(part).tobytes()) for part in parts]
        new = [i for i, name in enumerate(names) if name not in self.known]
        if self.doubted and len(new) < len(parts):
            i = next(i for i in range(len(parts)) if i not in new)
            self.compare(parts[i][0], float(self.known[names[i]][0]))
            self.doubted = False
        error, together = "", 1 if self.workers == 1 else len(new)
        for first in range(0, len(new), max(1, together)):
            rows = new[first : first + together]
            for i, answer in zip(rows, self.asked([parts[i] for i in rows]), strict=True):
                error = answer.error or error
                self.known[names[i]] = answer.values
                if self.file is not None:
                    place_file(self.file, self.write)
        values = np.concatenate([self.known[name] for name in names])
        if self.file is None:
            self.known = {}
        return Answer(values, error)

    def compare(self, x: Array, known: float) -> None:
        """Ask for one point (D,) that is known. Errors: `RunError` for another answer."""
        now = float(ask(self.g, x[None]).values[0])
        if not np.isclose(now, known, rtol=1e-6, atol=0, equal_nan=True):
            raise RunError(
                f"{self.file} holds what another simulator said, or one that does not repeat itself: at the same point "
                f"{known:g}, and now {now:g}; give another name"
            )

    def write(self, stream: IO[bytes]) -> None:
        """Write what is known."""
        arrays: dict[str, Any] = dict(self.known)
        np.savez(stream, **arrays)

    def asked(self, parts: list[Array]) -> Any:
        """The answers to parts, one after the other as they come."""
        if self.workers == 1:
            return (ask(self.g, part) for part in parts)
        if isinstance(self.workers, Executor):
            return self.workers.map(ask, [self.g] * len(parts), parts)
        from joblib import Parallel, delayed  # type: ignore[import-untyped]  # has no stubs

        return Parallel(n_jobs=self.workers, return_as="generator")(delayed(ask)(self.g, part) for part in parts)


def ask(g: Function, x: Array) -> Answer:
    """What g says of points (N, D); where it raises, of each half, down to the points that it fails at."""
    try:
        return Answer(checked(g(x.copy()), x))
    except FabulateError:
        raise
    except FAILURES as error:
        words = f"{type(error).__name__}: {error}"
    if len(x) == 1:
        return Answer(np.array([np.nan]), words)
    halves = [ask(g, half) for half in np.array_split(x, 2)]
    return Answer(np.concatenate([half.values for half in halves]), words)


def checked(given: Any, x: Array) -> Array:
    """N numbers for N points. Errors: `DataError` for anything else."""
    given = np.asarray(given)
    if given.shape != (len(x),):
        raise DataError(f"g must give one number for each point, shape ({len(x)},), not {given.shape}")
    if given.dtype.kind not in "fiub":
        raise DataError(f"g must give real numbers, not {given.dtype}")
    return given.astype(np.float64)


def read(file: Path) -> dict[str, Array]:
    """What a simulator has said before; nothing where there is no such file."""
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise RunError(f"{file} is no file of a simulator's answers ({error}): give another name") from error
    if not all(values.ndim == 1 and values.dtype == np.float64 for values in found.values()):
        raise RunError(f"{file} is no file of a simulator's answers but holds {', '.join([*found][:3])}: give another")
    return found
