"""A proof on disk: the page, the numbers and a chart of how eight ways to train one classifier compare."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.data import Data
from fabulate.files import own_folder, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import save_png, sheet
from fabulate.report import Card, Cell, Facts, Figure, Figures, Notes, Page, Section, Table, percent, plots, write_page
from fabulate.types import Progress
from fabulate.uses.augment.folder import Augmented, Splits, splits
from fabulate.uses.augment.proof import FREE, NAMES, WITH, Proof, prove
from fabulate.uses.augment.verdict import points, verdict

RECORD = "proof.json"
SHOWN = 8  # real and synthetic images of each class on the page
CLASSES = 12  # shown on the page, the rarest


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
