"""From a family and images to a trained model in a run folder.

`train` takes words and hyperparameters, as the command line does, and turns them into specs; `run` takes the specs,
makes the model, claims the folder and lets a `Session` train.
"""

import platform
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from rich.console import Console

from fabulate.config import BUDGETS, Training, nearest, override, to_json
from fabulate.data import Data, load_data, resident
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.models import GenerativeModel, family
from fabulate.nets import Auto, reason
from fabulate.processes import together
from fabulate.seeds import seeded
from fabulate.signals import Stop, catching
from fabulate.training.devices import arithmetic, flushed, pick_device, rounding, threads
from fabulate.training.folder import Config, RunFolder, read_config
from fabulate.training.followers import follow
from fabulate.training.loop import Learner, settled
from fabulate.training.progress import Display
from fabulate.training.session import Session
from fabulate.training.validation import Selected, split
from fabulate.types import BatchSource


def train(
    name: str,
    data: str | Path | Data | np.ndarray[Any, Any] = "digits",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    device: str = "auto",
    save_every: int | None = None,
    evaluate_every: int | None = None,
    quiet: bool = False,
    **hyperparameters: Any,
) -> GenerativeModel:
    """Train a family on images and return the model, ready to sample; everything is kept in the folder `out`.

    `name` is a family ("vae"), `data` a source or what `load_data` gave. Hyperparameters are those of the family and of
    the training: `latent_dim=64, epochs=10, network="conv"`. The same call again continues where the last one stopped,
    bit for bit; `save_every` is the number of steps between checkpoints (default: every 30 seconds). After every
    `evaluate_every` steps the samples are compared with the training images, and the best model is kept in out/best;
    that takes a tenth of the time at most.

    Errors: `ConfigError` for names and values that do not fit, `DataError` for the images, `RunError` for the folder,
    `DivergedError` when a loss is not finite, `InterruptedTraining` after a signal, saved.
    """
    config, training = configure(name, preset, hyperparameters)
    console = Console(quiet=quiet)
    if not isinstance(data, Data):
        data = load_data(data)
        if data.report.warning:
            console.print(data.report.warning, highlight=False, markup=False, soft_wrap=True)
    out = Path(out) if out is not None else default_out(name, data)
    every = {"save_every": save_every, "evaluate_every": evaluate_every}
    return run(name, config, training, data, out, device=device, **every, console=console)


def default_out(name: str, data: Data) -> Path:
    """Where a run goes when nobody says: runs/FAMILY-DATA."""
    return Path("runs") / f"{name}-{data.name}"


def configure(name: str, preset: str, hyperparameters: Mapping[str, Any]) -> tuple[Any, Training]:
    """The specs of the model and of its training: a preset with some values changed.

    >>> configure("vae", "tutorial", {"latent_dim": 2, "steps": 10})[0].latent_dim
    2

    Errors: `ConfigError` for unknown presets, hyperparameters and networks (naming the nearest) and for bad values.
    """
    presets = family(name).presets
    if preset not in presets:
        raise ConfigError(
            f"{name} has no preset {preset!r}{nearest(preset, [*presets])} (presets: {', '.join(presets)})"
        )
    values = dict(hyperparameters)
    own = family(name).networks
    for part, kinds in choices(family(name).Config).items():
        if isinstance(kind := values.get(part), str):
            if kind not in kinds:
                raise ConfigError(
                    f"there is no {part} {kind!r}{nearest(kind, [*kinds])} ({part}s of {name}: {', '.join(kinds)})"
                )
            usual = getattr(presets[preset].model, part)
            values[part] = usual if usual.kind == kind else own[kind] if kind in own else kinds[kind]()
    of_training = {field.name for field in fields(Training)}
    if any(values.get(budget) is not None for budget in BUDGETS):  # a budget replaces the preset's
        values = dict.fromkeys(BUDGETS) | values
    model = {key: value for key, value in values.items() if key not in of_training}
    training = {key: value for key, value in values.items() if key in of_training}
    return override(presets[preset].model, model), override(presets[preset].training, training)


def choices(config: type[Any]) -> dict[str, dict[str, type[Any]]]:
    """The hyperparameters of a family that are one of several specs, told apart by their kind: {name: {kind: spec}}.

    >>> [*choices(family("vae").Config)["network"]]
    ['auto', 'mlp', 'conv', 'dcgan']
    """
    found = {}
    for field in fields(config):
        union = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
        specs = [spec for spec in get_args(union) if "kind" in getattr(spec, "__dataclass_fields__", {})]
        if specs:
            found[field.name] = {spec().kind: spec for spec in specs}
    return found


def run(
    name: str,
    config: Any,
    training: Training,
    data: Data,
    out: Path,
    *,
    device: str = "auto",
    save_every: int | None = None,
    evaluate_every: int | None = None,
    console: Console,
) -> GenerativeModel:
    """Train what the specs say on `data` in the run folder `out`, continuing what is there."""
    outside(out, data.spec.source)
    for flag, every in (("save_every", save_every), ("evaluate_every", evaluate_every)):
        if every is not None and every < 1:
            raise ConfigError(f"{flag} is a number of steps, at least 1; given {every}")
    if training.conditional and not data.classes:
        raise ConfigError(
            f"{data.spec.source} has no classes to learn p(x | class) of; put the images of each in a folder"
        )
    if all(getattr(training, budget) is None for budget in BUDGETS):
        raise ConfigError(f"training needs a budget: {', '.join(BUDGETS)}, or several of them")
    scored = data.test is None or data.test.y is not None or not training.conditional
    if not scored:
        data = replace(data, test=None)
    with flushed(), seeded(training.seed, "weights"):
        model = family(name)(config, data.shape, data.classes if training.conditional else ()).to(pick_device(device))
    training, told = settled(training, model)[0], choices_told(config, model)
    with flushed(), together(model.device) as processes:
        before = processes.given(processes.leads(lambda: begun(out)))
        how = processes.given(processes.leads(lambda: arithmetic(training, model.shape.size, processes.count, before)))
        with threads(how["threads"]):
            images, held_out = parts(model, training, data)
            learner = Learner(model, training, images, processes, held_out, how["micro_batches"])
            config = {**settings(model, training, data), "arithmetic": how}
            folder = processes.leads(lambda: claimed(out, config))
            if folder is None:
                with catching(Stop()) as stop:
                    return follow(learner, data, stop)
            try:
                judge = None
                if evaluate_every is not None:
                    from fabulate.training.judge import Judge  # all features and metrics come with it

                    judge = Judge.of(evaluate_every, data, model.device)
                with catching(Stop()) as stop, Display(console, name, stop) as display:
                    for sentence in (*told, *rounding(before, how)):
                        display.say(sentence)
                    if not scored:
                        display.say("No test loss: the model learns p(x | class), and the test images have no classes.")
                    return Session(learner, folder, data, display, save_every, judge).finish(stop)
            finally:
                folder.close()


def choices_told(config: Any, model: GenerativeModel) -> list[str]:
    """A sentence on each part that was left to the images: what they chose, and why."""
    left = [part for part in choices(type(config)) if isinstance(getattr(config, part), Auto)]
    return [f"{part}: {getattr(model.config, part).kind} ({reason(model.shape)})" for part in left]


def begun(out: Path) -> Config | None:
    """The config.json of a run that is there already."""
    return read_config(out) if (out / "config.json").exists() else None


def claimed(out: Path, config: dict[str, Any]) -> RunFolder:
    """The run folder, for this process alone; nothing stays locked where it is another run's."""
    folder = RunFolder(out)
    try:
        folder.claim(config)
    except BaseException:
        folder.close()
        raise
    return folder


def parts(model: GenerativeModel, training: Training, data: Data) -> tuple[BatchSource, BatchSource | None]:
    """The images to learn from and those to validate with, on the model's device where they fit.

    None are held out where the family has no loss to compare steps by, nor of images too few or streamed.
    """
    images = resident(data.train, model.device)
    numbers = split(data.train, training.validation, training.seed) if model.validates else None
    return (images, None) if numbers is None else (Selected(images, numbers[0]), Selected(images, numbers[1]))


def settings(model: GenerativeModel, training: Training, data: Data) -> dict[str, Any]:
    """A run's config.json."""
    return {
        "family": model.family,
        "model": to_json(model.config),
        "training": to_json(training),
        "data": {**to_json(data.spec), "name": data.name, "fingerprint": data.fingerprint},
        "shape": list(model.shape),
        "classes": list(model.classes),
        "versions": {
            "fabulate": version("fabulate"),
            "torch": version("torch"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
