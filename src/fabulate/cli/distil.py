"""`fabulate distil RUN`: a flow becomes a consistency model, which draws in one to four evaluations."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Device, Run, counting, load_images, where
from fabulate.config import BUDGETS, PositiveFloat, PositiveInt, override, spec
from fabulate.errors import ConfigError
from fabulate.evaluation.steps import Way, quality_by_steps
from fabulate.files import outside
from fabulate.models.families.consistency import Consistency, ConsistencyConfig
from fabulate.models.families.flow import Flow
from fabulate.models.spaces import space_for
from fabulate.pictures import save_png
from fabulate.training import finish, load, own_data, run

FEWER = (4, 2, 1)
PICTURE = "evaluations.png"
PASSED_ON = ("path", "target", "drop_class", "network")  # hyperparameters that both families have


@spec
class Arguments:
    """Train a flow on to draw in few evaluations, and tell what they cost in quality. The same command continues."""

    run: Run
    minutes: PositiveFloat | None = None
    """Budget: minutes by the clock (default: 10, where no steps are given)."""
    steps: PositiveInt | None = None
    """Budget: steps of one batch each."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate."""
    seed: int = 0
    """Seed of everything random."""
    n: Annotated[int, Field(ge=2), tyro.conf.arg(aliases=["-n"])] = 1000
    """Samples that the quality is told by."""
    device: Device = "auto"
    out: Path | None = None
    """The run folder of the distilled model (default: RUN-distilled)."""


def distil(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate distil")
    teacher = load(flags.run, flags.device)
    if not isinstance(teacher, Flow):
        raise ConfigError(f"{flags.run} is a {teacher.family}, which draws at once; a flow is what can be distilled")
    images = own_data(flags.run)
    out = outside(flags.out or flags.run.with_name(f"{flags.run.name}-distilled"), images.source)
    budget = {"minutes": flags.minutes or (None if flags.steps else 10.0), "steps": flags.steps}
    training = override(
        Consistency.presets["default"].training,
        {**dict.fromkeys(BUDGETS), **budget, "lr": flags.lr, "seed": flags.seed, "conditional": bool(teacher.classes)},
    )
    passed_on = {name: getattr(teacher.config, name) for name in PASSED_ON}
    config = ConsistencyConfig(**passed_on, space=space_for(teacher.config.space, teacher.shape).kept())
    data = load_images(images)
    console = Console()
    reports = run(
        "consistency", config, training, data, out, device=flags.device, begin_from=flags.run, console=console
    )
    student = finish(reports)
    usual = teacher.sampling.evaluations
    ways = [
        Way("flow", teacher, usual),
        *(Way(name, model, n) for n in FEWER for name, model in (("flow", teacher), ("distilled", student))),
    ]
    with counting("drawing samples") as progress:
        found, picture, compared = quality_by_steps(ways, data, flags.n, flags.seed, progress)
    save_png(picture, out / PICTURE)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "evaluations", "Fréchet distance", "seconds an image"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for way, distance, seconds in found:
        table.add_row(way.name, str(way.evaluations), f"{distance:.4g}", f"{seconds:.3g}")
    console.print(table)
    console.print(f"{flags.n:,} samples each, {compared}", highlight=False)
    where("picture", out / PICTURE)
    where("model", out / "model")
    where("next", f"fabulate sample {out}")
