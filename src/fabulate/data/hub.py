"""Data sets in the Hugging Face hub's layout, from the hub or from a folder of parquet files, by `datasets`.

The image bytes are taken as they are and go through our own decoder, so that a broken image is set aside here too.
A hub data set keeps the revision first seen: what a run was trained on does not change under it, and a second load
needs neither the network nor the import of `datasets`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b, file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fabulate.config import spec, to_json
from fabulate.data import cache
from fabulate.data.listing import LABELS, Contents, Label, Listing, Part, Raw, label_of, number
from fabulate.data.report import listed
from fabulate.data.shelves import held, shelf
from fabulate.data.tables import images_in
from fabulate.errors import DataError, RunError
from fabulate.files import read_json, write_json

_ONLINE = (
    "Check the name and the connection. Offline, put the parquet files of a data set called NAME into a folder NAME "
    "and set FABULATE_DATA to the folder around it, or give the path of a local folder."
)
_SPLIT = re.compile(r"(?:^|[^a-z])(train|test|val|valid|validation)(?:ing)?(?=[^a-z]|$)")
_VALIDATION = ("validation", "valid", "val")


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder in the hub's layout and of those in it, sorted; no hidden ones."""
    found = (path.relative_to(folder) for path in folder.rglob("*.parquet"))
    return sorted(folder / path for path in found if not any(part.startswith(".") for part in path.parts))


def parquet(folder: Path, tables: Sequence[Path], warnings: tuple[str, ...] = ()) -> Listing:
    """List a folder of parquet files: names and bytes are its fingerprint, and its README, which may name classes."""
    whole = blake2b(b"parquet 2", digest_size=16)
    for path in sorted([*tables, *folder.glob("README.md")]):
        with path.open("rb") as file:
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + file_digest(file, "blake2b").digest())

    @contextmanager
    def opened() -> Iterator[Contents]:
        of_images = [path for path in tables if images_in(path)]
        # Where there is more than these, the library would take what there is most of: tables, or the images beside.
        plain = {*of_images, folder / "README.md"}
        mixed = any(path.name[0] != "." and path.is_file() and path not in plain for path in folder.rglob("*"))
        files = _splits(folder, of_images) if of_images and mixed else None
        # datasets writes a second copy of the files, which nobody needs once the images are decoded
        with TemporaryDirectory(prefix="fabulate-", ignore_cleanup_errors=True) as copy:
            contents = _load(
                str(folder), None, copy, f"the parquet files in {folder}", "Are they whole?", data_files=files
            )
            unused = [path.relative_to(folder).as_posix() for path in tables if path not in of_images]
            told = f"parquet files without images, not used: {', '.join(listed(unused, limit=5))}"
            yield replace(contents, notes=(*contents.notes, told)) if of_images and unused else contents

    return Listing(folder.resolve().name or "data", whole.hexdigest(), opened, warnings=warnings)


def _splits(folder: Path, tables: Iterable[Path]) -> dict[str, list[str]]:
    """The parquet files of each split, by the words in their names."""
    splits: dict[str, list[str]] = {}
    for path in tables:
        name = path.relative_to(folder).as_posix()
        splits.setdefault(split_of(name), []).append(name)
    return splits


def split_of(name: str) -> str:
    """train, test or val, by the words in a file's name; train where there is none of them.

    >>> split_of("data/test-00000-of-00001.parquet"), split_of("validation/0.parquet"), split_of("all.parquet")
    ('test', 'val', 'train')
    """
    found = _SPLIT.search(name.lower())
    split = found[1] if found else "train"
    return "val" if split.startswith("val") else split


def hub(name: str) -> Listing:
    """List a data set on the hub, OWNER/NAME. Errors: `DataError` when it cannot be reached or does not exist."""
    revision = revision_of(name)

    @contextmanager
    def opened() -> Iterator[Contents]:
        with _downloads() as copy:
            yield _load(name, revision, copy, f"the data set {name} on the Hugging Face hub", _ONLINE)

    return Listing(name.split("/")[1], f"hub 2 {name} {revision}", opened)


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


@spec
class Revision:
    """What is kept of a hub data set."""

    revision: str


def revision_of(name: str) -> str:
    """The revision of a hub data set that was seen first. Errors: `DataError`, as `hub`."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise DataError(f"a hub data set is hf:OWNER/NAME, such as hf:ylecun/mnist; given: hf:{name}")
    known = cache.root() / "hub" / f"{name.replace('/', '--')}.json"
    try:
        return str(read_json(known, Revision, 1 << 16).revision)
    except (OSError, RunError):
        pass  # first time here, no cache, or a damaged one
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # requests' or httpx's, by its version

    try:
        revision = str(HfApi().dataset_info(name, timeout=20).sha)
    except (HTTPError, OSError, ValueError) as error:
        raise _failed(f"the data set {name} on the Hugging Face hub", error, _ONLINE) from error
    if shelf("hub") is not None:
        with suppress(OSError):  # it is asked for again the next time
            write_json(known, to_json(Revision(revision=revision)))
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


def _load(path: str, revision: str | None, copy: str, what: str, advice: str, **options: Any) -> Contents:
    import datasets
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        with _quiet():
            parts = datasets.load_dataset(path, revision=revision, cache_dir=copy, **options)
    except (HTTPError, OSError, ValueError, RuntimeError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise _failed(what, error, advice) from error
    return _contents(parts, what)


def _contents(parts: Any, what: str) -> Contents:
    names = list(parts)
    train = "train" if "train" in names else names[0]
    test = next((name for name in ("test", *_VALIDATION) if name in names and name != train), None)
    notes, warnings = [], []
    if train != "train":
        notes.append(f"no split is called train: {train} is the training part")
    if test in _VALIDATION:
        notes.append(f"no test split: {test} is the test part")
    unused = [name for name in names if name not in (train, test)]
    if unused:
        warnings.append(f"splits that are not used: {', '.join(f'{name} ({len(parts[name]):,})' for name in unused)}")
    features = parts[train].features
    image = _column(features, _holds_images)
    if image is None:
        given = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise DataError(f"{what} has no column of images; given: {given}")
    label = _column(features, lambda name, kind: hasattr(kind, "names")) or _column(features, _holds_labels)
    used = [train] + ([test] if test else [])
    named = tuple(getattr(features[label], "names", None) or ()) if label else ()
    columns = [_labels(parts[part][label][:]) if label else [None] * len(parts[part]) for part in used]
    numbered = number(*columns, names=named)
    train_part, *test_part = [
        Part([f"{part}[{i}]" for i in range(len(parts[part]))], _Rows(parts[part], image), y)
        for part, y in zip(used, (numbered.train, numbered.test), strict=False)
    ]
    return Contents(
        train_part,
        test_part[0] if test_part else None,
        numbered.classes,
        tuple(notes),
        (*warnings, *numbered.warnings),
    )


def _labels(column: Iterable[Any]) -> list[Label | None]:
    return [None if value == -1 else label_of(value) for value in column]  # competitions hide the test labels as -1


def _column(features: Any, fits: Any) -> str | None:
    return next((name for name, kind in features.items() if fits(name, kind)), None)


def _holds_images(name: str, kind: Any) -> bool:
    """An Image, or what a plain parquet writer makes of one: a struct of bytes and path."""
    return type(kind).__name__ == "Image" or (isinstance(kind, dict) and "bytes" in kind)


def _holds_labels(name: str, kind: Any) -> bool:
    kinds = ("int", "uint", "float", "string", "large_string", "bool")
    return name in LABELS and str(getattr(kind, "dtype", "")).startswith(kinds)


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
