"""All images of a source from the strangest to the most normal: a table, and a picture of the strangest with heat maps.

Legend: N images, C H W image.
"""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fabulate.data import Data
from fabulate.data.names import image_names
from fabulate.files import write_file
from fabulate.pictures import grid
from fabulate.uses.outliers.detector import OutlierDetector
from fabulate.uses.outliers.learning import Progress

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]
COLUMNS = 8
PORTION = 500  # images judged between two moves of the bar
HOTTEST = 8.0  # times what normals show: full colour from here on
COLD = 2.0  # no colour up to here


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


def rank(detector: OutlierDetector, data: Data, progress: Progress | None = None) -> Ranking:
    """Judge all images of a data set, training and test part. `progress`: called with (images judged, all images).

    Errors: as `OutlierDetector.score_samples`.
    """
    x, parts = pixels(data), []
    for first in range(0, len(x), PORTION):
        parts.append(detector.score_samples(x[first : first + PORTION]))
        if progress is not None:
            progress(min(first + PORTION, len(x)), len(x))
    scores = np.concatenate(parts)
    parts_of_data = [part for part in (data.train, data.test) if part is not None]
    classes = [
        name
        for part in parts_of_data
        for name in ([""] * len(part) if part.y is None else map(data.classes.__getitem__, part.y))
    ]
    return Ranking(
        order=np.argsort(scores, kind="stable"),
        names=image_names(data),
        classes=tuple(classes),
        scores=scores,
        p_values=detector.p_values_of(scores),
        outliers=scores < detector.threshold_,
    )


def pixels(data: Data) -> Pixels:
    """All images of a data set, training images first: uint8 (N, C, H, W)."""
    return np.concatenate([part.x for part in (data.train, data.test) if part is not None])


def write_csv(ranking: Ranking, path: Path) -> None:
    """Write rank, name, class, score, p-value and verdict of every image, the strangest first."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "image", "class", "score", "p_value", "outlier"])
    for place, i in enumerate(ranking.order.tolist(), start=1):
        verdict = "yes" if ranking.outliers[i] else "no"
        row = [place, ranking.names[i], ranking.classes[i], f"{ranking.scores[i]:.6g}", f"{ranking.p_values[i]:.6g}"]
        writer.writerow([*row, verdict])
    write_file(path, lambda file: file.write(text.getvalue().encode()))


def painted(images: Pixels, heat: Numbers) -> Pixels:
    """Images (N, C, H, W) in gray, red where they are hot (N, H, W): (N, 3, H, W)."""
    gray = images.mean(1, keepdims=True).repeat(3, axis=1)
    share = np.clip((heat - COLD) / (HOTTEST - COLD), 0, 1)[:, None]
    red = np.array([235.0, 60.0, 30.0])[None, :, None, None]
    return np.rint(gray + (red - gray) * 0.85 * share).astype(np.uint8)


def gallery(images: Pixels, heat: Numbers) -> Image.Image:
    """Each image (N, C, H, W) above itself with its heat (N, H, W), in rows."""
    colour = images if images.shape[1] == 3 else images.repeat(3, axis=1)
    rows = [
        half[i : i + COLUMNS]
        for i in range(0, len(images), COLUMNS)
        for half in (_full(colour), _full(painted(images, heat)))
    ]
    return grid(np.concatenate(rows), columns=COLUMNS)


def _full(images: Pixels) -> Pixels:
    """Images and white ones, so that the last row is full."""
    missing = -len(images) % COLUMNS
    return np.concatenate([images, np.full((missing, *images.shape[1:]), 255, np.uint8)])
