"""Samples on disk: one PNG per image, in class folders when the model knows classes, a grid and a manifest; or an .npz.

Any number of images is written in constant memory: they are drawn a batch at a time, and which image sample i is does
not depend on the batch. Nor on the process: P of them draw P batches at a time, one each. What an image is called and
which class it has is told by its number alone, so no list is as long as the images are many.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, NotRequired, overload
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.compiling import Say, announced, compiled
from fabulate.config import Compile, override, to_json
from fabulate.errors import ConfigError, RunError
from fabulate.files import (
    Name,
    own_folder,
    place_file,
    read_json,
    replaceable_folder,
    vacant_file,
    vacant_folder,
    write_file,
)
from fabulate.folder_names import folder_names
from fabulate.models import GenerativeModel
from fabulate.models.base import Labels
from fabulate.pictures import Pixels, save_png, sheet, to_image
from fabulate.processes import ALONE, Processes
from fabulate.types import ImageShape, Progress, to_uint8

PICTURE, MANIFEST = "grid.png", "manifest.json"
DRAWING = ".fabulate-drawing"  # there while images are drawn: a folder with it is ours, and not whole
BLOCK = 4096  # bytes that the smallest file takes on most disks
PNG_EXTRA = 200  # bytes of a PNG beside its pixels and the filter of each row, at most
DEFLATES = 1032  # times, at most: https://zlib.net/zlib_tech.html
MUCH = 100_000_000  # bytes worth a word
ENOUGH_CALLS = 10_000  # of a network, that what compiling saves is more than what it costs


@with_config(ConfigDict(extra="forbid"))
class Manifest(TypedDict):
    """What manifest.json says: which model drew the images, how, and where each lies."""

    family: str
    model_sha256: str
    seed: int
    sampling: dict[str, Any]
    n: int
    classes: list[str]
    folders: NotRequired[dict[str, Name]]
    """Of each class, where they are not called as it is."""
    images: list[Name]


class Order:
    """Samples 0 .. n - 1 of a seed, as they were asked for; they are drawn a batch at a time, one in each process.

    Errors: `ConfigError` for classes that the model does not know, and for a way of sampling that it does not have.
    """

    def __init__(
        self,
        model: GenerativeModel,
        n: int,
        y: Labels = None,
        *,
        seed: int = 0,
        batch_size: int = 256,
        sampling: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.n, self.seed, self.progress, self.processes = model, n, seed, progress, processes
        self._y = model.labels(y, n) if y is not None and np.ndim(y) else y
        if self._y is y:  # one class for all, or each in turn: made when asked for, and refused now
            model.labels(y, 1)
        self.sampling = sampling or {}
        self.drawn_with = override(model.sampling, self.sampling)
        even = -(-n // (processes.count * model.rows)) * model.rows  # for each, as many as are drawn together
        self.size = min(batch_size, even)

    def labels(self, first: int, last: int) -> Tensor | None:
        """The classes (last - first,) of images first .. last - 1; None when the model knows no classes."""
        if isinstance(self._y, Tensor):
            return self._y[first:last]
        return self.model.labels(self._y, last - first, first)

    def drawn(self) -> list[int]:
        """The numbers of the classes that occur, in order."""
        labels = self._y if isinstance(self._y, Tensor) else self.labels(0, min(self.n, len(self.model.classes)))
        return [] if labels is None else sorted(set(labels.tolist()))

    def batches(self) -> Iterator[tuple[int, int]]:
        """(first image, the one after the last) of each batch, of all processes."""
        return ((first, min(first + self.size, self.n)) for first in range(0, self.n, self.size))

    def own(self) -> Iterator[tuple[int, Pixels]]:
        """This process's batches: (number of the first image, uint8 images (B, C, H, W))."""
        for first, batch in self._rounds():
            if batch is not None:
                yield first, batch.numpy()

    def whole(self) -> Iterator[tuple[int, Pixels]]:
        """All images in order, in every process, as many at a time as all draw together."""
        done = 0
        for _, batch in self._rounds():
            images = self.processes.gathered(batch).numpy()
            yield done, images
            done += len(images)

    def _rounds(self) -> Iterator[tuple[int, Tensor | None]]:
        """As many rounds as the others go: (number of the first image, images or None when none are left)."""
        together = self.size * self.processes.count
        for start in range(0, self.n, together):
            first = start + self.size * self.processes.rank
            yield first, self._batch(first, min(first + self.size, self.n)) if first < self.n else None
            if self.progress is not None:
                self.progress(min(start + together, self.n), self.n)

    def _batch(self, first: int, last: int) -> Tensor:
        images = self.model.sample(last - first, self.labels(first, last), seed=self.seed, start=first, **self.sampling)
        return to_uint8(images).cpu()


def faster(
    model: GenerativeModel, n: int, choice: Compile, say: Say, sampling: Mapping[str, Any] | None = None
) -> AbstractContextManager[None]:
    """Within the block images are drawn by compiled networks, where that is wanted, or pays for n of them.

    What decides is how often networks are called, by n alone: how many processes share the images changes nothing in
    them. An image drawn by compiled networks differs from the same one drawn without in how sums round.
    Errors: `ConfigError` where it is wanted and the family has nothing to compile.
    """
    with model.drawing(sampling or {}):
        repeated = model.repeated()
    if choice == "on" and not repeated:
        raise ConfigError(f"drawing from {model.family} has nothing worth compiling; leave out --compile on")
    calls = -(-n // model.rows) * sum(repeated.values())
    if choice == "off" or (choice == "auto" and calls < ENOUGH_CALLS):
        return nullcontext()
    say(announced("the network"))
    return compiled(repeated, choice == "on", say)


class Places(Sequence[Path]):
    """Where images go: folder/NUMBER.png, or folder/CLASS/NUMBER.png; each is made when it is asked for."""

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder, self.order = folder, order
        self.width = max(5, len(str(order.n - 1)))
        self.folders = folder_names(order.model.classes, taken=(PICTURE, MANIFEST))
        self.within = list(self.folders.values())

    def __len__(self) -> int:
        return self.order.n

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> list[Path]: ...
    def __getitem__(self, i: int | slice) -> Path | list[Path]:
        numbers = range(len(self))[i]
        if isinstance(numbers, range):
            return [self[k] for k in numbers]
        return self.folder / next(self.names(numbers, numbers + 1))

    def __iter__(self) -> Iterator[Path]:
        return (self.folder / name for first, last in self.order.batches() for name in self.names(first, last))

    def names(self, first: int, last: int) -> Iterator[str]:
        """Of images first .. last - 1, within the folder, with forward slashes."""
        labels = self.order.labels(first, last)
        within = [""] * (last - first) if labels is None else [f"{self.within[c]}/" for c in labels.tolist()]
        return (f"{place}{i:0{self.width}}.png" for i, place in enumerate(within, first))


def write_samples(
    model: GenerativeModel,
    folder: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    say: Say = lambda sentence: None,
    **sampling: Any,
) -> Sequence[Path]:
    """Write samples 0 .. n - 1 of a seed as PNGs, with grid.png and manifest.json; returns the images' paths.

    A model with classes writes each image in the folder of its class, so that the folder is a data set to train on.
    Each of several processes writes the images that it draws, into a folder that all of them see; grid and manifest
    come when all are done. Where the folder holds these very images by its manifest, none is drawn again. `say` takes
    sentences about that and about the room on the disk. `sampling` are further arguments of `model.sample`.
    Errors: `RunError` when the folder holds something else and `overwrite` is off, or the disk is too small. Nothing is
    ever deleted.
    """
    folder = Path(folder)
    order = Order(
        *(model, n, y), seed=seed, batch_size=batch_size, sampling=sampling, progress=progress, processes=processes
    )
    places = Places(folder, order)
    if processes.given(processes.first and not overwrite and holds(folder, order, places)):
        say(f"{folder} holds these {n:,} images already, from the same model and seed; nothing was drawn")
        return places

    def begin() -> None:
        vacant_folder(folder, overwrite)
        if not (folder / DRAWING).is_file() and meets(folder, [folder / places.within[c] for c in order.drawn()]):
            replaceable_folder(folder, overwrite, MANIFEST, Manifest)
        check_room(folder, n, model.shape, True, say)
        folder.mkdir(parents=True, exist_ok=True)
        place_file(folder / DRAWING, lambda file: None)
        for c in order.drawn():
            own_folder(folder / places.within[c])

    processes.leads(begin)
    shown: dict[int, Pixels] = {}
    for first, images in order.own():
        for i, (image, name) in enumerate(zip(images, places.names(first, first + len(images)), strict=True), first):
            place_file(folder / name, partial(to_image(image).save, format="PNG"))
            if i < model.shown:
                shown[i] = image
    together = {i: image for part in processes.collected(shown) for i, image in part.items()}

    def finish() -> None:
        x, y = np.stack([together[i] for i in sorted(together)]), order.labels(0, len(together))
        legend = f"{len(x):,} of {n:,} samples, seed {seed}"
        numbers = None if y is None else y.numpy()
        save_png(sheet(x, f"{model.about}: samples", legend, numbers, model.classes), folder / PICTURE)
        write_file(folder / MANIFEST, lambda file: file.writelines(map(str.encode, lines(order, places))))
        (folder / DRAWING).unlink()

    processes.leads(finish)
    return places


def manifest(order: Order, places: Places) -> dict[str, Any]:
    """What manifest.json says before it lists the images."""
    changed = {name: place for name, place in places.folders.items() if name != place}
    return {
        "family": order.model.family,
        "model_sha256": order.model.weights_hash(),
        "seed": order.seed,
        "sampling": to_json(order.drawn_with),
        "n": order.n,
        "classes": list(order.model.classes),
        **({"folders": changed} if changed else {}),
    }


def lines(order: Order, places: Places) -> Iterator[str]:
    """manifest.json, a piece at a time: a `Manifest`, however many images it lists."""
    head = json.dumps(manifest(order, places), indent=2, ensure_ascii=False).removesuffix("\n}")
    yield f'{head},\n  "images": ['
    for first, last in order.batches():
        for i, name in enumerate(places.names(first, last), first):
            yield f"{',' if i else ''}\n    {json.dumps(name, ensure_ascii=False)}"
    yield "\n  ]\n}\n"


def holds(folder: Path, order: Order, places: Places) -> bool:
    """Whether a folder has these images, all of them, drawn by this model in this way, as its manifest tells."""
    try:
        found = read_json(folder / MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError, RunError):  # nothing there, or nothing of ours
        return False
    images = found.pop("images")
    return (
        not (folder / DRAWING).exists()
        and found == manifest(order, places)
        and len(images) == len(places)
        and all((folder / name) == place and place.is_file() for name, place in zip(images, places, strict=True))
    )


def meets(folder: Path, within: Iterable[Path]) -> bool:
    """Whether a folder holds files of the names that samples have."""
    if any((folder / name).exists() for name in (PICTURE, MANIFEST)):
        return True
    places = {place for place in (folder, *within) if place.is_dir()}
    return any(re.fullmatch(r"[0-9]{5,}\.png", entry.name) for place in places for entry in place.iterdir())


def check_room(place: Path, n: int, shape: ImageShape, files: bool, say: Say) -> None:
    """Tell how much n images take, where that is much, and refuse what the disk of a place cannot hold.

    `files`: whether each is a file of its own, or all are in one archive. Errors: `RunError`.
    """
    at_most = n * (BLOCK * -(-(shape.size + shape.height + PNG_EXTRA) // BLOCK) if files else shape.size)
    at_least = n * BLOCK if files else at_most // DEFLATES
    home = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(home).free
    told = f"{n:,} images of {shape} take up to {human(at_most)} in {place}, and {human(free)} are free there"
    if at_least > free:
        raise RunError(f"{told}: even {human(at_least)} would not fit. Ask for fewer, or give another --out or --npz")
    if at_most > free:
        say(f"Warning: {told}; they may not fit")
    elif at_most > MUCH:
        say(f"{told[0].upper()}{told[1:]}")


def human(size: int) -> str:
    """A number of bytes as people say it.

    >>> human(4_100_000_000_000), human(12_288)
    ('4.1 TB', '12 kB')
    """
    unit = max(0, min(4, (len(str(size)) - 1) // 3))
    return (
        f"{size / 1000**unit:.{1 if size < 10 * 1000**unit and unit else 0}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
    )


def write_npz(
    model: GenerativeModel,
    path: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    say: Say = lambda sentence: None,
    **sampling: Any,
) -> Path:
    """Write samples 0 .. n - 1 of a seed as one .npz: images (N, C, H, W) uint8, labels (N,) and seed.

    Several processes draw, and the first one writes. `say` takes a sentence about the room on the disk.
    Errors: `RunError` when the file exists and `overwrite` is off, or the disk is too small.
    """
    path = Path(path)
    order = Order(
        *(model, n, y), seed=seed, batch_size=batch_size, sampling=sampling, progress=progress, processes=processes
    )

    def begin() -> None:
        check_room(path, n, model.shape, False, say)
        vacant_file(path, overwrite)

    processes.leads(begin)
    images = (images for _, images in order.whole())
    if processes.first:
        arrays: dict[str, np.ndarray | Parts] = {
            "images": Parts((n, *model.shape), np.uint8, images),
            "seed": np.array(seed),
            "model_sha256": np.array(model.weights_hash()),
        }
        if model.classes:
            labels = (part.numpy() for a, b in order.batches() if (part := order.labels(a, b)) is not None)
            arrays |= {"labels": Parts((n,), np.int64, labels), "classes": np.array(model.classes)}
        write_file(path, lambda file: stream_npz(file, arrays))
    else:
        for _ in images:  # they are drawn here, and written there
            pass
    processes.collected(None)  # none returns before the file is there
    return path


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
