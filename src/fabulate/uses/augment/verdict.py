"""What a proof says: did synthetic images help, what to do, and what the test could have seen.

Synthetic images help where `both` is significantly better than *every* way without them. Each comparison is at 2.5 % on
its side, and all must hold, so where nothing differs "yes" is said at most that often (intersection-union test: Berger,
"Multiparameter hypothesis testing and acceptance sampling", 1982, https://doi.org/10.2307/1267823). Every sentence
follows from an interval; where it holds 0, nothing is claimed. Then it says which gain would have been found 8 times in
10, since "not significant" means little without.
"""

from math import sqrt
from typing import NamedTuple

from fabulate.metrics.intervals import Estimate
from fabulate.report import Grade
from fabulate.report import points as points_to
from fabulate.uses.augment.proof import FREE, Difference, Proof, freedom, variances

FEW = 30  # test images of a class below which its recall is hardly known
MOST_SEEDS = 50
POINT, POWER = 0.01, 0.8  # a gain that is worth the trouble, and how often it shall be found


class Verdict(NamedTuple):
    """The answer to "did synthetic images help?"."""

    word: str
    grade: Grade
    sentences: tuple[str, ...]


def verdict(proof: Proof) -> Verdict:
    """What the differences say.

    The first sentence answers; the second says what to do; then the numbers behind it, the classes that gained or lost,
    what the test could see, and what must be known.
    """
    best = max(FREE, key=lambda name: proof.accuracy(name).value)
    word, grade, first = answer(proof)
    ways, twin = proof.recipe.baselines(), proof.recipe.twin
    on_top, without = proof.difference("both", twin), proof.difference("synthetic", "real")
    free = proof.difference(best, "real").value
    sentences = [first]
    if word == "yes":
        sentences.append(f"Recommended: both ({ways['both'].words}).")
    elif best != "real" and free.sign > 0:
        sentences.append(f"Recommended: {best} ({ways[best].words}), {points(free)} above real.")
    else:
        sentences.append("Recommended: the real images as they are; nothing that was tried is significantly better.")
    sentences.append(
        f"Balanced accuracy: {points(on_top.value)} by synthetic images on top of {twin}, {points(without.value)} "
        "where nothing else is done (synthetic against real)."
    )
    sentences += changed(proof, on_top)
    sentences.append(power(proof, best))
    counts = {name: int((proof.y == k).sum()) for k, name in enumerate(proof.classes)}
    few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
    if few:
        sentences.append(f"Few test images, so little is known of: {', '.join(few)}.")
    return Verdict(word, grade, tuple(sentences))


def answer(proof: Proof) -> tuple[str, Grade, str]:
    """Did synthetic images help: in a word, the grade, in a sentence."""
    signs = {name: proof.difference("both", name).value.sign for name in FREE}
    twin = proof.recipe.twin
    better = [name for name, sign in signs.items() if sign < 0]
    equal = [name for name, sign in signs.items() if sign == 0]
    if signs[twin] < 0:
        return "no", "poor", f"Synthetic images did harm: {twin} without them is better than the same with them."
    if better:
        return "no", "poor", f"Synthetic images did not help: {listed(better)} without them is better."
    if not equal:
        return "yes", "good", "Synthetic images helped: with them it is better than in every way without."
    if signs[twin] > 0:
        return "only a little", "fair", f"Synthetic images helped on top of {twin}, but {listed(equal)} may do as well."
    if proof.difference("synthetic", "real").value.sign > 0:
        first = (
            f"Synthetic images helped only where nothing else was done: {twin}, which costs nothing, may do as well."
        )
        return "only a little", "fair", first
    return "no", "poor", "Synthetic images did not help here, or by less than this test can see."


def changed(proof: Proof, difference: Difference) -> list[str]:
    """Which classes gained and which lost, for certain."""
    by_class = list(zip(proof.classes, difference.by_class, strict=True))
    found = []
    for words, told in (
        ("Found more often", [(name, d) for name, d in by_class if d.low > 0]),
        ("Found less often", [(name, d) for name, d in by_class if d.high < 0]),
    ):
        if told:
            found.append(f"{words} than by {proof.recipe.twin}: " + "; ".join(f"{n}: {points(d)}" for n, d in told))
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


def visible(parts: list[tuple[float, int]]) -> float:
    """The true difference that is found significant 8 times in 10."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, freedom(parts)) + norm.ppf(POWER)) * sqrt(sum(v for v, _ in parts))


def power(proof: Proof, best: str) -> str:
    """Which gain over the best way without synthetic images the test can see, and what it would take to see a point."""
    values = proof.right["both"].double() - proof.right[best].double()
    seeds = len(values)
    (v, _), *images = variances(values, proof.y, -1.0)[1]
    now = visible([(v, seeds - 1), *images])
    told = f"A gain of {100 * now:.2g} points over {best} would be found 8 times in 10"
    if now <= POINT:
        return f"{told}."
    more = next((n for n in range(seeds, MOST_SEEDS + 1) if visible([(v * seeds / n, n - 1), *images]) <= POINT), None)
    if more is not None:
        return f"{told}; for one point it takes some {more} seeds."
    times = visible(images) ** 2 / POINT**2
    return f"{told}; for one point it takes {max(times, 1):.2g} times as many test images, and more seeds."
