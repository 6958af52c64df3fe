"""`fabulate train FAMILY`: the flags are the fields of the family's Config, of its network and of Training."""

import os
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from fabulate import models, training
from fabulate.cli.shared import Device, Flat, Source, glance, load_images, parse, positional, where
from fabulate.config import BUDGETS, UNSAID, DataSpec, PositiveInt, Training, override
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.nets import Auto

EVALUATE = (
    "Steps between looks at the samples, in a tenth of the time at most; the best model is kept (default: never)."
)

PROCESSES = "Processes of this machine that share each step's images; batch_size must be a multiple of their number."


def main(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] not in ("-h", "--help"):
            raise ConfigError(f"the family comes first: fabulate train FAMILY (families: {', '.join(models.names())})")
        print(f"usage: fabulate train FAMILY [SOURCE] [options]\n\nfamilies: {', '.join(models.names())}\n")
        print("`fabulate train FAMILY --help` tells a family's options, `fabulate models` what it can do.")
        raise SystemExit(0 if argv else 2)
    name, argv = argv[0], argv[1:]
    first = glance(deciding(name), argv)
    chosen = {} if first is None else {part: kind for part, kind in vars(first).items() if kind is not None}
    preset, budget = chosen.pop("preset", "default"), [chosen.pop(name, None) for name in BUDGETS]
    config, schedule = training.configure(name, preset, chosen)
    if any(value is not None for value in budget):  # replaces the preset's
        schedule = override(schedule, dict.fromkeys(BUDGETS))
    refuse_nameless(config, argv)
    flags = parse(arguments(name, config, schedule), argv, f"fabulate train {name}")
    images = positional(flags.source, flags.data)

    if flags.processes > 1 and "WORLD_SIZE" not in os.environ:
        raise SystemExit(training.launch(flags.processes, ["train", name, *argv]))
    if flags.out is not None:
        outside(flags.out, images.source)
    data = load_images(images, streams=True)
    out = flags.out or training.default_out(name, data)
    console = Console()
    model = training.run(
        name,
        flags.model,
        flags.training,
        data,
        out,
        device=flags.device,
        save_every=flags.save_every,
        evaluate_every=flags.evaluate_every,
        console=console,
    )
    pictures = [
        path for path in (out / "samples.png", out / "reconstructions.png", out / "curves.png") if path.exists()
    ]
    for value in model.record.get("test", {}).items():
        console.print("test {}  {:.5g}".format(*value), highlight=False)
    where("pictures", *pictures)
    where("model", out / "model")
    if (out / "best").exists():
        where("best", out / "best")
    where("next", f"fabulate sample {out}")


def deciding(name: str) -> type[Any]:
    """A dataclass of the flags that decide which others there are, or what their defaults are."""
    flags = ["preset", *BUDGETS, *training.choices(models.family(name).Config)]
    return make_dataclass("Deciding", [(flag, str | None, None) for flag in flags], frozen=True)


def refuse_nameless(config: Any, argv: list[str]) -> None:
    """Stop at an option of a part whose kind is left to the images: which options there are depends on the kind."""
    for part in training.choices(type(config)):
        option = next((word.split("=")[0] for word in argv if word.startswith(f"--{part}.")), None)
        if option and isinstance(getattr(config, part), Auto):
            raise ConfigError(f"{option} is an option of a kind of {part}; say which, e.g. --{part} conv {option} ...")


def arguments(name: str, config: Any, schedule: Training) -> type[Any]:
    """A dataclass of all flags, whose defaults are the preset's."""
    # Literals made at run time: mypy cannot know them, tyro shows them as choices.
    presets = Literal[tuple(models.family(name).presets)]  # type: ignore[valid-type]
    extra: list[tuple[str, Any, Any]] = []
    for part, kinds in training.choices(type(config)).items():
        words = Literal[tuple(kinds)]  # type: ignore[valid-type]
        chosen = Annotated[words, tyro.conf.arg(name=part, help=f"Which {part}; its own options follow below.")]  # type: ignore[valid-type]
        extra.append((part, chosen, getattr(config, part).kind))
    return make_dataclass(
        "Train",
        [
            ("source", Source, None),
            ("preset", Annotated[presets, tyro.conf.arg(help="Named set of hyperparameters.")], "default"),
            (
                "out",
                Annotated[Path | None, UNSAID, tyro.conf.arg(help="The run folder (default: runs/FAMILY-DATA).")],
                None,
            ),
            ("device", Device, "auto"),
            (
                "save_every",
                Annotated[
                    int | None, UNSAID, tyro.conf.arg(help="Steps between checkpoints (default: every 30 seconds).")
                ],
                None,
            ),
            ("processes", Annotated[PositiveInt, tyro.conf.arg(help=PROCESSES)], 1),
            ("evaluate_every", Annotated[int | None, UNSAID, tyro.conf.arg(help=EVALUATE)], None),
            *extra,
            ("data", Annotated[DataSpec, Flat], DataSpec()),
            ("model", Annotated[type(config), Flat], config),
            ("training", Annotated[Training, Flat], schedule),
        ],
        frozen=True,
    )
