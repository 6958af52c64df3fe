"""`fabulate export RUN`: a diffusion model as a folder for diffusers."""

from pathlib import Path

import tyro

from fabulate.cli.parsing import parse
from fabulate.cli.shared import where
from fabulate.config import spec
from fabulate.exchange import to_diffusers
from fabulate.training import load


@spec
class Arguments:
    """Write a run's diffusion model, trained with `--preset diffusers`, as a folder that diffusers' pipelines load."""

    run: tyro.conf.Positional[str]
    """A run folder, a model folder or a model on the Hugging Face hub."""
    out: Path | None = None
    """The folder (default: RUN/diffusers)."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate export")
    where("diffusers", to_diffusers(load(flags.run), flags.out or Path(flags.run) / "diffusers"))
