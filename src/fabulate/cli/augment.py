"""`fabulate augment SOURCE`: more images of rare classes; `fabulate prove SOURCE SYNTHETIC`: do they help?"""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, Flat, counting, load_images, say, stages, where
from fabulate.config import PositiveInt, Reading, spec
from fabulate.errors import ConfigError
from fabulate.files import outside, replaceable_folder
from fabulate.report import Table
from fabulate.training import pick_device
from fabulate.uses import augment as use
from fabulate.uses.augment import page
from fabulate.uses.augment.filters import Synthetic
from fabulate.uses.augment.folder import SHARE


@spec
class Augment:
    """Make synthetic images of the classes of SOURCE that lack some. Say afterwards with `prove` whether they help."""

    source: tyro.conf.Positional[str]
    """Where images come from: a folder with a sub-folder for each class, a name such as mnist, an .npz file."""
    reading: Annotated[Reading, Flat] = Reading()
    to: str = "balanced"
    """How many images a class shall have: balanced, a number, or name=number,..."""
    family: str | None = None
    """The family that is trained (default: vae)."""
    steps: PositiveInt | None = None
    """Its training steps (default: those of the family's recipe)."""
    run: Path | None = None
    """A run of a conditional model on SOURCE, instead of training one."""
    keep: Annotated[float, Field(ge=0, lt=1)] = SHARE
    """The share of each class that is kept for the test; more is moved there where the source keeps less."""
    seed: int = 0
    """Seed of everything random."""
    device: Device = "auto"
    out: Path
    """The folder to write."""
    overwrite: bool = False
    """Replace the synthetic images of an earlier `augment`."""


def augment(argv: list[str]) -> None:
    flags = parse(Augment, argv, "fabulate augment")
    if flags.run is not None and (flags.family is not None or flags.steps is not None):
        raise ConfigError("give --run (a model that is there) or --family and --steps (one to train), not both")
    outside(flags.out, flags.source)
    data = load_images(flags.reading.of(flags.source))
    with stages() as progress:
        made = use.augment(
            data,
            flags.out,
            family=flags.family or "vae",
            run=flags.run,
            to=flags.to,
            share=flags.keep,
            seed=flags.seed,
            hyperparameters={} if flags.steps is None else {"steps": flags.steps},
            device=flags.device,
            overwrite=flags.overwrite,
            console=Console(),
            progress=progress,
        )
    moved = f", {len(made.cut.held_out):,} of them taken from the training part" if made.cut.held_out else ""
    print(f"{len(made.cut.train):,} images to learn from; {len(made.cut.test):,} kept for the test{moved}")
    Console().print(table(made.synthetic).to_console())
    where("images", flags.out / "synthetic")
    where("picture", flags.out / "samples.png")
    where("next", f"fabulate prove {flags.source} {flags.out}")


def table(made: Synthetic) -> Table:
    rows = [[name, *(f"{count:,}" for count in tally)] for name, tally in made.tallies.items()]
    return Table(["class", "wanted", "drawn", "kept", "another class", "unlike its own", "copies"], rows)


@spec
class Prove:
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


def prove(argv: list[str]) -> None:
    flags = parse(Prove, argv, "fabulate prove")
    made = use.read(flags.synthetic)
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
    say(*use.verdict(proof).sentences)
    where("page", out / "proof.html")
    where("chart", out / "proof.png")
    where("numbers", out / page.RECORD)
