"""The cache: a folder of what can be made again, what of it is ours, what is in use, and how it keeps within a limit.

A cache that cannot be used is done without (`folder` gives None, `working_folder` a temporary one). What is deleted is
recognised by names that nobody else gives, in folders that are no links; where names are not ours (a compiler's, a
library's) the folder says who made it. Whoever reads or makes something in place holds a lock on it, which the system
releases with the process, however that ends: so what a killed one left is known.

    data/      decoded images, in folders called by their fingerprint; FINGERPRINT.* while they are made
    ranges/    smallest and largest pixel values, for --range auto
    features/  networks and statistics that images are compared by
    compiled/  machine code                         hub/  data sets from the Hugging Face hub, and their revisions
"""

import atexit
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import ByteSize, TypeAdapter, ValidationError

from fabulate.data.listing import Pixels
from fabulate.errors import ConfigError, DataError
from fabulate.files import is_leftover

LIMIT = "50GB"  # of all that is kept, unless $FABULATE_CACHE_LIMIT says otherwise
OWNED = ".fabulate-cache"  # stands in a folder whose every file is ours
FRESH = 60.0  # seconds in which whoever made a workspace comes to lock it
UNASKED = 86400.0  # seconds after which, without locks, something counts as no longer used

_HEX = "[0-9a-f]{32}"
KINDS: dict[str, re.Pattern[str] | None] = {
    "data": re.compile(rf"{_HEX}|{_HEX}\..+"),
    "ranges": re.compile(rf"{_HEX}\.json"),
    "features": re.compile(rf"(stats|classifier|encoder)-{_HEX}\.(npz|safetensors)"),
    "compiled": None,
    "hub": None,
}
"""What lies in the cache, and the names we give there; None: any, in a folder that says it is ours."""
_KEPT = re.compile(r".+--.+\.json")  # revisions of hub data sets: a few bytes, by which a run's images stay the same
_WORKSPACE = re.compile(rf"{_HEX}\..+")

_holding: dict[Path, int] = {}  # handles with locks, until this process ends


def root() -> Path:
    """`$FABULATE_CACHE`, else `$XDG_CACHE_HOME/fabulate`, else `~/.cache/fabulate`; there may be no such folder."""
    own, shared = os.environ.get("FABULATE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else (Path(shared) if shared else Path.home() / ".cache") / "fabulate"
    except RuntimeError:  # a user without a name and without HOME
        return Path(os.devnull) / "fabulate"


def folder(kind: str) -> Path | None:
    """The folder of a kind, made if need be; None where it cannot be written."""
    place = root() / kind
    try:
        new = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            return None
        if new and KINDS[kind] is None:
            (place / OWNED).touch()
    except OSError:
        return None
    return place


def working_folder(kind: str) -> Path:
    """The folder of a kind, held from being cleared; a temporary one, gone with this process, where there is none."""
    place = folder(kind)
    if place is None:
        return _temporary(kind)
    hold(place)
    return place


@cache
def _temporary(kind: str) -> Path:
    place = TemporaryDirectory(prefix=f"fabulate-{kind}-", ignore_cleanup_errors=True)
    atexit.register(place.cleanup)
    return Path(place.name)


# Locks


def hold(place: Path) -> None:
    """Keep a folder from being cleared for as long as this process lives."""
    known = _holding.get(place)
    with suppress(OSError):
        if known is not None and os.path.samestat(os.fstat(known), place.stat()):
            return  # and not one that was made anew in its place
        if (handle := _locked(place, exclusive=False)) is not None:
            _holding[place] = handle


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Within the block a folder is kept from being cleared, where there are locks."""
    handle = None
    with suppress(OSError):
        handle = _locked(place, exclusive=False)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(path: Path, exclusive: bool) -> int | None:
    """A handle with a lock on a file or folder; None on systems without. Errors: `OSError` when others hold it."""
    if sys.platform == "win32":
        return None
    import fcntl

    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def in_use(path: Path) -> bool:
    """Whether a process that lives holds something; what may not be asked counts as held."""
    try:
        age = time.time() - path.lstat().st_mtime
        if _WORKSPACE.fullmatch(path.name) and age < FRESH:
            return True
        handle = _locked(path, exclusive=True)
    except OSError:
        return True
    if handle is None:
        return age < UNASKED
    os.close(handle)
    return False


def touched(path: Path) -> None:
    """Note that something in the cache was used just now."""
    with suppress(OSError):
        os.utime(path)


# Room for arrays


def in_memory(nbytes: int) -> bool:
    """Whether an array is small enough to be held: below a quarter of the machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 8 << 30
    return nbytes < memory // 4


@contextmanager
def workspace(fingerprint: str) -> Iterator[Path | None]:
    """A folder to make an entry in, removed afterwards unless it was moved; None when the cache cannot be written.

    What killed processes left there is removed first.
    """
    place, outer = folder("data"), None
    if place is not None:
        clear(item for item in items(["data"]) if _WORKSPACE.fullmatch(item.path.name))
        with suppress(OSError):
            outer = TemporaryDirectory(dir=place, prefix=fingerprint + ".", ignore_cleanup_errors=True)
    if outer is None:
        yield None
        return
    with outer, held(Path(outer.name)):
        inner = Path(outer.name) / "entry"  # moved away as a whole; its temporary parent stays to be removed
        inner.mkdir()
        yield inner


def allocate(shape: tuple[int, ...], workspace: Path | None, name: str) -> Pixels:
    """Room for images (N, C, H, W): in memory when they fit, else a file in the workspace, memory-mapped.

    Errors: `DataError` when they fit in neither; a mapped file on a full disk would end the process instead.
    """
    nbytes = int(np.prod(shape))
    if in_memory(nbytes):
        return np.empty(shape, np.uint8)
    place = room_for(nbytes, workspace, f"{shape[0]:,} images")
    return np.lib.format.open_memmap(place / f"{name}.npy", "w+", np.uint8, shape)


def room_for(nbytes: int, workspace: Path | None, what: str) -> Path:
    """The workspace, when so many bytes fit on its disk. Errors: `DataError`."""
    if workspace is None or shutil.disk_usage(workspace).free < nbytes:
        raise DataError(
            f"{what} need {nbytes / 2**30:.1f} GiB, too much for the memory and for the cache {root()}; "
            "set FABULATE_CACHE to a folder with room, or give a smaller --size"
        )
    return workspace


# What is there, and its end


@dataclass(frozen=True)
class Item:
    """Something in the cache that goes as a whole: its kind, its place, its bytes, and when it was last used."""

    kind: str
    path: Path
    nbytes: int
    used: float


def items(kinds: Iterable[str] = KINDS) -> list[Item]:
    """What is ours in the cache, the least recently used first. What cannot be looked at is left out."""
    found = []
    for kind in kinds:
        place, ours = root() / kind, KINDS[kind]
        try:
            if place.is_symlink() or (ours is None and not (place / OWNED).is_file()):
                continue
            entries = list(os.scandir(place))
        except OSError:
            continue
        for entry in entries:
            named = is_leftover(entry.name) or (ours.fullmatch(entry.name) if ours else entry.name != OWNED)
            if named and not entry.is_symlink():
                with suppress(OSError):
                    found.append(Item(kind, Path(entry.path), *_size_and_use(entry)))
    return sorted(found, key=lambda item: item.used)


def _size_and_use(entry: Any) -> tuple[int, float]:
    """Bytes on the disk of a file or of a folder with all in it, and when it was last used; links are not followed."""
    about = entry.stat(follow_symlinks=False)
    nbytes, used = int(getattr(about, "st_blocks", about.st_size // 512 + 1)) * 512, about.st_mtime
    if entry.is_dir(follow_symlinks=False):
        for inner in os.scandir(entry.path):
            more, latest = _size_and_use(inner)
            nbytes, used = nbytes + more, max(used, latest)
    return nbytes, used


def clear(found: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """Remove items; those that are in use, or that the system does not give up, stay: (removed, left)."""
    removed: list[Item] = []
    left: list[Item] = []
    for item in found:
        gone = not in_use(item.path) and not (KINDS[item.kind] is None and in_use(item.path.parent))
        if gone:
            try:
                shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
            except OSError:
                gone = not item.path.exists()
        (removed if gone else left).append(item)
    return removed, left


def surplus(found: Iterable[Item], limit: int) -> list[Item]:
    """Of items, those that have to go for the rest to fit a limit in bytes: the least recently used first."""
    found = sorted(found, key=lambda item: item.used)
    over, chosen = sum(item.nbytes for item in found) - limit, []
    for item in found:
        if over > 0 and not _KEPT.fullmatch(item.path.name):
            chosen.append(item)
            over -= item.nbytes
    return chosen


def trim() -> None:
    """Bring the cache within its limit; what is in use or cannot be removed stays."""
    clear(surplus(items(), limit()))


def limit() -> int:
    """The limit of the cache in bytes, from `$FABULATE_CACHE_LIMIT`."""
    return nbytes(os.environ.get("FABULATE_CACHE_LIMIT") or LIMIT)


def nbytes(words: str) -> int:
    """A number of bytes as people write it. Errors: `ConfigError`.

    >>> nbytes("1.5GB"), nbytes("200 MiB"), nbytes("0")
    (1500000000, 209715200, 0)
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(words))
    except ValidationError as error:
        raise ConfigError(f"a size is a number of bytes such as 500MB, 20GB or 1TB; given: {words!r}") from error
