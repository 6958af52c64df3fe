"""`fabulate prove SOURCE SYNTHETIC`: do the synthetic images help a classifier? A page, numbers and a chart."""

from html import escape
from math import isnan
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from fabulate.cli.shared import counting, load_images, parse, where
from fabulate.config import PositiveInt, spec
from fabulate.evaluation.page import answers, facts, figure, page
from fabulate.files import outside, own_folder, replaceable_folder, write_file, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import save_png, sheet
from fabulate.report import Card as Answer
from fabulate.uses.augment import BASELINES, Augmented, Proof, prove, read, splits, verdict
from fabulate.uses.augment.chart import chart
from fabulate.uses.augment.folder import Splits
from fabulate.uses.augment.verdict import RECORD, Record, points, to_json

SHOWN = 8  # real and synthetic images of each class on the page
CLASSES = 12  # shown on the page, the rarest


@spec
class Arguments:
    """Train one classifier in six ways and test it on images that nothing was learnt from: did SYNTHETIC help?"""

    source: tyro.conf.Positional[str]
    """The real images, as `fabulate augment` was given them."""
    synthetic: tyro.conf.Positional[Path]
    """The folder that `fabulate augment` wrote."""
    seeds: Annotated[int, Field(ge=2)] = 5
    """How often each way is trained; the same seeds for all."""
    steps: PositiveInt | None = None
    """Training steps of each classifier, the same for all (default: 40 epochs of the real images, 300 to 2,000)."""
    device: str = "cpu"
    """Where to train: cpu, cuda, ..."""
    out: Path | None = None
    """The folder to write (default: SYNTHETIC/proof)."""
    overwrite: bool = False
    """Replace an existing proof."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate prove")
    made = read(flags.synthetic)
    out = outside(flags.out or flags.synthetic / "proof", flags.source)
    replaceable_folder(out, flags.overwrite, RECORD, Record)
    data = load_images(made.spec_of(flags.source))
    material = splits(data, made)
    with counting("training classifiers") as progress:
        proof = prove(
            material.real,
            material.synthetic,
            material.test,
            data.classes,
            seeds=flags.seeds,
            steps=flags.steps,
            device=flags.device,
            progress=progress,
        )
    own_folder(out)
    about = {"source": flags.source, "synthetic": str(flags.synthetic), "seeds": flags.seeds, **made.origin}
    write_json(out / RECORD, {**about, **to_json(proof)})
    save_png(chart(proof), out / "proof.png")
    write_file(out / "proof.html", lambda file: file.write(proof_page(data.name, proof, material, made).encode()))
    console = Console()
    console.print(table(proof))
    for sentence in verdict(proof).sentences:
        console.print(sentence, highlight=False, markup=False)
    where("page", out / "proof.html")
    where("chart", out / "proof.png")
    where("numbers", out / RECORD)


def table(proof: Proof) -> Table:
    """The ways to train, each with what it finds and what `both` finds more."""
    shown = Table(box=None, pad_edge=False)
    for name in ("baseline", "images", "balanced accuracy", "both finds more by"):
        shown.add_column(name, justify="left" if name == "baseline" else "right")
    for name in BASELINES:
        more = "" if name == "both" else points(proof.difference("both", name).value)
        shown.add_row(name, f"{proof.sizes[name]:,}", percent(proof.accuracy(name)), more)
    return shown


def proof_page(name: str, proof: Proof, material: Splits, made: Augmented) -> str:
    """The page: the answer, the numbers, each class, and what the classifiers saw."""
    said = verdict(proof)
    told = [
        ("real images", f"{len(material.real):,}"),
        ("synthetic images", f"{len(material.synthetic):,}"),
        ("test images", f"{len(material.test):,}"),
        ("left out of the test", f"{material.repeated:,} that equal an image learnt from"),
        ("training", f"{proof.right['real'].shape[0]} seeds of {proof.steps:,} steps for each way"),
        ("model", f"{made.manifest['model']['family']}, {made.manifest['model']['sha256'][:12]}"),
    ]
    card = Answer("Did synthetic images help?", said.word, said.sentences[0], said.grade)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in said.sentences[1:])
    caption = "Balanced accuracy of each way, and the recall of each class; lines are 95 % intervals."
    body = (
        f'<p class="eyebrow">fabulate prove</p><h1>{escape(name)}</h1>{answers([card])}'
        f"<section>{facts(told)}</section><section><h2>Six ways to train one classifier</h2>{ways_table(proof)}"
        f'<ul class="sentences">{sentences}</ul><div class="pictures">{figure(caption, chart(proof))}</div></section>'
        f"<section><h2>Recall of each class</h2>{classes_table(proof)}</section>"
        f"<section><h2>What was learnt from</h2>{pictures(proof.classes, material)}</section>"
    )
    return page(f"Do synthetic images help? {name}", body)


def ways_table(proof: Proof) -> str:
    """The ways to train as HTML."""
    rows = "".join(
        f"<tr><td><b>{name}</b><span class='words'>{escape(way.words)}</span></td><td>{proof.sizes[name]:,}</td>"
        f'<td class="value">{percent(proof.accuracy(name))}</td>'
        f"<td>{'' if name == 'both' else points(proof.difference('both', name).value)}</td></tr>"
        for name, way in BASELINES.items()
    )
    return html_table(("baseline", "images", "balanced accuracy", "both finds more by"), rows)


def classes_table(proof: Proof) -> str:
    """The recall of each class in each way as HTML."""
    recalls = {name: proof.recalls(name) for name in BASELINES}
    gains = proof.difference("both", "classic").by_class
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{int((proof.y == k).sum()):,}</td>"
        + "".join(f"<td>{'' if isnan(r[k].value) else f'{100 * r[k].value:.1f}'}</td>" for r in recalls.values())
        + f"<td>{'' if isnan(gains[k].value) else points(gains[k])}</td></tr>"
        for k, label in enumerate(proof.classes)
    )
    return html_table(("class", "test images", *BASELINES, "both - classic"), rows)


def html_table(names: tuple[str, ...], rows: str) -> str:
    """A table that scrolls where it is too wide."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def pictures(classes: tuple[str, ...], material: Splits) -> str:
    """Real and synthetic images of the classes that got any, side by side, the rarest first."""
    real, synthetic = material.real, material.synthetic
    assert real.y is not None and synthetic.y is not None
    counts = np.bincount(real.y, minlength=len(classes))
    order = sorted(np.unique(synthetic.y).tolist(), key=lambda k: int(counts[k]))[:CLASSES]
    figures = ""
    for title, part, caption in (
        ("real images", real, "Real images, a row for each class, the rarest first."),
        ("synthetic images", synthetic, "Synthetic ones of the same classes."),
    ):
        assert part.y is not None
        shown = [np.flatnonzero(part.y == k)[:SHOWN] for k in order]
        y = np.repeat(np.arange(len(order)), [len(places) for places in shown])  # in the order of the rows
        x = part.x[np.concatenate(shown)]
        figures += figure(caption, sheet(x, title, y=y, classes=[classes[k] for k in order], columns=SHOWN))
    return f'<div class="pictures">{figures}</div>'


def percent(value: Estimate) -> str:
    """A share as people say it.

    >>> percent(Estimate(0.95, 0.94, 0.96))
    '95.00 % (94.00 to 96.00)'
    """
    return f"{100 * value.value:.2f} % ({100 * value.low:.2f} to {100 * value.high:.2f})"
