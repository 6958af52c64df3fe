"""A tail on the disk: one PNG per image, a grid, a table of scores and rarities, the numbers, and a page.

Legend: N images.
"""

from collections.abc import Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from typing_extensions import TypedDict

from fabulate.files import own_folder, write_json, write_table
from fabulate.metrics.intervals import Estimate
from fabulate.models.base import GenerativeModel, Labels
from fabulate.models.capabilities import HasBound, HasLatent, HasLikelihood, Scores
from fabulate.pictures import place_png, save_png, sheet
from fabulate.report import Facts, Figure, Figures, Notes, Page, Section, number, plots, write_page
from fabulate.types import Stages, silent, to_float
from fabulate.uses.rare.pareto import RELIED
from fabulate.uses.rare.simulator import Score, Simulator
from fabulate.uses.rare.tail import Tail, tail

RECORD = "rare.json"
AT_ONCE = 250  # images that the model scores together
STEADY = 0.9  # share of images that must stay beyond the threshold, or the score's noise chose them
SHOWN, COLUMNS = 49, 7  # of rare and of plain images on the page: two such grids stand beside each other
WORTHWHILE = 1  # variance reduction below which plain Monte Carlo is cheaper


class Record(TypedDict):
    """rare.json, as far as it says whose a folder is."""

    score: str
    threshold: float
    probability: float
    calls_in_all: int
    model_sha256: str


class Done(NamedTuple):
    """What was found, as people read it."""

    tail: Tail
    facts: list[tuple[str, str]]
    warnings: list[str]


def run(
    model: HasLatent,
    score: Score,
    words: str,
    out: Path,
    *,
    name: str,
    threshold: float | None = None,
    quantile: float | None = None,
    n: int = 64,
    y: Labels = None,
    calls: int = 40_000,
    check: int = 0,
    seed: int = 0,
    progress: Stages | None = None,
) -> Done:
    """Find a tail (see `tail`), count `check` plain samples beyond its threshold, and write all into the folder `out`.

    `words`: what the score is; `name`: what the model is called on the page. Errors: as of `tail`.
    """
    told = progress or silent
    found = tail(
        model,
        score,
        threshold=threshold,
        quantile=quantile,
        n=n,
        y=y,
        calls=calls,
        seed=seed,
        progress=partial(told, "decoding"),
    )
    facts = numbers(found, words)
    if check:
        simulator = Simulator(model, score, y, partial(told, "plain samples"), check)
        above = simulator.exceeding(found.threshold, check, seed)
        facts.append(("plain samples", f"{above:,} of {check:,} beyond it: {Estimate.of_share(above, check)}"))
    write_tail(found, model, out, words, seed, y)
    warned = cautions(found)
    write_page(out / "rare.html", page(name, model, found, words, facts, warned))
    return Done(found, facts, warned)


def model_column(model: GenerativeModel) -> str | None:
    """What the model's own score of an image is called in the table; None where it has none."""
    names = {HasLikelihood: "log_density", HasBound: "log_density_bound", Scores: f"{model.family}_score"}
    return next((name for kind, name in names.items() if isinstance(model, kind)), None)


def write_tail(found: Tail, model: GenerativeModel, folder: Path, what: str, seed: int, y: Labels = None) -> None:
    """Write the images, grid.png, rare.csv and rare.json into a folder."""
    own_folder(folder)
    event = found.event
    about = {
        "score": what,
        "threshold": found.threshold,
        "probability": event.probability,
        "standard_error": event.standard_error,
        "interval": event.interval,
        "effective_samples": event.effective_samples,
        "pareto_k": event.pareto_k if isfinite(event.pareto_k) else None,
        "calls": event.calls,
        "calls_in_all": found.calls,
        "warnings": event.warnings,
        "ancestors": found.ancestors,
        "beyond_again": found.again,
        "family": model.family,
        "model_sha256": model.weights_hash(),
        "seed": seed,
    }
    write_json(folder / RECORD, about)  # first: it says whose the folder is
    width = max(5, len(str(len(found.images) - 1)))
    names = [f"{i:0{width}}.png" for i in range(len(found.images))]
    for name, image in zip(names, found.images, strict=True):
        place_png(image, folder / name)
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


def numbers(found: Tail, words: str) -> list[tuple[str, str]]:
    """What was found, by name."""
    event, reduction = found.event, found.variance_reduction
    low, high = event.interval
    return [
        ("score", words),
        ("event", f"score > {number(found.threshold)}"),
        ("probability", f"{event.probability:.3g} ({low:.3g} to {high:.3g})"),
        ("one in", f"{1 / event.probability:,.0f} plain samples"),
        ("cost", f"{event.calls:,} images decoded, {found.calls:,} with threshold and tail"),
        (
            "variance reduction",
            f"{reduction:,.1f} over plain Monte Carlo" if isfinite(reduction) else "no error to compare",
        ),
        ("effective sample size", f"{event.effective_samples:,.0f} behind the probability"),
        (
            "Pareto k",
            f"{event.pareto_k:.2f} of the weights; up to {RELIED} errors can be relied on"
            if isfinite(event.pareto_k)
            else "too few weights to tell",
        ),
        ("images", f"{len(found.images):,}, from {found.ancestors:,} different draws"),
    ]


def cautions(found: Tail) -> list[str]:
    """Why not to trust the result, or not to need it."""
    cautions, n = list(found.event.warnings), len(found.images)
    if found.variance_reduction < WORTHWHILE:
        cautions.append("plain Monte Carlo would have told the probability as well: this is for rarer events")
    if found.again < STEADY * n:
        cautions.append(f"the score is noisy: judged again, {found.again} of {n} images are beyond the threshold")
    return cautions


def page(
    name: str, model: GenerativeModel, found: Tail, words: str, facts: list[tuple[str, str]], warned: list[str]
) -> Page:
    """The numbers, the rare images beside plain ones, and the curve of the tail."""
    order = "Each from the highest score down. The rare ones count alike, as if plain sampling had found them."
    shown = np.unique(np.linspace(0, len(found.images) - 1, SHOWN).round().astype(int))  # evenly from first to last
    both = {"Rare": found.images, "Plain": found.typical}
    beside = [Figure(sheet(x[shown], f"{what} images", columns=COLUMNS), what) for what, x in both.items()]
    own = model_column(model)
    table = f"rare.csv has each image's score, its rarity P(score at least this high){f', and {own}' if own else ''}."
    return Page(
        kind="fabulate rare",
        title=name,
        about=f"Rare images of {name}",
        sections=[
            Section("", [Facts(facts), Notes(warned)]),
            Section("Rare and typical", [Notes([order]), Figures(beside)]),
            Section("The tail", [Figures([Figure(curve(found, words), f"The chance of a score this high. {table}")])]),
        ],
    )


def curve(found: Tail, words: str) -> Image:
    """P(score > s) over s, as plain draws have it, and as the tail has it beyond the threshold."""
    shown = plots.axes(7.2, 2.9, words, "P(a higher score)")
    plain = np.sort(found.plain_scores)[::-1]
    steps = np.arange(1, len(plain) + 1) / len(plain)
    shown.step(plain, steps, color=plots.PALE, linewidth=2, label=f"{len(plain):,} plain")
    shown.plot(found.scores, found.rarities, "o", color=plots.RED, markersize=3.5, label="images of the tail")
    shown.axvline(found.threshold, color=plots.INK, linewidth=1, linestyle="--", label="threshold")
    (low, high), share = found.event.interval, found.event.probability
    ends = [[share - low], [high - share]]
    shown.errorbar([found.threshold], [share], ends, color=plots.INK, capsize=4, fmt="s", ms=4)
    shown.set_yscale("log")
    shown.grid(alpha=0.25)
    shown.legend(fontsize=8, frameon=False)
    return plots.image(shown)
