"""Tables that name something of each image: groups to test by, environments, attributes.

A CSV file with a heading; its first column names images as `fabulate debias` writes them into weights.csv (files by
their path below the source, images of arrays as train[7]), its second column says what they are.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from fabulate.data.report import listed
from fabulate.errors import DataError


def read_column(path: Path, images: Sequence[str], what: str) -> list[str]:
    """The second column of a table for `images`, in their order; other images in it do not matter.

    Errors: `DataError` for a file that cannot be read, has one column only, or lacks some of the images.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table of {what} {path} cannot be read: {error}") from error
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        raise DataError(
            f"{path} must be a CSV file with a heading and two columns, image and {what}; given: "
            f"{','.join(next((row for row in rows if len(row) < 2), rows[0])) if rows else 'nothing'}"
        )
    known = {row[0].strip(): row[1].strip() for row in rows[1:]}
    missing = [name for name in images if not known.get(name)]
    if missing:
        raise DataError(
            f"{path} does not name the {what} of {len(missing):,} of {len(images):,} images: "
            f"{', '.join(listed(missing, limit=3))}; it names images such as {next(iter(known))}"
        )
    return [known[name] for name in images]
