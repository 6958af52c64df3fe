"""The page of a comparison: samples of the same seeds side by side, numbers with verdicts, and each model's cost."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.evaluation import page
from fabulate.evaluation.compare import Comparison, Verdict
from fabulate.evaluation.report import HTML, JSON, Report, Written
from fabulate.files import own_folder, write_file, write_json

if TYPE_CHECKING:
    from rich.table import Table

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


def to_html(comparison: Comparison, pictures: Mapping[str, Image.Image], links: Mapping[str, str]) -> str:
    """The page; `pictures` are samples of the same seeds, `links` lead to each model's own report, by name."""
    reports = comparison.reports
    first = next(iter(reports.values()))
    head = page.facts(
        [
            ("images", f"{first.data}, {first.settings.data[:12]}"),
            ("compared", f"{first.settings.n:,} samples of each with {first.real:,} {first.reference}"),
            ("features", str(first.features["name"])),
            ("seed", str(first.settings.seed)),
        ]
    )
    title = " · ".join(reports)
    names = "".join(
        f'<th><a href="{escape(links[name])}">{escape(name)}</a><br>{escape(report.family)}</th>'
        if name in links
        else f"<th>{escape(name)}</th>"
        for name, report in reports.items()
    )

    def lines(judged: bool) -> str:
        rows = (line(verdict, list(reports)) for verdict in comparison.verdicts if judged != aside(verdict))
        heading = f"<thead><tr><th>measure</th>{names}<th>verdict</th></tr></thead>"
        return f'<div class="wide"><table>{heading}<tbody>{"".join(rows)}</tbody></table></div>'

    cost = [(name, costs(report)) for name, report in reports.items()]
    costly = "".join(
        f"<tr><td><b>{what}</b></td>" + "".join(f"<td>{escape(values[what])}</td>" for _, values in cost) + "</tr>"
        for what in cost[0][1]
    )
    shown = "".join(page.figure(f"{name}: samples of the same seeds", picture) for name, picture in pictures.items())
    body = [
        f'<p class="eyebrow">fabulate compare</p><h1>{escape(title)}</h1>',
        f'<section>{head}<ul class="sentences"><li><b>{escape(comparison.overall)}</b></li></ul></section>',
        f'<section><h2>Samples</h2><div class="pictures">{shown}</div></section>',
        f"<section><h2>Numbers</h2>{lines(True)}<details><summary>Numbers of which neither is better</summary>"
        f"{lines(False)}</details></section>",
        f'<section><h2>Cost</h2><div class="wide"><table><thead><tr><th></th>{names}</tr></thead><tbody>{costly}'
        "</tbody></table></div></section>",
        f"<footer><p>{escape(CAVEAT)}</p></footer>",
    ]
    return page.page(f"{title}: comparison", "\n".join(body))


def aside(verdict: Verdict) -> bool:
    """Whether a number tells what a model is like, but not whether it is better."""
    return verdict.better == "neither"


def line(verdict: Verdict, names: list[str]) -> str:
    """A number of all models, and its verdict."""
    cells = ""
    for name in names:
        row = verdict.values.get(name)
        if row is None:
            cells += '<td class="soft">not measured</td>'
            continue
        worse = name in verdict.behind
        mark = ' class="ahead"' if verdict.behind and not worse else ""
        value, reach = page.number(row.value.value), page.interval(row.value)
        cells += f'<td><b{mark}>{value}</b><br><span class="soft range">{reach}</span></td>'
    hint = page.ARROWS[verdict.better]
    return (
        f'<tr><td><b>{escape(verdict.metric)}</b><span class="words">{hint}</span></td>{cells}'
        f'<td class="verdict">{escape(verdict.words)}</td></tr>'
    )


def write(
    comparison: Comparison, pictures: Mapping[str, Image.Image], links: Mapping[str, str], folder: Path
) -> list[Path]:
    """Write metrics.json and index.html into a folder; returns their paths."""
    own_folder(folder)
    write_json(folder / JSON, to_json(comparison))  # first: it says whose the folder is
    write_file(folder / HTML, lambda file: file.write(to_html(comparison, pictures, links).encode()))
    return [folder / JSON, folder / HTML]


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """A comparison in metrics.json."""

    overall: str
    verdicts: dict[str, str]
    costs: dict[str, dict[str, str]]
    reports: dict[str, Written]


def to_json(comparison: Comparison) -> dict[str, object]:
    """As `Record`: the verdicts and the whole reports."""
    return {
        "overall": comparison.overall,
        "verdicts": {verdict.metric: verdict.words for verdict in comparison.verdicts},
        "costs": {name: costs(report) for name, report in comparison.reports.items()},
        "reports": {name: report.to_json() for name, report in comparison.reports.items()},
    }


def table(comparison: Comparison) -> "Table":
    """Numbers and verdicts for the console."""
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", *comparison.reports, "verdict"):
        table.add_column(plain(name), overflow="fold")
    for verdict in comparison.verdicts:
        if aside(verdict):
            continue
        cells = []
        for name in comparison.reports:
            row = verdict.values.get(name)
            cells.append("" if row is None else page.number(row.value.value))
        table.add_row(plain(verdict.metric), *cells, plain(verdict.briefly))
    for what in ("parameters", "training", "1,000 samples"):
        table.add_row(what, *(costs(report)[what] for report in comparison.reports.values()), "")
    return table
