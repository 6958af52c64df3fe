"""`load_data`: from a source to images that can be trained on, through the cache when they were decoded before.

A source is an array, or a string: `digits`; `mnist`, `fashion_mnist` and `cifar10`, in `$FABULATE_DATA/NAME` or else on
the hub; `hf:OWNER/NAME`; a folder of images or of parquet files; an `.npz` file; with `stream:` before it parquet files
that are read as training goes.

An entry of the cache is made beside its place and moved there whole, so it is complete or absent. One that does not
check out is removed and made anew.
"""

import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec, nearest, override, spec, to_json, written_range
from fabulate.data import cache, decode, stream
from fabulate.data.arrays import array, dark, digits, npz, within
from fabulate.data.folder import EXTENSIONS, folder, scan
from fabulate.data.hub import hub, on_hub
from fabulate.data.images import Data, Images, Sequences, Stored
from fabulate.data.intake import check_broken, held_out, spread, take_in
from fabulate.data.listing import Listing, numbered_names
from fabulate.data.media import MEDIA
from fabulate.data.once import Once
from fabulate.data.parquet import Shards, images_in, in_folder, parquet, read_footers
from fabulate.data.reading import UnreadableError
from fabulate.data.report import ImageReport
from fabulate.errors import DataError, RunError
from fabulate.files import key, read_json, write_json
from fabulate.types import ImageShape, Progress

ON_THE_HUB = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}
NAMED = ("digits", *ON_THE_HUB, *(name for its in MEDIA.values() for name in its.sources))

File = Literal["train_x", "train_y", "test_x", "test_y"]


@spec
class Facts:
    """What `data.json` tells of an entry."""

    classes: tuple[str, ...]
    report: ImageReport
    checksums: dict[File, int | None]


def load_data(
    source: str | Path | npt.NDArray[Any] = "digits",
    *,
    size: int | str | tuple[int, int] | None = None,
    fit: str = "crop",
    channels: int | None = None,
    limit_broken: float = 0.1,
    range: str | None = None,
    max_megapixels: float = 200,
    window: int | None = None,
    tokens: int | None = None,
    column: str | None = None,
    progress: Progress | None = None,
) -> Data:
    """Load a data set, decoding and checking every image, or from the cache when that was done before.

    `source`: a string or path as in `DataSpec.source`, or an array (N, H, W), (N, H, W, C) or (N, C, H, W). `size`:
    N for a square, (height, width) or "HEIGHTxWIDTH"; `fit`: how images of other proportions get there, "crop", "pad"
    or "stretch"; `channels`: 1 to 4, with alpha when even. `range`: "LOW:HIGH", the values that become black and white
    in images of more than 8 bits, or "auto": what is found. `window`, `tokens`, `column`: how texts are read.
    `progress`: called now and then with (images decoded, images in all).
    Errors: `DataError` when the source cannot be found or read, holds images of mixed sizes, or more than the share
    `limit_broken` of unreadable ones; `ConfigError` for options out of bounds.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.test), data.shape, len(data.classes)
    (1618, 179, ImageShape(channels=1, height=8, width=8), 10)
    """
    held = isinstance(source, np.ndarray)
    options: dict[str, Any] = {"size": size, "fit": fit, "channels": channels, "limit_broken": limit_broken}
    options |= {"range": range, "max_megapixels": max_megapixels, "window": window, "tokens": tokens, "column": column}
    spec = override(DataSpec(), {"source": "array" if held else str(source), **options})
    return _loaded(array(source), spec, progress) if isinstance(source, np.ndarray) else load_spec(spec, progress)


def load_spec(spec: DataSpec, progress: Progress | None = None) -> Data:
    """Load the data set that a spec describes. Errors: as `load_data`."""
    if spec.source.startswith(stream.PREFIX):
        return _streamed(spec, progress)
    for its in MEDIA.values():
        if (data := its.load(spec)) is not None:
            return data
    if any(value is not None for value in (spec.window, spec.column, spec.tokens)):
        raise DataError(f"{spec.source} has no texts, so it takes no --window, no --column and no --tokens")
    return _loaded(find(spec.source), spec, progress)


def _loaded(listing: Listing, spec: DataSpec, progress: Progress | None) -> Data:
    held = spec.source == "array" and listing.name == "array"
    spec = _ranged(listing, spec, progress)
    fingerprint = _fingerprint(listing.fingerprint, spec)
    # An array in memory is its own cache: it is not written to the disk behind its owner's back.
    stored = _take_in(listing, spec, None, progress) if held else _cached(fingerprint)
    if stored is None:
        with cache.workspace(fingerprint) as workspace:
            stored = _take_in(listing, spec, workspace, progress)
            if workspace is not None:
                _store(stored, fingerprint, workspace)
                if isinstance(stored.train.x, np.memmap):  # its file has just been moved, or removed
                    stored = _cached(fingerprint) or stored
    stored = stored._replace(report=_complete(stored.report, listing))
    check_broken(stored.report.set_aside, stored.report.found, spec.limit_broken)
    return Data(**stored._asdict(), spec=spec, fingerprint=fingerprint, name=listing.name)


def read_image(path: str | Path, shape: ImageShape, spec: DataSpec | None = None) -> Tensor:
    """One image file as uint8 (C, H, W), read as a data set's images are and brought to a model's size and channels.

    `spec`: how the images were read that the model learnt from; their range is this image's too.
    Errors: `DataError` when it cannot be read, or its range leaves it black.
    """
    spec = spec or DataSpec()
    try:
        pixels, *_, values = decode.decode(Path(path), shape[1:], shape.channels, None, spec.span, spec.cap, spec.fit)
        if values is not None and spec.span is not None:
            within(values.low, values.high, spec.span, str(path))
        elif values is not None and not values.bright:
            raise dark(values.low, values.high, str(path))
    except UnreadableError as error:
        raise DataError(f"{path}: {error}") from error
    assert pixels is not None
    return torch.from_numpy(np.array(pixels))


def image_names(data: Data) -> tuple[str, ...]:
    """The name of each image, training images first: its file in a folder, else its part and number.

    Names are not kept with the pixels; a folder is listed again, and what intake did with it is done to its names.

    >>> image_names(load_data("digits"))[1617:1619]
    ('train[1617]', 'test[0]')
    """
    items: Any = (data.train, data.test)
    if isinstance(items[0], Sequences):
        return tuple(name for part in items if part is not None for name in part.names)
    if not Path(data.spec.source).is_dir():
        parts = {"train": data.train} | ({} if data.test is None else {"test": data.test})
        return tuple(name for part, images in parts.items() for name in numbered_names(part, len(images)))
    unread = dict(data.report.set_aside)
    with find(data.spec.source).open() as contents:
        names = [[name for name in part.names if name not in unread] for part in contents.parts]
    if not any(names[1:]):
        names = [[names[0][i] for i in rows] for rows in held_out(len(names[0]))]
    found = tuple(name for part in names for name in part)
    assert len(found) == len(data.train) + (0 if data.test is None else len(data.test))
    return found


def _ranged(listing: Listing, spec: DataSpec, progress: Progress | None) -> DataSpec:
    """The spec with the range that was found where it says auto: models and other images need the numbers."""
    if spec.range != "auto":
        return spec
    kept = cache.root() / "ranges" / f"{key(('range', decode.VERSION, spec.cap, listing.fingerprint))}.json"
    try:
        found: tuple[float, float] = read_json(kept, tuple[float, float], 1 << 10)
    except (OSError, RunError):  # for the first time, or damaged
        with listing.open() as contents:
            found = spread(contents.parts, spec.cap, progress)
        with suppress(OSError):
            if cache.folder("ranges") is not None:
                write_json(kept, found)
    return override(spec, {"range": written_range(*found)})


def read_once(spec: DataSpec, shape: ImageShape) -> Once:
    """All images of a `stream:` source, one way through, brought to a shape. Errors: `DataError`, as `load_data`."""
    return Once(*_found(spec), spec, shape)


def _found(spec: DataSpec) -> tuple[str, Shards]:
    if spec.range == "auto":
        raise DataError("stream: does not look at all images, as --range auto would have to; give --range LOW:HIGH")
    return find_stream(spec.source.removeprefix(stream.PREFIX))


def _streamed(spec: DataSpec, progress: Progress | None) -> Data:
    name, shards = _found(spec)
    stored = stream.look(shards, spec, progress)
    return Data(**stored._asdict(), spec=spec, fingerprint=_fingerprint(shards.fingerprint, spec), name=name)


def _take_in(listing: Listing, spec: DataSpec, workspace: Path | None, progress: Progress | None) -> Stored:
    with listing.open() as contents:
        return take_in(contents, spec, workspace, progress)


def _fingerprint(listing: str, spec: DataSpec) -> str:
    # Not the source's name, so that a moved folder stays the same data; not limit_broken, which changes no pixel.
    options = [(name, getattr(spec, name)) for name in ("range", "max_megapixels", "fit")]
    changed = [(name, value) for name, value in options if value != getattr(DataSpec(), name)]
    return key((decode.VERSION, spec.size, spec.channels, listing, *changed))


def _store(stored: Stored, fingerprint: str, workspace: Path) -> None:
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
        place = workspace.replace(cache.root() / "data" / fingerprint)
        with cache.held(place):  # or what is larger than the limit by itself would go at once
            cache.trim()


def _cached(fingerprint: str) -> Stored | None:
    """The entry of a fingerprint, checked; None when there is none. A damaged entry is removed."""
    place = cache.root() / "data" / fingerprint
    try:
        if not place.is_dir():
            return None
    except OSError:  # a cache that cannot even be looked at
        return None
    try:
        with cache.held(place):
            return _read_entry(place)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, AssertionError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _read_entry(place: Path) -> Stored:
    facts = read_json(place / "data.json", Facts)
    arrays = {name: _read_array(place / f"{name}.npy", check) for name, check in facts.checksums.items()}
    train, *test = [
        Images(arrays[f"{part}_x"], arrays.get(f"{part}_y")) for part in ("train", "test") if f"{part}_x" in arrays
    ]
    cache.touched(place)
    if any(isinstance(value, np.memmap) for value in arrays.values()):
        cache.hold(place)  # they are read for as long as this process lives
    return Stored(train, test[0] if test else None, facts.classes, facts.report)


def _read_array(path: Path, check: int | None) -> npt.NDArray[Any]:
    if not cache.in_memory(path.stat().st_size):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    value: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    if check is not None and _checksum(value) != check:
        raise ValueError(f"{path} is damaged")
    return value


def _checksum(value: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(value).data)


def _complete(report: ImageReport, listing: Listing) -> ImageReport:
    """The report with what the listing saw, which is told anew on every load."""
    return replace(
        report,
        found=report.found + len(listing.set_aside),
        set_aside=(*listing.set_aside, *report.set_aside),
        ignored=dict(listing.ignored),
        notes=(*listing.notes, *report.notes),
        warnings=(*listing.warnings, *report.warnings),
    )


# What a string names


def find(source: str) -> Listing:
    """List the source a string names.

    Errors: `DataError` that says what was looked for, with the nearest known name or file when there is one.

    >>> find("digits").name
    'digits'
    """
    if source == "digits":
        return digits()
    where = place(source)
    if isinstance(where, str):
        return hub(where)
    if where.is_dir():
        return _folder(where)
    if where.suffix.lower() == ".npz" and where.exists():
        return npz(where)
    raise _nothing(where)


def find_stream(source: str) -> tuple[str, Shards]:
    """The name and the parquet files of a source that is to be streamed.

    Errors: `DataError` when there are none, when they cannot be read, or when they hold no images.
    """
    where = place(source)
    if isinstance(where, str):
        return where.split("/")[-1], read_footers(on_hub(where), where)
    if not where.is_dir():
        raise _nothing(where)
    tables = scan(where).tables
    if not tables:
        raise DataError(
            f"there are no parquet files in {where}, which stream: reads; a folder of images is read without it: "
            f"--data {where}"
        )
    return where.resolve().name or "data", read_footers(in_folder(where, tables), source)


def place(source: str) -> Path | str:
    """Where a source lies: at a path, or on the hub as OWNER/NAME.

    >>> place("hf:uoft-cs/cifar10"), place("photos").name
    ('uoft-cs/cifar10', 'photos')
    """
    if source.startswith("hf:"):
        return source.removeprefix("hf:")
    if source in ON_THE_HUB:
        around = os.environ.get("FABULATE_DATA")
        here = Path(around).expanduser() / source if around else None
        return here if here and here.is_dir() else ON_THE_HUB[source]
    return Path(source).expanduser()


def _folder(path: Path) -> Listing:
    """A folder of images or of parquet files that hold them; of one with both, whichever holds more."""
    scanned = scan(path)
    if not scanned.tables:
        return folder(path, scanned)
    if not scanned.images:
        return parquet(path, scanned.tables)
    in_tables, files = 0, len(scanned.images)
    for table in scanned.tables:
        with suppress(DataError):  # a damaged one beside images is what any other file beside them is
            in_tables += images_in(table)
    if in_tables > files:
        told = f"image files left out: {files:,}, beside parquet files that hold more images"
        return parquet(path, scanned.tables, (told,))
    listing = folder(path, scanned)
    ignored = {**listing.ignored, ".parquet": len(scanned.tables)}
    if not in_tables:
        return replace(listing, ignored=ignored)
    told = f"images in parquet files left out: {in_tables:,}, beside more image files"
    return replace(listing, ignored=ignored, warnings=(*listing.warnings, told))


def _nothing(path: Path) -> DataError:
    """The error for a path where no source is, with the nearest name."""
    if path.exists():
        what = "one image" if path.suffix.lower() in EXTENSIONS else "a file of an unknown kind"
        return DataError(f"{path} is {what}: give the folder around it, or an .npz file")
    hint = nearest(str(path), list(NAMED))
    if not hint and path.parent.is_dir():
        siblings = [other.name for other in path.parent.iterdir() if other.is_dir() or other.suffix.lower() == ".npz"]
        hint = nearest(path.name, siblings)
    return DataError(f"there is no file or folder {str(path)!r}{hint} (known names: {', '.join(NAMED)}, hf:OWNER/NAME)")
