"""All images of a source from the strangest to the most normal: a table, numbers, and a page with heat maps.

Images are judged some at a time, and no more of them are held than the page shows. A table in a parquet file is written
as they are judged, in the order of the source, so that nothing is held at all.

Legend: N images, C H W image.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import TypedDict

from fabulate.data import Data, image_names
from fabulate.data.once import PORTION, Once, Portion
from fabulate.errors import ConfigError
from fabulate.files import own_folder, write_file, write_json, write_table
from fabulate.pictures import Pixels, grid, in_colour
from fabulate.report import Block, Facts, Figure, Figures, Notes, Page, Section, Table, plots, write_page
from fabulate.types import Progress, Stages, silent
from fabulate.uses.outliers.conformal import percent
from fabulate.uses.outliers.detector import OutlierDetector
from fabulate.uses.outliers.heat import COLD, HOTTEST, painted

Numbers = npt.NDArray[np.float64]
RECORD = "outliers.json"
NORMALS = 8  # images above the threshold that are shown behind the outliers, at least
FAR = 4  # times the threshold: whatever scores below that is drawn there
LEGEND = (
    "The strangest first. Below each image the same in gray, red where it departs from what a model of normal images "
    f"makes of it: from {COLD:g} times what normal images do (no red) to {HOTTEST:g} times (full red)."
)


class Judged(NamedTuple):
    """Some items, and what a detector says of them: scores (N,), p-values (N,), and which are outliers (N,)."""

    names: Sequence[str]
    classes: Sequence[str]
    scores: Numbers
    p_values: Numbers
    outliers: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Images in the order of their scores, the strangest first."""

    order: npt.NDArray[np.int64]
    """Their numbers (N,): training images come first, then test images."""
    names: tuple[str, ...]
    """Of all images, in the order of the source."""
    classes: tuple[str, ...]
    """Of all images; empty strings where there are none."""
    scores: Numbers
    p_values: Numbers
    outliers: npt.NDArray[np.bool_]
    images: Mapping[int, Pixels] = field(default_factory=dict)
    """Those that a page shows (C, H, W), by their numbers."""


class Record(TypedDict):
    """outliers.json: what was judged, by which threshold, and what was found."""

    kind: Literal["ranking"]
    source: str
    images: int
    outliers: int
    threshold: float
    false_alarm: float
    false_alarm_interval: tuple[float, float]
    scores: list[str]


def portions(data: Data | Once) -> Iterator[Portion]:
    """All images, training ones first, some at a time."""
    if isinstance(data, Once):
        yield from data
        return
    names, classes, first = image_names(data), classes_of(data), 0
    for part in (data.train,) if data.test is None else (data.train, data.test):
        for rows in torch.split(torch.arange(len(part)), PORTION):
            last = first + len(rows)
            yield Portion([*names[first:last]], classes[first:last], part.pixels(rows))
            first = last


def judge(
    detector: OutlierDetector, data: Data | Once, progress: Progress | None = None
) -> Iterator[tuple[Judged, Pixels]]:
    """What a detector says of some images after another, and these images (B, C, H, W).

    `progress`: called with (images judged, all images). Errors: as `OutlierDetector.score_samples`.
    """
    count, done = len(data) if isinstance(data, Once) else sum(len(part) for part in (data.train, data.test or ())), 0
    for names, classes, x in portions(data):
        scores = detector.score_samples(x)
        yield Judged(names, classes, scores, detector.p_values_of(scores), scores < detector.threshold_), x
        done += len(x)
        if progress is not None:
            progress(done, count)


def rank(detector: OutlierDetector, data: Data | Once, n: int = 0, progress: Progress | None = None) -> Ranking:
    """Judge all images, and keep the images that a page of `n` shows. `progress` and errors: as of `judge`."""
    parts: list[Judged] = []
    kept: list[tuple[float, int, Pixels]] = []  # their scores and numbers
    first = 0
    for judged, x in judge(detector, data, progress):
        parts.append(judged)
        new = zip(judged.scores.tolist(), range(first, first + len(x)), x, strict=True)
        kept = strangest([*kept, *new], detector.threshold_, n)
        first += len(x)
    return ranked(parts, {number: image for _, number, image in kept})


def strangest(images: list[tuple[float, int, Pixels]], threshold: float, n: int) -> list[tuple[float, int, Pixels]]:
    """Of images with scores and numbers those that a page may show: n below the threshold, n or 8 above it."""
    if not n:
        return []
    ordered = sorted(images, key=lambda image: image[:2])
    below = sum(score < threshold for score, _, _ in ordered)
    chosen = ordered[: min(below, n)] + ordered[below : below + max(n, NORMALS)]
    return [(score, number, image.copy()) for score, number, image in chosen]  # a view would hold all of its portion


def ranked(parts: Sequence[Judged], images: Mapping[int, Pixels] | None = None) -> Ranking:
    """All items that were judged, in the order of their scores."""
    scores = np.concatenate([part.scores for part in parts])
    return Ranking(
        order=np.argsort(scores, kind="stable"),
        names=tuple(name for part in parts for name in part.names),
        classes=tuple(name for part in parts for name in part.classes),
        scores=scores,
        p_values=np.concatenate([part.p_values for part in parts]),
        outliers=np.concatenate([part.outliers for part in parts]),
        images=images or {},
    )


def classes_of(data: Data) -> list[str]:
    """The name of each item's class, training items first; "" where it has none."""
    return [
        "" if part.y is None else data.classes[part.y[i]]
        for part in (data.train, data.test)
        if part is not None
        for i in range(len(part))
    ]


def pixels(data: Data) -> Pixels:
    """All images of a data set, training images first: uint8 (N, C, H, W)."""
    return np.concatenate([part.x for part in (data.train, data.test) if part is not None])


def normals_of(data: Data, classes: tuple[str, ...] = ()) -> npt.NDArray[np.int64]:
    """The numbers of the training images of some classes, or of all.

    Errors: `ConfigError` for classes that the data do not have.
    """
    if not classes:
        return np.arange(len(data.train))
    unknown = [name for name in classes if name not in data.classes]
    if unknown or data.train.y is None:
        known = ", ".join(data.classes) or "none"
        raise ConfigError(f"{data.spec.source} has no class {', '.join(unknown)} (classes: {known})")
    return np.flatnonzero(np.isin(data.train.y, [data.classes.index(name) for name in classes]))


def without(chosen: npt.NDArray[np.int64], names: Sequence[str], rejected: Sequence[str]) -> npt.NDArray[np.int64]:
    """The numbers of images but for those of some names. Errors: `ConfigError` for a name that no image has."""
    known = {*names}
    if strange := next((name for name in rejected if name not in known), None):
        raise ConfigError(f"there is no image {strange!r} to leave out; names are as in outliers.csv")
    unwanted = {*rejected}
    return chosen[np.array([names[i] not in unwanted for i in chosen], bool)]


def groups_of(names: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """What the first bracket of a pattern finds in each name; a name without it is a group of its own.

    >>> groups_of(["a/tile7_exp1.png", "a/tile7_exp2.png", "b.png"], re.compile("(.*)_exp"))
    ['a/tile7', 'a/tile7', 'b.png']

    Errors: `ConfigError` for a pattern that fits no name.
    """
    found = [pattern.search(name) for name in names]
    if not any(found):
        raise ConfigError(f"the pattern {pattern.pattern!r} fits none of {len(names):,} names, such as {names[0]!r}")
    return [name if match is None else str(match[1]) for name, match in zip(names, found, strict=True)]


def run(
    detector: OutlierDetector, data: Data | Once, out: Path, *, name: str, n: int = 64, progress: Stages | None = None
) -> Ranking:
    """Judge all images of a source and write outliers.csv, outliers.json and outliers.html, with `n` of the strangest.

    `name`: what the detector is called on the page. Errors: as of `OutlierDetector.score_samples`.
    """
    told = progress or silent
    ranking = rank(detector, data, n, partial(told, "judging images"))
    page = ranking_page(name, detector, data, ranking, n, partial(told, "drawing heat maps"))
    own_folder(out)
    written(ranking, record(detector, data, ranking), out)
    write_page(out / "outliers.html", page)
    return ranking


def write_parquet(path: Path, parts: Iterable[Judged]) -> tuple[int, int]:
    """Write a parquet file with a row for each item, as they come: how many are outliers, and how many there are."""
    import pyarrow as pa  # type: ignore[import-untyped]  # has no stubs
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no stubs

    kinds = {"image": pa.string(), "class": pa.string(), "score": pa.float64(), "p_value": pa.float64()}
    schema = pa.schema({**kinds, "outlier": pa.bool_()})
    outliers = count = 0

    def write(file: Any) -> None:
        nonlocal outliers, count
        with pq.ParquetWriter(file, schema) as writer:
            for part in parts:
                writer.write_table(pa.table([pa.array(column) for column in part], schema=schema))
                outliers, count = outliers + int(part.outliers.sum()), count + len(part.scores)

    write_file(path, write)
    return outliers, count


def record(detector: Any, data: Data | Once, ranking: Ranking) -> Record:
    """What a detector, of images or of sequences, found."""
    return {
        "kind": "ranking",
        "source": data.spec.source,
        "images": len(ranking.scores),
        "outliers": int(ranking.outliers.sum()),
        "threshold": detector.threshold_,
        "false_alarm": detector.false_alarm_.value,
        "false_alarm_interval": (detector.false_alarm_.low, detector.false_alarm_.high),
        "scores": list(detector.names_),
    }


def written(ranking: Ranking, told: Record, out: Path) -> None:
    """Write outliers.json and outliers.csv."""
    write_json(out / RECORD, told)
    order, verdicts = ranking.order.tolist(), np.where(ranking.outliers, "yes", "no")
    columns = (ranking.names, ranking.classes, ranking.scores, ranking.p_values, verdicts)
    rows = ((place, *(column[i] for column in columns)) for place, i in enumerate(order, start=1))
    write_table(out / "outliers.csv", ["rank", "image", "class", "score", "p_value", "outlier"], rows)


def ranking_page(
    name: str, detector: OutlierDetector, data: Data | Once, ranking: Ranking, n: int, progress: Progress | None = None
) -> Page:
    """What was asked of the detector called `name`, what was found, and `n` of the strangest images."""
    found, scores = int(ranking.outliers.sum()), ranking.scores
    below = ranking.order[: min(found, n)]
    above = ranking.order[found : found + max(n - found, NORMALS)]
    shown = [*below.tolist(), *above.tolist()]
    figures = cards(detector, ranking, shown, progress)
    left = f"; {found - len(below):,} more are in outliers.csv" if found > len(below) else ""
    line = (
        f"Threshold: score {detector.threshold_:.4g}. The {found:,} images before this line score lower and are called "
        f"outliers{left}; those behind it are not."
    )
    facts = [
        ("images", f"{len(scores):,}"),
        ("outliers", f"{found:,} ({found / len(scores):.1%})"),
        ("false alarms expected", f"{percent(detector.false_alarm_)} of normal images"),
        ("held-out normals", calibrating(detector)),
        ("scores", ", ".join(detector.names_)),
        ("detector", name),
    ]
    low = max(float(min(scores.min(), detector.normals_.min())), FAR * detector.threshold_)
    high = max(float(max(scores.max(), detector.normals_.max())), low + 1e-9)
    spread = plots.histogram(
        {"these images": scores, "normal images held out of the fit": detector.normals_},
        detector.threshold_,
        "score, mean log p: higher is more normal",
        (low, high),
    )
    caption = "Shares of these images, and of normal images held out of the fit. Left of the line: outliers."
    strangest: list[Block] = [
        Notes([LEGEND]),
        Figures(figures[: len(below)], small=True),
        Notes([line], line=True),
        Figures(figures[len(below) :], small=True),
    ]
    return Page(
        kind="fabulate outliers",
        title=data.name,
        about=f"Outliers of {data.name}",
        sections=[
            Section("", [Facts(facts)]),
            Section("Scores", [Figures([Figure(spread, caption)])]),
            Section("The strangest images", strangest),
            Section("The same as a table", [table(ranking, shown)]),
        ],
    )


def calibrating(detector: OutlierDetector) -> str:
    """How many normals make the threshold, and in how many groups."""
    n, groups = len(detector.normals_), round(float(detector.weights_.sum()))
    return f"{n:,}" if n == groups else f"{n:,} in {groups:,} groups"


def cards(detector: OutlierDetector, ranking: Ranking, shown: list[int], progress: Progress | None) -> list[Figure]:
    """Each image above its heat map, with its name, class and score."""
    found = []
    for i in shown:
        image = ranking.images[i]
        heat = painted(image[None], detector.heat_maps(image[None]))[0]
        picture = grid(np.stack([in_colour(image[None])[0], heat]), columns=1)
        words = [ranking.classes[i], f"score {ranking.scores[i]:.4g}, p {ranking.p_values[i]:.2g}"]
        found.append(Figure(picture, "\n".join(filter(None, words)), ranking.names[i]))
        if progress is not None:
            progress(len(found), len(shown))
    return found


def table(ranking: Ranking, shown: list[int]) -> Table:
    """Rank, name, class, score, p-value and verdict of some images."""
    known = any(ranking.classes)
    place = {i: k for k, i in enumerate(ranking.order.tolist(), start=1)}
    rows = [
        [
            str(place[i]),
            ranking.names[i],
            *([ranking.classes[i]] if known else []),
            f"{ranking.scores[i]:.4g}",
            f"{ranking.p_values[i]:.3g}",
            "yes" if ranking.outliers[i] else "no",
        ]
        for i in shown
    ]
    return Table(["rank", "image", *(["class"] if known else []), "score", "p-value", "outlier"], rows)
