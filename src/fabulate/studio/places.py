"""Which folders the page may see, what lies in them, and how a path that the page gives becomes one that is allowed.

A path is resolved, symbolic links and all, before it is asked whether it lies under a root. Paths are shown as the
command line takes them: relative to the folder where the studio was started, where they lie in it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fabulate.errors import FabulateError

DEEPEST, MOST = 5, 4000  # folders that are looked into below a root: how deep, and how many
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"}  # that make a folder one of images
SKIPPED = {"node_modules", "__pycache__", "site-packages", "checkpoints", "drawn", "model", "best", "report"}
NAMED = (  # sources that are no paths
    *("digits", "mnist", "fashion_mnist", "cifar10"),
    *("proverbs", "names", "shakespeare", "irish", "chorales"),
)

Kind = Literal["run", "images", "detector", "ranking", "comparison", "proof"]
MARKS: list[tuple[Kind, tuple[str, ...]]] = [  # a folder is what the first of these says whose files all lie there
    ("run", ("config.json", "checkpoints")),
    ("detector", ("config.json", "detector.safetensors")),
    ("ranking", ("outliers.json", "outliers.csv")),
    ("comparison", ("metrics.json", "index.html")),
    ("proof", ("proof.json", "proof.html")),
]


class OutsideError(FabulateError):
    """A path that lies under no root."""


class Place(NamedTuple):
    """A folder that the page can do something with."""

    kind: Kind
    path: Path
    images: int = 0
    """Of a folder of images: how many were counted."""


class Roots:
    """The folders that the page may see; `here` is what relative paths begin at."""

    def __init__(self, folders: Sequence[Path], here: Path | None = None) -> None:
        self.here = (here or Path.cwd()).resolve()
        self.folders = tuple(dict.fromkeys((self.here / folder).resolve() for folder in folders or [Path()]))

    @property
    def home(self) -> Path:
        """The first root: jobs are kept in it, and new runs go there."""
        return self.folders[0]

    def allowed(self, given: str) -> Path:
        """A path that the page gave, absolute. Errors: `OutsideError` where it leads out of the roots."""
        if "\0" in given or len(given) > 4096:
            raise OutsideError("path: no file has such a name")
        path = Path(os.path.realpath(self.here / Path(given).expanduser()))
        if not any(path.is_relative_to(folder) for folder in self.folders):
            raise OutsideError(f"path: {given} does not lie in the folders that the studio was started with")
        return path

    def existing(self, given: str) -> Path:
        """As `allowed`. Errors: `FileNotFoundError` too."""
        path = self.allowed(given)
        if not path.exists():
            raise FileNotFoundError(2, "there is no such file", given)
        return path

    def source(self, given: str) -> str:
        """A source of images that the page gave, as the command line takes it: a name, or a path under the roots."""
        return given if given in NAMED else self.shown(self.existing(given))

    def shown(self, path: Path) -> str:
        """A path as people type it; never one that the command line would take for an option."""
        shown = str(path.relative_to(self.here)) if path.is_relative_to(self.here) else str(path)
        return f"./{shown}" if shown.startswith("-") else shown

    def places(self) -> list[Place]:
        """What lies under the roots, the newest first."""
        found = {place.path: place for folder in self.folders for place in look(folder)}
        return sorted(found.values(), key=lambda place: changed(place.path), reverse=True)


def look(root: Path) -> Iterator[Place]:
    """What lies under a folder, nothing hidden, no links followed, breadth first."""
    level, left = [root], MOST
    for depth in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            if (left := left - 1) < 0:
                return
            names, folders, images = listed(folder)
            kind = marked(names)
            if kind is not None:
                yield Place(kind, folder)
                below += [path for path in folders if kind == "detector"]  # rankings lie in it
                continue
            inner = [(path, listed(path)) for path in folders[:200]] if depth < DEEPEST else []
            classes = sum(count for _, (_, _, count) in inner)
            if images > 3 or (classes > 3 and images == 0 and all_images(inner)):
                yield Place("images", folder, images + classes)
            if not (inner and all_images(inner)):  # runs may lie beside pictures
                below += folders
        level = below


def all_images(inner: Sequence[tuple[Path, tuple[set[str], list[Path], int]]]) -> bool:
    """Whether the folders in a folder are classes, or parts with classes in them: images and nothing of ours."""
    return all(count > 0 and "config.json" not in names and not marked(names) for _, (names, _, count) in inner)


def marked(names: set[str]) -> Kind | None:
    """What a folder is by the files in it, if it is one of ours."""
    return next((kind for kind, files in MARKS if names.issuperset(files)), None)


def listed(folder: Path) -> tuple[set[str], list[Path], int]:
    """The names in a folder, the folders in it that are worth a look, and how many images lie there."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # gone, or not ours to read
        return set(), [], 0
    names = {entry.name for entry in entries}
    folders = [
        Path(entry.path)
        for entry in entries
        if not entry.name.startswith(".") and entry.name not in SKIPPED and entry.is_dir(follow_symlinks=False)
    ]
    return names, folders, sum(Path(name).suffix.lower() in PICTURES for name in names)


def changed(path: Path) -> float:
    """When something in a folder last changed, as far as a quick look tells."""
    times = []
    for file in (path, path / "log.jsonl"):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
