"""A page made of blocks, and how it becomes HTML: one file that opens from the disk, without scripts.

Each class of block has a template of its name in `templates/blocks/`, which gets it as `block`. All texts are escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fabulate.files import write_file
from fabulate.pictures import img
from fabulate.report.rows import BETTER, Card, Row, number

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image
    from rich.table import Table as ConsoleTable


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


Block = Facts | Rows | Table | Figures | Notes | Absent | Folded


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
