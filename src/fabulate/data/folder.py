"""A folder of images: `train/` and `test/` are parts, first-level sub-folders are classes, deeper files belong to them.

Links are followed. A link that leads back to a folder above it is not followed a second time, so nothing hangs; one
that leads nowhere is set aside like any unreadable file. Hidden files are skipped, other files are counted.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path, PurePosixPath

from fabulate.data.listing import Contents, Listing, Part, number
from fabulate.data.report import listed
from fabulate.errors import DataError

EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif"),
}
_ROLES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


@dataclass
class _Scan:
    """What walking a tree came across; names are relative to its root, with forward slashes."""

    images: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    ignored: int = 0


def folder(path: Path) -> Listing:
    """List a folder of images. Errors: `DataError` when it holds no image, or test classes that train lacks."""
    scan = _Scan()
    _walk(path, "", (), scan)
    if (path / "manifest.json").is_file() and "grid.png" in scan.images:  # the overview of drawn samples
        del scan.images["grid.png"]
        scan.ignored += 1
    if not scan.images and not scan.set_aside:
        raise DataError(
            f"no images in {path} ({scan.ignored} other files); "
            f"an image is a file that ends in {', '.join(sorted(EXTENSIONS))}"
        )
    if not scan.images:
        told = [f"{name}: {reason}" for name, reason in scan.set_aside]
        raise DataError("no image can be read:\n  " + "\n  ".join(listed(told)))
    notes: list[str] = []
    contents = _contents(scan, _roots(scan, notes))
    if scan.loops:
        notes.append(
            f"links that lead back to a folder above them, not followed again: {', '.join(listed(scan.loops, limit=5))}"
        )
    holders = {str(parent) for name in (*scan.images, *dict(scan.set_aside)) for parent in PurePosixPath(name).parents}
    empty = [name for name in scan.folders if name not in holders]
    if empty:
        notes.append(f"folders without images, not counted as classes: {', '.join(listed(empty, limit=5))}")
    return Listing(
        name=path.resolve().name or "data",
        fingerprint=_fingerprint(scan.images),
        open=lambda: nullcontext(contents),
        set_aside=tuple(scan.set_aside),
        ignored=scan.ignored,
        notes=tuple(notes),
    )


def _walk(folder: Path, prefix: str, above: tuple[str, ...], scan: _Scan) -> None:
    """Walk `folder`, whose relative name is `prefix`; `above` are the real paths of the folders it lies in."""
    here = os.path.realpath(folder)
    if here in above:
        scan.loops.append(prefix.removesuffix("/"))
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if not prefix:
            raise DataError(f"the folder {folder} cannot be opened: {error.strerror}") from error
        scan.set_aside.append((prefix.removesuffix("/"), f"folder cannot be opened: {error.strerror}"))
        return
    for entry in entries:
        # A name that is not Unicode is shown with escapes: it goes into reports.
        name, path = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace"), Path(entry.path)
        extension = path.suffix.lower()
        if entry.name.startswith("."):
            continue
        if path.is_dir():
            scan.folders.append(name)
            _walk(path, name + "/", (*above, here), scan)
        elif entry.is_symlink() and not path.exists() and (extension in EXTENSIONS or not extension):
            scan.set_aside.append((name, f"broken link to {path.readlink()}"))
        elif extension not in EXTENSIONS:
            scan.ignored += 1
        elif path.is_file():
            scan.images[name] = path
        else:  # a pipe or a socket would hang whoever opens it
            scan.set_aside.append((name, "not a regular file"))


def _roots(scan: _Scan, notes: list[str]) -> dict[str, str]:
    """Where each part begins: {"train": "train/", "test": "test/"}, or {"train": ""} for a folder without parts."""
    roots: dict[str, str] = {}
    for name in scan.folders:
        if "/" not in name and name.lower() in _ROLES:
            roots.setdefault(_ROLES[name.lower()], name + "/")
    if "train" not in roots:  # then folders called test or val are classes like any other
        return {"train": ""}
    outside = sum(not name.startswith(tuple(roots.values())) for name in scan.images)
    if outside:
        notes.append(f"images outside {', '.join(roots.values())}: {outside:,}, not used")
    if "val" in roots:
        val = roots.pop("val")
        if "test" in roots:
            notes.append(f"{val} is not used: there is {roots['test']} to test with")
        else:
            roots["test"] = val
            notes.append(f"no test folder: {val} is the test part")
    return roots


def _contents(scan: _Scan, roots: dict[str, str]) -> Contents:
    names = {part: [name for name in scan.images if name.startswith(root)] for part, root in roots.items()}
    if not names["train"] and any(names.values()):
        raise DataError(f"no images in {roots['train']}: put the training images there")
    if not names.get("test"):
        names.pop("test", None)
    inner = {part: [name.removeprefix(roots[part]) for name in names[part]] for part in names}
    everything = [name for part in inner.values() for name in part]
    loose = [name for name in everything if "/" not in name]
    notes: tuple[str, ...] = ()
    if not loose:
        labels = {part: [name.split("/", 1)[0] for name in inner[part]] for part in inner}
        classes, train_y, test_y = number(labels["train"], labels.get("test"))
    else:
        classes, train_y, test_y = (), None, None
        if len(loose) < len(everything):
            notes = (f"no classes: {len(loose):,} images lie outside class folders, such as {loose[0]}",)
    paths = {part: [scan.images[name] for name in names[part]] for part in names}
    train = Part(names["train"], paths["train"], train_y)
    test = Part(names["test"], paths["test"], test_y) if "test" in names else None
    return Contents(train, test, classes, notes)


def _fingerprint(images: dict[str, Path]) -> str:
    """Names and bytes, not dates and not where the folder lies: a copy elsewhere has the same fingerprint."""

    def digest(path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return file_digest(file, "blake2b").digest()
        except OSError as error:  # decoding will meet the same error, and say so
            return str(error.errno).encode()

    whole = blake2b(b"folder", digest_size=16)
    with ThreadPoolExecutor() as pool:
        for name, file in zip(images, pool.map(digest, images.values()), strict=True):
            whole.update(name.encode() + b"\0" + file)
    return whole.hexdigest()
