"""Text: lines, files, rows of a table, or windows of running text; samples are .txt files.

    names.txt                    each line is an item
    book.txt --window 256        windows of 256 characters, one behind the other, the last tenth of them to test with
    poems/**/*.txt               each file is an item, sub-folders are classes; `train/` and `test/` are parts
    FOLDER/train.txt, test.txt   lines of a training part and of a test part
    table.csv, table.parquet     each row of a column (--column NAME), with labels where there is a column of them

`proverbs` comes along; `names` and `shakespeare` are files in `$FABULATE_DATA/text`.
"""

import csv
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt
from PIL import Image, ImageDraw

from fabulate.config import DataSpec, override
from fabulate.data.folder import EXTENSIONS
from fabulate.data.images import Data
from fabulate.data.listing import LABELS, label_of, natural
from fabulate.data.media.sequences import Found, SequenceMedium
from fabulate.errors import DataError
from fabulate.files import place_file
from fabulate.pictures import fitting, font

WIDE, LINES = 72, 8  # characters of a line, and lines of an item, in a picture
WINDOW = 256  # characters of an item of Shakespeare
LARGEST = 1 << 30  # bytes of a file that is read
PARTS = ("train", "test")


class TextMedium(SequenceMedium):
    """Texts."""

    name = "texts"
    ending = ".txt"
    sources: ClassVar = {
        "proverbs": str(Path(__file__).with_name("proverbs.txt")),
        "names": "text/names.txt",
        "shakespeare": "text/shakespeare.txt",
    }

    def load(self, spec: DataSpec) -> Data | None:
        place = self.found(spec.source)
        if spec.source == "shakespeare" and spec.window is None:
            spec = override(spec, {"window": WINDOW})
        kind = place.suffix.lower()
        if kind in TABLES and place.is_file():
            rows = TABLES[kind](place, spec)
            return None if rows is None else self.data(place.stem, spec, [rows])
        if kind == ".txt" and place.is_file():
            if spec.window is not None:
                parts, note = [windows(place, spec.window)], f"items are windows of {spec.window} characters"
                return self.data(place.stem, spec, parts, [f"{note}, one behind the other"], running=True)
            return self.data(place.stem, spec, [lines(place)], ["each line is an item; --window N cuts running text"])
        if not is_folder_of_texts(place):
            return None
        if all((place / f"{part}.txt").is_file() for part in PARTS):
            return self.data(place.resolve().name, spec, [lines(place / f"{part}.txt") for part in PARTS])
        if spec.window is not None:
            raise DataError(f"--window cuts one text; {place} is a folder of them, of which each is an item")
        both = all((place / part).is_dir() for part in PARTS)
        parts = [files(place / part) for part in PARTS] if both else [files(place)]
        return self.data(place.resolve().name, spec, parts, ["each file is an item"])

    def place(self, item: str, path: Path) -> None:
        place_file(path, lambda file: file.write(f"{item}\n".encode()))

    def read(self, path: Path) -> str:
        return path.read_text("utf-8").removesuffix("\n")

    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: npt.NDArray[Any] | None = None,
        classes: Sequence[str] = (),
    ) -> Image.Image:
        """Items below each other, or in columns where they are short; those of a class behind its name."""
        groups = [("", [*items])]
        if y is not None and classes:
            groups = [(classes[k], [item for item, of in zip(items, y, strict=True) if of == k]) for k in sorted({*y})]
        return written(groups, title, legend)


def written(groups: Sequence[tuple[str, Sequence[str]]], title: str, legend: str) -> Image.Image:
    """A picture of texts in groups with headings."""
    plain, small, large, margin = font(13), font(11), font(15), 14
    longest = max((len(line) for _, items in groups for item in items for line in item.split("\n")), default=0)
    short = longest <= WIDE // 3 and not any("\n" in item for _, items in groups for item in items)
    columns = max(1, WIDE // (longest + 3)) if short else 1
    rows: list[list[str]] = []  # of words; a heading is a row of one word, with its colour
    heads: set[int] = set()
    for name, items in groups:
        if name:
            heads.add(len(rows))
            rows.append([name])
        if short:
            rows += [list(items[i : i + columns]) for i in range(0, len(items), columns)]
            continue
        for item in items:
            wrapped = [part for line in item.split("\n") for part in (textwrap.wrap(line, WIDE) or [""])]
            more = ["…"] if len(wrapped) > LINES else []
            rows += [[line] for line in [*wrapped[:LINES], *more, ""]]
    step = max((plain.getlength(word) for row in rows for word in row), default=0) + 18
    width = int(max(step * columns, large.getlength(title), small.getlength(legend))) + 2 * margin
    top = margin + (24 if title else 0) + (18 if legend else 0)
    canvas = Image.new("RGB", (width, top + 18 * len(rows) + margin), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, 28), fitting(title, large, width), "#222222", large, anchor="ls")
    draw.text((margin, 46 if title else 22), fitting(legend, small, width), "#666666", small, anchor="ls")
    for i, row in enumerate(rows):
        colour = "#3b6ea8" if i in heads else "#222222"
        for column, word in enumerate(row):
            draw.text((margin + column * step, top + 18 * i + 13), word, colour, plain, anchor="ls")
    return canvas


# Sources


def is_folder_of_texts(place: Path) -> bool:
    """Whether there are .txt files in a folder, in its sub-folders too, and no images or tables."""
    if not place.is_dir():
        return False
    endings = {file.suffix.lower() for file in walked(place)}
    return ".txt" in endings and not endings & {*EXTENSIONS, ".parquet"}


def walked(place: Path) -> Iterator[Path]:
    """The files in a folder and its sub-folders that do not begin with a dot."""
    for folder, folders, names in os.walk(place):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        yield from (Path(folder) / name for name in sorted(names, key=natural) if not name.startswith("."))


def bytes_of(place: Path) -> bytes:
    """A file's bytes without a byte order mark. Errors: `DataError` for one that cannot be read, or is no text."""
    try:
        if place.stat().st_size > LARGEST:
            raise DataError(f"{place} has more than {LARGEST >> 20:,} MiB; give a part of it")
        raw = place.read_bytes()
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error
    if b"\0" in raw[:4096]:
        raise DataError(f"{place} is no text: it has zero bytes (text in UTF-16? `iconv -t utf-8` converts it)")
    return raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def lines(place: Path) -> Found:
    found = Found()
    for i, line in enumerate(bytes_of(place).removesuffix(b"\n").split(b"\n"), 1):
        found.add(f"{place.name}:{i}", line)
    return found


def windows(place: Path, window: int) -> Found:
    """Windows of a file's text, one behind the other; what is left at the end is left out."""
    whole = Found()
    whole.add(place.name, bytes_of(place), most=None)
    if not whole.strings:
        return whole
    text, found = whole.strings[0], Found()
    if len(text) < 20 * window:
        raise DataError(
            f"{place} has {len(text):,} characters, too few for windows of {window}; give a smaller --window"
        )
    for start in range(0, len(text) - window + 1, window):
        found.names.append(f"{place.name}@{start}")
        found.strings.append(text[start : start + window])
        found.labels.append(None)
    return found


def files(place: Path) -> Found:
    """Each .txt file in a folder, with its sub-folder as its label."""
    found, some = Found(), [file for file in walked(place) if file.suffix.lower() == ".txt"]
    for file in some:
        within = file.relative_to(place)
        try:
            found.add(
                within.as_posix(), bytes_of(file).removesuffix(b"\n"), within.parts[0] if within.parent.parts else None
            )
        except DataError as error:
            found.set_aside.append((within.as_posix(), str(error)))
    return found


def from_csv(place: Path, spec: DataSpec) -> Found:
    """The rows of a .csv's column. Errors: `DataError` where there is no such column."""
    try:
        rows = [*csv.DictReader(StringIO(bytes_of(place).decode("utf-8"), newline=""))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place} cannot be read as a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{place} has no rows below its header")
    return of_rows(place, rows, column_of(place, [*rows[0]], spec, rows[0]))


def from_parquet(place: Path, spec: DataSpec) -> Found | None:
    """The rows of a .parquet's column; None of a file that has no column of strings, or where none is asked for."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no stubs
    import pyarrow.types as kinds  # type: ignore[import-untyped]  # has no stubs

    with suppress(OSError, ValueError):
        table = pq.read_table(place)
        texts = [f.name for f in table.schema if kinds.is_string(f.type) or kinds.is_large_string(f.type)]
        if not texts and spec.column is None:
            return None
        rows = table.select([name for name in table.column_names if name in {*texts, *LABELS}]).to_pylist()
        return of_rows(place, rows, column_of(place, texts, spec, dict.fromkeys(texts, "")))
    raise DataError(f"{place} cannot be read as a parquet file")


def column_of(place: Path, columns: Sequence[str], spec: DataSpec, first: dict[str, Any]) -> str:
    """The column that is asked for, or the only one with texts. Errors: `DataError` naming those there are."""
    told = ", ".join(map(repr, columns))
    if spec.column is not None:
        if spec.column not in columns:
            raise DataError(f"{place} has no column {spec.column!r} of texts; its columns: {told}")
        return spec.column
    others = [name for name in columns if name not in LABELS and not str(first[name]).replace(".", "").isdigit()]
    if len(others) != 1:
        raise DataError(f"{place} has {len(others)} columns that may be texts ({told}): say which, --column NAME")
    return others[0]


def of_rows(place: Path, rows: Sequence[dict[str, Any]], column: str) -> Found:
    """The texts of a column, with the labels of the first column that is called as labels are."""
    found = Found()
    label = next((name for name in LABELS if rows and name in rows[0] and name != column), None)
    for i, row in enumerate(rows, 1):
        found.add(f"{place.name}:{i}", row[column] or "", None if label is None else label_of(row[label]))
    return found


TABLES = {".csv": from_csv, ".parquet": from_parquet}
