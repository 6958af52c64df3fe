"""What classifiers that were taught in other ways are worth beside the plain one, in words.

All are tested on the same images, so what counts is the difference image by image. Every word follows from an interval;
where it holds 0, nothing is claimed. Two measures decide: the accuracy where the bias is undone (the mean over pairs of
class and group where groups are known, else by weights), and that over all test images as they are.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.metrics.intervals import Estimate
from fabulate.uses.debias.densities import Numbers
from fabulate.uses.debias.proof import Proof, weighted_mean

RECORD = "debias.json"
Grade = Literal["good", "fair", "poor", "unknown"]

WORDS: dict[tuple[int, int], tuple[str, Grade]] = {
    (1, 1): ("it helps", "good"),
    (1, 0): ("it helps", "good"),
    (1, -1): ("it helps, at a price", "fair"),
    (0, 1): ("it helps, though not against the bias", "fair"),
    (0, 0): ("no difference to be seen", "unknown"),
    (0, -1): ("do not use this", "poor"),
    (-1, 1): ("do not use this", "poor"),
    (-1, 0): ("do not use this", "poor"),
    (-1, -1): ("do not use this", "poor"),
}
"""By the signs of the differences where the bias is undone and over all test images."""


class Verdict(NamedTuple):
    """Whether a way of teaching is worth it."""

    word: str
    because: str
    grade: Grade


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """debias.json: what was made independent of the class, of which images, and what tests say."""

    kind: Literal["debias"]
    source: str
    independent: list[str]
    """Names of factors; the attribute's file where it was given."""
    images: int
    verdicts: dict[str, str]
    accuracy: dict[str, float]
    """Of each way, over all test images."""
    unbiased: dict[str, float]
    """Where the bias is undone, by weights."""


def verdict(found: Proof, plain: Proof) -> Verdict:
    """What a classifier is worth beside the plain one."""
    undone, overall = differences(found, plain)
    word, grade = WORDS[sign(undone), sign(overall)]
    where = "on the mean of pairs of class and group" if plain.pairs else "with the bias undone by weights"
    because = f"Beside images as they are: {points(undone)} {where}, {points(overall)} over all test images."
    return Verdict(word, because, grade)


def verdicts(proofs: Mapping[str, Proof]) -> dict[str, Verdict]:
    """Of each way but the plain one."""
    return {way: verdict(found, proofs["plain"]) for way, found in proofs.items() if way != "plain"}


def differences(found: Proof, plain: Proof) -> tuple[Estimate, Estimate]:
    """By how much the accuracy differs from the plain one's: where the bias is undone, and over all test images."""
    values = found.right.astype(np.float64) - plain.right
    overall = weighted_mean(values, np.ones(len(values)))
    if not plain.members:
        return weighted_mean(values, plain.weights), overall
    parts = [weighted_mean(values[own], np.ones(int(own.sum()))) for own in plain.members.values()]
    mean = float(np.mean([part.value for part in parts]))
    reach = float(np.sqrt(sum(((part.high - part.low) / 2) ** 2 for part in parts))) / len(parts)
    return Estimate(mean, mean - reach, mean + reach), overall


def sign(difference: Estimate) -> int:
    """1 or -1 where the interval is above or below 0, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def points(value: Estimate) -> str:
    """A difference of shares in percentage points.

    >>> points(Estimate(0.012, -0.001, 0.025))
    '+1.2 points (-0.1 to +2.5)'
    """
    return f"{100 * value.value:+.1f} points ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def record(source: str, independent: list[str], weights: Numbers, proofs: Mapping[str, Proof]) -> Record:
    """The numbers of a debiasing."""
    return {
        "kind": "debias",
        "source": source,
        "independent": independent,
        "images": len(weights),
        "verdicts": {way: said.word for way, said in verdicts(proofs).items()},
        "accuracy": {way: found.overall.value for way, found in proofs.items()},
        "unbiased": {way: found.unbiased.value for way, found in proofs.items()},
    }
