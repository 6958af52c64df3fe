"""`fabulate augment SOURCE`: more images of rare classes, real and synthetic ones apart, with a record of both."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, Flat, load_images, stages, where
from fabulate.config import PositiveInt, Reading, spec
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.report import Table
from fabulate.uses.augment import augment
from fabulate.uses.augment.filters import Synthetic
from fabulate.uses.augment.folder import SHARE


@spec
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate augment")
    if flags.run is not None and (flags.family is not None or flags.steps is not None):
        raise ConfigError("give --run (a model that is there) or --family and --steps (one to train), not both")
    outside(flags.out, flags.source)
    data = load_images(flags.reading.of(flags.source))
    with stages() as progress:
        made = augment(
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
    """What became of the samples of each class."""
    rows = [[name, *(f"{count:,}" for count in tally)] for name, tally in made.tallies.items()]
    return Table(["class", "wanted", "drawn", "kept", "another class", "unlike its own", "copies"], rows)
