"""All images of a source from the strangest to the most normal: a table, numbers, and images under their heat.

Legend: N images, C H W image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from typing_extensions import TypedDict

from fabulate.data import Data, image_names
from fabulate.files import write_table
from fabulate.pictures import pairs
from fabulate.uses.outliers.detector import OutlierDetector
from fabulate.uses.outliers.learning import Progress

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]
RECORD = "outliers.json"
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


def record(detector: OutlierDetector, ranking: Ranking, source: str) -> Record:
    """The numbers of a ranking."""
    return {
        "kind": "ranking",
        "source": source,
        "images": len(ranking.scores),
        "outliers": int(ranking.outliers.sum()),
        "threshold": detector.threshold_,
        "false_alarm": detector.false_alarm_.value,
        "false_alarm_interval": detector.false_alarm_interval_,
        "scores": list(detector.names_),
    }


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
    verdicts = np.where(ranking.outliers, "yes", "no").tolist()
    write_table(
        path,
        ["rank", "image", "class", "score", "p_value", "outlier"],
        (
            (place, ranking.names[i], ranking.classes[i], ranking.scores[i], ranking.p_values[i], verdicts[i])
            for place, i in enumerate(ranking.order.tolist(), start=1)
        ),
    )


def painted(images: Pixels, heat: Numbers) -> Pixels:
    """Images (N, C, H, W) in gray, red where they are hot (N, H, W): (N, 3, H, W)."""
    gray = images.mean(1, keepdims=True).repeat(3, axis=1)
    share = np.clip((heat - COLD) / (HOTTEST - COLD), 0, 1)[:, None]
    red = np.array([235.0, 60.0, 30.0])[None, :, None, None]
    return np.rint(gray + (red - gray) * 0.85 * share).astype(np.uint8)


def gallery(images: Pixels, heat: Numbers) -> Image:
    """A picture of images (N, C, H, W), the strangest first, above their heat maps (N, H, W)."""
    colour = images.repeat(3 // images.shape[1], axis=1)
    legend = "the strangest first; below each, red where it departs from what is normal"
    return pairs(colour, painted(images, heat), "Outliers", legend, ("image", "heat map"))
