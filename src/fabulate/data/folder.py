"""A folder of images: what is in it, and what the folders around images mean: parts, classes, masks, or nothing at all.

Links are followed. A link that leads back to a folder above it is not followed a second time, so nothing hangs; one
that leads nowhere is set aside like any unreadable file. Hidden files and what systems keep in folders of images
(thumbnails of a file server, a Macintosh's half of an archive) are skipped, other files are counted by their ending.

A folder's name alone decides nothing: a class of vehicles is called train, and one of dog tricks is called valid. So a
training part is one only where a test or validation part lies beside it, or nothing else does. Images that belong to
no part are left out, and that is said. Names are relative to the source, with forward slashes.

Labels may also stand in a `metadata.csv`, `.jsonl` or `.parquet` beside the images, as on the Hugging Face hub: its
column `file_name` says which image a row is of. https://huggingface.co/docs/datasets/image_dataset
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fabulate.data.listing import LABELS, Contents, Label, Listing, label_of, natural
from fabulate.data.report import ignored_files, listed
from fabulate.errors import DataError
from fabulate.files import digest, file_digest

EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif"),
}
_SYSTEM = {
    *("@eadir", "@recycle", "#recycle", "@tmp", "__macosx", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_THINGS = r"(?:sets?|data|datasets?|splits?|parts?|images?|imgs?|pictures?|photos?|seg)"
_ROLE = {
    role: re.compile(rf"(?:{_THINGS}[ _.-]?)?(?:{words})(?:[ _.-]?{_THINGS})?(?:[ _.-]?[0-9]{{4}})?", re.IGNORECASE)
    for role, words in (("train", "train|training"), ("test", "test|testing"), ("val", "val|valid|validation|dev"))
}
_IMAGES = re.compile(
    r"(?:images?|imgs?|pictures?|photos?|jpe?g ?images|jpe?gs?|pngs?|data)", re.IGNORECASE
)  # no class is called so
_MASKS = re.compile(
    r"(?:ground[ _-]?truths?|gts?|masks?|labels?|annotations?|annots?|segmentations?(?:class|object)?|seg|anno)"
    r"(?:[ _-]?(?:masks?|images?|pngs?|maps?))?",
    re.IGNORECASE,
)
_MASK_OF = re.compile(
    r"(.+?)[ _-](?:mask|gt|seg|segmentation|groundtruth|ground_truth)(?:[ _-]?[0-9]+)?", re.IGNORECASE
)


# Walking a folder


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
        elif entry.name.casefold() in _METADATA and path.is_file():
            scan.metadata[name] = path
        elif extension == ".parquet":
            scan.tables.append(path)
        elif extension not in EXTENSIONS:
            scan.ignored[extension] += 1
        elif path.is_file():
            scan.images[name] = path
        else:  # a pipe or a socket would hang whoever opens it
            scan.set_aside.append((name, "not a regular file"))


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
    bare = next((name for name in empty if role(name) == "train"), None)
    if bare is not None and any(role(name) for name in holders):
        raise DataError(f"no images in {bare}/: put the training images there")
    layout = lay_out(list(scan.images))
    contents = _contents(scan, layout)
    for names, what in (
        (scan.loops, "links that lead back to a folder above them, not followed again"),
        (empty, "folders without images, not counted as classes"),
        (scan.system, "folders of the system, skipped"),
    ):
        if names:
            layout.notes.append(f"{what}: {', '.join(listed(names, limit=5))}")
    left = layout.told()
    return Listing(
        name=path.resolve().name or "data",
        fingerprint=_fingerprint(contents, scan.images),
        open=lambda: nullcontext(replace(contents, warnings=())),
        set_aside=tuple(scan.set_aside),
        ignored=dict(scan.ignored.most_common()),
        notes=tuple(layout.notes),
        warnings=(*([left] if left else []), *layout.warnings, *contents.warnings),
    )


def _contents(scan: Scan, layout: "Layout") -> Contents:
    """The parts, with labels from a file called metadata where there is one that names images, else from folders."""
    found: dict[str, Label | None] = {}
    for name, path in scan.metadata.items():
        labels = read_metadata(path)
        if labels is None:
            scan.ignored[path.suffix.lower()] += 1
            continue
        around = name.rpartition("/")[0]
        full = {file: f"{around}/{file}".removeprefix("/") for file in labels}
        found |= {full[file]: label for file, label in labels.items()}
        if missing := [file for file in labels if full[file] not in scan.images]:
            one = len(missing) == 1
            lost = "file that is not there, or is no image" if one else "files that are not there, or no images"
            layout.warnings.append(f"{name} names {len(missing):,} {lost}, such as {missing[0]}")
    parts = [layout.train] if layout.test is None else [layout.train, layout.test]
    if any(name in found for part in parts for name in part):
        layout.notes.append(f"classes come from {', '.join(scan.metadata)}")
        parts = [{name: found.get(name) for name in part} for part in parts]
    names = [list(part) for part in parts]
    files = [[scan.images[name] for name in own] for own in names]
    return Contents.of(names, files, [list(part.values()) for part in parts])


def _fingerprint(contents: Contents, images: Mapping[str, Path]) -> str:
    """Names, labels and bytes of each part, not dates and not where the folder lies: a copy has the same one."""

    def of_file(name: str) -> bytes:
        try:
            return name.encode() + b"\0" + file_digest(images[name])
        except OSError as error:  # decoding will meet the same error, and say so
            return name.encode() + b"\0" + str(error.errno).encode()

    found = [b"folder", repr(contents.classes).encode()]
    with ThreadPoolExecutor() as pool:
        for part in contents.parts:
            found.append(b"part" if part.labels is None else part.labels.tobytes())
            found += pool.map(of_file, part.names)
    return digest(*found)


# What folders mean


@dataclass
class Layout:
    """The images of each part with their labels, in the order given, and what is worth saying of the rest."""

    train: dict[str, Label | None] = field(default_factory=dict)
    test: dict[str, Label | None] | None = None
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names of images that belong to no part, by the reason."""
    warnings: list[str] = field(default_factory=list)

    def told(self) -> str:
        """What was left out and why, in a sentence; "" for nothing."""
        said = []
        for reason, names in self.left_out.items():
            within = list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))
            places = ", ".join([*within[:3], *(["..."] if len(within) > 3 else [])])
            said.append(f"{len(names):,} in {places} ({reason})")
        return f"images left out: {'; '.join(said)}" if said else ""


def role(folder: str) -> str | None:
    """The part whose name a folder bears: train, test or val.

    >>> [role(name) for name in ("Training_Set", "test", "seg_train", "val2017", "dev", "trains", "testicular")]
    ['train', 'test', 'train', 'val', 'val', None, None]
    """
    return next((part for part, words in _ROLE.items() if words.fullmatch(folder)), None)


def lay_out(names: Sequence[str]) -> Layout:
    """Parts and labels of images by the folders that they lie in."""
    layout = Layout()
    kept = _without_masks(names, layout)
    root = _descend("", kept, layout, part=False)
    roots = _parts(root, kept, layout)
    if roots is None:
        layout.train = _labelled(root, kept, layout, "train")
        return layout
    found = {}
    for part, where in roots.items():
        own = [name for name in kept if name.startswith(where)]
        found[part] = _labelled(_descend(where, own, layout, part=True), own, layout, part)
    layout.train, layout.test = found["train"], found.get("test")
    return layout


def _descend(root: str, names: list[str], layout: Layout, part: bool) -> str:
    """Go down through folders that only hold another one. In a part that one is a class, such as train/good, unless
    it is called images, or as the part is: training_set/training_set."""
    while True:
        folders, loose = _folders(root, names)
        if loose or len(folders) != 1:
            return root
        ((only, inner),) = folders.items()
        below = f"{root}{only}/"
        around = root.removesuffix("/").rsplit("/", 1)[-1].casefold()
        plain = _IMAGES.fullmatch(only) or (around and only.casefold() == around)
        deeper = all("/" in name[len(below) :] for name in inner)
        if not plain and (part or not (deeper or role(only))):
            return root
        if part or role(only) != "train":
            layout.notes.append(f"all images of {root or 'the folder'} lie in {below}, which is no class")
        root = below


def _parts(root: str, names: list[str], layout: Layout) -> dict[str, str] | None:
    """Where each part begins, as {"train": "train/", "test": "test/"}; None where there are no parts."""
    folders, loose = _folders(root, names)
    by_role: dict[str, list[str]] = {}
    for folder in sorted(folders, key=natural):
        by_role.setdefault(role(folder) or "", []).append(folder)
    others = by_role.pop("", [])
    if "train" not in by_role:
        return None
    train = by_role["train"][0]
    if len(by_role) == 1 and others:
        told = (
            f"{root}{train}/ is a class like {root}{others[0]}/, as there is no test or validation part beside it; "
            f"to train on it alone give the path of {train}"
        )
        deeper = any("/" in name.removeprefix(f"{root}{train}/") for name in folders[train])
        (layout.warnings if deeper else layout.notes).append(told)
        return None
    roots = {"train": f"{root}{train}/"}
    held = next((part for part in ("test", "val") if part in by_role), None)
    if held is not None:
        roots["test"] = f"{root}{by_role[held][0]}/"
        if held == "val":
            layout.notes.append(f"no test folder: {roots['test']} is the test part")
    used = " and ".join(roots.values())
    for folder, inner in folders.items():
        if f"{root}{folder}/" not in roots.values():
            reason = f"{roots['test']} is the test part" if role(folder) == "val" else f"the parts are {used}"
            layout.left_out.setdefault(reason, []).extend(inner)
    if loose:
        layout.left_out.setdefault(f"the parts are {used}", []).extend(loose)
    return roots


def _labelled(root: str, names: list[str], layout: Layout, part: str) -> dict[str, Label | None]:
    """The images of a part with the first folder below its root as label; training images have them all or none."""
    labels: dict[str, Label | None] = {
        name: folder if below else None for name in names for folder, below, _ in [name[len(root) :].partition("/")]
    }
    loose = [name for name, label in labels.items() if label is None]
    if part == "train" and 0 < len(loose) < len(labels):
        lie = "image lies" if len(loose) == 1 else "images lie"
        layout.warnings.append(f"no classes: {len(loose):,} {lie} outside class folders, such as {loose[0]}")
        return dict.fromkeys(labels)
    return labels


def _without_masks(names: Sequence[str], layout: Layout) -> list[str]:
    """The images without what tells of others: cat_mask.png beside cat.jpg, masks/ beside images/ or beside parts."""
    stems = {name.rpartition(".")[0] for name in names}
    beside: dict[str, set[str]] = {}  # the folders in each folder
    for name in names:
        for path in above(name):
            around, _, folder = path.rpartition("/")
            beside.setdefault(around, set()).add(folder)

    def of_others(siblings: set[str]) -> bool:
        parts = {role(sibling) for sibling in siblings} - {None}
        return any(map(_IMAGES.fullmatch, siblings)) or ("train" in parts and len(parts) > 1)

    masks = [
        f"{around}/{folder}".removeprefix("/")
        for around, own in beside.items()
        for folder in own
        if _MASKS.fullmatch(folder) and of_others(own - {folder})
    ]
    kept = []
    for name in names:
        path, slash, file = name.rpartition("/")
        marked = _MASK_OF.fullmatch(file.rpartition(".")[0])
        partner = marked is not None and path + slash + marked[1] in stems
        if partner or any(f"{name}/".startswith(f"{mask}/") for mask in masks):
            layout.left_out.setdefault("masks or labels of other images", []).append(name)
        else:
            kept.append(name)
    return kept


def _folders(root: str, names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The names below a root by the first folder, and those in no folder."""
    folders: dict[str, list[str]] = {}
    loose = []
    for name in names:
        folder, below, _ = name[len(root) :].partition("/")
        if below:
            folders.setdefault(folder, []).append(name)
        else:
            loose.append(name)
    return folders, loose


def above(name: str) -> list[str]:
    """The folders that a file lies in.

    >>> above("train/cats/1.png")
    ['train', 'train/cats']
    """
    return [name[: slash.start()] for slash in re.finditer("/", name)]


# Labels from metadata files


def read_metadata(path: Path) -> dict[str, Label | None] | None:
    """The label of each file that a metadata file names, by its path from there; None without a column of labels.

    Errors: `DataError` when it cannot be read, or gives a file two labels.
    """
    labels: dict[str, Label | None] = {}
    column = None
    for row in _rows(path):
        column = column or next((key for name in LABELS for key in row if str(key).strip().lower() == name), None)
        if column is None or "file_name" not in row:
            return None
        name = str(row["file_name"]).replace("\\", "/").removeprefix("./")
        label = label_of(row.get(column))
        if labels.setdefault(name, label) != label:
            raise DataError(f"{path} gives {name} two labels, {labels[name]} and {label}: keep one row of each file")
    return labels or None


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, by their columns' names. Errors: `DataError`."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        from fabulate.data.parquet import read_table

        yield from read_table(path, ("file_name", *LABELS))
        return
    what = {".csv": "a table with commas, in UTF-8", ".jsonl": "one JSON object a line"}[ending]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file) if ending == ".csv" else (json.loads(line) for line in file if line.strip())
            for row in rows:
                if not isinstance(row, dict):
                    raise DataError(f"{path} must hold {what}; given: {json.dumps(row)[:40]}")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as {what}: {error}") from error
