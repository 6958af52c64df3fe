"""The cache's folder: where it lies, what is ours in it, what is in use, and how it is kept within a limit.

Everything in it can be made again, so a cache that cannot be used is done without (`shelf` gives None, `bench` a
temporary folder). What is deleted is recognised by names that nobody else gives, in folders that are no links; where
names are not ours (a compiler's, a library's) the folder says who made it. Whoever reads or makes something in place
holds a lock on it, which the system releases with the process, however that ends: so what a killed one left is known.

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

from fabulate.errors import ConfigError
from fabulate.files import is_leftover

LIMIT = "50GB"  # of all that is kept, unless $FABULATE_CACHE_LIMIT says otherwise
OWNED = ".fabulate-cache"  # stands in a folder whose every file is ours
FRESH = 60.0  # seconds in which whoever made a workspace comes to lock it
UNASKED = 86400.0  # seconds after which, without locks, something counts as no longer used

_HEX = "[0-9a-f]{32}"
KINDS: dict[str, re.Pattern[str] | None] = {
    "data": re.compile(rf"{_HEX}|{_HEX}\..+"),
    "ranges": re.compile(rf"{_HEX}\.json"),
    "features": re.compile(rf"(stats|classifier|encoder)-{_HEX}\.(npz|safetensors)|pt_inception-.+\.pth"),
    "compiled": None,
    "hub": None,
}
"""What lies in the cache, and the names we give there; None: any, in a folder that says it is ours."""
_KEPT = re.compile(r".+--.+\.json")  # revisions of hub data sets: a few bytes, by which a run's images stay the same
_WORKSPACE = re.compile(rf"{_HEX}\..+")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

_holding: dict[Path, int] = {}  # handles with locks, until this process ends


def root() -> Path:
    """`$FABULATE_CACHE`, else `$XDG_CACHE_HOME/fabulate`, else `~/.cache/fabulate`; there may be no such folder."""
    own, shared = os.environ.get("FABULATE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else (Path(shared) if shared else Path.home() / ".cache") / "fabulate"
    except RuntimeError:  # nobody's home: a user without a name and without HOME
        return Path(os.devnull) / "fabulate"


def shelf(kind: str) -> Path | None:
    """The folder of a kind, made if need be; None where it cannot be written: then it is done without."""
    folder = root() / kind
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return None
        if new and KINDS[kind] is None:
            (folder / OWNED).touch()
    except OSError:
        return None
    return folder


def bench(kind: str) -> Path:
    """The folder of a kind, held from being cleared; a temporary one, gone with this process, where there is none."""
    folder = shelf(kind)
    if folder is None:
        return _temporary(kind)
    hold(folder)
    return folder


@cache
def _temporary(kind: str) -> Path:
    folder = TemporaryDirectory(prefix=f"fabulate-{kind}-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def hold(folder: Path) -> None:
    """Keep a folder from being cleared for as long as this process lives."""
    known = _holding.get(folder)
    with suppress(OSError):
        if known is not None and os.path.samestat(os.fstat(known), folder.stat()):
            return  # and not one that was made anew in its place
        if (handle := _locked(folder, exclusive=False)) is not None:
            _holding[folder] = handle


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within the block a folder is kept from being cleared, where there are locks."""
    handle = None
    with suppress(OSError):
        handle = _locked(folder, exclusive=False)
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


@contextmanager
def workspace(name: str) -> Iterator[Path | None]:
    """A folder to make an entry of that name in, removed afterwards; None where the cache cannot be written.

    What others left there that were killed is removed first.
    """
    place, folder = shelf("data"), None
    if place is not None:
        sweep(place)
        with suppress(OSError):
            folder = TemporaryDirectory(dir=place, prefix=name + ".", ignore_cleanup_errors=True)
    if folder is None:
        yield None
        return
    with folder, held(Path(folder.name)):
        yield Path(folder.name)


def sweep(place: Path) -> None:
    """Remove the workspaces of processes that have ended."""
    with suppress(OSError):
        for entry in os.scandir(place):
            if (
                _WORKSPACE.fullmatch(entry.name)
                and entry.is_dir(follow_symlinks=False)
                and not in_use(Path(entry.path))
            ):
                shutil.rmtree(entry.path, ignore_errors=True)


def in_use(path: Path) -> bool:
    """Whether a process that lives holds something; what may not be asked counts as held."""
    try:
        if _WORKSPACE.fullmatch(path.name) and time.time() - path.lstat().st_mtime < FRESH:
            return True
        handle = _locked(path, exclusive=True)
    except OSError:
        return True
    if handle is None:
        return time.time() - path.lstat().st_mtime < UNASKED
    os.close(handle)
    return False


def touched(path: Path) -> None:
    """Note that something in the cache was used just now."""
    with suppress(OSError):
        os.utime(path)


@dataclass(frozen=True)
class Item:
    """Something in the cache that goes as a whole: its kind, its place, its bytes, and when it was last used."""

    kind: str
    path: Path
    nbytes: int
    used: float

    @property
    def busy(self) -> bool:
        """Whether a process uses it now."""
        return in_use(self.path) or (KINDS[self.kind] is None and in_use(self.path.parent))


def items(kinds: Iterable[str] = KINDS) -> list[Item]:
    """What is ours in the cache, the least recently used first. What cannot be looked at is left out."""
    found = []
    for kind in kinds:
        folder, ours = root() / kind, KINDS[kind]
        try:
            if folder.is_symlink() or (ours is None and not (folder / OWNED).is_file()):
                continue
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            named = is_leftover(entry.name) or (ours.fullmatch(entry.name) if ours else entry.name != OWNED)
            if named and not entry.is_symlink():
                with suppress(OSError):
                    found.append(Item(kind, Path(entry.path), *_weighed(entry)))
    return sorted(found, key=lambda item: item.used)


def _weighed(entry: Any) -> tuple[int, float]:
    """Bytes on the disk of a file or of a folder with all in it, and when it was last used; links are not followed."""
    about = entry.stat(follow_symlinks=False)
    nbytes, used = int(getattr(about, "st_blocks", about.st_size // 512 + 1)) * 512, about.st_mtime
    if entry.is_dir(follow_symlinks=False):
        for inner in os.scandir(entry.path):
            more, latest = _weighed(inner)
            nbytes, used = nbytes + more, max(used, latest)
    return nbytes, used


def clear(found: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """Remove items; those that are in use, or that the system does not give up, stay: (removed, left)."""
    removed: list[Item] = []
    left: list[Item] = []
    for item in found:
        gone = not item.busy
        if gone:
            try:
                if item.path.is_dir() and not item.path.is_symlink():
                    shutil.rmtree(item.path)
                else:
                    item.path.unlink()
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
    """Bring the cache within its limit; what cannot be removed stays."""
    clear(item for item in surplus(items(), limit()) if not item.busy)


def limit() -> int:
    """The limit of the cache in bytes, from `$FABULATE_CACHE_LIMIT`."""
    return nbytes(os.environ.get("FABULATE_CACHE_LIMIT") or LIMIT)


def nbytes(words: str) -> int:
    """A number of bytes as people write it. Errors: `ConfigError`.

    >>> nbytes("1.5GB"), nbytes("200 MiB"), nbytes("0")
    (1500000000, 209715200, 0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", words.lower())
    if match is None:
        raise ConfigError(f"a size is a number of bytes such as 500MB, 20GB or 1TB; given: {words!r}")
    number, unit, binary = match.groups()
    factor = _UNITS[unit] if not binary else 1024 ** list(_UNITS).index(unit)
    return int(float(number) * factor)
