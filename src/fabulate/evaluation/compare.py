"""Which of several models is better, and is the difference more than chance?

Two reports made with equal settings stand side by side. The difference a - b of two estimates has the interval

    (a - b) - sqrt((a - a_low)^2 + (b_high - b)^2)   to   (a - b) + sqrt((a_high - a)^2 + (b - b_low)^2)

(Zou, Donner, "Construction of confidence intervals about effect measures", 2008, https://doi.org/10.1002/sim.3095),
which for equal half-widths h is the usual one, +- sqrt(2) h. Of many numbers some differ by chance. The Fréchet and the
kernel distance, in which all of an image has a part, decide over all. So that in 95 of 100 comparisons of equal models
neither of them differs, their intervals are made as wide as the number of comparisons asks (Bonferroni), and likewise,
by themselves, those of all other numbers, which say in which way models differ.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

from PIL import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.data import Data
from fabulate.errors import ConfigError
from fabulate.evaluation.evaluate import evaluate, sampled, settings
from fabulate.evaluation.fidelity import SHOWN, picture
from fabulate.evaluation.likelihood import MEASURES
from fabulate.evaluation.report import HTML, JSON, Head, Report, kept
from fabulate.evaluation.report import write as write_report
from fabulate.files import own_folder, write_json
from fabulate.metrics.intervals import NORMAL_95, Estimate
from fabulate.models import GenerativeModel
from fabulate.report import (
    BETTER,
    Better,
    Cell,
    Facts,
    Figure,
    Figures,
    Folded,
    Notes,
    Page,
    Row,
    Section,
    Table,
    number,
    write_page,
)
from fabulate.training import is_run, read_config
from fabulate.types import SequenceShape, Stages

CAVEAT = (
    "The intervals cover the chance of drawing images, not that of training: the same model trained with another seed "
    "is another model, whose numbers may differ by more than these intervals. To say that one kind of model is better "
    "than another, train several seeds of each. Over all, the Fréchet and the kernel distance decide, of "
    "sequences the nats per symbol. Intervals of differences are widened for the number of comparisons (Bonferroni): "
    "equal models are called different by what decides 5 times in 100, and by any of the other numbers 5 times in 100."
)

DISTANCES, PREDICTION = ("Fréchet distance", "Kernel distance"), "Nats per symbol"
DECIDING = (*DISTANCES, PREDICTION)  # of images, and of sequences
LEVEL = 0.05  # the chance of calling any two equal models different


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one number says of several models."""

    metric: str
    better: Better
    values: Mapping[str, Row]
    """By the models' names; those it was not measured of are missing."""
    best: str | None
    """The model with the best value; None where nothing is better or worse."""
    behind: Mapping[str, Estimate]
    """Those that are worse than the best, and by how much."""
    words: str

    @property
    def aside(self) -> bool:
        """Whether the number tells what a model is like, but not whether it is better."""
        return self.better == "neither"

    @property
    def briefly(self) -> str:
        """The words without the numbers."""
        return f"{self.best} is better than {', '.join(self.behind)}" if self.behind else self.words


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several reports made with equal settings, and what they say together."""

    reports: Mapping[str, Report]
    """By the models' names."""
    verdicts: tuple[Verdict, ...]
    overall: str
    """In a sentence."""


def compare(reports: Mapping[str, Report]) -> Comparison:
    """Set reports side by side.

    Errors: `ConfigError` for fewer than two reports, or reports of unequal images, numbers, seeds or features.
    """
    if len(reports) < 2:
        raise ConfigError(f"a comparison needs at least two models; given {', '.join(reports) or 'none'}")
    first, *others = reports.values()
    for other in others:
        if other.settings != first.settings:
            raise ConfigError(
                f"{other.name} was not evaluated as {first.name} was: {other.settings} and {first.settings}; "
                "evaluate both with the same images, n, seed and features"
            )
    metrics = list(dict.fromkeys(name for report in reports.values() for name in report.rows))
    tables = {
        metric: {name: report.rows[metric] for name, report in reports.items() if metric in report.rows}
        for metric in metrics
    }
    refused = {metric: refusal(metric, rows, reports) for metric, rows in tables.items()}
    pairs = len(reports) * (len(reports) - 1) // 2
    wider = {
        deciding: widening(pairs * sum(not why for metric, why in refused.items() if (metric in DECIDING) == deciding))
        for deciding in (True, False)
    }
    verdicts = tuple(judge(metric, rows, wider[metric in DECIDING], refused[metric]) for metric, rows in tables.items())
    return Comparison(reports=reports, verdicts=verdicts, overall=overall(verdicts))


def compare_runs(
    runs: Mapping[str, Path],
    models: Sequence[GenerativeModel],
    data: Data,
    out: Path,
    *,
    device: str = "auto",
    progress: Stages,
    **measuring: Any,
) -> tuple[Comparison, dict[str, Image.Image], dict[str, str]]:
    """Compare runs by their reports: those that are there, made alike, are used again; others are made in `out`.

    Returns, by the runs' names, pictures of samples of the same seeds and links to the reports too. `measuring`: what
    `settings` takes. `progress` hears (run and what is done, parts done, all parts).
    """
    asked = settings(data, **measuring)
    reports, pictures, links = {}, {}, {}
    for (name, run), model in zip(runs.items(), models, strict=True):
        kept_ones = {place: kept(place, model, asked) for place in (run / "report", out / name)}
        place = next((place for place, report in kept_ones.items() if report is not None), out / name)
        report = kept_ones[place]
        if report is None:

            def told(what: str, done: int, total: int, name: str = name) -> None:
                progress(f"{name}: {what}", done, total)

            report = evaluate(run, data, device=device, progress=told, **measuring)
            write_report(report, place)
        reports[name] = report
        pictures[name] = shown(name, model, data, asked.seed)
        links[name] = Path(os.path.relpath(place / HTML, out)).as_posix()
    return compare(reports), pictures, links


def shown(name: str, model: GenerativeModel, data: Data, seed: int) -> Image.Image:
    """A picture of a model's samples; those of images are of the classes that the data have, as the report's are."""
    shape: Any = model.shape
    if isinstance(shape, SequenceShape):
        return model.show(seed=seed, title=name)
    return picture(name, *sampled(model, data, SHOWN, seed), data.classes)


def unequal_names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, and a number where two are equal.

    >>> unequal_names([Path("a/vae"), Path("b/vae"), Path("gan")])
    ['vae', 'vae (2)', 'gan']
    """
    names: list[str] = []
    for run in runs:
        name = run.resolve().name
        taken = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({taken + 1})" if taken else name)
    return names


def same_images(runs: Sequence[Path]) -> None:
    """Refuse runs that were trained on different images. Errors: `ConfigError`."""
    trained = {str(run): read_config(run)["data"] for run in runs if is_run(run)}
    if len({data["fingerprint"] for data in trained.values()}) > 1:
        told = ", ".join(f"{run} on {data['name']}" for run, data in trained.items())
        raise ConfigError(
            f"the runs were trained on different images ({told}); give --data to compare them on the same"
        )


def widening(comparisons: int) -> float:
    """How much wider than a 95 % interval each of so many must be for all of them to hold 95 times in 100.

    >>> round(widening(1), 3), round(widening(10), 2)
    (1.0, 1.43)
    """
    return NormalDist().inv_cdf(1 - LEVEL / (2 * max(comparisons, 1))) / NORMAL_95


def difference(a: Estimate, b: Estimate, wider: float = 1.0) -> Estimate:
    """a - b with its interval, `wider` times as wide as one of 95 %.

    >>> print(difference(Estimate(5, 2, 8), Estimate(4, 0, 8)))
    1 (-4 to 6)
    """
    down, up = (
        sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2),
        sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2),
    )
    gap = a.value - b.value
    return Estimate(gap, gap - wider * down, gap + wider * up)


def refusal(metric: str, rows: Mapping[str, Row], reports: Mapping[str, Report]) -> str:
    """Why a number is not judged, in words; "" when it is."""
    if len(rows) < 2:
        return "measured of one only"
    if any(row.better == "neither" for row in rows.values()):
        return "neither is better"
    if any(isnan(row.value.low) for row in rows.values()):
        return "no interval: not judged"
    if metric.endswith("(nats)"):
        told = [{words for section in reports[name].sections for words in section.sentences} for name in rows]
        if len({frozenset(sentences & set(MEASURES.values())) for sentences in told}) > 1:
            return "of different quantities: see the reports"
    if metric.endswith(("(nats)", "bits/dim")) and len({bool(reports[name].classes) for name in rows}) > 1:
        return "some are given the classes: not judged"
    return ""


def judge(metric: str, rows: Mapping[str, Row], wider: float, refused: str = "") -> Verdict:
    """The verdict of one number: the best, and those that are surely worse."""
    better = next(iter(rows.values())).better
    best: str | None = None
    behind: dict[str, Estimate] = {}
    words = refused
    if not refused:
        sign = 1 if better == "lower" else -1
        best = min(rows, key=lambda name: sign * rows[name].value.value)
        for name in rows:
            pair = (rows[name].value, rows[best].value)
            gap = difference(*(pair if sign > 0 else pair[::-1]), wider)
            if name != best and gap.low > 0:
                behind[name] = gap
        words = ranking(best, behind, [name for name in rows if name != best and name not in behind])
    return Verdict(metric=metric, better=better, values=rows, best=best, behind=behind, words=words)


def ranking(best: str, behind: Mapping[str, Estimate], level: Sequence[str]) -> str:
    """Who is better than whom, and by how much."""
    if not behind:
        return "no difference"
    parts = [f"than {name} by {by(gap)}" for name, gap in behind.items()]
    with_it = f"; no difference from {', '.join(level)}" if level else ""
    return f"{best} is better {', '.join(parts)}{with_it}"


def lead(verdict: Verdict) -> str:
    """By how much a distance of the best is lower, in words."""
    gaps = [f"{by(gap)} lower than that of {name}" for name, gap in verdict.behind.items()]
    return f"{verdict.metric} {', '.join(gaps)}"


def by(gap: Estimate) -> str:
    """A difference and its interval."""
    return f"{number(gap.value)} ({number(gap.low)} to {number(gap.high)})"


def overall(verdicts: Sequence[Verdict]) -> str:
    """The distances decide; the other numbers say in which way."""
    deciding = [verdict for verdict in verdicts if verdict.metric in DECIDING and verdict.best is not None]
    if not deciding:
        return "No distance was measured of both with an interval: nothing decides over all."
    predicted = deciding[0].metric == PREDICTION
    leaders = {verdict.best for verdict in deciding if verdict.behind}
    if not leaders:
        differing = [verdict.metric for verdict in verdicts if verdict.behind]
        which = "the likelihood does not tell" if predicted else "neither distance tells"
        words = f"No difference over all: {which} the models apart with so many {'symbols' if predicted else 'images'}."
        return words + (f" They do differ in: {', '.join(differing)}." if differing else "")
    if len(leaders) > 1:
        return f"Undecided: the two distances contradict each other ({' and '.join(sorted(map(str, leaders)))} lead)."
    best = leaders.pop()
    worse = {name for verdict in deciding for name in verdict.behind}
    level = [name for name in deciding[0].values if name != best and name not in worse]
    others = [verdict.metric for verdict in verdicts if verdict.metric not in DECIDING and best in verdict.behind]
    words = f"{best} is better than {', '.join(sorted(worse))}"
    words += f", and level with {', '.join(level)}" if level else ""
    by = "by how well it predicts what it never saw" if predicted else "by the distance of its samples from real images"
    words += f" {by}: "
    words += "; ".join(lead(verdict) for verdict in deciding if verdict.behind) + "."
    return words + (f" But it is behind in: {', '.join(others)}." if others else "")


def costs(report: Report) -> dict[str, str]:
    """What a model costs."""
    trained = report.trained
    drawn = report.sampling_seconds / report.settings.n * 1000
    return {
        "parameters": f"{report.parameters:,}",
        "training": f"{trained['seconds']:,.0f} s, {trained['steps']:,} steps" if "seconds" in trained else "not known",
        "1,000 samples": f"{drawn:.3g} s",
    }


def page(comparison: Comparison, pictures: Mapping[str, Image.Image], links: Mapping[str, str]) -> Page:
    """The page; `pictures` are samples of the same seeds, `links` lead to each model's own report, by name."""
    reports = comparison.reports
    first = next(iter(reports.values()))
    facts = [
        ("images", f"{first.data}, {first.settings.data[:12]}"),
        ("compared", f"{first.settings.n:,} samples of each with {first.real:,} {first.reference}"),
        ("features", str(first.features["name"])),
        ("seed", str(first.settings.seed)),
    ]
    names = [Cell(name, report.family, link=links.get(name, "")) for name, report in reports.items()]

    def numbers(judged: bool) -> Table:
        rows = [cells(verdict, list(reports)) for verdict in comparison.verdicts if judged != verdict.aside]
        return Table(["measure", *names, "verdict"], rows)

    cost = [costs(report) for report in reports.values()]
    costly: list[list[str | Cell]] = [[Cell(what, bold=True), *(values[what] for values in cost)] for what in cost[0]]
    samples = [Figure(picture, f"{name}: samples of the same seeds") for name, picture in pictures.items()]
    return Page(
        kind="fabulate compare",
        title=" · ".join(reports),
        about=f"{' · '.join(reports)}: comparison",
        sections=[
            Section("", [Facts(facts), Notes([comparison.overall, *first.warnings])]),
            Section("Samples", [Figures(samples)]),
            Section("Numbers", [numbers(True), Folded("Numbers of which neither is better", [numbers(False)])]),
            Section("Cost", [Table(["", *names], costly)]),
        ],
        footer=[CAVEAT],
    )


def cells(verdict: Verdict, names: list[str]) -> list[str | Cell]:
    """A number of all models, and its verdict."""
    found: list[str | Cell] = [Cell(verdict.metric, BETTER[verdict.better], bold=True)]
    for name in names:
        row = verdict.values.get(name)
        best = bool(verdict.behind) and name not in verdict.behind
        found.append("not measured" if row is None else Cell(number(row.value.value), row.interval, True, best))
    return [*found, verdict.words]


def write(
    comparison: Comparison, pictures: Mapping[str, Image.Image], links: Mapping[str, str], folder: Path
) -> list[Path]:
    """Write metrics.json and index.html into a folder; returns their paths."""
    own_folder(folder)
    write_json(folder / JSON, to_json(comparison))  # first: it says whose the folder is
    write_page(folder / HTML, page(comparison, pictures, links))
    return [folder / JSON, folder / HTML]


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """A comparison in metrics.json, as far as it says whose the folder is."""

    overall: str
    verdicts: dict[str, str]
    costs: dict[str, dict[str, str]]
    reports: dict[str, Head]


def to_json(comparison: Comparison) -> dict[str, object]:
    """The verdicts and the whole reports."""
    return {
        "overall": comparison.overall,
        "verdicts": {verdict.metric: verdict.words for verdict in comparison.verdicts},
        "costs": {name: costs(report) for name, report in comparison.reports.items()},
        "reports": {name: report.to_json() for name, report in comparison.reports.items()},
    }


def table(comparison: Comparison) -> Table:
    """Numbers and verdicts for the console."""
    rows = []
    for verdict in comparison.verdicts:
        if not verdict.aside:
            values = [verdict.values.get(name) for name in comparison.reports]
            rows.append(
                [verdict.metric, *("" if row is None else number(row.value.value) for row in values), verdict.briefly]
            )
    cost = [costs(report) for report in comparison.reports.values()]
    rows += [[what, *(values[what] for values in cost), ""] for what in cost[0]]
    return Table(["", *comparison.reports, "verdict"], rows)
