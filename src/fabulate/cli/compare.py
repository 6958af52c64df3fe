"""`fabulate compare RUN RUN ...`: which model is better, and is the difference more than chance?"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fabulate.cli.evaluate import Measuring
from fabulate.cli.progress import stages
from fabulate.cli.shared import Device, Flat, Other, OtherImages, load_images, parse, run_data, where
from fabulate.config import spec
from fabulate.errors import ConfigError
from fabulate.evaluation.compare import Record, compare, table, write
from fabulate.evaluation.evaluate import check, evaluate, sampled, settings
from fabulate.evaluation.fidelity import SHOWN, picture
from fabulate.evaluation.report import HTML, JSON, kept
from fabulate.evaluation.report import write as write_report
from fabulate.files import outside, replaceable_folder
from fabulate.training import is_run, load, read_config
from fabulate.types import Stages


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
    images = run_data(flags.runs[0], models[0], flags.data)
    if flags.data.source is None:
        same_images(flags.runs)
    names = apart(flags.runs)
    out = flags.out or flags.runs[0].parent / f"compare-{'-'.join(names)}"
    if not flags.overwrite or any((out / name).exists() for name in (JSON, HTML)):  # else only reports of ours may be
        replaceable_folder(out, flags.overwrite, JSON, Record)
    data = load_images(images)
    outside(out, data.spec.source)
    for model in models:
        check(model, data, flags.measuring.n)
    asked = settings(data, **vars(flags.measuring))
    reports, pictures, links = {}, {}, {}
    for name, run, model in zip(names, flags.runs, models, strict=True):
        place = next((place for place in (run / "report", out / name) if kept(place, model, asked)), None)
        report = kept(place, model, asked) if place is not None else None
        if place is None or report is None:
            place = out / name
            with stages() as progress:
                report = evaluate(
                    run,
                    data,
                    **vars(flags.measuring),
                    device=flags.device,
                    progress=partial(named, progress, name),
                )
            write_report(report, place)
        reports[name] = report
        pictures[name] = picture(name, *sampled(model, data, SHOWN, flags.measuring.seed), data.classes)
        links[name] = Path(os.path.relpath(place / HTML, out)).as_posix()
    comparison = compare(reports)
    numbers, page = write(comparison, pictures, links, out)
    console = Console()
    console.print(table(comparison).to_console())
    console.print(comparison.overall, highlight=False, markup=False)
    where("page", page)
    where("numbers", numbers)


def named(progress: Stages, name: str, what: str, done: int, total: int) -> None:
    """Say of which run the progress is."""
    progress(f"{name}: {what}", done, total)


def apart(runs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, and a number where two are equal.

    >>> apart([Path("a/vae"), Path("b/vae"), Path("gan")])
    ['vae', 'vae (2)', 'gan']
    """
    names: list[str] = []
    for run in runs:
        name = run.resolve().name
        taken = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({taken + 1})" if taken else name)
    return names


def same_images(runs: Sequence[Path]) -> None:
    """Refuse runs that were trained on different images."""
    trained = {str(run): read_config(run)["data"] for run in runs if is_run(run)}
    if len({data["fingerprint"] for data in trained.values()}) > 1:
        told = ", ".join(f"{run} on {data['name']}" for run, data in trained.items())
        raise ConfigError(
            f"the runs were trained on different images ({told}); give --data to compare them on the same"
        )
