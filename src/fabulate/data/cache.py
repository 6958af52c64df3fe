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
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fabulate.config import spec, to_json
from fabulate.data.images import Images
from fabulate.data.listing import Pixels
from fabulate.data.report import Report
from fabulate.errors import DataError
from fabulate.files import read_json, write_json

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


def root() -> Path:
    """`$FABULATE_CACHE`, else `$XDG_CACHE_HOME/fabulate`, else `~/.cache/fabulate`."""
    own, shared = os.environ.get("FABULATE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else (Path(shared) if shared else Path.home() / ".cache") / "fabulate"


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
    if workspace is None or shutil.disk_usage(workspace).free < nbytes:
        raise DataError(
            f"{shape[0]:,} images need {nbytes / 2**30:.1f} GiB, too much for the memory and for the cache {root()}; "
            "set FABULATE_CACHE to a folder with room, or give a smaller --size"
        )
    return np.lib.format.open_memmap(workspace / f"{name}.npy", "w+", np.uint8, shape)


@contextmanager
def workspace(fingerprint: str) -> Iterator[Path | None]:
    """A folder to make an entry in, removed afterwards unless stored; None when the cache cannot be written."""
    try:
        (root() / "data").mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(dir=root() / "data", prefix=fingerprint + ".", ignore_cleanup_errors=True)
    except OSError:
        folder = None
    if folder is None:
        yield None
        return
    with folder:
        inner = Path(folder.name) / "entry"  # moved away as a whole; its temporary parent stays to be removed
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
        workspace.replace(root() / "data" / fingerprint)


def load(fingerprint: str) -> Stored | None:
    """The entry of a fingerprint, checked; None when there is none. A damaged entry is removed."""
    folder = root() / "data" / fingerprint
    if not folder.is_dir():
        return None
    try:
        facts = read_json(folder / "data.json", Facts)
        arrays = {name: _read(folder / f"{name}.npy", check) for name, check in facts.checksums.items()}
        train, *test = [
            Images(arrays[f"{part}_x"], arrays.get(f"{part}_y")) for part in ("train", "test") if f"{part}_x" in arrays
        ]
        return Stored(train, test[0] if test else None, facts.classes, facts.report)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, AssertionError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _read(path: Path, check: int | None) -> npt.NDArray[Any]:
    if not in_memory(path.stat().st_size):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    value: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    if check is not None and _checksum(value) != check:
        raise ValueError(f"{path} is damaged")
    return value


def _checksum(value: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(value).data)
