"""A folder of images: what is in it, by its names; `layout` says what the folders in it mean.

Links are followed. A link that leads back to a folder above it is not followed a second time, so nothing hangs; one
that leads nowhere is set aside like any unreadable file. Hidden files and what systems keep in folders of images
(thumbnails of a file server, a Macintosh's half of an archive) are skipped, other files are counted by their ending.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path

from fabulate.data.layout import Layout, above, lay_out, left_out, role
from fabulate.data.listing import Contents, Label, Listing, Part, number
from fabulate.data.report import ignored_files, listed
from fabulate.data.tables import is_metadata, read_metadata
from fabulate.errors import DataError

EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif"),
}
_TOGETHER = 64  # files read by one job
_SYSTEM = {
    *("@eadir", "@recycle", "#recycle", "@tmp", "__macosx", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}


@dataclass
class Scan:
    """What walking a tree came across; names are relative to its root, with forward slashes."""

    images: dict[str, Path] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    """Parquet files, which may hold images themselves."""
    metadata: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def scan(path: Path) -> Scan:
    """Walk a folder. Errors: `DataError` when it cannot be opened."""
    found = Scan()
    _walk(path, "", (), found)
    if (path / "manifest.json").is_file() and "grid.png" in found.images:  # the overview of drawn samples
        del found.images["grid.png"]
    return found


def folder(path: Path, scan: Scan) -> Listing:
    """List a folder of images that was walked. Errors: `DataError` when it holds no image to train on."""
    if not scan.images and not scan.set_aside:
        other = f" ({ignored_files(scan.ignored)})" if scan.ignored else ""
        raise DataError(f"no images in {path}{other}; an image is a file that ends in {', '.join(sorted(EXTENSIONS))}")
    if not scan.images:
        told = [f"{name}: {reason}" for name, reason in scan.set_aside]
        raise DataError("no image can be read:\n  " + "\n  ".join(listed(told)))
    holders = {parent for name in (*scan.images, *dict(scan.set_aside)) for parent in above(name)}
    empty = [name for name in scan.folders if name not in holders]
    layout = lay_out(list(scan.images))
    if any(role(name) == "train" for name in empty) and any(role(name) for name in holders):
        train = next(name for name in empty if role(name) == "train")
        raise DataError(f"no images in {train}/: put the training images there")
    contents = _contents(scan, layout)
    notes = layout.notes
    if scan.loops:
        notes.append(
            f"links that lead back to a folder above them, not followed again: {', '.join(listed(scan.loops, limit=5))}"
        )
    if empty:
        notes.append(f"folders without images, not counted as classes: {', '.join(listed(empty, limit=5))}")
    if scan.system:
        notes.append(f"folders of the system, skipped: {', '.join(listed(scan.system, limit=5))}")
    left = left_out(layout)
    return Listing(
        name=path.resolve().name or "data",
        fingerprint=_fingerprint(contents, scan.images),
        open=lambda: nullcontext(contents),
        set_aside=tuple(scan.set_aside),
        ignored=dict(scan.ignored.most_common()),
        notes=tuple(notes),
        warnings=(*([left] if left else []), *layout.warnings),
    )


def _walk(folder: Path, prefix: str, above: tuple[str, ...], scan: Scan) -> None:
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
        if entry.name.casefold() in _SYSTEM:
            if path.is_dir():
                scan.system.append(name)
        elif path.is_dir():
            scan.folders.append(name)
            _walk(path, name + "/", (*above, here), scan)
        elif entry.is_symlink() and not path.exists() and (extension in EXTENSIONS or not extension):
            scan.set_aside.append((name, f"broken link to {path.readlink()}"))
        elif is_metadata(name) and path.is_file():
            scan.metadata[name] = path
        elif extension == ".parquet":
            scan.tables.append(path)
        elif extension not in EXTENSIONS:
            scan.ignored[extension] += 1
        elif path.is_file():
            scan.images[name] = path
        else:  # a pipe or a socket would hang whoever opens it
            scan.set_aside.append((name, "not a regular file"))


def _contents(scan: Scan, layout: Layout) -> Contents:
    """The parts, with labels from a file called metadata where there is one that names images, else from folders."""
    listed_labels: dict[str, Label | None] = {}
    for name, path in scan.metadata.items():
        labels = read_metadata(path)
        if labels is None:
            scan.ignored[path.suffix.lower()] += 1
            continue
        around = name.rpartition("/")[0]
        listed_labels |= {f"{around}/{file}".removeprefix("/"): label for file, label in labels.items()}
        missing = [file for file in labels if f"{around}/{file}".removeprefix("/") not in scan.images]
        if missing:
            lost = (
                "file that is not there, or is no image"
                if len(missing) == 1
                else "files that are not there, or no images"
            )
            layout.warnings.append(f"{name} names {len(missing):,} {lost}, such as {missing[0]}")
    parts = [layout.train] if layout.test is None else [layout.train, layout.test]
    if any(name in listed_labels for part in parts for name in part):
        layout.notes.append(f"classes come from {', '.join(scan.metadata)}")
        parts = [{name: listed_labels.get(name) for name in part} for part in parts]
    numbered = number(*(list(part.values()) for part in parts))
    layout.warnings += numbered.warnings
    train, *test = [
        Part(list(part), [scan.images[name] for name in part], y)
        for part, y in zip(parts, (numbered.train, numbered.test), strict=False)
    ]
    return Contents(train, test[0] if test else None, numbered.classes)


def _fingerprint(contents: Contents, images: Mapping[str, Path]) -> str:
    """Names, labels and bytes of each part, not dates and not where the folder lies: a copy has the same one."""

    def digest(name: str) -> bytes:
        try:
            with images[name].open("rb") as file:
                return name.encode() + b"\0" + file_digest(file, "blake2b").digest()
        except OSError as error:  # decoding will meet the same error, and say so
            return name.encode() + b"\0" + str(error.errno).encode()

    def digests(names: Sequence[str]) -> bytes:
        return b"".join(map(digest, names))

    whole = blake2b(b"folder", digest_size=16)
    whole.update(repr(contents.classes).encode())
    with ThreadPoolExecutor() as pool:
        for part in (contents.train, contents.test):
            if part is not None:
                whole.update(b"part" if part.labels is None else part.labels.tobytes())
                jobs = [part.names[first : first + _TOGETHER] for first in range(0, len(part), _TOGETHER)]
                for told in pool.map(digests, jobs):
                    whole.update(told)
    return whole.hexdigest()
