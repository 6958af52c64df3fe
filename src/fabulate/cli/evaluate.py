"""`fabulate evaluate RUN`, `fabulate compare RUN RUN ...`: how good samples are, and which run's are better."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Flat, Other, OtherImages, Run, images_for, say, stages, told, where
from fabulate.config import Compile, PositiveInt, spec
from fabulate.errors import ConfigError
from fabulate.evaluation.compare import Record, compare_runs, same_images, unequal_names
from fabulate.evaluation.compare import table as comparison_table
from fabulate.evaluation.compare import write as write_comparison
from fabulate.evaluation.evaluate import check
from fabulate.evaluation.evaluate import evaluate as measured
from fabulate.evaluation.report import HTML, JSON, Head, table, write
from fabulate.files import outside, replaceable_folder
from fabulate.training import load


@spec
class Measuring:
    """What is measured, and on how much: reports made alike can be compared."""

    n: Count = 10_000
    """How many samples, and at most as many real images; compare only reports of equal numbers."""
    features: str = "auto"
    """What images are compared by: auto (learnt from these images), classifier, encoder, pixels or lite0 (ImageNet)."""
    seed: int = 0
    """Which samples, and which real images where there are more than n."""
    k: PositiveInt = 100
    """Codes of an image in the importance-weighted bound, where a family has one; papers take 5,000."""
    images: PositiveInt = 1000
    """Images whose likelihood is computed, at most, where a family has one."""


@spec
class Evaluate:
    """Measure a run's model: its samples beside images it never saw. Writes a page, and all numbers as JSON."""

    run: Run
    data: Other = OtherImages()
    measuring: Annotated[Measuring, Flat] = Measuring()
    device: Device = "auto"
    compile: Compile = "auto"
    """Draw samples by a compiled network: auto does for many. It changes how sums round."""
    out: Path | None = None
    """The folder of the report (default: RUN/report)."""
    overwrite: bool = False
    """Replace an existing report."""


def evaluate(argv: list[str]) -> None:
    flags = parse(Evaluate, argv, "fabulate evaluate")
    out = flags.out or flags.run / "report"
    model = load(flags.run, flags.device)
    replaceable_folder(out, flags.overwrite, JSON, Head)
    data = images_for(flags.run, model, flags.data, streams=True, sequences=True)
    outside(out, data.spec.source)
    check(model, data, flags.measuring.n)
    with stages() as progress:
        own = {**vars(flags.measuring), "device": flags.device, "compile": flags.compile, "say": told}
        report = measured(flags.run, data, progress=progress, **own)
    numbers, page = write(report, out)
    console = Console()
    console.print(table(report).to_console())
    for warning in report.warnings:
        told(f"Warning: {warning}")
    for card in report.cards:
        console.print(str(card), highlight=False, markup=False)
    where("page", page)
    where("numbers", numbers)


@spec
class Compare:
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


def compare(argv: list[str]) -> None:
    flags = parse(Compare, argv, "fabulate compare")
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
    numbers, page = write_comparison(*compared, out)
    Console().print(comparison_table(compared[0]).to_console())
    for warning in next(iter(compared[0].reports.values())).warnings:
        told(f"Warning: {warning}")
    say(compared[0].overall)
    where("page", page)
    where("numbers", numbers)
