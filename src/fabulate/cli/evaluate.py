"""`fabulate evaluate RUN`: how good, how varied and how original a model's samples are, as a page and as numbers."""

from pathlib import Path
from typing import Annotated

from rich.console import Console

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Flat, Other, OtherImages, Run, images_for, stages, told, where
from fabulate.config import Compile, PositiveInt, spec
from fabulate.evaluation.evaluate import check, evaluate
from fabulate.evaluation.report import JSON, Head, table, write
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
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate evaluate")
    out = flags.out or flags.run / "report"
    model = load(flags.run, flags.device)
    replaceable_folder(out, flags.overwrite, JSON, Head)
    data = images_for(flags.run, model, flags.data, sequences=True)
    outside(out, data.spec.source)
    check(model, data, flags.measuring.n)
    with stages() as progress:
        own = {**vars(flags.measuring), "device": flags.device, "compile": flags.compile, "say": told}
        report = evaluate(flags.run, data, progress=progress, **own)
    numbers, page = write(report, out)
    console = Console()
    console.print(table(report).to_console())
    for warning in report.warnings:
        told(f"Warning: {warning}")
    for card in report.cards:
        console.print(str(card), highlight=False, markup=False)
    where("page", page)
    where("numbers", numbers)
