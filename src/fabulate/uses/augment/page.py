"""What a proof says: did synthetic images help, what to do, what the test could have seen; on a page, and as numbers.

Synthetic images help where `both` is significantly better than *every* way without them. Each comparison is at 2.5 % on
its side, and all must hold, so where nothing differs "yes" is said at most that often (intersection-union test: Berger,
"Multiparameter hypothesis testing and acceptance sampling", 1982, https://doi.org/10.2307/1267823). Every sentence
follows from an interval; where it holds 0, nothing is claimed. Then it says which gain would have been found 8 times in
10, since "not significant" means little without.
"""

from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.data import Data
from fabulate.files import own_folder, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import save_png, sheet
from fabulate.report import (
    Card,
    Cell,
    Facts,
    Figure,
    Figures,
    Grade,
    Notes,
    Page,
    Section,
    Table,
    percent,
    plots,
    write_page,
)
from fabulate.report import points as points_to
from fabulate.types import Progress
from fabulate.uses.augment.folder import Augmented, Splits, splits
from fabulate.uses.augment.proof import FREE, NAMES, WITH, Difference, Proof, freedom, prove, variances

RECORD = "proof.json"
SHOWN = 8  # real and synthetic images of each class on the page
CLASSES = 12  # shown on the page, the rarest
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


# On disk


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """proof.json, as far as it says whose a folder is."""

    helped: str
    sentences: list[str]
    classes: list[str]
    test_images: list[int]
    steps: int


def prove_folder(
    data: Data,
    made: Augmented,
    out: Path,
    *,
    seeds: int = 5,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Prove whether the synthetic images `made` help on a source, and write proof.html, proof.json and proof.png.

    `about`: what proof.json shall say beside the numbers. Errors: as of `splits` and `prove`.
    """
    material = splits(data, made)
    proof = prove(
        material.real,
        material.synthetic,
        material.test,
        data.classes,
        seeds=seeds,
        steps=steps,
        device=device,
        progress=progress,
    )
    own_folder(out)
    write_json(out / RECORD, {**(about or {}), "seeds": seeds, **made.origin, **to_json(proof)})
    save_png(chart(proof), out / "proof.png")
    write_page(out / "proof.html", page(data.name, proof, material, made))
    return proof


def to_json(proof: Proof) -> dict[str, Any]:
    """All numbers of a proof, as JSON."""
    said = verdict(proof)

    def compared(first: str, second: str) -> dict[str, Any]:
        difference = proof.difference(first, second)
        recall = [numbers(d) for d in difference.by_class]
        return {"first": first, "second": second, "balanced_accuracy": numbers(difference.value), "recall": recall}

    return {
        "helped": said.word,
        "sentences": list(said.sentences),
        "classes": list(proof.classes),
        "test_images": [int((proof.y == k).sum()) for k in range(len(proof.classes))],
        "steps": proof.steps,
        "recipe": proof.recipe._asdict(),
        "baselines": {
            name: {
                "words": way.words,
                "images": proof.sizes[name],
                "balanced_accuracy": numbers(proof.accuracy(name)),
                "recall": [numbers(recall) for recall in proof.recalls(name)],
            }
            for name, way in proof.recipe.baselines().items()
        },
        "differences": [compared(first, second) for first in WITH for second in FREE],
    }


def numbers(value: Estimate) -> dict[str, float | None]:
    """An estimate as JSON, which has no number that is none."""
    return {name: None if part != part else part for name, part in value._asdict().items()}


def page(name: str, proof: Proof, material: Splits, made: Augmented) -> Page:
    """The page: the answer, the numbers, each class, and what the classifiers saw."""
    said, model = verdict(proof), made.manifest["model"]
    facts = [
        ("real images", f"{len(material.real):,}"),
        ("synthetic images", f"{len(material.synthetic):,}"),
        ("test images", f"{len(material.test):,}"),
        ("left out of the test", f"{material.repeated:,} that equal an image learnt from"),
        ("training", f"{proof.right['real'].shape[0]} seeds of {proof.steps:,} steps for each way"),
        ("model", f"{model['family']}, {model['sha256'][:12]}"),
    ]
    caption = "Balanced accuracy of each way to train, and the recall of each class; lines are 95 % intervals."
    return Page(
        kind="fabulate prove",
        title=name,
        about=f"Do synthetic images help? {name}",
        cards=[Card("Did synthetic images help?", said.word, said.sentences[0], said.grade)],
        sections=[
            Section("", [Facts(facts)]),
            Section(
                "Eight ways to train one classifier",
                [table(proof), Notes(said.sentences[1:]), Figures([Figure(chart(proof), caption)])],
            ),
            Section("Recall of each class", [recalls(proof)]),
            Section("What was learnt from", [Figures(pictures(proof.classes, material))]),
        ],
    )


def table(proof: Proof) -> Table:
    """The ways to train, each with what it finds and what `both` finds more."""
    rows: list[list[str | Cell]] = [
        [
            Cell(name, way.words, bold=True),
            f"{proof.sizes[name]:,}",
            Cell(percent(proof.accuracy(name), 2), bold=True),
            "" if name == "both" else points(proof.difference("both", name).value),
        ]
        for name, way in proof.recipe.baselines().items()
    ]
    return Table(["baseline", "images", "balanced accuracy", "both finds more by"], rows)


def recalls(proof: Proof) -> Table:
    """The recall of each class in percent."""
    found = [proof.recalls(name) for name in NAMES]
    twin = proof.recipe.twin
    gains = proof.difference("both", twin).by_class
    rows = [
        [label, f"{n:,}"]
        + (["" for _ in found] + [""] if not n else [f"{100 * of[k].value:.1f}" for of in found] + [points(gains[k])])
        for k, label in enumerate(proof.classes)
        for n in [int((proof.y == k).sum())]
    ]
    return Table(["class", "test images", *NAMES, f"both - {twin}"], rows)


def pictures(classes: tuple[str, ...], material: Splits) -> list[Figure]:
    """Real and synthetic images of the classes that got any, side by side, the rarest first."""
    real, synthetic = material.real, material.synthetic
    counts = np.bincount(real.class_numbers, minlength=len(classes))
    order = sorted(np.unique(synthetic.class_numbers).tolist(), key=lambda k: int(counts[k]))[:CLASSES]
    figures = []
    for part, title, caption in (
        (real, "real images", "Real images, a row for each class, the rarest first."),
        (synthetic, "synthetic images", "Synthetic ones of the same classes."),
    ):
        shown = [np.flatnonzero(part.y == k)[:SHOWN] for k in order]
        y = np.repeat(np.arange(len(order)), [len(rows) for rows in shown])  # in the order of the rows
        x = part.x[np.concatenate(shown)]
        figures.append(Figure(sheet(x, title, y=y, classes=[classes[k] for k in order], columns=SHOWN), caption))
    return figures


def chart(proof: Proof) -> Image:
    """Balanced accuracy of each way to train, and recall of each class without and with synthetic images."""
    left, right = plots.several(9.2, 3.4, (1, 1.35))
    names = NAMES[::-1]
    for place, name in enumerate(names):
        value, ends = percents([proof.accuracy(name)])
        colour = plots.BLUE if name in WITH else plots.GRAY
        left.errorbar(value, place, xerr=ends, fmt="o", color=colour, capsize=3, markersize=6)
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.set_xlabel("balanced accuracy, % of test images", fontsize=9)
    for name, colour, aside in ((proof.recipe.twin, plots.GRAY, -0.17), ("both", plots.BLUE, 0.17)):
        value, ends = percents(proof.recalls(name))
        at = np.arange(len(value)) + aside
        right.errorbar(at, value, yerr=ends, fmt="o", color=colour, capsize=2, ms=4, label=name)
    plots.label_classes(right, proof.classes)
    right.set_ylabel("recall, %", fontsize=9)
    right.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return plots.image(right)


def percents(values: list[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Shares (N,) in percent, and how far their intervals go down and up (2, N)."""
    value, low, high = 100 * np.array(values).T
    return value, np.maximum(0, [value - low, high - value])
