"""What a proof says, in words. Every sentence follows from an interval; where it holds 0, nothing is claimed."""

from typing import NamedTuple

from fabulate.metrics.intervals import Estimate
from fabulate.report import Grade
from fabulate.report import points as points_to
from fabulate.uses.augment.proof import BASELINES, WITH, Difference, Proof

FEW = 30  # test images of a class below which its recall is hardly known

BEST: dict[tuple[int, int], tuple[str, Grade, str]] = {
    (1, 1): ("yes", "good", "Synthetic images helped, with and without random shifts."),
    (1, 0): ("yes", "good", "Synthetic images helped on top of random shifts."),
    (1, -1): ("yes", "good", "Synthetic images helped on top of random shifts; without shifts they did harm."),
    (0, 1): ("only a little", "fair", "Synthetic images helped only where nothing else was done: random shifts, which "
             "cost nothing, make up for them."),
    (0, 0): ("no", "poor", "Synthetic images did not help here, or by less than this test can see."),
    (0, -1): ("no", "poor", "Synthetic images did not help here; without random shifts they did harm."),
    (-1, 1): ("no", "poor", "Synthetic images did harm on top of random shifts: leave them out, and shift."),
    (-1, 0): ("no", "poor", "Synthetic images did harm on top of random shifts."),
    (-1, -1): ("no", "poor", "Synthetic images did harm, with and without random shifts."),
}  # fmt: skip
"""By the signs of both - classic and of synthetic - real: in a word, the grade, in a sentence."""


class Verdict(NamedTuple):
    """The answer to "did synthetic images help?"."""

    word: str
    grade: Grade
    sentences: tuple[str, ...]


def verdict(proof: Proof) -> Verdict:
    """What the differences say.

    The first sentence answers; then the numbers behind it, the classes that gained or lost, and what must be known.
    """
    with_shifts, without = proof.difference("both", "classic"), proof.difference("synthetic", "real")
    word, grade, first = BEST[with_shifts.sign, without.sign]
    plain = [name for name in BASELINES if name not in WITH]
    best = max(WITH, key=lambda name: proof.accuracy(name).value)
    better = [name for name in plain if proof.difference(best, name).sign < 0]
    if better and with_shifts.sign >= 0:
        word, grade = "no", "poor"
        first = (
            f"Synthetic images did not help here: {listed(better)} without them is better than either way with them."
        )
    sentences = [
        first,
        f"Balanced accuracy: {points(with_shifts.value)} with random shifts (both against classic), "
        f"{points(without.value)} without (synthetic against real).",
    ]
    beaten = [name for name in plain if proof.difference(best, name).sign > 0]
    rest = [name for name in plain if name not in beaten]
    sentences.append(
        f"The better way with synthetic images, {best}, is significantly better than {listed(beaten)}"
        + (f", and not than {listed(rest)}." if rest else ".")
        if beaten
        else f"The better way with synthetic images, {best}, is not significantly better than any without them."
    )
    sentences += changed(proof, with_shifts)
    counts = {name: int((proof.y == k).sum()) for k, name in enumerate(proof.classes)}
    few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
    if few:
        sentences.append(f"Few test images, so little is known of: {', '.join(few)}.")
    return Verdict(word, grade, tuple(sentences))


def changed(proof: Proof, difference: Difference) -> list[str]:
    """Which classes gained and which lost, for certain."""
    by_class = list(zip(proof.classes, difference.by_class, strict=True))
    found = []
    for words, told in (
        ("Found more often", [(name, d) for name, d in by_class if d.low > 0]),
        ("Found less often", [(name, d) for name, d in by_class if d.high < 0]),
    ):
        if told:
            found.append(f"{words} than with random shifts alone: " + "; ".join(f"{n}: {points(d)}" for n, d in told))
    return [f"{sentence}." for sentence in found]


def points(difference: Estimate) -> str:
    """To hundredths of a point: intervals here are that narrow."""
    return points_to(difference, 2)


def listed(names: list[str]) -> str:
    """Names with commas and an "and".

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
