"""`fabulate data SOURCE`: the intake report, and a picture of some images."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fabulate.cli.shared import load_images, parse, where
from fabulate.config import DataSpec, override, spec
from fabulate.data import render
from fabulate.errors import UndecidedError
from fabulate.pictures import save_png


@spec
class Arguments:
    """Look at images before training: what is there, what was set aside and why."""

    spec: Annotated[DataSpec, tyro.conf.arg(name="")]
    out: Path | None = None
    """Save a picture of 100 training images here (a .png), by class where there are any."""
    seed: int = 0
    """Which random images."""


def main(argv: list[str]) -> None:
    if argv and not argv[0].startswith("-"):
        argv = ["--data", *argv]
    flags = parse(Arguments, argv, "fabulate data [SOURCE]")
    undecided: list[UndecidedError] = []
    data = None
    while data is None:
        try:
            data = load_images(flags.spec, streams=True)
        except UndecidedError as error:  # look at everything all the same, as it would be with --size or --range
            undecided.append(error)
            flags = replace(flags, spec=override(flags.spec, error.options))
    Console().print(render(data.report))
    if flags.out is not None:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        save_png(data.show(100, seed=flags.seed), flags.out)
        where("picture", flags.out)
    if undecided:
        raise undecided[0]
