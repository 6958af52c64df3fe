"""Parquet files in the hub's layout, by their footers: which row groups there are, and one of them at a time.

A parquet file is cut into row groups, and within one each column lies by itself. Its footer tells how many rows each
group has and where, so that neither the images nor all of a file have to be read to know what is there; labels are a
column of their own, a thousandth of the bytes. The image bytes go through our own decoder, so that a broken image is
set aside here too.
"""

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from fabulate.data.listing import LABELS, Contents, Label, Listing, label_of, numbered_names
from fabulate.data.report import listed
from fabulate.errors import DataError
from fabulate.files import digest, file_digest

_AT_ONCE = 8  # files whose footers are read at a time: on the hub each costs a second of waiting
_PAGES = 1 << 20  # bytes of a column that are read at a time where a file is gone through once
_AHEAD = 1000  # images whose row groups are held while all are decoded one after the other
_SPLIT = re.compile(r"(?:^|[^a-z])(train|test|val|valid|validation)(?:ing)?(?=[^a-z]|$)")


@dataclass(frozen=True)
class Shard:
    """One parquet file: its name below the source, its size, and how to open it."""

    name: str
    nbytes: int
    open: Callable[[], Any]


class Group(NamedTuple):
    """One row group: its file, its number there, the row it begins at, its rows, and bytes of its encoded images."""

    shard: Shard
    number: int
    first: int
    rows: int
    nbytes: int


@dataclass(frozen=True)
class Columns:
    """Where images and labels stand: the leaf column of image bytes, the label's column and its names, if any."""

    image: str
    label: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shards:
    """What the footers of a source tell, for each of its parts (train, test)."""

    columns: Columns
    parts: dict[str, list[Group]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of names, sizes and footers: reading every byte is what streaming avoids."""
        files = [
            (part, shard.name, shard.nbytes, [group[1:] for group in own])
            for part, groups in self.parts.items()
            for shard, own in groupby(groups, lambda group: group.shard)
        ]
        return digest(b"stream", *(repr(file).encode() for file in files))


# A folder


def parquet(folder: Path, tables: Sequence[Path], warnings: tuple[str, ...] = ()) -> Listing:
    """List a folder of parquet files: names and bytes are its fingerprint, and its README, which may name classes."""
    shards = in_folder(folder, tables)
    whole = digest(b"parquet 2", *(shard.name.encode() + b"\0" + file_digest(folder / shard.name) for shard in shards))
    name = folder.resolve().name or "data"
    return Listing(name, whole, lambda: contents(shards, str(folder)), warnings=warnings)


def in_folder(folder: Path, tables: Sequence[Path]) -> list[Shard]:
    """The parquet files of a folder, and the README in it."""
    paths = sorted([*tables, *folder.glob("README.md")])
    return [
        Shard(path.relative_to(folder).as_posix(), path.stat().st_size, lambda path=path: path.open("rb"))  # type: ignore[misc]
        for path in paths
    ]


def split_of(name: str) -> str:
    """train, test or val, by the words in a file's name; train where there is none of them.

    >>> split_of("data/test-00000-of-00001.parquet"), split_of("validation/0.parquet"), split_of("all.parquet")
    ('test', 'val', 'train')
    """
    found = _SPLIT.search(name.lower())
    split = found[1] if found else "train"
    return "val" if split.startswith("val") else split


# Footers


def reason_of(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _opened(shard: Shard, buffer: int = 0) -> Iterator[Any]:
    """The file as pyarrow reads it; what goes wrong is told with the file's name. `buffer`: bytes at a time, or all."""
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no stubs
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        with shard.open() as file, pq.ParquetFile(file, buffer_size=buffer, pre_buffer=not buffer) as parquet:
            yield parquet
    except (OSError, ValueError, HTTPError, pa.ArrowException) as error:
        raise DataError(f"{shard.name} cannot be read: {reason_of(error)}. Is it whole? Was it changed?") from error


def images_in(path: Path) -> int:
    """The number of images in a parquet file; 0 without a column of them. Errors: `DataError` for a damaged one."""
    with _opened(Shard(str(path), 0, lambda: path.open("rb"))) as parquet:
        return int(parquet.metadata.num_rows) if image_columns(parquet.schema_arrow) else 0


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a parquet file, of the columns that are called so in any case. Errors: `DataError`."""
    with _opened(Shard(str(path), 0, lambda: path.open("rb"))) as parquet:
        wanted = [name for name in parquet.schema_arrow.names if name.lower() in columns]
        rows: list[dict[str, Any]] = parquet.read(columns=wanted).to_pylist()
        return rows


def read_footers(shards: Sequence[Shard], source: str) -> Shards:
    """Row groups to train and to test with, in a source's files.

    Errors: `DataError` when the files cannot be read, hold no images, or differ in their columns.
    """
    cards = [shard for shard in shards if shard.name == "README.md"]
    tables = [shard for shard in shards if shard not in cards]

    def footer(shard: Shard) -> tuple[Any, Any]:
        with _opened(shard) as parquet:
            return parquet.schema_arrow, parquet.metadata

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        footers = dict(zip(tables, pool.map(footer, tables), strict=True))
    with_images = {shard: footer for shard, footer in footers.items() if image_columns(footer[0])}
    if not with_images:
        given = ", ".join(f"{field.name} ({field.type})" for field in next(iter(footers.values()))[0])
        raise DataError(f"the parquet files of {source} have no column of images (bytes and path); given: {given}")
    notes, warnings = [], []
    if unused := [shard.name for shard in tables if shard not in with_images]:
        notes.append(f"parquet files without images, not used: {', '.join(listed(unused, limit=5))}")
    by_split: dict[str, list[Group]] = {}
    columns: Columns | None = None
    for shard, (schema, metadata) in with_images.items():
        own = _columns(schema, _class_names(cards))
        columns = columns or own
        if own != columns:
            raise DataError(f"{shard.name} has other columns or class names than the files before it")
        by_split.setdefault(split_of(shard.name), []).extend(_groups(shard, metadata, columns))
    assert columns is not None
    found = {split: groups for split, groups in by_split.items() if groups}
    if not found:
        raise DataError(f"the parquet files of {source} hold no images")
    train, *others = [split for split in ("train", "test", "val") if split in found]
    if train != "train":
        notes.append(f"no parquet file is called train: those called {train} are the training part")
    if others[:1] == ["val"]:
        notes.append("no test files: the validation files are the test part")
    if others[1:]:
        warnings.append("the validation files are not used, as there are test files")
    if any("/partial-" in f"/{shard.name}" for shard in with_images):
        warnings.append("these are not all images: the hub makes parquet files of the first gigabytes only")
    parts = {"train": found[train]} | ({"test": found[others[0]]} if others else {})
    return Shards(columns, parts, tuple(notes), tuple(warnings))


def image_columns(schema: Any) -> list[str]:
    """The columns of an Arrow schema that hold encoded images: structs of bytes and path."""
    import pyarrow.types as kinds  # type: ignore[import-untyped]  # has no stubs

    return [field.name for field in schema if kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]


def _columns(schema: Any, card: dict[str, tuple[str, ...]]) -> Columns:
    """The first column that holds image bytes; the first class label, or a column called so."""
    import pyarrow.types as kinds

    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    integers = {field.name for field in schema if kinds.is_integer(field.type)}
    names = {name: names for name, names in card.items() if name in integers} | {
        name: tuple(feature.get("names", ()))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    plain = [field.name for field in schema if field.name in LABELS and _is_label(field.type)]
    label = next((name for name in (*(name for name in schema.names if name in names), *plain)), None)
    return Columns(f"{image_columns(schema)[0]}.bytes", label, names.get(label or "", ()))


def _class_names(cards: Sequence[Shard]) -> dict[str, tuple[str, ...]]:
    """The names of classes that the head of a README in the hub's layout gives, by their columns."""
    import yaml  # type: ignore[import-untyped]  # has no stubs

    names = {}
    for card in cards:
        with card.open() as file:
            head = file.read().decode(errors="replace").split("---\n")
        try:
            info = yaml.safe_load(head[1])["dataset_info"]
            for feature in (info[0] if isinstance(info, list) else info)["features"]:
                if isinstance(feature["dtype"], dict) and "class_label" in feature["dtype"]:
                    given = feature["dtype"]["class_label"]["names"]
                    names[feature["name"]] = tuple(map(str, given.values() if isinstance(given, dict) else given))
        except (yaml.YAMLError, LookupError, TypeError):
            continue  # one that says nothing of classes
    return names


def _is_label(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    simple = (kinds.is_integer, kinds.is_floating, kinds.is_boolean)
    words = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
    return any(fits(kind) for fits in (*simple, *words))


def _groups(shard: Shard, metadata: Any, columns: Columns) -> list[Group]:
    groups, first = [], 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        leaves = [group.column(i) for i in range(group.num_columns)]
        nbytes = sum(leaf.total_uncompressed_size for leaf in leaves if leaf.path_in_schema == columns.image)
        if group.num_rows:
            groups.append(Group(shard, number, first, group.num_rows, nbytes))
        first += group.num_rows
    return groups


# Rows


def read_images(group: Group, columns: Columns) -> Any:
    """The encoded images of a row group: an Arrow array of bytes, null where there are none."""
    import pyarrow.compute as pc  # type: ignore[import-untyped]  # has no stubs

    with _opened(group.shard) as parquet:
        table = parquet.read_row_group(group.number, columns=[columns.image], use_threads=False)
        return pc.struct_field(table.column(0), "bytes")


def read_rows(shard: Shard, columns: Columns, most: int) -> Iterator[tuple[Any, list[Label | None]]]:
    """All encoded images of a file, at most so many at a time, and their labels: its pages are read one after another.

    So little is held though a row group may be as large as its file.
    """
    import pyarrow.compute as pc

    named = [columns.image] if columns.label is None else [columns.image, columns.label]
    with _opened(shard, _PAGES) as parquet:
        for batch in parquet.iter_batches(most, columns=named, use_threads=False):
            labels = [None] * len(batch) if columns.label is None else batch.column(columns.label).to_pylist()
            yield (
                pc.struct_field(batch.column(columns.image.removesuffix(".bytes")), "bytes"),
                [None if value == -1 else label_of(value) for value in labels],
            )


def read_labels(groups: Sequence[Group], columns: Columns) -> list[Label | None]:
    """The labels of row groups in their order, None where there is none: competitions hide the test labels as -1."""
    if columns.label is None:
        return [None] * sum(group.rows for group in groups)
    by_shard: dict[Shard, list[int]] = {}
    for group in groups:
        by_shard.setdefault(group.shard, []).append(group.number)

    def read(shard: Shard) -> list[Any]:
        with _opened(shard) as parquet:
            values: list[Any] = parquet.read_row_groups(by_shard[shard], columns=[columns.label]).column(0).to_pylist()
            return values

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        values = [value for part in pool.map(read, by_shard) for value in part]
    return [None if value == -1 else label_of(value) for value in values]


class Reader:
    """Row groups, read ahead in threads and held in memory; those not asked for longest make room for others.

    Numbers of images go through all groups, in their order.
    """

    def __init__(self, groups: Sequence[Group], columns: Columns, most: int, workers: int = 1) -> None:
        self.groups, self.columns, self.most = tuple(groups), columns, most
        self.starts = np.cumsum([0, *(group.rows for group in groups)])
        self.held: OrderedDict[int, Future[Any]] = OrderedDict()
        self.lock, self.pool = Lock(), ThreadPoolExecutor(workers, "fabulate-read")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def fetch(self, group: int) -> "Future[Any]":
        """The encoded images of a row group, being read or held already."""
        with self.lock:
            if group not in self.held:
                self.held[group] = self.pool.submit(read_images, self.groups[group], self.columns)
            self.held.move_to_end(group)
            while len(self.held) > self.most:
                self.held.popitem(last=False)
            return self.held[group]

    def group_of(self, index: int) -> int:
        """The row group of an image."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def __getitem__(self, rows: slice) -> list[bytes]:
        """The encoded images of a slice, no longer than what is held."""
        images: list[bytes] = []
        start, stop, _ = rows.indices(len(self))
        while start < stop:
            group = self.group_of(start)
            first, end = (int(start) for start in self.starts[group : group + 2])
            cells = self.fetch(group).result()
            images += [cell.as_py() or b"" for cell in cells[start - first : min(stop, end) - first]]
            start = min(stop, end)
        return images


@contextmanager
def contents(shards: Sequence[Shard], source: str) -> Iterator[Contents]:
    """All images of a source's files, a few row groups at a time. Errors: as `read_footers`."""
    found = read_footers(shards, source)
    readers, labels, names = [], [], []
    with ExitStack() as stack:
        for part, groups in found.parts.items():
            n = sum(group.rows for group in groups)
            readers.append(Reader(groups, found.columns, most=2 + _AHEAD * len(groups) // n))
            stack.callback(readers[-1].pool.shutdown)
            labels.append(read_labels(groups, found.columns))
            names.append(numbered_names(part, n))
        yield Contents.of(names, readers, labels, found.columns.names, found.notes, found.warnings)
