"""What a page says: numbers with intervals and anchors, and verdicts with grades.

A number means little alone. A `Row` sets it between two anchors, what a perfect model shows and what noise shows; a
`Card` says in a word what numbers mean for a question that people ask.
"""

from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from fabulate.metrics.intervals import Estimate

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
