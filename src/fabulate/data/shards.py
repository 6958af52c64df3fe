"""Parquet shards in the hub's layout, by their footers: which row groups there are, and one of them at a time.

A parquet file is cut into row groups, and within one each column lies by itself. Its footer tells how many rows each
group has and where, so that neither the images nor all of a file have to be read to know what is there; labels are a
column of their own, a thousandth of the bytes. On the hub only what is asked for is fetched.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

from fabulate.data import hub, sources
from fabulate.data.listing import LABELS, Label
from fabulate.data.tables import image_columns
from fabulate.errors import DataError

_AT_ONCE = 8  # files whose footers are read at a time: on the hub each costs a second of waiting


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

    name: str
    fingerprint: str
    columns: Columns
    parts: dict[str, list[Group]]
    notes: tuple[str, ...] = ()


def find(source: str) -> Shards:
    """The shards that a source names: a folder of parquet files, a known name, or hf:OWNER/NAME.

    The fingerprint is made of names, sizes and footers: reading every byte is what streaming avoids.
    Errors: `DataError` when there are none, when they cannot be read, or when they hold no images.
    """
    name, shards = _listed(source)
    by_role: dict[str, list[Shard]] = {}
    for shard in shards:
        by_role.setdefault(hub.split_of(shard.name), []).append(shard)
    if "train" not in by_role:
        raise DataError(f"no parquet file of {source} is called train; given: {', '.join(s.name for s in shards[:5])}")
    notes = []
    test = "test" if "test" in by_role else "val"
    if test == "val" and "val" in by_role:
        notes.append("no test files: the validation files are the test part")
    elif "val" in by_role:
        notes.append("the validation files are not used: there are test files")
    whole = blake2b(b"stream", digest_size=16)
    columns: Columns | None = None
    parts: dict[str, list[Group]] = {}
    for part, role in (("train", "train"), ("test", test)):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            footers = list(pool.map(_footer, by_role.get(role, [])))
        for shard, (schema, metadata) in zip(by_role.get(role, []), footers, strict=True):
            columns = columns or _columns(schema, source)
            if _columns(schema, source) != columns:
                raise DataError(f"{shard.name} has other columns or class names than the files before it")
            groups = _groups(shard, metadata, columns)
            whole.update(repr((part, shard.name, shard.nbytes, [group[1:] for group in groups])).encode())
            parts.setdefault(part, []).extend(groups)
    assert columns is not None
    if not parts["train"]:
        raise DataError(f"the parquet files of {source} hold no rows to train on")
    return Shards(
        name, whole.hexdigest(), columns, {part: groups for part, groups in parts.items() if groups}, tuple(notes)
    )


def _listed(source: str) -> tuple[str, list[Shard]]:
    place = sources.place(source)
    if isinstance(place, str):
        return place.split("/")[-1], _on_the_hub(place)
    if not place.is_dir():
        sources.at(place)  # the same words for what is not there
        raise DataError(f"stream: reads parquet files, and {place} is none; give --data {place} without stream:")
    found = hub.parquet_files(place)
    if not found:
        raise DataError(
            f"there are no parquet files in {place}, which stream: reads; a folder of images is read without it: "
            f"--data {place}"
        )
    return place.resolve().name or "data", [
        Shard(path.relative_to(place).as_posix(), path.stat().st_size, lambda path=path: path.open("rb"))  # type: ignore[misc]
        for path in found
    ]


def _on_the_hub(name: str) -> list[Shard]:
    """The parquet files of a hub data set at the revision first seen; none is fetched."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # requests' or httpx's, by its version

    system, root = HfFileSystem(), f"datasets/{name}@{hub.revision_of(name)}"
    try:
        found = cast(dict[str, Any], system.glob(f"{root}/**/*.parquet", detail=True))
    except (HTTPError, OSError, ValueError) as error:
        raise DataError(f"the files of {name} on the hub cannot be listed: {error}") from error
    if not found:
        raise DataError(f"{name} holds no parquet files, which stream: reads; try --data hf:{name} without stream:")
    folders = {str(PurePosixPath(path).parent) for path in found if hub.split_of(path.removeprefix(root)) == "train"}
    if len(folders) > 1:
        raise DataError(
            f"{name} holds several data sets: {', '.join(sorted(folders))}; download one and give its folder"
        )

    def opener(path: str) -> Callable[[], Any]:
        return lambda: system.open(path, "rb", cache_type="none")  # ranges are asked for as they are, not read ahead

    return [
        Shard(path.removeprefix(root + "/"), int(about["size"]), opener(path)) for path, about in sorted(found.items())
    ]


@contextmanager
def _opened(shard: Shard) -> Iterator[Any]:
    """The file as pyarrow reads it; what goes wrong is told with the file's name."""
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no stubs
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # requests' or httpx's, by its version

    try:
        with shard.open() as file, pq.ParquetFile(file) as parquet:
            yield parquet
    except (OSError, ValueError, HTTPError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{shard.name} cannot be read: {reason}. Is it whole? Was it changed?") from error


def _footer(shard: Shard) -> tuple[Any, Any]:
    with _opened(shard) as parquet:
        return parquet.schema_arrow, parquet.metadata


def _columns(schema: Any, source: str) -> Columns:
    """The first column that holds image bytes; the first class label, or a column called so."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    images = image_columns(schema)
    if not images:
        given = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise DataError(f"the parquet files of {source} have no column of images (bytes and path); given: {given}")
    named = [field.name for field in schema if (features.get(field.name) or {}).get("_type") == "ClassLabel"]
    plain = [field.name for field in schema if field.name in LABELS and _is_label(field.type)]
    label = next(iter([*named, *plain]), None)
    names = tuple(features[label].get("names", ())) if label in named else ()
    return Columns(f"{images[0]}.bytes", label, names)


def _is_label(kind: Any) -> bool:
    import pyarrow.types as kinds  # type: ignore[import-untyped]  # has no stubs

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


def read_images(group: Group, columns: Columns) -> Any:
    """The encoded images of a row group: an Arrow array of bytes, null where there are none."""
    import pyarrow.compute as pc  # type: ignore[import-untyped]  # has no stubs

    with _opened(group.shard) as parquet:
        table = parquet.read_row_group(group.number, columns=[columns.image], use_threads=False)
        return pc.struct_field(table.column(0), "bytes")


def read_labels(groups: Sequence[Group], columns: Columns) -> list[Label | None] | None:
    """The labels of row groups in their order, None where one is missing; None when there is no such column."""
    if columns.label is None:
        return None
    by_shard: dict[str, list[Group]] = {}
    for group in groups:
        by_shard.setdefault(group.shard.name, []).append(group)

    def read(own: list[Group]) -> list[Label | None]:
        with _opened(own[0].shard) as parquet:
            table = parquet.read_row_groups([group.number for group in own], columns=[columns.label])
            values: list[Label | None] = table.column(0).to_pylist()
            return values

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        return [value for part in pool.map(read, by_shard.values()) for value in part]
