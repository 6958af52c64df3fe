"""Images of a source as the page shows them: the intake report as it grows, sheets of images, thumbnails of files."""

import json
import queue
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fabulate.config import DataSpec, override, to_json
from fabulate.data import Data, decode, load_spec
from fabulate.data.media import medium
from fabulate.data.reading import UnreadableError
from fabulate.data.report import ImageReport, rows
from fabulate.errors import CapabilityError, FabulateError, UndecidedError
from fabulate.studio.atlas import atlas
from fabulate.studio.forms import checked_reading
from fabulate.studio.loaded import data_of
from fabulate.studio.places import NAMED, PICTURES, Roots
from fabulate.studio.written import told
from fabulate.types import ImageShape, some_of

CAP = 60_000_000  # pixels of a file that a thumbnail is made of
COVER = 12  # images on a folder's card
READ = 12  # texts or tunes that are shown
Json = dict[str, Any]


def spec_of(source: str, reading: Json, roots: Roots) -> DataSpec:
    """How images of an allowed source are read."""
    return checked_reading(source if source in NAMED else str(roots.existing(source)), reading)


def looked(spec: DataSpec) -> Iterator[str]:
    """The intake of a source, told as lines of JSON: {"done", "total"} as it goes on, then {"report"} or {"error"}."""
    news: queue.Queue[Json | None] = queue.Queue()
    over = threading.Event()

    def work() -> None:
        def progress(done: int, total: int) -> None:
            news.put({"done": done, "total": total})
            if over.is_set():
                raise FabulateError("nobody waits for the report any more")

        try:
            news.put({"report": report_of(spec, progress)})
        except (FabulateError, OSError) as error:
            news.put({"error": str(error)})
        finally:
            news.put(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (line := news.get()) is not None:
            yield json.dumps(line) + "\n"
    finally:
        over.set()


def report_of(spec: DataSpec, progress: Any) -> Json:
    """The report of a source; where a size is still to be said, of its images as they would be with one that suits."""
    undecided = []
    while True:
        try:
            data = load_spec(spec, progress)
            break
        except UndecidedError as error:
            undecided.append(str(error))
            spec = override(spec, error.options)
    if not isinstance(data.report, ImageReport):
        its = medium(data.shape)
        return {
            "medium": data.shape.medium,
            "name": data.name,
            "train": data.report.train,
            "rows": [*rows(data.report)],
            "items": told(its, its.items(data.train.stored(some_of(data.train, READ, 0, "page")).x, data.shape)),
        }
    cut = data.report.cut
    return {
        **to_json(data.report),
        "name": data.name,
        "rows": [*rows(data.report)],
        "undecided": undecided,
        "spec": to_json(spec),
        "cut_sides": None if cut is None else sides(Path(spec.source) / cut[2]),
        "target": spec.sides,
    }


def sides(file: Path) -> tuple[int, int] | None:
    """Height and width of an image file, as it lies there."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def sheet(spec: DataSpec, label: str | None, start: int, count: int) -> tuple[bytes, int, tuple[int, ...]]:
    """Training images of a class, or of all, as an atlas; how many there are, and the shape of each."""
    data = data_of(spec)
    if not isinstance(data.shape, ImageShape):
        raise CapabilityError(f"{data.name} has {data.shape.medium}; this page shows images")
    chosen = members(data, label)
    some = np.asarray(chosen[start : start + count])
    if not len(some):
        raise FileNotFoundError(2, "there are no such images", label or data.name)
    return atlas(np.asarray(data.train.x[some])), len(chosen), data.shape


def members(data: Data, label: str | None) -> "np.ndarray[Any, Any]":
    """The numbers of the training images of a class, or of all. Errors: `FabulateError` for a class there is not."""
    if label is None or data.train.y is None:
        return np.arange(len(data.train))
    if label not in data.classes:
        raise FabulateError(f"label: there is no class {label!r}")
    return np.flatnonzero(data.train.y == data.classes.index(label))


def thumbnail(file: Path, side: int) -> bytes:
    """An image file in a square of so many pixels, read as intake does. Errors: `FabulateError` for a broken one."""
    found = sides(file)
    if found is None or found[0] * found[1] > CAP:
        raise FabulateError(f"{file.name} is no image that can be shown")
    scale = min(1.0, side / max(found))
    size = max(1, round(found[0] * scale)), max(1, round(found[1] * scale))
    try:
        pixels = decode.decode(file, size, 3, None, None, CAP, "stretch")[0]
    except UnreadableError as error:
        raise FabulateError(f"{file.name}: {error}") from error
    assert pixels is not None
    return atlas(np.asarray(pixels)[None])


def cover(folder: Path) -> bytes:
    """Some images of a folder, and of the folders in it in turn, as an atlas."""
    return _cover(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _cover(folder: Path, changed: int) -> bytes:
    shown = []
    for file in some_files(folder):
        try:
            pixels = decode.decode(file, (48, 48), 3, None, None, CAP, "crop")[0]
        except (UnreadableError, OSError):
            continue
        shown.append(np.asarray(pixels))
        if len(shown) == COVER:
            break
    if not shown:
        raise FileNotFoundError(2, "there are no images", str(folder))
    return atlas(np.stack(shown))


def some_files(folder: Path) -> list[Path]:
    """Image files of a folder and of those in it, taken in turn: three times as many as a card shows, at most."""
    inside = [
        folder,
        *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:50],
    ]
    lists = [sorted(path for path in each.iterdir() if path.suffix.lower() in PICTURES)[:COVER] for each in inside]
    turns = [files[i] for i in range(COVER) for files in lists if i < len(files)]
    return turns[: 3 * COVER]
