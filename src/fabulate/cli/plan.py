"""`fabulate plan SOURCE --minutes N`: which family to train and what to expect; `train --plan` takes its word."""

import shlex
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from fabulate import models
from fabulate.cli.parsing import glance, parse
from fabulate.cli.shared import Device, Flat, Source, counting, load_images, positional, say
from fabulate.config import DataSpec, PositiveFloat, spec
from fabulate.data import Data
from fabulate.errors import ConfigError
from fabulate.training import default_out, is_run, read_config
from fabulate.training.plan import CANDIDATES, Expected
from fabulate.training.plan import plan as plans

MINUTES = 20.0


@spec
class Arguments:
    """Look at the images and at this machine, and tell what to train in so many minutes and what to expect."""

    source: Source = None
    data: Annotated[DataSpec, Flat]
    minutes: PositiveFloat = MINUTES
    """Of training."""
    conditional: bool = False
    """Plan to learn p(x | class)."""
    device: Device = "auto"


def plan(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate plan")
    best = advised(flags, load_images(positional(flags.source, flags.data)))
    say(f"Take {best.family}:  {shlex.join(['fabulate', 'train', best.family, *in_minutes(argv)])}")


def planned(argv: list[str]) -> list[str]:
    """The words of `fabulate train` with a family in the place of --plan: the best, or that of a run already begun."""
    words = in_minutes([word for word in argv if word != "--plan"])
    if words[0] in models.names():
        raise ConfigError(f"--plan chooses the family: leave out {words[0]}, or --plan")
    flags = glance(Arguments, words) or parse(Arguments, words, "fabulate train --plan")
    place = glance(make_dataclass("Out", [("out", Path | None, None)]), words)
    data = load_images(positional(flags.source, flags.data))
    for name in CANDIDATES:
        out: Path = getattr(place, "out", None) or default_out(name, data)
        if is_run(out) and (record := read_config(out))["training"]["minutes"] == flags.minutes:
            return [record["family"], *words]
    return [advised(flags, data).family, *words]


def in_minutes(argv: list[str]) -> list[str]:
    """The same words, with the minutes that are planned for where nobody says how many."""
    given = any(word.split("=")[0] == "--minutes" for word in argv)
    return [*argv] if given else [*argv, "--minutes", f"{MINUTES:g}"]


def advised(flags: Arguments, data: Data) -> Expected:
    """Print what each family will come to; returns the best."""
    with counting("timing some steps of each family") as progress:
        found = plans(data, flags.minutes, device=flags.device, conditional=flags.conditional, progress=progress)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("family", "a step", "steps", "images seen", "epochs", "coverage", "looks like"):
        table.add_column(column, justify="left" if column in ("family", "looks like") else "right")
    for one in found:
        low, high = (f"{100 * share:.0f}" for share in one.worth)
        table.add_row(
            f"[bold]{one.family}",
            f"{one.step:.2g} s",
            f"{one.steps:,}",
            f"{one.images_seen:,}",
            f"{one.epochs:.3g}",
            f"{low} to {high} %",
            one.words,
        )
    say(f"{data.name}: {len(data.train):,} images of {data.shape}, {flags.minutes:g} min")
    Console().print(table)
    say(*notes(found))
    return found[0]


def notes(found: list[Expected]) -> list[str]:
    """How to read the table, and what to know of the best."""
    best, sets = found[0], ", ".join(found[0].sets)
    told = [
        "Coverage: the share of real images that have a sample near them, in per cent of what training images reach. "
        f"The range is that of the data sets it was measured on ({sets}); yours may lie outside."
    ]
    if beyond := [one.family for one in found if one.beyond]:
        told.append(
            f"Trainings as long were not measured on all of them ({', '.join(beyond)}): there the longest stands."
        )
    return [*told, *best.notes]
