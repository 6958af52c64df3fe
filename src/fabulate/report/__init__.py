"""Report: what every page and every table of results is made of.

How a new page is made. Say what it tells as blocks in sections, and write it; there is no HTML to write:

    from fabulate.report import Card, Facts, Figure, Figures, Notes, Page, Section, Table, write_page

    page = Page(
        kind="fabulate rare",                                     # small, above the title
        title="vae-mnist",
        about="Rare images of vae-mnist",                         # of the browser's window
        cards=[Card("Are they rare?", "yes", "One in 12,000 plain samples.", "good")],
        sections=[
            Section("", [Facts([("images", "64"), ("seed", "0")]), Notes(["A warning."])]),
            Section("The tail", [Figures([Figure(picture, "What it shows.")])]),
            Section("Numbers", [Table(["class", "recall"], [["cat", percent(recall)]])]),
        ],
    )
    write_page(folder / "rare.html", page)
    rich.print(table.to_console())                                # a `Table` in the terminal

A number means little alone. A `Row` sets it between two anchors, what a perfect model shows and what noise shows; a
`Card` says in a word what numbers mean for a question that people ask. A page is one file that opens from the disk,
without scripts; all texts are escaped. `plots.py` draws charts in one style. A new kind of block is a class here and a
template of its name in `templates/blocks/`, which gets it as `block`; `templates/style.css` is the style of all pages,
light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isnan, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from fabulate.files import write_file
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import img

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image
    from rich.table import Table as ConsoleTable

Better = Literal["lower", "higher", "neither"]
Grade = Literal["good", "fair", "poor", "unknown"]

BETTER: dict[Better, str] = {"lower": "lower is better", "higher": "higher is better", "neither": ""}


def _estimate(value: Any) -> Any:
    """Of an estimate in JSON, which has no word for what is not a number, its parts."""
    if not isinstance(value, dict):
        return value
    if value.keys() != set(Estimate._fields):
        raise ValueError(f"an estimate has {', '.join(Estimate._fields)}")
    return tuple(nan if value[part] is None else value[part] for part in Estimate._fields)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a report."""

    name: str
    """In the field's words, e.g. "Fréchet distance"; with its unit, e.g. "ELBO (nats)"."""
    value: Annotated[Estimate, BeforeValidator(_estimate)]
    better: Better
    floor: float | None = None
    """What a perfect model would show with as many samples: training images in the place of samples."""
    noise: float | None = None
    """What uniform noise in the place of samples shows."""
    words: str = ""
    """What the number means, in a phrase."""

    @property
    def interval(self) -> str:
        """The 95 % interval in words, or nothing where there is none."""
        return interval(self.value)

    @property
    def anchored(self) -> bool:
        """Whether the value can be drawn between noise and a perfect model."""
        return None not in (self.floor, self.noise) and self.floor != self.noise and not isnan(self.value.value)

    def reached(self, value: float) -> float:
        """Where a value lies between what noise shows (0) and what a perfect model shows (1).

        Distances to be made small are squares, so the root of the share is taken; all other shares as they are.

        >>> row = Row(name="", value=Estimate(26), better="lower", floor=1, noise=101)
        >>> row.reached(1), row.reached(26), row.reached(101), row.reached(500)
        (1.0, 0.5, 0.0, 0.0)
        """
        assert self.floor is not None and self.noise is not None
        if self.floor == self.noise:
            return 1.0
        share = min(max((value - self.floor) / (self.noise - self.floor), 0.0), 1.0)
        return 1 - (sqrt(share) if self.better == "lower" else share)

    def __str__(self) -> str:
        """The number with its interval and its anchors.

        >>> print(Row(name="Precision", value=Estimate(0.5, 0.4, 0.6), better="higher", floor=0.75, noise=0.0))
        0.5 (95 %: 0.4 to 0.6), a perfect model 0.75, noise 0
        """
        within = f" (95 %: {self.interval})" if self.interval else ""
        anchors = (("a perfect model", self.floor), ("noise", self.noise))
        return ", ".join(
            [number(self.value.value) + within, *(f"{name} {number(at)}" for name, at in anchors if number(at))]
        )


class Card(NamedTuple):
    """A question that people ask, and what the numbers say to it."""

    question: str
    """e.g. "Is it good?"."""
    verdict: str
    """In a word or two, e.g. "mostly"."""
    because: str
    """The numbers behind it, in a sentence."""
    grade: Grade
    """For the colour beside it."""

    def __str__(self) -> str:
        """As the console says it."""
        return f"{self.question} {self.verdict[:1].upper()}{self.verdict[1:]}. {self.because}"


# How much of the way from noise to a perfect model was made, and what that is called.
GRADES: list[tuple[float, str, Grade]] = [(0.95, "yes", "good"), (0.8, "mostly", "fair"), (0.5, "partly", "fair")]


def graded(question: str, row: Row, because: str) -> Card:
    """A card by where a row's value lies between its anchors.

    >>> row = Row(name="Precision", value=Estimate(0.6), better="higher", floor=0.8, noise=0.0)
    >>> graded("Is it good?", row, "60 % look real.").verdict
    'partly'
    """
    for least, verdict, grade in GRADES:
        if row.reached(row.value.value) >= least:
            return Card(question, verdict, because, grade)
    return Card(question, "no", because, "poor")


def number(value: float | None) -> str:
    """A number as people read it, to four digits; nothing for what is not known.

    >>> number(12.3456), number(12345.6), number(0.00001234), number(None)
    ('12.35', '12,346', '1.234e-05', '')
    """
    if value is None or isnan(value):
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def interval(value: Estimate) -> str:
    """The interval in words, or nothing where there is none."""
    return "" if isnan(value.low) else f"{number(value.low)} to {number(value.high)}"


def percent(share: Estimate, digits: int = 1) -> str:
    """A share with its interval.

    >>> percent(Estimate(0.5, 0.4, 0.6))
    '50.0 % (40.0 to 60.0)'
    """
    value, low, high = (f"{100 * part:.{digits}f}" for part in share)
    return f"{value} % ({low} to {high})"


def points(difference: Estimate, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its interval.

    >>> points(Estimate(0.012, -0.001, 0.025))
    '+1.2 points (-0.1 to +2.5)'
    """
    value, low, high = (f"{100 * part:+.{digits}f}" for part in difference)
    return f"{value} points ({low} to {high})"


# Blocks


@dataclass(frozen=True)
class Facts:
    """Names and values, side by side in columns."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Rows:
    """Numbers with their intervals, drawn between their anchors."""

    rows: Sequence[Row]


class Cell(NamedTuple):
    """A cell of a table that is more than a plain text."""

    text: str
    note: str = ""
    """Small words below the text."""
    bold: bool = False
    good: bool = False
    """Marked as the better of several."""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a heading: cells are texts, or `Cell`s where they are more."""

    columns: Sequence[str | Cell]
    rows: Sequence[Sequence[str | Cell]]

    def to_console(self) -> "ConsoleTable":
        """The same for the console: texts without notes and links, numbers to the right of the first column."""
        from rich.table import Table as ConsoleTable
        from rich.text import Text

        table = ConsoleTable(box=None, pad_edge=False, header_style="dim")
        for place, column in enumerate(self.columns):
            table.add_column(Text(_text(column)), justify="right" if place else "left", overflow="fold")
        for row in self.rows:
            bold = (isinstance(cell, Cell) and cell.bold for cell in row)
            table.add_row(*(Text(_text(cell), "bold" if b else "") for cell, b in zip(row, bold, strict=True)))
        return table


class Figure(NamedTuple):
    """A picture with what it shows."""

    image: "Image"
    caption: str
    title: str = ""
    """In bold before the caption."""


@dataclass(frozen=True)
class Figures:
    """Pictures beside each other, as wide as they are; `small`: in a grid of narrow columns."""

    figures: Sequence[Figure]
    small: bool = False


class Sound(NamedTuple):
    """A sound with what is written of it; `source` is its file's path beside the page, empty where there is none."""

    title: str
    caption: str
    source: str
    text: str


@dataclass(frozen=True)
class Sounds:
    """Sounds below each other, to be played."""

    sounds: Sequence[Sound]


class Marks(NamedTuple):
    """An item whose symbols are marked: each with how much, from 0 (not) to 1."""

    title: str
    caption: str
    symbols: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Marked:
    """Items whose symbols are marked, below each other."""

    items: Sequence[Marks]


@dataclass(frozen=True)
class Notes:
    """Sentences below each other: what must be known to read the numbers, warnings.

    `line`: they mark a border in what stands above and below, as a threshold does.
    """

    sentences: Sequence[str]
    line: bool = False


@dataclass(frozen=True)
class Absent:
    """What is not measured, and why."""

    reasons: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """Blocks that show when a reader opens them."""

    summary: str
    blocks: Sequence["Block"]


Block = Facts | Rows | Table | Figures | Sounds | Marked | Notes | Absent | Folded


class Section(NamedTuple):
    """Blocks in a frame, below a title where there is one. Blocks without content take no room."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page."""

    kind: str
    """What made it, e.g. "fabulate evaluate"."""
    title: str
    about: str
    """The name of the browser's window, e.g. "vae-mnist: evaluation"."""
    cards: Sequence[Card] = ()
    """What stands above everything: the questions people ask."""
    sections: Sequence[Section] = ()
    footer: Sequence[str] = ()

    def to_html(self) -> str:
        """The page, with its style and its pictures inside."""
        return _environment().get_template("page.html").render(page=self)


def write_page(path: Path, page: Page) -> None:
    """Write a page, whole or not at all; what is no character of Unicode in a file's name is a question mark."""
    write_file(path, lambda file: file.write(page.to_html().encode("utf-8", "replace")))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("fabulate.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = number
    environment.filters["cell"] = lambda cell: cell if isinstance(cell, Cell) else Cell(cell)
    environment.filters["template"] = lambda block: f"blocks/{type(block).__name__.lower()}.html"
    environment.globals["better"] = BETTER
    environment.globals["img"] = lambda figure: Markup(img(figure.image, figure.title or figure.caption))
    return environment


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text
