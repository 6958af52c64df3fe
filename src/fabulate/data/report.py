"""What intake saw and did, told plainly: counts, sizes, modes, classes, duplicates, what was set aside and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from fabulate.config import spec
from fabulate.types import ImageShape

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 20  # longer lists end in "... and N more"
_BAR = 24  # characters of the longest bar in the class table


@spec
class Report:
    """What the intake reports of all media share; it goes through JSON unchanged."""

    found: int
    """Files, rows or lines found."""
    kept: int
    """Items that can be trained on or tested with."""
    set_aside: tuple[tuple[str, str], ...] = ()
    """Name and reason of each item that was found but cannot be used."""
    looked_at: int | None = None
    """Items that were looked at, where that was not all: sizes, modes and what was set aside are theirs."""
    ignored: dict[str, int] = Field(default_factory=dict)
    """Files that are no items by the ending of their name: how many of each ending."""
    train: int
    """Training items."""
    test: int
    """Test items."""
    train_classes: dict[str, int]
    """Training items of each class; empty without classes."""
    test_classes: dict[str, int]
    """Test items of each class; empty without classes."""
    duplicates: int
    """Items that equal an earlier one."""
    duplicate_pairs: tuple[tuple[str, str], ...]
    """The first few of them: the earlier item and its repetition."""
    shared: int
    """Test items that also stand in the training part."""
    notes: tuple[str, ...] = ()
    """Sentences: conversions that were made, and what is worth knowing."""
    warnings: tuple[str, ...] = ()
    """Sentences that every verb says: items that were left out, and labels that cannot be used."""

    @property
    def medium(self) -> str:
        """What the items are called."""
        raise NotImplementedError

    @property
    def shape_told(self) -> str:
        """The shape of an item, in words."""
        raise NotImplementedError

    @property
    def legend(self) -> str:
        """What a picture of the items says of them too."""
        return ""

    def details(self) -> Iterator[tuple[str, str]]:
        """What is told of the items of this medium alone, as (heading, text)."""
        raise NotImplementedError

    @property
    def warning(self) -> str | None:
        """Lines for who does not look at the report: what was set aside, left out and ignored; None for nothing."""
        told = [f"Warning: {sentence}." for sentence in self.warnings]
        if self.set_aside:
            name, reason = self.set_aside[0]
            looked_at = f"{self.found:,} files" if self.looked_at is None else f"{self.looked_at:,} images looked at"
            told.insert(
                0,
                f"Warning: {len(self.set_aside):,} of {looked_at} cannot be read and are set aside "
                f"(the first: {name}, {reason}); `fabulate data` lists them.",
            )
        if self.ignored:
            told.append(f"Note: {ignored_files(self.ignored, self.medium)}.")
        return "\n".join(told) or None

    def _repr_html_(self) -> str:
        """What a notebook shows: the report as a table."""
        from fabulate.pictures import card

        return card("What was found", rows(self))


@spec
class ImageReport(Report):
    """The intake report of images."""

    channels: int
    """1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha."""
    height: int
    """Pixels from top to bottom, after resizing."""
    width: int
    """Pixels from left to right, after resizing."""
    sizes: dict[str, int]
    """Images of each size, height x width as found, the most frequent first."""
    cut: tuple[float, float, str] | None = None
    """Shares (0..1) of the images' area that cropping cuts away: on average, at most, and of which; None: nothing."""
    modes: dict[str, int]
    """Images of each Pillow mode as found, the most frequent first."""

    @property
    def medium(self) -> str:
        return "images"

    @property
    def shape_told(self) -> str:
        return str(ImageShape(self.channels, self.height, self.width))

    @property
    def legend(self) -> str:
        return "" if self.cut is None else f"; cropped: {100 * self.cut[0]:.0f} % of the area is cut away"

    def details(self) -> Iterator[tuple[str, str]]:
        yield "sizes", _counts(self.sizes)
        if self.cut is not None:
            yield "cut away", cut_in_words(self.cut)
        yield "modes", _counts(self.modes)


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(1797, "image")
    ('1 image', '1,797 images')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Sequence[str], limit: int = _SHOWN) -> list[str]:
    """The first words of a list, and how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    ['a', 'b', '... and 1 more']
    """
    more = len(words) - limit
    return [*words[:limit], *([f"... and {more:,} more"] if more > 0 else [])]


def ignored_files(ignored: Mapping[str, int], what: str = "images") -> str:
    """How many files were ignored, and why.

    >>> ignored_files({".txt": 2, "": 1})
    '3 files ignored, which are no images by their ending: .txt (2), without one (1)'
    """
    one = sum(ignored.values()) == 1
    why = f"which is no {what.removesuffix('s')} by its ending" if one else f"which are no {what} by their ending"
    endings = {ending or "without one": n for ending, n in ignored.items()}
    return f"{counted(sum(ignored.values()), 'file')} ignored, {why}: {_counts(endings)}"


def cut_in_words(cut: tuple[float, float, str]) -> str:
    """What cropping cuts away.

    >>> cut_in_words((0.25, 0.5, "wide.png"))
    '25 % of the area on average, at most 50 % (wide.png); --fit pad or stretch keeps all of it'
    """
    mean, most, name = cut
    shares = f"{100 * mean:.0f} % of the area on average, at most {100 * most:.0f} %"
    return f"{shares} ({name}); --fit pad or stretch keeps all of it"


def rows(report: Report) -> Iterator[tuple[str, str]]:
    """The report as (heading, text) rows; rows that continue the one above have no heading."""
    yield report.medium, f"{report.train:,} to train, {report.test:,} to test, {report.shape_told}"
    aside = f", {len(report.set_aside):,} set aside" if report.set_aside else ""
    other = [ignored_files(report.ignored, report.medium)] if report.ignored else []
    if report.looked_at is None:
        yield from _under("files", [f"{report.found:,} found, {report.kept:,} kept{aside}", *other])
    else:
        yield "files", f"{report.found:,} images found, {report.looked_at:,} looked at{aside}"
    yield from report.details()
    yield from _under("classes", listed(list(_class_lines(report))))
    if report.duplicates:
        one = report.medium.removesuffix("s")
        shared = f"; {counted(report.shared, f'test {one}')} also in the training part" if report.shared else ""
        repeat = f"{one} repeats an earlier one" if report.duplicates == 1 else f"{report.medium} repeat an earlier one"
        pairs = [f"{first} = {second}" for first, second in report.duplicate_pairs]
        more = ["..."] if report.duplicates > len(pairs) else []
        yield from _under("duplicates", [f"{report.duplicates:,} {repeat}{shared}", *pairs, *more])
    else:
        yield "duplicates", "none" if report.looked_at is None else "not looked for"
    yield from _under("set aside", listed([f"{name}: {reason}" for name, reason in report.set_aside]))
    yield from _under("warnings", [f"- {warning}" for warning in report.warnings])
    yield from _under("notes", [f"- {note}" for note in report.notes])


def render(report: Report) -> "Table":
    """The report as a table for rich's console."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    style = ""
    for heading, text in rows(report):
        if heading:
            style = "yellow" if heading in ("set aside", "warnings") else ""
        table.add_row(heading, Text(text, style=style))  # Text: a file name may hold what looks like markup
    return table


def _under(heading: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for i, text in enumerate(texts):
        yield ("" if i else heading), text


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(listed([f"{name} ({n:,})" for name, n in counts.items()], limit=6))


def _class_lines(report: Report) -> Iterator[str]:
    if not report.train_classes:
        yield f"none: the {report.medium} have no labels"
        return
    wide = max(len(name) for name in report.train_classes)
    most = max(1, *report.train_classes.values())
    tested = bool(report.test_classes) or not report.test
    for name, n in report.train_classes.items():
        test = f"{report.test_classes.get(name, 0):>7,} test" if tested else ""
        bar = "█" * round(_BAR * n / most) or "▏"
        yield f"{name:<{wide}} {n:>8,} train {test}  {bar}"
