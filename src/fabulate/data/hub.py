"""Data sets in the Hugging Face hub's layout, from the hub or from a folder of parquet files, by `datasets`.

The image bytes are taken as they are and go through our own decoder, so that a broken image is set aside here too.
A hub data set keeps the revision first seen: what a run was trained on does not change under it, and a second load
needs neither the network nor the import of `datasets`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fabulate.data import cache
from fabulate.data.listing import Contents, Labels, Listing, Part, Raw, number
from fabulate.data.shelves import held, shelf
from fabulate.errors import DataError
from fabulate.files import read_json, write_json

_ONLINE = (
    "Check the name and the connection. Offline, put the parquet files of a data set called NAME into a folder NAME "
    "and set FABULATE_DATA to the folder around it, or give the path of a local folder."
)
_VALIDATION = ("validation", "valid", "val")


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder in the hub's layout, sorted: beside its README or one folder down."""
    return sorted(
        path for pattern in ("*.parquet", "*/*.parquet") for path in folder.glob(pattern) if path.name[0] != "."
    )


def parquet(folder: Path) -> Listing:
    """List a folder of parquet files; names and bytes are its fingerprint."""
    whole = blake2b(b"parquet", digest_size=16)
    for path in parquet_files(folder):
        with path.open("rb") as file:
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + file_digest(file, "blake2b").digest())

    @contextmanager
    def opened() -> Iterator[Contents]:
        # datasets writes a second copy of the files, which nobody needs once the images are decoded
        with TemporaryDirectory(prefix="fabulate-", ignore_cleanup_errors=True) as copy:
            yield _load(str(folder), None, copy, f"the parquet files in {folder}", "Are they whole?")

    return Listing(folder.resolve().name or "data", whole.hexdigest(), opened)


def hub(name: str) -> Listing:
    """List a data set on the hub, OWNER/NAME. Errors: `DataError` when it cannot be reached or does not exist."""
    revision = revision_of(name)

    @contextmanager
    def opened() -> Iterator[Contents]:
        with _downloads() as copy:
            yield _load(name, revision, copy, f"the data set {name} on the Hugging Face hub", _ONLINE)

    return Listing(name.split("/")[1], f"hub {name} {revision}", opened)


@contextmanager
def _downloads() -> Iterator[str]:
    """Where downloads are kept: in the cache, so that another size needs no network; else only for now."""
    kept = shelf("hub")
    if kept is not None:
        with held(kept):
            yield str(kept)
    else:
        with TemporaryDirectory(prefix="fabulate-", ignore_cleanup_errors=True) as copy:
            yield copy


def revision_of(name: str) -> str:
    """The revision of a hub data set that was seen first. Errors: `DataError`, as `hub`."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise DataError(f"a hub data set is hf:OWNER/NAME, such as hf:ylecun/mnist; given: hf:{name}")
    known = cache.root() / "hub" / f"{name.replace('/', '--')}.json"
    try:
        return str(read_json(known, dict[str, str], 1 << 16)["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # first time here, or no cache
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # requests' or httpx's, by its version

    try:
        revision = str(HfApi().dataset_info(name, timeout=20).sha)
    except (HTTPError, OSError, ValueError) as error:
        raise _failed(f"the data set {name} on the Hugging Face hub", error, _ONLINE) from error
    if shelf("hub") is not None:
        with suppress(OSError):  # it is asked for again the next time
            write_json(known, {"revision": revision})
    return revision


def _failed(what: str, error: BaseException, advice: str) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{what} cannot be loaded: {reason}. {advice}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own progress bars; afterwards they are as they were."""
    import datasets
    import huggingface_hub.utils

    libraries: tuple[Any, ...] = (datasets, huggingface_hub.utils)
    loud = [library for library in libraries if not library.are_progress_bars_disabled()]
    for library in loud:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in loud:
            library.enable_progress_bars()


def _load(path: str, revision: str | None, copy: str, what: str, advice: str) -> Contents:
    import datasets
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        with _quiet():
            parts = datasets.load_dataset(path, revision=revision, cache_dir=copy)
    except (HTTPError, OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise _failed(what, error, advice) from error
    return _contents(parts, what)


def _contents(parts: Any, what: str) -> Contents:
    names = list(parts)
    train = "train" if "train" in names else names[0]
    test = next((name for name in ("test", *_VALIDATION) if name in names and name != train), None)
    notes = []
    if train != "train":
        notes.append(f"no split is called train: {train} is the training part")
    if test in _VALIDATION:
        notes.append(f"no test split: {test} is the test part")
    unused = [name for name in names if name not in (train, test)]
    if unused:
        notes.append(f"splits that are not used: {', '.join(unused)}")
    features = parts[train].features
    image = _column(features, _holds_images)
    if image is None:
        given = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise DataError(f"{what} has no column of images; given: {given}")
    label = _column(features, lambda name, kind: hasattr(kind, "names")) or _column(features, _holds_labels)
    used = [train] + ([test] if test else [])
    columns = {part: parts[part][label][:] for part in used} if label else {}
    complete = all(value is not None and value != -1 for column in columns.values() for value in column)
    if label and not complete:  # hub competitions hide the test labels as -1
        notes.append(f"no classes: some images have no {label}")
    classes: tuple[str, ...] = ()
    numbers: dict[str, Labels | None] = {}
    if label and complete:
        listed = getattr(features[label], "names", None)
        if listed:
            classes = tuple(listed)
            numbers = {part: np.array(columns[part], np.int64) for part in used}
        else:
            classes, *both = number(columns[train], columns[test] if test else None)
            numbers = dict(zip(used, both, strict=False))
    made = [
        Part([f"{part}[{i}]" for i in range(len(parts[part]))], _Rows(parts[part], image), numbers.get(part))
        for part in used
    ]
    return Contents(made[0], made[1] if test else None, classes, tuple(notes))


def _column(features: Any, fits: Any) -> str | None:
    return next((name for name, kind in features.items() if fits(name, kind)), None)


def _holds_images(name: str, kind: Any) -> bool:
    """An Image, or what a plain parquet writer makes of one: a struct of bytes and path."""
    return type(kind).__name__ == "Image" or (isinstance(kind, dict) and "bytes" in kind)


def _holds_labels(name: str, kind: Any) -> bool:
    return name in ("label", "labels") and getattr(kind, "dtype", "").startswith(("int", "uint", "string", "bool"))


class _Rows:
    """The encoded images of one split, a slice at a time, straight from its Arrow table."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.table = dataset.select_columns([column]).with_format("arrow")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: slice) -> list[Raw]:
        cells = self.table[rows].column(0).to_pylist()
        return [_raw(cell) for cell in cells]


def _raw(cell: Any) -> Raw:
    if cell is None:
        return b""
    if cell["bytes"] is None and cell.get("path"):
        return Path(cell["path"])
    return cell["bytes"] or b""
