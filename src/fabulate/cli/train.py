"""`fabulate train FAMILY`: the flags are the fields of the family's Config, of its network and of Training."""

import os
from contextlib import nullcontext
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from fabulate import models, training
from fabulate.cli.parsing import glance, parse
from fabulate.cli.plan import planned
from fabulate.cli.shared import Device, Flat, Source, load_images, positional, where
from fabulate.config import BUDGETS, DataSpec, PositiveInt, Preset, Training, override, spec
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.nets import Auto


@spec
class Flags:
    """What every training takes, whatever the family."""

    source: Source = None
    config: Path | None = None
    """A config.json, as every run folder has one: its hyperparameters and images; flags replace them."""
    out: Path | None = None
    """The run folder (default: runs/FAMILY-DATA)."""
    device: Device = "auto"
    save_every: int | None = None
    """Steps between checkpoints (default: every 30 seconds)."""
    processes: PositiveInt = 1
    """Processes of this machine that share each step's images; batch_size must be a multiple of their number."""
    evaluate_every: int | None = None
    """Steps between measurements of samples, a tenth of the time at most; the best model is kept (default: never)."""
    begin_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """A run of the same family, on any images, whose weights this one begins with, as far as they fit."""
    log: Literal["tensorboard"] | None = None
    """Also write the log for TensorBoard, into the run folder's tensorboard/ (pip install tensorboard)."""


def train(argv: list[str]) -> None:
    if "--plan" in argv:
        argv = planned(argv)
    name, base, data_spec, argv = beginning(argv)
    first = glance(deciding(name), argv)
    chosen = {} if first is None else {part: kind for part, kind in vars(first).items() if kind is not None}
    preset, budget = chosen.pop("preset", None), [chosen.pop(name, None) for name in BUDGETS]
    if base is not None and preset is not None:
        raise ConfigError("give --config or --preset: each says what all hyperparameters begin with")
    config, schedule = training.configure(name, base or preset or "default", chosen)
    if any(value is not None for value in budget):  # replaces the preset's
        schedule = override(schedule, dict.fromkeys(BUDGETS))
    refuse_nameless(config, argv)
    asked = parse(arguments(name, config, schedule, data_spec), argv, f"fabulate train {name}")
    flags: Flags = asked.flags
    images = positional(flags.source, asked.data, data_spec.source)

    if flags.processes > 1 and "WORLD_SIZE" not in os.environ:
        raise SystemExit(training.launch(flags.processes, ["train", name, *argv]))
    if flags.out is not None:
        outside(flags.out, images.source)
    writer = training.summary_writer() if flags.log and os.environ.get("RANK", "0") == "0" else None
    data = load_images(images, streams=True, sequences=True)
    out = flags.out or training.default_out(name, data)
    reports = training.run(
        name,
        asked.model,
        asked.training,
        data,
        out,
        device=flags.device,
        save_every=flags.save_every,
        evaluate_every=flags.evaluate_every,
        begin_from=flags.begin_from,
        console=Console(),
    )
    board: Any
    with writer(out / "tensorboard") if writer is not None else nullcontext() as board:
        for report in reports:
            for term, number in training.scalars(report).items() if board is not None else ():
                board.add_scalar(term, number, report["step"])
    tested = [row["test"] for row in training.read_log(out) if "test" in row]
    for term, number in (tested[-1] if tested else {}).items():
        Console().print(f"test {term}  {number:.5g}", highlight=False)
    pictures = [out / f"{what}.png" for what in ("samples", "reconstructions", "curves")]
    where("pictures", *(path for path in pictures if path.exists()))
    where("model", out / "model")
    if (out / "best").exists():
        where("best", out / "best")
    where("next", f"fabulate sample {out}")


def beginning(argv: list[str]) -> tuple[str, Preset | None, DataSpec, list[str]]:
    """The family, the hyperparameters and images that a --config tells, where one is given, and the other words."""
    first = glance(make_dataclass("File", [("config", Path | None, None)]), argv)
    file: Path | None = getattr(first, "config", None)
    name = argv[0] if argv and not argv[0].startswith("-") else None
    argv = argv if name is None else argv[1:]
    if file is not None and not {"-h", "--help"} & {*argv[:1]}:
        record = training.read_config(file)
        if name not in (None, record["family"]):
            raise ConfigError(f"{file} is of the family {record['family']}, given {name}")
        return record["family"], *training.recorded(record), argv
    if name is None:
        if argv and argv[0] not in ("-h", "--help"):
            raise ConfigError(f"the family comes first: fabulate train FAMILY (families: {', '.join(models.names())})")
        print(f"usage: fabulate train FAMILY [SOURCE] [options]\n\nfamilies: {', '.join(models.names())}\n")
        print("`fabulate train FAMILY --help` tells a family's options, `fabulate models` what it can do.")
        print("`fabulate train --plan [SOURCE] --minutes N` takes the family that `fabulate plan` advises.")
        raise SystemExit(0 if argv else 2)
    return name, None, DataSpec(), argv


def deciding(name: str) -> type[Any]:
    """A dataclass of the flags that decide which others there are, or what their defaults are."""
    flags = ["preset", *BUDGETS, *training.choices(models.family(name).Config)]
    return make_dataclass("Deciding", [(flag, str | None, None) for flag in flags], frozen=True)


def refuse_nameless(config: Any, argv: list[str]) -> None:
    """Stop at an option of a part whose kind is left to the images: which options there are depends on the kind."""
    for part, kinds in training.choices(type(config)).items():
        option = next((word.split("=")[0] for word in argv if word.startswith(f"--{part}.")), None)
        if option and isinstance(getattr(config, part), Auto):
            field = option.split(".")[1].replace("-", "_")
            example = next((kind for kind, cls in kinds.items() if hasattr(cls, field)), [*kinds][-1])
            raise ConfigError(
                f"{option} is an option of a kind of {part}; say which, e.g. --{part} {example} {option} ..."
            )


def arguments(name: str, config: Any, schedule: Training, data: DataSpec) -> type[Any]:
    """A dataclass of all flags, whose defaults are the preset's, or a --config's."""
    # Literals made at run time: mypy cannot know them, tyro shows them as choices.
    presets = Literal[tuple(models.family(name).presets)]  # type: ignore[valid-type]  # known when the command runs
    extra: list[tuple[str, Any, Any]] = []
    for part, kinds in training.choices(type(config)).items():
        words = Literal[tuple(kinds)]  # type: ignore[valid-type]  # likewise
        chosen = Annotated[words, tyro.conf.arg(name=part, help=f"Which {part}; its own options follow below.")]  # type: ignore[valid-type]  # likewise
        extra.append((part, chosen, getattr(config, part).kind))
    return make_dataclass(
        "Train",
        [
            ("preset", Annotated[presets, tyro.conf.arg(help="Named set of hyperparameters.")], "default"),
            *extra,
            ("flags", Annotated[Flags, Flat], Flags()),
            ("data", Annotated[DataSpec, Flat], data),
            ("model", Annotated[type(config), Flat], config),
            ("training", Annotated[Training, Flat], schedule),
        ],
        frozen=True,
    )
