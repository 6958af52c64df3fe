"""A report: what was evaluated, on what, with which settings, and the sections that came of it.

`metrics.json` holds all of it but the pictures and goes back and forth unchanged; `index.html` is for people.
"""

from dataclasses import asdict, dataclass, replace
from html import escape
from importlib.metadata import version
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from fabulate.errors import RunError
from fabulate.evaluation import page
from fabulate.evaluation.sections import Answer, Better, Grade, Row, Section
from fabulate.files import own_folder, read_json, write_file, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.notebooks import card

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1  # of metrics.json; raised when a newer fabulate could misread an older file
JSON, HTML = "metrics.json", "index.html"


@with_config(ConfigDict(extra="ignore"))
class Head(TypedDict):
    """What metrics.json of every version says: by which it was written."""

    format: int
    versions: dict[str, str]


class Number(TypedDict):
    """A value and its interval; None for what is not a number, of which JSON knows none."""

    value: float | None
    low: float | None
    high: float | None


class WrittenRow(TypedDict):
    """A `Row` in metrics.json."""

    name: str
    value: Number
    better: Better
    floor: float | None
    noise: float | None
    words: str


class WrittenAnswer(TypedDict):
    """An `Answer` in metrics.json."""

    question: str
    verdict: str
    because: str
    grade: Grade


@with_config(ConfigDict(extra="ignore"))
class WrittenSection(TypedDict):
    """A `Section` in metrics.json, which has no pictures."""

    title: str
    rows: list[WrittenRow]
    sentences: list[str]
    absent: dict[str, str]
    answers: list[WrittenAnswer]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a report's numbers depend on besides the code: equal settings, comparable reports."""

    data: str
    """The images' fingerprint."""
    n: int
    """Samples drawn."""
    seed: int
    features: str
    """As they were asked for: "auto", "pixels", "inception:PATH" or a name."""
    k: int
    """Codes of each image in the importance-weighted bound."""
    images: int
    """Whose likelihood is computed, at most."""


class Written(TypedDict):
    """A `Report` in metrics.json."""

    format: Literal[1]
    name: str
    family: str
    model_sha256: str
    classes: list[str]
    parameters: int
    trained: dict[str, Any]
    data: str
    settings: Settings
    reference: str
    real: int
    features: dict[str, Any]
    sampling_seconds: float
    seconds: dict[str, float]
    versions: dict[str, str]
    date: str
    warnings: list[str]
    sections: list[WrittenSection]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of a model after its evaluation."""

    name: str
    """Of the run."""
    family: str
    model_sha256: str
    classes: tuple[str, ...]
    """Those the model learnt; empty when it knows none."""
    parameters: int
    trained: dict[str, Any]
    """What the model card tells of the training: data, steps, seconds, test numbers."""
    data: str
    """The images' name."""
    settings: Settings
    reference: str
    """What samples are compared with: "test images" or "training images"."""
    real: int
    """How many of those."""
    features: dict[str, Any]
    """What the features say of themselves."""
    sampling_seconds: float
    seconds: dict[str, float]
    """What each section took."""
    versions: dict[str, str]
    date: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def rows(self) -> dict[str, Row]:
        """All numbers by their names."""
        return {row.name: row for section in self.sections for row in section.rows}

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What stands at the head: the questions people ask."""
        return tuple(answer for section in self.sections for answer in section.answers)

    def _repr_html_(self) -> str:
        """What a notebook shows: the answers and all numbers. The page of `write` has the pictures too."""
        return notebook(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        sections = [replace(section, pictures={}) for section in self.sections]
        return {"format": FORMAT, **_plain(asdict(replace(self, sections=tuple(sections))))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Report":
        """A report without pictures. Errors: pydantic's `ValidationError`, a `ValueError`, when it is none."""
        return cls.of(TypeAdapter(Written).validate_python(value))

    @classmethod
    def of(cls, written: Written) -> "Report":
        """The report that metrics.json holds."""
        values: dict[str, Any] = {name: value for name, value in written.items() if name != "format"}
        values |= {name: tuple(values[name]) for name in ("classes", "warnings")}
        return cls(**{**values, "sections": tuple(_section(section) for section in written["sections"])})


def _plain(value: Any) -> Any:
    """For JSON, which has no word for a number that is not one."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Estimate | Answer):
        return {key: _plain(part) for key, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and isnan(value) else value


def _section(value: WrittenSection) -> Section:
    def row(values: WrittenRow) -> Row:
        low, middle, high = (nan if n is None else n for n in map(values["value"].get, ("low", "value", "high")))
        return Row(**{**values, "value": Estimate(middle, low, high)})  # type: ignore[arg-type]  # its keys are Row's

    return Section(
        title=value["title"],
        rows=tuple(row(values) for values in value["rows"]),
        sentences=tuple(value["sentences"]),
        absent=value["absent"],
        answers=tuple(Answer(**answer) for answer in value["answers"]),
    )


def write(report: Report, folder: Path) -> list[Path]:
    """Write metrics.json and index.html into a folder, each whole or not at all; returns their paths."""
    own_folder(folder)
    write_json(folder / JSON, report.to_json())  # first: it says whose the folder is
    write_file(folder / HTML, lambda file: file.write(to_html(report).encode()))
    return [folder / JSON, folder / HTML]


def kept(folder: Path, model: GenerativeModel, settings: Settings) -> Report | None:
    """The report in a folder, when it is of this very model, made with these settings by this version; else None.

    Errors: `RunError` when it is damaged.
    """
    try:
        head: Head = read_json(folder / JSON, Head)
        if head["format"] != FORMAT or head["versions"].get("fabulate") != version("fabulate"):
            return None
        report = Report.of(read_json(folder / JSON, Written))
    except FileNotFoundError:
        return None
    except RunError as error:
        raise RunError(f"{error}. Remove it, and it is made anew") from error
    return report if report.settings == settings and report.model_sha256 == model.weights_hash() else None


def to_html(report: Report) -> str:
    """The report as a page."""
    settings, features = report.settings, report.features
    told = [str(features["name"])]
    if "accuracy" in features:
        told.append(f"right for {features['accuracy']['value']:.1%} of the test images")
    head = page.facts(
        [
            ("family", report.family + (", class-conditional" if report.classes else "")),
            ("model", f"{report.parameters:,} parameters, {report.model_sha256[:12]}"),
            ("images", f"{report.data}, {settings.data[:12]}"),
            ("compared", f"{settings.n:,} samples with {report.real:,} {report.reference}"),
            ("features", ", ".join(told)),
            ("drawn with", f"seed {settings.seed}, {report.sampling_seconds:.1f} s"),
            ("date", report.date),
        ]
    )
    warnings = "".join(f"<li>{escape(words)}</li>" for words in report.warnings)
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    body = [
        f'<p class="eyebrow">fabulate evaluate</p><h1>{escape(report.name)}</h1>',
        f"<section>{head}" + (f'<ul class="sentences">{warnings}</ul>' if warnings else "") + "</section>",
        page.answers(report.answers),
        *(page.section(section) for section in report.sections),
        f"<footer><p>{escape(READING)}</p><p>Time: {escape(took)}. Made with {escape(versions)}. "
        f"All numbers: {JSON}.</p></footer>",
    ]
    return page.page(f"{report.name}: evaluation", "\n".join(body))


READING = (
    "How to read: each value stands with its 95 % interval and, where it has them, two anchors. “Perfect” is what the "
    "number would be for a perfect model, mostly by putting training images in the place of samples. “Noise” is what "
    "images of uniform noise score. Distances are squares, so their scale is drawn by the square root. Intervals tell "
    "how far the number depends on which images happened to be drawn, not on the training: another seed of training "
    "gives another model."
)


def notebook(report: Report) -> str:
    """The answers and the numbers as HTML in the colours that are around it."""
    said = [(answer.question, f"{answer.verdict}. {answer.because}") for answer in report.answers]
    numbers = [(row.name, row_words(row)) for section in report.sections for row in section.rows]
    return card(f"{report.name}: {report.family} on {report.data}", [*said, *numbers])


def row_words(row: Row) -> str:
    """A number with its interval and its anchors.

    >>> row_words(Row(name="Precision", value=Estimate(0.5, 0.4, 0.6), better="higher", floor=0.75, noise=0.0))
    '0.5 (95 %: 0.4 to 0.6), a perfect model 0.75, noise 0'
    """
    within = page.interval(row.value)
    anchors = [
        f"{name} {page.number(value)}"
        for name, value in (("a perfect model", row.floor), ("noise", row.noise))
        if page.number(value)
    ]
    return ", ".join([page.number(row.value.value) + (f" (95 %: {within})" if within else ""), *anchors])


def table(report: Report) -> "Table":
    """The numbers as a table for the console."""
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "value", "95 % interval", "perfect", "noise"):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    for section in report.sections:
        if section.rows:
            table.add_row(f"[bold]{plain(section.title)}")
        for row in section.rows:
            numbers = page.number(row.value.value), page.interval(row.value)
            table.add_row(f"  {plain(row.name)}", *numbers, page.number(row.floor), page.number(row.noise))
    return table
