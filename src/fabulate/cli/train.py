"""`fabulate train FAMILY`: the flags are the fields of the family's Config, of its network and of Training."""

import os
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from fabulate import models, training
from fabulate.cli.shared import load_images, parse, where
from fabulate.config import BUDGETS, DataSpec, PositiveInt, Training, override
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.nets.choice import Auto

Flat = tyro.conf.arg(name="")
EVALUATE = (
    "Steps between looks at the samples, in a tenth of the time at most; the best model is kept (default: never)."
)

PROCESSES = "Processes of this machine that share each step's images; batch_size must be a multiple of their number."


def main(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] not in ("-h", "--help"):
            raise ConfigError(f"the family comes first: fabulate train FAMILY (families: {', '.join(models.names())})")
        print(f"usage: fabulate train FAMILY [options]\n\nfamilies: {', '.join(models.names())}\n")
        print("`fabulate train FAMILY --help` tells a family's options, `fabulate models` what it can do.")
        raise SystemExit(0 if argv else 2)
    name, argv = argv[0], argv[1:]
    kinds = {part: peek(argv, f"--{part}") for part in training.choices(models.family(name).Config)}
    given = {part: kind for part, kind in kinds.items() if kind is not None}
    config, schedule = training.configure(name, peek(argv, "--preset") or "default", given)
    refuse_nameless(config, argv)
    flags = parse(arguments(name, config, schedule, argv), argv, f"fabulate train {name}")

    if flags.processes > 1 and "WORLD_SIZE" not in os.environ:
        raise SystemExit(training.launch(flags.processes, ["train", name, *argv]))
    if flags.out is not None:
        outside(flags.out, flags.data.source)
    data = load_images(flags.data, streams=True)
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


def peek(argv: list[str], flag: str) -> str | None:
    """The value of a flag that decides which other flags there are."""
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def refuse_nameless(config: Any, argv: list[str]) -> None:
    """Stop at an option of a part whose kind is left to the images: which options there are depends on the kind."""
    for part in training.choices(type(config)):
        option = next((word.split("=")[0] for word in argv if word.startswith(f"--{part}.")), None)
        if option and isinstance(getattr(config, part), Auto):
            raise ConfigError(f"{option} is an option of a kind of {part}; say which, e.g. --{part} conv {option} ...")


def arguments(name: str, config: Any, schedule: Training, argv: list[str]) -> type[Any]:
    """A dataclass of all flags, whose defaults are the preset's."""
    # Literals made at run time: mypy cannot know them, tyro shows them as choices.
    presets = Literal[tuple(models.family(name).presets)]  # type: ignore[valid-type]
    if any(word.split("=")[0] == f"--{budget}" for word in argv for budget in BUDGETS):  # replaces the preset's
        schedule = override(schedule, dict.fromkeys(BUDGETS))
    extra: list[tuple[str, Any, Any]] = []
    for part, kinds in training.choices(type(config)).items():
        words = Literal[tuple(kinds)]  # type: ignore[valid-type]
        chosen = Annotated[words, tyro.conf.arg(name=part, help=f"Which {part}; its own options follow below.")]  # type: ignore[valid-type]
        extra.append((part, chosen, getattr(config, part).kind))
    return make_dataclass(
        "Train",
        [
            ("preset", Annotated[presets, tyro.conf.arg(help="Named set of hyperparameters.")], "default"),
            ("out", Annotated[Path | None, tyro.conf.arg(help="The run folder (default: runs/FAMILY-DATA).")], None),
            (
                "device",
                Annotated[str, tyro.conf.arg(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")],
                "auto",
            ),
            (
                "save_every",
                Annotated[int | None, tyro.conf.arg(help="Steps between checkpoints (default: every 30 seconds).")],
                None,
            ),
            ("processes", Annotated[PositiveInt, tyro.conf.arg(help=PROCESSES)], 1),
            ("evaluate_every", Annotated[int | None, tyro.conf.arg(help=EVALUATE)], None),
            *extra,
            ("data", Annotated[DataSpec, Flat], DataSpec()),
            ("model", Annotated[type(config), Flat], config),
            ("training", Annotated[Training, Flat], schedule),
        ],
        frozen=True,
    )
