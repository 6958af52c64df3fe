"""A ranking of `fabulate outliers score` as a gallery, and the two lists that people make of it.

keep.txt and reject.txt lie in the ranking's folder, one name a line. They are the whole state: opened again, the page
goes on where it was left.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabulate.config import DataSpec
from fabulate.data import Data, image_names
from fabulate.errors import FabulateError, RunError
from fabulate.files import cell, read_bytes, read_json, read_lines, write_file
from fabulate.pictures import in_colour
from fabulate.studio.atlas import atlas
from fabulate.studio.loaded import Kept, data_of, stamp
from fabulate.studio.requests import Decide
from fabulate.uses.outliers import OutlierDetector, load_detector
from fabulate.uses.outliers.heat import painted
from fabulate.uses.outliers.ranking import RECORD, Record, pixels
from fabulate.uses.outliers.saving import spec_of

TABLE = "outliers.csv"
LISTS = {"keep": "keep.txt", "reject": "reject.txt"}
LARGEST = 1 << 28  # bytes of a table
Json = dict[str, Any]


@dataclass(frozen=True)
class Ranked:
    """A ranking with what it is of."""

    record: Record
    rows: list[dict[str, str]]
    data: Data
    places: dict[str, int]
    """The number of each image, by its name as the table has it."""
    names: tuple[str, ...]
    detector: OutlierDetector


_rankings: Kept[Ranked] = Kept(3)


def ranked(folder: Path) -> Ranked:
    """The ranking of a folder. Errors: `RunError` for none, or one whose detector is not the folder around it."""
    return _rankings.get((str(folder), stamp(folder / TABLE)), lambda: opened(folder))


def opened(folder: Path) -> Ranked:
    """Read a ranking, its detector and its images."""
    record: Record = read_json(folder / RECORD, Record)
    text = read_bytes(folder / TABLE, LARGEST).decode("utf-8", "surrogateescape")
    rows = [*csv.DictReader(text.splitlines())]
    detector = load_detector(folder.parent)
    spec: DataSpec = spec_of(detector, folder.parent, record["source"], 1.0)
    data = data_of(spec)
    names = image_names(data)
    places = {str(cell(name)): i for i, name in enumerate(names)}
    if any(row["image"] not in places for row in rows):
        raise RunError(f"{record['source']} has other images than when {folder} was made; rank it again")
    return Ranked(record, rows, data, places, names, detector)


def told(folder: Path) -> Json:
    """A ranking as the page begins with it: its record, its rows, and what was decided."""
    found = ranked(folder)
    rows = [
        {
            "name": found.names[found.places[row["image"]]],
            "class": row["class"],
            "score": float(row["score"]),
            "p": float(row["p_value"]),
            "outlier": row["outlier"] == "yes",
        }
        for row in found.rows[:5000]
    ]
    lists = {what: lines(folder / file) for what, file in LISTS.items()}
    return {**found.record, "rows": rows, "shape": list(found.data.shape), **lists}


def lines(file: Path) -> list[str]:
    """The names in a list; none where there is no list."""
    return read_lines(file) if file.exists() else []


def shown(folder: Path, start: int, count: int) -> bytes:
    """Images of some rows, each with its heat map behind it, as an atlas."""
    found = ranked(folder)
    chosen = [found.places[row["image"]] for row in found.rows[start : start + count]]
    if not chosen:
        raise FabulateError(f"start: the ranking has {len(found.rows):,} rows")
    images = pixels(found.data)[chosen]
    heat = painted(images, found.detector.heat_maps(images))
    both = np.stack([in_colour(images), heat], axis=1)  # (N, 2, 3, H, W)
    return atlas(both.reshape(-1, *both.shape[2:]))


def decide(folder: Path, asked: Decide) -> Json:
    """Write both lists. Errors: `FabulateError` for a name that the ranking does not have, or that is in both."""
    known = {*ranked(folder).names}
    for what, names in (("keep", asked.keep), ("reject", asked.reject)):
        if strange := next((name for name in names if name not in known), None):
            raise FabulateError(f"{what}: the ranking has no image {strange!r}")
    if both := {*asked.keep} & {*asked.reject}:
        raise FabulateError(f"reject: {min(both)!r} is kept as well")
    for what, names in (("keep", asked.keep), ("reject", asked.reject)):
        text = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        write_file(folder / LISTS[what], lambda file, text=text: file.write(text))  # type: ignore[misc]
    return {"keep": len(asked.keep), "reject": len(asked.reject)}
