"""Tables that name something of each image: groups to test by, environments, attributes.

A CSV file with a heading; its first column names images as `fabulate debias` writes them into weights.csv (files by
their path below the source, images of arrays as train[7]). Of its other columns that one says what they are which is
called so: group, environment, attribute, or as the file is, scanner in scanners.csv.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from fabulate.data.report import listed
from fabulate.errors import DataError
from fabulate.files import cell

LARGEST = 1 << 30  # bytes: ten million images


def read_column(path: Path, images: Sequence[str], what: str) -> list[str]:
    """The column of a table that says `what` the `images` are, in their order; other images in it do not matter.

    Errors: `DataError` for a file that cannot be read, has no such column or several, says two things of one image, or
    lacks some of the images.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"the table of {what} {path} has more than {LARGEST:,} bytes; give one row for each image")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            rows = [(lines.line_num, row) for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table of {what} {path} cannot be read: {error}") from error
    if len(rows) < 2 or any(len(row) < 2 for _, row in rows):
        given = next((row for _, row in rows if len(row) < 2), rows[0][1] if rows else ["nothing"])
        raise DataError(
            f"{path} must be a CSV file with a heading and two columns, image and {what}; "
            f"given: {','.join(given)[:100]}"
        )
    place = column(path, rows[0][1], what)
    known: dict[str, tuple[int, str]] = {}
    for line, row in rows[1:]:
        image, value = row[0].strip(), row[place].strip() if place < len(row) else ""
        first, before = known.setdefault(image, (line, value))
        if before != value:
            raise DataError(
                f"{path} says two things of {image}: its {what} is {before or 'empty'} in line {first} and "
                f"{value or 'empty'} in line {line}. Leave one of them"
            )
    found = [known.get(name, known.get(cell(name), (0, "")))[1] for name in images]
    missing = [name for name, value in zip(images, found, strict=True) if not value]
    if missing:
        raise DataError(
            f"{path} does not name the {what} of {len(missing):,} of {len(images):,} images: "
            f"{', '.join(listed(missing, limit=3))}; it names images such as {next(iter(known))}"
        )
    return found


def column(path: Path, heading: Sequence[str], what: str) -> int:
    """Which column of a table is called `what`, or else as the file is, each with or without an s in the end.

    >>> column(Path("t.csv"), ["image", "weather", "Group"], "group")
    2
    >>> column(Path("scanner.csv"), ["image", "hospital", "scanner"], "attribute")
    2

    Errors: `DataError` naming the columns.
    """
    names = [name.strip() for name in heading]
    for word in (what, path.stem.casefold().removesuffix("s")):
        called = [i for i, name in enumerate(names) if i and name.casefold().removesuffix("s") == word]
        if len(called) == 1:
            return called[0]
        if called:
            raise DataError(f"{path} has several columns called {word}: {', '.join(names)[:200]}. Leave one of them")
    raise DataError(
        f"{path} has no column called {what} (its first line: {', '.join(names)[:200]}); "
        f"call the one that is meant {what}"
    )
