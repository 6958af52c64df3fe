"""What a proof says, in words. Every sentence follows from an interval; where it holds 0, nothing is claimed."""

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.metrics.intervals import Estimate
from fabulate.uses.augment.proof import BASELINES, PAIRS, WITH, Difference, Proof

RECORD = "proof.json"
Grade = Literal["good", "fair", "poor"]
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
        else f"The better way with synthetic images, {best}, is significantly better than none of those without them."
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


def points(value: Estimate) -> str:
    """A difference of shares in percentage points.

    >>> points(Estimate(0.0123, -0.001, 0.0256))
    '+1.23 points (-0.10 to +2.56)'
    """
    return f"{100 * value.value:+.2f} points ({100 * value.low:+.2f} to {100 * value.high:+.2f})"


def listed(names: list[str]) -> str:
    """Names with commas and an "and".

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """proof.json, as far as it says whose a folder is; beside it the verb writes which images were compared."""

    helped: str
    sentences: list[str]
    classes: list[str]
    test_images: list[int]
    steps: int


def to_json(proof: Proof) -> dict[str, Any]:
    """All numbers of a proof, as JSON."""
    said = verdict(proof)
    return {
        "helped": said.word,
        "sentences": list(said.sentences),
        "classes": list(proof.classes),
        "test_images": [int((proof.y == k).sum()) for k in range(len(proof.classes))],
        "steps": proof.steps,
        "baselines": {
            name: {
                "words": way.words,
                "images": proof.sizes[name],
                "balanced_accuracy": numbers(proof.accuracy(name)),
                "recall": [numbers(recall) for recall in proof.recalls(name)],
            }
            for name, way in BASELINES.items()
        },
        "differences": [
            {
                "first": first,
                "second": second,
                "balanced_accuracy": numbers(difference.value),
                "recall": [numbers(d) for d in difference.by_class],
            }
            for first, second in PAIRS
            for difference in [proof.difference(first, second)]
        ],
    }


def numbers(value: Estimate) -> dict[str, float | None]:
    """An estimate as JSON, which has no number that is none."""
    low, middle, high = (None if number != number else number for number in (value.low, value.value, value.high))
    return {"value": middle, "low": low, "high": high}
