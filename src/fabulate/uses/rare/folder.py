"""A tail on the disk: one PNG per image, a grid, a table of scores and rarities, the numbers, and a curve of the tail.

Legend: N images.
"""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from typing_extensions import TypedDict

from fabulate.files import own_folder, place_file, write_json, write_table
from fabulate.models.base import GenerativeModel, Labels
from fabulate.models.capabilities import HasBound, HasLikelihood, Scores
from fabulate.pictures import save_png, sheet, to_image
from fabulate.types import to_float
from fabulate.uses.rare.tail import Tail

RECORD = "rare.json"
PLAIN, FOUND, INK = "#8fb4dc", "#c03a32", "#1c2330"
AT_ONCE = 250  # images that the model scores together


class Record(TypedDict):
    """What rare.json says: the event, its probability, and which model and seed the images come from."""

    score: str
    threshold: float
    probability: float
    standard_error: float
    interval: list[float]
    effective_samples: float
    calls: int
    calls_in_all: int
    warnings: list[str]
    ancestors: int
    beyond_again: int
    family: str
    model_sha256: str
    seed: int


def model_column(model: GenerativeModel) -> str | None:
    """What the model's own score of an image is called in the table; None where it has none."""
    names = {HasLikelihood: "log_density", HasBound: "log_density_bound", Scores: f"{model.family}_score"}
    return next((name for kind, name in names.items() if isinstance(model, kind)), None)


def write_tail(found: Tail, model: GenerativeModel, folder: Path, what: str, seed: int, y: Labels = None) -> list[str]:
    """Write the images, grid.png, rare.csv and rare.json into a folder; the images' names."""
    own_folder(folder)
    write_json(folder / RECORD, record(found, model, what, seed))  # first: it says whose the folder is
    width = max(5, len(str(len(found.images) - 1)))
    names = [f"{i:0{width}}.png" for i in range(len(found.images))]
    for name, image in zip(names, found.images, strict=True):
        place_file(folder / name, partial(to_image(image).save, format="PNG"))
    legend = f"the first of {len(found.images):,}, from the highest score down; score: {what}"
    save_png(sheet(found.images[: model.shown], f"{model.about}: rare images", legend), folder / "grid.png")
    columns: dict[str, Sequence[str | float]] = {
        "image": names,
        "score": found.scores.tolist(),
        "rarity": found.rarities.tolist(),
        "one_in": [round(1 / value) for value in found.rarities.tolist()],
    }
    if (own := model_column(model)) is not None:
        assert isinstance(model, Scores)  # or it would have no such column
        parts = torch.split(torch.from_numpy(found.images), AT_ONCE)
        scores = torch.cat([model.score(to_float(x), None if y is None else model.labels(y, len(x))) for x in parts])
        columns[own] = scores.tolist()
    write_table(folder / "rare.csv", columns, zip(*columns.values(), strict=True))
    return names


def record(found: Tail, model: GenerativeModel, what: str, seed: int) -> Record:
    """The numbers of a tail, see `Record`."""
    event = found.event
    return {
        "score": what,
        "threshold": found.threshold,
        "probability": event.probability,
        "standard_error": event.standard_error,
        "interval": list(event.interval),
        "effective_samples": event.effective_samples,
        "calls": event.calls,
        "calls_in_all": found.calls,
        "warnings": list(event.warnings),
        "ancestors": found.ancestors,
        "beyond_again": found.again,
        "family": model.family,
        "model_sha256": model.weights_hash(),
        "seed": seed,
    }


def curve(found: Tail, what: str) -> Image.Image:
    """P(score > s) over s, as plain draws have it, and as the tail has it beyond the threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plain = np.sort(found.plain_scores)[::-1]
    axes.step(plain, np.arange(1, len(plain) + 1) / len(plain), color=PLAIN, linewidth=2, label=f"{len(plain):,} plain")
    axes.plot(found.scores, found.rarities, "o", color=FOUND, markersize=3.5, label="images of the tail")
    axes.axvline(found.threshold, color=INK, linewidth=1, linestyle="--", label="threshold")
    low, high = found.event.interval
    share = found.event.probability
    axes.errorbar([found.threshold], [share], [[share - low], [high - share]], color=INK, capsize=4, fmt="s", ms=4)
    axes.set_yscale("log")
    axes.set_xlabel(what, fontsize=9)
    axes.set_ylabel("P(a higher score)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with Image.open(buffer) as image:
        return image.convert("RGB")
