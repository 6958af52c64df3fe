"""Parts of samples, drawn anywhere, put together: only where they are those of one whole."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from shutil import copyfileobj
from typing import NamedTuple

import numpy as np
from PIL import Image

from fabulate.compiling import Say
from fabulate.errors import ConfigError, RunError
from fabulate.files import inside, place_file, read_json
from fabulate.models.base import SHOWN
from fabulate.pictures import Pixels
from fabulate.samples.order import MANIFEST, Head, folders
from fabulate.samples.writing import DRAWING, Manifest, archive_head, check_room, finish, save_archive, whole, width
from fabulate.types import ImageShape, Progress

TOLD = {"model_sha256": "model", "sampling": "way of sampling", "compiled": "compiled network"}


class Part(NamedTuple):
    """Samples start .. end - 1: a folder with a manifest, or an .npz."""

    place: Path
    head: Head
    names: list[str]
    """Of its images within the folder; none of an .npz."""

    @property
    def start(self) -> int:
        """The number of the first sample."""
        return self.head.get("start", 0)

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.start + self.head["n"]


def join(
    parts: Iterable[str | Path],
    out: str | Path,
    *,
    n: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda sentence: None,
) -> Path:
    """Put parts together as if one had drawn all: folders of PNGs into a folder, .npz files into an .npz; returns it.

    `n`: how many samples there must be; else those up to the last of the last part. Parts stay as they are.
    Errors: `ConfigError` for folders and files together; `RunError` where a part is missing, overlaps another, is not
    whole or was drawn by another model, seed or way, and where `out` holds something else.
    """
    found, out = [read(Path(part)) for part in parts], Path(out)
    if not found or {part.place.is_dir() for part in found} != {out.suffix != ".npz"}:
        raise ConfigError("join folders into a folder, or .npz files into an .npz; all must be of one kind")
    found = in_order(found, n)
    head: Head = {**found[0].head, "n": found[-1].end}
    (join_folders if out.suffix != ".npz" else join_archives)(found, head, out, overwrite, progress, say)
    return out


def join_folders(
    parts: Sequence[Part], head: Head, out: Path, overwrite: bool, progress: Progress | None, say: Say
) -> None:
    """Copy the images of all parts into a folder, with a grid and a manifest of all."""
    files, digits = [inside(part.place, name) for part in parts for name in part.names], width(head["n"])
    for file in files:
        if file.is_symlink() or not file.is_file():
            raise RunError(f"{file} is missing, though {MANIFEST} beside it names it; draw that part again")
    within = [name.rpartition("/")[0] for part in parts for name in part.names]
    names = [f"{folder}/{i:0{digits}}.png".removeprefix("/") for i, folder in enumerate(within)]
    shown = np.stack([pixels(file) for file in islice(files, SHOWN - SHOWN % min(len(head["classes"]) or 1, SHOWN))])
    numbers = {folder: i for i, folder in enumerate(folders(head["classes"]).values())}
    y = np.array([numbers[folder] for folder in within[: len(shown)]]) if numbers else None
    with whole(out, sorted({*within} - {""}), head["n"], ImageShape(*shown.shape[1:]), overwrite, say):
        for i, (file, name) in enumerate(zip(files, names, strict=True), 1):
            with file.open("rb") as image:
                place_file(out / name, partial(copyfileobj, image))
            if progress is not None:
                progress(i, head["n"])
        finish(out, head, names, shown, y, head["family"])


def join_archives(
    parts: Sequence[Part], head: Head, out: Path, overwrite: bool, progress: Progress | None, say: Say
) -> None:
    """Write the images of all parts into one .npz, a part at a time."""

    def stacked(name: str) -> Iterator[np.ndarray]:
        for part in parts:
            with np.load(part.place) as arrays:
                yield arrays[name]
            if progress is not None and name == "images":
                progress(part.end, head["n"])

    shape = ImageShape(*next(stacked("images")).shape[1:])
    check_room(out, head["n"], shape, False, say)
    save_archive(out, head, shape, stacked("images"), stacked("labels"), overwrite)


def read(place: Path) -> Part:
    """A part with its manifest. Errors: `RunError` where it is not whole."""
    if not place.is_dir():
        return Part(place, archive_head(place), [])
    if (place / DRAWING).exists() or not (place / MANIFEST).is_file():
        raise RunError(f"{place} is not whole, as it has no {MANIFEST}: draw that part again, with --overwrite")
    found = read_json(place / MANIFEST, Manifest)
    names: list[str] = found.pop("images")
    if len(names) != found["n"]:
        raise RunError(f"{place} is damaged: its {MANIFEST} tells of {found['n']:,} images and names {len(names):,}")
    return Part(place, found, names)


def in_order(parts: Iterable[Part], n: int | None) -> list[Part]:
    """Parts from the first sample to the last. Errors: `RunError` where they are not those of one whole."""
    ordered = sorted(parts, key=lambda part: part.start)
    first, end = ordered[0], 0
    for part in ordered:
        for key in {*first.head, *part.head} - {"start", "n"}:
            theirs, other = first.head.get(key), part.head.get(key)
            if theirs != other:
                what = TOLD.get(key, key)
                raise RunError(f"{part.place} was drawn by another {what} than {first.place}: {other}, not {theirs}")
        if part.start > end:
            raise RunError(f"samples {end:,} to {part.start - 1:,} are missing: no part has them")
        if part.start < end:
            raise RunError(
                f"{part.place} has samples {part.start:,} to {min(end, part.end) - 1:,}, as another part has"
            )
        end = part.end
    if n is not None and n != end:
        raise RunError(f"{n:,} samples are asked for, and the parts have {end:,}")
    return ordered


def pixels(file: Path) -> Pixels:
    """An image that was drawn (C, H, W)."""
    with Image.open(file) as image:
        x = np.asarray(image)
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
