"""Decoded images are kept, so that a second load reads arrays instead of files.

One folder per fingerprint, made beside its place and moved there whole: an entry is complete or absent. An entry that
does not check out is removed and made anew; a cache that cannot be written is done without.
"""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fabulate.config import spec, to_json
from fabulate.data import shelves
from fabulate.data.images import Images
from fabulate.data.listing import Pixels
from fabulate.data.report import Report
from fabulate.data.shelves import held, hold, shelf, touched
from fabulate.errors import DataError, RunError
from fabulate.files import read_json, write_json

root = shelves.root
File = Literal["train_x", "train_y", "test_x", "test_y"]


@spec
class Facts:
    """What `data.json` tells of an entry."""

    classes: tuple[str, ...]
    report: Report
    checksums: dict[File, int | None]


class Stored(NamedTuple):
    """A data set as intake makes it and the cache keeps it."""

    train: Images
    test: Images | None
    classes: tuple[str, ...]
    report: Report


def in_memory(nbytes: int) -> bool:
    """Whether an array is small enough to be held: below a quarter of the machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 8 << 30
    return nbytes < memory // 4


def allocate(shape: tuple[int, ...], workspace: Path | None, name: str) -> Pixels:
    """Room for images (N, C, H, W): in memory when they fit, else a file in the workspace, memory-mapped.

    Errors: `DataError` when they fit in neither; a mapped file on a full disk would end the process instead.
    """
    nbytes = int(np.prod(shape))
    if in_memory(nbytes):
        return np.empty(shape, np.uint8)
    folder = room_for(nbytes, workspace, f"{shape[0]:,} images")
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)


def room_for(nbytes: int, workspace: Path | None, what: str) -> Path:
    """The workspace, when so many bytes fit on its disk. Errors: `DataError`."""
    if workspace is None or shutil.disk_usage(workspace).free < nbytes:
        raise DataError(
            f"{what} need {nbytes / 2**30:.1f} GiB, too much for the memory and for the cache {root()}; "
            "set FABULATE_CACHE to a folder with room, or give a smaller --size"
        )
    return workspace


@contextmanager
def workspace(fingerprint: str) -> Iterator[Path | None]:
    """A folder to make an entry in, removed afterwards unless stored; None when the cache cannot be written."""
    with shelves.workspace(fingerprint) as outer:
        if outer is None:
            yield None
            return
        inner = outer / "entry"  # moved away as a whole; its temporary parent stays to be removed
        inner.mkdir()
        yield inner


def store(stored: Stored, fingerprint: str, workspace: Path) -> None:
    """Write the entry and move it into place. When the disk refuses or another process was first, nothing happens."""
    arrays: dict[File, Any] = {"train_x": stored.train.x, "train_y": stored.train.y}
    if stored.test is not None:
        arrays |= {"test_x": stored.test.x, "test_y": stored.test.y}
    with suppress(OSError):
        for scratch in workspace.iterdir():
            if scratch.stem not in arrays:
                scratch.unlink()
        sums: dict[File, int | None] = {}
        for name, value in arrays.items():
            if value is None:
                continue
            if isinstance(value, np.memmap):  # allocated in the workspace under this name
                value.flush()
                sums[name] = None  # reading it all is what mapping avoids
            else:
                np.save(workspace / f"{name}.npy", value)
                sums[name] = _checksum(value)
        facts = Facts(classes=stored.classes, report=stored.report, checksums=sums)
        write_json(workspace / "data.json", to_json(facts))
        place = workspace.replace(root() / "data" / fingerprint)
        with held(place):  # or what is larger than the limit by itself would go at once
            shelves.trim()


def load(fingerprint: str) -> Stored | None:
    """The entry of a fingerprint, checked; None when there is none. A damaged entry is removed."""
    folder = root() / "data" / fingerprint
    try:
        if not folder.is_dir():
            return None
    except OSError:  # a cache that cannot even be looked at
        return None
    try:
        with held(folder):
            return _loaded(folder)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, AssertionError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _loaded(folder: Path) -> Stored:
    facts = read_json(folder / "data.json", Facts)
    arrays = {name: _read(folder / f"{name}.npy", check) for name, check in facts.checksums.items()}
    train, *test = [
        Images(arrays[f"{part}_x"], arrays.get(f"{part}_y")) for part in ("train", "test") if f"{part}_x" in arrays
    ]
    stored = Stored(train, test[0] if test else None, facts.classes, facts.report)
    touched(folder)
    if any(isinstance(value, np.memmap) for value in arrays.values()):
        hold(folder)  # they are read for as long as this process lives
    return stored


def remembered(key: str) -> tuple[float, float] | None:
    """The range of pixel values that was found under a key; None where none was, or none can be read."""
    try:
        low, high = read_json(root() / "ranges" / f"{key}.json", tuple[float, float], 1 << 10)
    except (OSError, RunError):
        return None
    return low, high


def remember(key: str, found: tuple[float, float]) -> None:
    """Keep a range of pixel values for the next time."""
    if (folder := shelf("ranges")) is not None:
        with suppress(OSError):
            write_json(folder / f"{key}.json", found)


def _read(path: Path, check: int | None) -> npt.NDArray[Any]:
    if not in_memory(path.stat().st_size):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    value: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    if check is not None and _checksum(value) != check:
        raise ValueError(f"{path} is damaged")
    return value


def _checksum(value: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(value).data)
