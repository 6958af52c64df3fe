"""`fabulate prove SOURCE SYNTHETIC`: do the synthetic images help a classifier? A page, numbers and a chart."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, counting, load_images, say, where
from fabulate.config import PositiveInt, spec
from fabulate.files import outside, replaceable_folder
from fabulate.training import pick_device
from fabulate.uses.augment import page, read, verdict


@spec
class Arguments:
    """Train one classifier in eight ways and test it on images that nothing was learnt from: did SYNTHETIC help?"""

    source: tyro.conf.Positional[str]
    """The real images, as `fabulate augment` was given them."""
    synthetic: tyro.conf.Positional[Path]
    """The folder that `fabulate augment` wrote."""
    seeds: Annotated[int, Field(ge=2)] = 5
    """How often each way is trained; the same seeds for all."""
    steps: PositiveInt | None = None
    """Training steps of each classifier, the same for all (default: 40 epochs of the real images, 600 to 1,000)."""
    device: Device = "auto"
    out: Path | None = None
    """The folder to write (default: SYNTHETIC/proof)."""
    overwrite: bool = False
    """Replace an existing proof."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate prove")
    made = read(flags.synthetic)
    out = outside(flags.out or flags.synthetic / "proof", flags.source)
    replaceable_folder(out, flags.overwrite, page.RECORD, page.Record)
    data = load_images(made.spec_of(flags.source))
    about = {"source": flags.source, "synthetic": str(flags.synthetic)}
    device = pick_device(flags.device)
    with counting("training classifiers") as progress:
        proof = page.prove_folder(
            data, made, out, seeds=flags.seeds, steps=flags.steps, device=device, about=about, progress=progress
        )
    Console().print(page.table(proof).to_console())
    say(*verdict(proof).sentences)
    where("page", out / "proof.html")
    where("chart", out / "proof.png")
    where("numbers", out / page.RECORD)
