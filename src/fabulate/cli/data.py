"""`fabulate data SOURCE`: the intake report, and a picture of some images."""

from pathlib import Path
from typing import Annotated

from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Flat, Source, counting, positional, where
from fabulate.config import DataSpec, override, spec
from fabulate.data import Data, load_spec, render
from fabulate.errors import UndecidedError
from fabulate.files import outside, vacant_file
from fabulate.pictures import save_png


@spec
class Arguments:
    """Look at images before training: what is there, what was set aside and why."""

    source: Source = None
    spec: Annotated[DataSpec, Flat]
    out: Path | None = None
    """Save a picture of 100 training images here (a .png, outside of them), by class where there are any."""
    seed: int = 0
    """Which random images."""
    overwrite: bool = False
    """Replace an existing picture."""


def data(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate data")
    images = positional(flags.source, flags.spec)
    if flags.out is not None:
        vacant_file(outside(flags.out, images.source), flags.overwrite)
    undecided: list[UndecidedError] = []
    data: Data | None = None
    while data is None:
        try:
            with counting("reading images") as progress:  # the report tells what `load_images` warns of
                data = load_spec(images, progress)
        except UndecidedError as error:  # look at everything all the same, as it would be with --size or --range
            undecided.append(error)
            images = override(images, error.options)
    Console().print(render(data.report))
    if flags.out is not None:
        save_png(data.show(100, seed=flags.seed), flags.out)
        where("picture", flags.out)
    if undecided:
        raise undecided[0]
