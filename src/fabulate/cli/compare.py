"""`fabulate compare RUN RUN ...`: which model is better, and is the difference more than chance?"""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fabulate.cli.evaluate import Measuring
from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, Flat, Other, OtherImages, images_for, say, stages, told, where
from fabulate.config import spec
from fabulate.errors import ConfigError
from fabulate.evaluation.compare import Record, compare_runs, same_images, table, unequal_names, write
from fabulate.evaluation.evaluate import check
from fabulate.evaluation.report import HTML, JSON
from fabulate.files import outside, replaceable_folder
from fabulate.training import load


@spec
class Arguments:
    """Evaluate several runs alike and say which is better, with intervals. Reports made before are used again."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders or model folders, two or more."""
    data: Other = OtherImages()
    measuring: Annotated[Measuring, Flat] = Measuring()
    device: Device = "auto"
    out: Path | None = None
    """The folder of the page (default: beside the first run, compare-RUN-RUN)."""
    overwrite: bool = False
    """Replace an existing comparison."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate compare")
    if len(flags.runs) < 2:
        raise ConfigError("give at least two runs: fabulate compare RUN RUN ...")
    models = [load(run, flags.device) for run in flags.runs]
    if flags.data.source is None:
        same_images(flags.runs)
    runs = dict(zip(unequal_names(flags.runs), flags.runs, strict=True))
    out = flags.out or flags.runs[0].parent / f"compare-{'-'.join(runs)}"
    if not flags.overwrite or any((out / name).exists() for name in (JSON, HTML)):  # else only reports of ours may be
        replaceable_folder(out, flags.overwrite, JSON, Record)
    data = images_for(flags.runs[0], models[0], flags.data, sequences=True)
    outside(out, data.spec.source)
    for model in models:
        check(model, data, flags.measuring.n)
    with stages() as progress:
        measuring = vars(flags.measuring)
        compared = compare_runs(runs, models, data, out, device=flags.device, progress=progress, **measuring)
    numbers, page = write(*compared, out)
    Console().print(table(compared[0]).to_console())
    for warning in next(iter(compared[0].reports.values())).warnings:
        told(f"Warning: {warning}")
    say(compared[0].overall)
    where("page", page)
    where("numbers", numbers)
