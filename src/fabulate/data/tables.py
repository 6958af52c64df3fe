"""Tables beside images: which parquet files hold images themselves, and labels from a file called metadata.

A folder in the Hugging Face hub's layout for images has a `metadata.csv`, `.jsonl` or `.parquet` beside them, whose
column `file_name` says which image a row is of. A column called label makes classes of them; all else in it, and every
other table, is no business of ours. https://huggingface.co/docs/datasets/image_dataset
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fabulate.data.listing import LABELS, Label, label_of
from fabulate.errors import DataError

NAME = "file_name"


def is_metadata(name: str) -> bool:
    """Whether a file of this name tells about the images beside it.

    >>> is_metadata("train/metadata.csv"), is_metadata("notes.csv")
    (True, False)
    """
    return name.rsplit("/", 1)[-1].casefold() in ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def images_in(path: Path) -> int:
    """The number of images in a parquet file; 0 without a column of them. Errors: `DataError` for a damaged one."""
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no stubs

    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows) if image_columns(file.schema_arrow) else 0
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the parquet file {path} cannot be loaded: {reason}. Is it whole?") from error


def image_columns(schema: Any) -> list[str]:
    """The columns of an Arrow schema that hold encoded images: structs of bytes and path."""
    import pyarrow.types as kinds  # type: ignore[import-untyped]  # has no stubs

    return [field.name for field in schema if kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]


def read_metadata(path: Path) -> dict[str, Label | None] | None:
    """The label of each file that a metadata file names, by its path from there; None without a column of labels.

    Errors: `DataError` when it cannot be read, or gives a file two labels.
    """
    rows = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()]
    labels: dict[str, Label | None] = {}
    column = None
    for row in rows(path):
        column = column or next((key for name in LABELS for key in row if str(key).strip().lower() == name), None)
        if column is None or NAME not in row:
            return None
        name = str(row[NAME]).replace("\\", "/").removeprefix("./")
        label = label_of(row.get(column))
        if labels.setdefault(name, label) != label:
            raise DataError(f"{path} gives {name} two labels, {labels[name]} and {label}: keep one row of each file")
    return labels or None


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table with commas, in UTF-8: {error}") from error


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise DataError(f"{path} must hold one JSON object a line; given: {line.strip()[:40]}")
                    yield row
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as one JSON object a line: {error}") from error


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = [name for name in file.schema_arrow.names if name == NAME or name.lower() in LABELS]
            rows: list[Mapping[str, Any]] = file.read(columns=wanted).to_pylist()
            return rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as a parquet file: {error}") from error
