"""The page of a comparison: samples of the same seeds side by side, numbers with verdicts, and each model's cost."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.evaluation.compare import Comparison, Verdict
from fabulate.evaluation.report import HTML, JSON, Report
from fabulate.files import own_folder, write_json
from fabulate.report import (
    BETTER,
    Cell,
    Facts,
    Figure,
    Figures,
    Folded,
    Notes,
    Page,
    Section,
    Table,
    number,
    write_page,
)

CAVEAT = (
    "The intervals cover the chance of drawing images, not that of training: the same model trained with another seed "
    "is another model, whose numbers may differ by more than these intervals. To say that one kind of model is better "
    "than another, train several seeds of each. Over all, the Fréchet and the kernel distance decide. Intervals of "
    "differences are widened for the number of comparisons (Bonferroni): equal models are called different by either "
    "distance 5 times in 100, and by any of the other numbers 5 times in 100."
)


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
        rows = [cells(verdict, list(reports)) for verdict in comparison.verdicts if judged != aside(verdict)]
        return Table(["measure", *names, "verdict"], rows)

    cost = [costs(report) for report in reports.values()]
    costly: list[list[str | Cell]] = [[Cell(what, bold=True), *(values[what] for values in cost)] for what in cost[0]]
    samples = [Figure(picture, f"{name}: samples of the same seeds") for name, picture in pictures.items()]
    return Page(
        kind="fabulate compare",
        title=" · ".join(reports),
        about=f"{' · '.join(reports)}: comparison",
        sections=[
            Section("", [Facts(facts), Notes([comparison.overall])]),
            Section("Samples", [Figures(samples)]),
            Section("Numbers", [numbers(True), Folded("Numbers of which neither is better", [numbers(False)])]),
            Section("Cost", [Table(["", *names], costly)]),
        ],
        footer=[CAVEAT],
    )


def aside(verdict: Verdict) -> bool:
    """Whether a number tells what a model is like, but not whether it is better."""
    return verdict.better == "neither"


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
    """A comparison in metrics.json."""

    overall: str
    verdicts: dict[str, str]
    costs: dict[str, dict[str, str]]
    reports: dict[str, Report]


def to_json(comparison: Comparison) -> dict[str, object]:
    """As `Record`: the verdicts and the whole reports."""
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
        if not aside(verdict):
            values = [verdict.values.get(name) for name in comparison.reports]
            rows.append(
                [verdict.metric, *("" if row is None else number(row.value.value) for row in values), verdict.briefly]
            )
    cost = [costs(report) for report in comparison.reports.values()]
    rows += [[what, *(values[what] for values in cost), ""] for what in cost[0]]
    return Table(["", *comparison.reports, "verdict"], rows)
