"""A report: what was evaluated, on what, with which settings, and the sections that came of it.

`metrics.json` holds all of it but the pictures and goes back and forth unchanged; `index.html` is for people.
"""

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from fabulate.errors import RunError
from fabulate.evaluation.subject import Findings
from fabulate.files import own_folder, read_json, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.pictures import card
from fabulate.report import Card, Cell, Facts, Notes, Page, Row, Section, Table, number, write_page

FORMAT: Literal[2] = 2  # of metrics.json; raised when a newer fabulate could misread an older file
JSON, HTML = "metrics.json", "index.html"


@with_config(ConfigDict(extra="ignore"))
class Head(TypedDict):
    """What metrics.json of every version says: by which it was written."""

    format: int
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a report's numbers depend on besides the code: equal settings, comparable reports."""

    data: str
    """The images' fingerprint."""
    n: int
    """Samples drawn."""
    seed: int
    features: str
    """As they were asked for: "auto", "pixels" or another name."""
    k: int
    """Codes of each image in the importance-weighted bound."""
    images: int
    """Whose likelihood is computed, at most."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of a model after its evaluation; its fields are those of metrics.json."""

    format: Literal[2] = FORMAT
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
    sections: tuple[Findings, ...]

    @property
    def rows(self) -> dict[str, Row]:
        """All numbers by their names."""
        return {row.name: row for section in self.sections for row in section.rows}

    @property
    def cards(self) -> tuple[Card, ...]:
        """What stands at the head: the questions people ask."""
        return tuple(one for section in self.sections for one in section.cards)

    def _repr_html_(self) -> str:
        """What a notebook shows: the cards and all numbers. The page of `write` has the pictures too."""
        said = [(one.question, f"{one.verdict}. {one.because}") for one in self.cards]
        numbers = [(row.name, str(row)) for row in self.rows.values()]
        return card(f"{self.name}: {self.family} on {self.data}", [*said, *numbers])

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        sections = [replace(section, pictures={}) for section in self.sections]
        return _plain(asdict(replace(self, sections=tuple(sections))))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Report":
        """A report without pictures. Errors: pydantic's `ValidationError`, a `ValueError`, when it is none."""
        return TypeAdapter(cls).validate_python(value)


def _plain(value: Any) -> Any:
    """For JSON, which has no word for a number that is not one."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key != "pictures"}
    if isinstance(value, Estimate | Card):
        return {key: _plain(part) for key, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and isnan(value) else value


def write(report: Report, folder: Path) -> list[Path]:
    """Write metrics.json and index.html into a folder, each whole or not at all; returns their paths."""
    own_folder(folder)
    write_json(folder / JSON, report.to_json())  # first: it says whose the folder is
    write_page(folder / HTML, page(report))
    return [folder / JSON, folder / HTML]


def kept(folder: Path, model: GenerativeModel, settings: Settings) -> Report | None:
    """The report in a folder, when it is of this very model, made with these settings by this version; else None.

    Errors: `RunError` when it is damaged.
    """
    try:
        head: Head = read_json(folder / JSON, Head)
        if head["format"] != FORMAT or head["versions"].get("fabulate") != version("fabulate"):
            return None
        report: Report = read_json(folder / JSON, Report)
    except FileNotFoundError:
        return None
    except RunError as error:
        raise RunError(f"{error}. Remove it, and it is made anew") from error
    return report if report.settings == settings and report.model_sha256 == model.weights_hash() else None


def page(report: Report) -> Page:
    """The report as a page."""
    settings, features = report.settings, report.features
    told = [str(features["name"])]
    if "accuracy" in features:
        told.append(f"right for {features['accuracy']['value']:.1%} of the test images")
    facts = [
        ("family", report.family + (", class-conditional" if report.classes else "")),
        ("model", f"{report.parameters:,} parameters, {report.model_sha256[:12]}"),
        ("images", f"{report.data}, {settings.data[:12]}"),
        ("compared", f"{settings.n:,} samples with {report.real:,} {report.reference}"),
        ("features", ", ".join(told)),
        ("drawn with", f"seed {settings.seed}, {report.sampling_seconds:.1f} s"),
        ("date", report.date),
    ]
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return Page(
        kind="fabulate evaluate",
        title=report.name,
        about=f"{report.name}: evaluation",
        cards=report.cards,
        sections=[Section("", [Facts(facts), Notes(report.warnings)]), *(part.section() for part in report.sections)],
        footer=[READING, f"Time: {took}. Made with {versions}. All numbers: {JSON}."],
    )


READING = (
    "How to read: each value stands with its 95 % interval and, where it has them, two anchors. “Perfect” is what the "
    "number would be for a perfect model, mostly by putting training images in the place of samples. “Noise” is what "
    "images of uniform noise score. Distances are squares, so their scale is drawn by the square root. Intervals tell "
    "how far the number depends on which images happened to be drawn, not on the training: another seed of training "
    "gives another model."
)


def table(report: Report) -> Table:
    """The numbers as a table for the console."""
    rows: list[list[str | Cell]] = []
    for section in report.sections:
        if section.rows:
            rows.append([Cell(section.title, bold=True), "", "", "", ""])
        for row in section.rows:
            values = number(row.value.value), row.interval, number(row.floor), number(row.noise)
            rows.append([f"  {row.name}", *values])
    return Table(["", "value", "95 % interval", "perfect", "noise"], rows)
