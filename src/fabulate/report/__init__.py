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

`page.py` has what is said, `Row` (a number, its interval and its anchors), `Card` (a verdict and its grade) and how
numbers are written, and the blocks: `Facts`, `Rows`, `Table` (with `Cell`), `Figures`, `Sounds`, `Marked`, `Notes`,
`Absent`, `Folded`. `plots.py` draws charts in one style. A new kind of block is a class in `page.py` and a template of
its name in `templates/blocks/`; `templates/style.css` is the style of all pages, light and dark.
"""

from fabulate.report.page import (
    BETTER,
    Absent,
    Better,
    Block,
    Card,
    Cell,
    Facts,
    Figure,
    Figures,
    Folded,
    Grade,
    Marked,
    Marks,
    Notes,
    Page,
    Row,
    Rows,
    Section,
    Sound,
    Sounds,
    Table,
    graded,
    interval,
    number,
    percent,
    points,
    write_page,
)

__all__ = [
    "BETTER",
    "Absent",
    "Better",
    "Block",
    "Card",
    "Cell",
    "Facts",
    "Figure",
    "Figures",
    "Folded",
    "Grade",
    "Marked",
    "Marks",
    "Notes",
    "Page",
    "Row",
    "Rows",
    "Section",
    "Sound",
    "Sounds",
    "Table",
    "graded",
    "interval",
    "number",
    "percent",
    "points",
    "write_page",
]
