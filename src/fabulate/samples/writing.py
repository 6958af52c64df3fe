"""Samples on disk: a file each (PNG, .txt), in folders by class where there are any, a grid, a manifest; or an .npz.
Parts, drawn anywhere, are joined: only where they are those of one whole.

Any number of images is written in constant memory. What an image is called and which class it has is told by its number
alone, so no list is as long as the images are many.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from pydantic import ConfigDict, with_config
from rich.filesize import decimal

from fabulate.compiling import Say
from fabulate.config import Compile
from fabulate.data.media import Medium, by_ending, medium
from fabulate.errors import ConfigError, RunError
from fabulate.files import (
    Name,
    inside,
    own_folder,
    parse_json,
    place_file,
    read_json,
    replaceable_folder,
    vacant_file,
    vacant_folder,
    write_file,
)
from fabulate.models import GenerativeModel
from fabulate.models.base import SHOWN, Labels
from fabulate.pictures import Pixels, save_png
from fabulate.report import Figure, Figures, Page, Section, Sound, Sounds, write_page
from fabulate.samples.order import MANIFEST, PICTURE, Head, Order, Places, folders, width
from fabulate.types import ImageShape, Progress

DRAWING = ".fabulate-drawing"  # there while images are drawn: a folder with it is ours, and not whole
BLOCK = 4096  # bytes that the smallest file takes on most disks
DEFLATES = 1032  # times, at most: https://zlib.net/zlib_tech.html
MUCH = 100_000_000  # bytes worth a word
TOLD = {"model_sha256": "model", "sampling": "way of sampling", "compiled": "compiled network"}


@with_config(ConfigDict(extra="forbid"))
class Manifest(Head):
    """What manifest.json says: that, and where each image lies."""

    images: list[Name]


def told_of(model: GenerativeModel) -> str:
    return f"{model.shape.medium} of {model.shape}"


def write_samples(
    model: GenerativeModel,
    folder: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    start: int | None = None,
    batch_size: int = 256,
    compile: Compile = "off",
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda sentence: None,
    **sampling: Any,
) -> Sequence[Path]:
    """Write samples start .. start + n - 1 of a seed as PNGs, with grid.png and manifest.json; returns their paths.

    A model with classes writes each image in the folder of its class, so that the folder is a data set to train on.
    Where the folder holds these very images by its manifest, none is drawn again. `say` takes sentences about that and
    about the room on the disk. `start` and `compile` are those of `Order`, `sampling` further arguments of
    `model.sample`.
    Errors: `RunError` when the folder holds something else and `overwrite` is off, or the disk is too small. Nothing is
    ever deleted.
    """
    asked: dict[str, Any] = {"seed": seed, "start": start, "batch_size": batch_size, "compile": compile}
    folder, order = Path(folder), Order(model, n, y, **asked, progress=progress, say=say, sampling=sampling)
    places = Places(folder, order)
    if not overwrite and holds(folder, places):
        say(f"{folder} holds these {n:,} images already, from the same model and seed; nothing was drawn")
        return places
    its = medium(model.shape)
    shown: list[Any] = []
    size = its.file_size(model.shape)
    with whole(folder, [places.within[c] for c in order.classes()], n, told_of(model), size, overwrite, say):
        for first, items in order.batches():
            for item, name in zip(items, places.names(first, first + len(items)), strict=True):
                its.place(item, folder / name)
                if len(shown) < model.shown:
                    shown.append(item)
        y = order.labels(order.start, order.start + len(shown))
        finish(folder, order.head(), places.all_names(), its, shown, None if y is None else y.numpy(), model.about)
    return places


@contextmanager
def whole(
    folder: Path, within: Sequence[str], n: int, what: object, size: int, overwrite: bool, say: Say
) -> Iterator[None]:
    """Within the block n files of `size` bytes at most are put into a folder; until all are, it is marked as not whole.

    Errors: `RunError` when the folder holds something else and `overwrite` is off, or the disk is too small.
    """
    vacant_folder(folder, overwrite)
    if not (folder / DRAWING).is_file() and meets(folder, [folder / name for name in within]):
        replaceable_folder(folder, overwrite, MANIFEST, Manifest)
    check_room(folder, n, what, -(-size // BLOCK) * BLOCK, BLOCK, say)
    folder.mkdir(parents=True, exist_ok=True)
    place_file(folder / DRAWING, lambda file: None)
    for name in within:
        own_folder(folder / name)
    yield
    (folder / DRAWING).unlink()


def finish(
    folder: Path, head: Head, names: Iterable[str], its: Medium, shown: Sequence[Any], y: np.ndarray | None, about: str
) -> None:
    """Write what people look at first, and the manifest."""
    first = [*islice(names := iter(names), len(shown))]
    legend = f"{len(shown):,} of {head['n']:,} samples, seed {head['seed']}"
    show(folder, f"{about}: samples", legend, its, first, shown, y, head["classes"])
    write_file(folder / MANIFEST, lambda file: file.writelines(map(str.encode, lines(head, chain(first, names)))))


def show(
    folder: Path,
    about: str,
    legend: str,
    its: Medium,
    names: Sequence[str],
    items: Sequence[Any],
    y: np.ndarray | None = None,
    classes: Sequence[str] = (),
    kind: str = "fabulate sample",
) -> None:
    """Write grid.png, which shows items and their classes y (N,), and index.html, which plays them.

    `names`: of their files in the folder. The page needs no network, and is written only where items sound.
    """
    picture = its.sheet(items, about, legend, y, classes)
    save_png(picture, folder / PICTURE)
    heard = [found for item, name in zip(items, names, strict=True) if (found := its.heard(item, name))]
    if not heard:
        return
    shown = Figures([Figure(picture, "Time to the right, pitch upwards.")])
    sections = [Section("All of them", [shown]), Section("To listen to", [Sounds([Sound(*one) for one in heard])])]
    write_page(folder / "index.html", Page(kind=kind, title=about, about=about, sections=sections))


def lines(head: Head, names: Iterable[str]) -> Iterator[str]:
    """manifest.json, a piece at a time: a `Manifest`, however many images it lists."""
    yield json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}") + ',\n  "images": ['
    for i, name in enumerate(names):
        yield f"{',' if i else ''}\n    {json.dumps(name, ensure_ascii=False)}"
    yield "\n  ]\n}\n"


def holds(folder: Path, places: Places) -> bool:
    """Whether a folder has these images, all of them, drawn by this model in this way, as its manifest tells."""
    try:
        found: dict[str, Any] = read_json(folder / MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError, RunError):  # nothing there, or nothing of ours
        return False
    images = found.pop("images")
    return (
        not (folder / DRAWING).exists()
        and found == places.order.head()
        and len(images) == len(places)
        and all((folder / name) == place and place.is_file() for name, place in zip(images, places, strict=True))
    )


def meets(folder: Path, within: Iterable[Path]) -> bool:
    """Whether a folder holds files of the names that samples have."""
    if any((folder / name).exists() for name in (PICTURE, MANIFEST)):
        return True
    places = {place for place in (folder, *within) if place.is_dir()}
    return any(re.fullmatch(r"[0-9]{5,}\.[a-z]+", entry.name) for place in places for entry in place.iterdir())


def check_room(place: Path, n: int, what: object, most: int, fewest: float, say: Say) -> None:
    """Tell how much n samples take, where that is much, and refuse what the disk of a place cannot hold.

    `what`: they are; `most` and `fewest`: bytes that each takes. Errors: `RunError`.
    """
    at_most, at_least = n * most, int(n * fewest)
    home = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(home).free
    told = f"{n:,} {what} take up to {decimal(at_most)} in {place}, and {decimal(free)} are free there"
    if at_least > free:
        raise RunError(f"{told}: even {decimal(at_least)} would not fit. Ask for fewer, or give another --out or --npz")
    if at_most > free:
        say(f"Warning: {told}; they may not fit")
    elif at_most > MUCH:
        say(f"{told[0].upper()}{told[1:]}")


def write_npz(
    model: GenerativeModel,
    path: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    start: int | None = None,
    batch_size: int = 256,
    compile: Compile = "off",
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda sentence: None,
    **sampling: Any,
) -> Path:
    """Write samples start .. start + n - 1 of a seed as one .npz: images (N, C, H, W) uint8, labels (N,), seed.

    It holds its manifest as JSON too. The arguments are those of `write_samples`.
    Errors: `RunError` when the file holds something else and `overwrite` is off, or the disk is too small;
    `ConfigError` where samples are no images.
    """
    asked: dict[str, Any] = {"seed": seed, "start": start, "batch_size": batch_size, "compile": compile}
    path, order = Path(path), Order(model, n, y, **asked, progress=progress, say=say, sampling=sampling)
    if not isinstance(model.shape, ImageShape):
        raise ConfigError(f"an .npz holds images, and these are {model.shape.medium}: give a folder")
    labels = (part.numpy() for span in order.spans() if (part := order.labels(*span)) is not None)
    if not overwrite and path.is_file() and in_archive(path, order):
        say(f"{path} holds these {n:,} images already, from the same model and seed; nothing was drawn")
        return path
    check_room(path, n, told_of(model), model.shape.size, model.shape.size / DEFLATES, say)
    save_archive(path, order.head(), model.shape, (images for _, images in order.batches()), labels, overwrite)
    return path


def in_archive(path: Path, order: Order) -> bool:
    """Whether an .npz has these images, drawn by this model in this way, as its manifest tells."""
    try:
        found = archive_head(path)
    except RunError:
        return False
    y = order.labels(order.start, order.end)
    if found != order.head():
        return False
    with np.load(path) as arrays:
        return y is None or np.array_equal(arrays["labels"], y.numpy())


def archive_head(path: Path) -> Head:
    """The manifest in an .npz. Errors: `RunError` where there is none."""
    try:
        with np.load(path) as arrays:
            text = str(arrays["manifest"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{path} is no .npz of samples with a manifest: {error}") from error
    return parse_json(text, Head, str(path))


def save_archive(
    path: Path, head: Head, shape: ImageShape, images: Iterable[Pixels], labels: Iterable[np.ndarray], overwrite: bool
) -> None:
    """Write images that come a part at a time, with their labels, as an .npz."""
    vacant_file(path, overwrite)
    arrays: dict[str, np.ndarray | Parts] = {
        "images": Parts((head["n"], *shape), np.uint8, images),
        "seed": np.array(head["seed"]),
        "model_sha256": np.array(head["model_sha256"]),
        "manifest": np.array(json.dumps(head, ensure_ascii=False)),
    }
    if head["classes"]:
        arrays |= {"labels": Parts((head["n"],), np.int64, labels), "classes": np.array(head["classes"])}
    write_file(path, lambda file: stream_npz(file, arrays))


class Parts(NamedTuple):
    """An array that comes a part at a time, along its first dimension."""

    shape: tuple[int, ...]
    dtype: type[np.generic]
    parts: Iterable[np.ndarray]


def stream_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray | Parts]) -> None:
    """Write what `np.savez_compressed` would, of arrays of which some come a part at a time.

    >>> from io import BytesIO
    >>> file = BytesIO()
    >>> x = Parts((3, 2), np.uint8, [np.zeros((2, 2), np.uint8), np.ones((1, 2), np.uint8)])
    >>> stream_npz(file, {"x": x, "seed": np.array(7)})
    >>> arrays = np.load(BytesIO(file.getvalue()))
    >>> arrays["x"].tolist(), int(arrays["seed"])
    ([[0, 0], [0, 0], [1, 1]], 7)
    """
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(array, Parts):
                    np.lib.format.write_array(member, array, allow_pickle=False)
                    continue
                descr = np.lib.format.dtype_to_descr(np.dtype(array.dtype))
                header = {"descr": descr, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in array.parts:
                    member.write(np.ascontiguousarray(part).data)


# Parts, joined


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
    ending = files[0].suffix
    its = by_ending(ending)
    names = [f"{folder}/{i:0{digits}}{ending}".removeprefix("/") for i, folder in enumerate(within)]
    few = SHOWN - SHOWN % min(len(head["classes"]) or 1, SHOWN)
    shown = [its.read(file) for file in files[:few]]
    size = max(file.stat().st_size for file in files)
    numbers = {folder: i for i, folder in enumerate(folders(head["classes"]).values())}
    y = np.array([numbers[folder] for folder in within[: len(shown)]]) if numbers else None
    with whole(out, sorted({*within} - {""}), head["n"], "samples", size, overwrite, say):
        for i, (file, name) in enumerate(zip(files, names, strict=True), 1):
            its.copy(file, out / name)
            if progress is not None:
                progress(i, head["n"])
        finish(out, head, names, its, shown, y, head["family"])


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
    check_room(out, head["n"], f"images of {shape}", shape.size, shape.size / DEFLATES, say)
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
