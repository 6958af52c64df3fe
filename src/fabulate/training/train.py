"""From a family and images to a trained model: in a run folder (`train`, `steps`, `run`) or in memory alone (`fit`).

`train` and `steps` take words and hyperparameters, as the command line does, and turn them into specs; `run` takes the
specs, makes the model, claims the folder and takes the steps, with a `Session` at work between them.
"""

import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from rich.console import Console

from fabulate.config import BUDGETS, Preset, Training, nearest, override, to_json
from fabulate.data import Data, load_data, resident
from fabulate.errors import ConfigError
from fabulate.files import outside
from fabulate.models import GenerativeModel, family, spaces
from fabulate.nets import Auto, reason
from fabulate.processes import together
from fabulate.seeds import seeded
from fabulate.signals import Stop, catching
from fabulate.training.devices import arithmetic, flushed, pick_device, rounding, threads
from fabulate.training.estimate import estimate
from fabulate.training.folder import Config, RunFolder, has_checkpoints, load, read_config
from fabulate.training.loop import Learner, settled
from fabulate.training.progress import Display
from fabulate.training.session import Report, Session, follow
from fabulate.training.validation import SampleQuality, split
from fabulate.types import BatchSource, ImageShape, Selected

Reports = Generator[Report, None, GenerativeModel]
"""Gives each line of the log as it is written; its value in the end is the model."""


def train(
    name: str,
    data: str | Path | Data | np.ndarray[Any, Any] = "digits",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    device: str = "auto",
    save_every: int | None = None,
    evaluate_every: int | None = None,
    begin_from: str | Path | None = None,
    quiet: bool = False,
    **hyperparameters: Any,
) -> GenerativeModel:
    """Train a family on images and return the model, ready to sample; everything is kept in the folder `out`.

    `name` is a family ("vae"), `data` a source or what `load_data` gave. Hyperparameters are those of the family and of
    the training: `latent_dim=64, epochs=10, network="conv"`. The same call again continues where the last one stopped,
    bit for bit; `save_every` is the number of steps between checkpoints (default: every 30 seconds). After every
    `evaluate_every` steps the samples are compared with the training images, and the best model is kept in out/best;
    that takes a tenth of the time at most. `begin_from` is a run whose weights training begins with, of the same family
    and of any images: what fits is taken over.

    Errors: `ConfigError` for names and values that do not fit, `DataError` for the images, `RunError` for the folder,
    `DivergedError` when a loss is not finite, `InterruptedTraining` after a signal, saved.
    """
    own = {"device": device, "save_every": save_every, "evaluate_every": evaluate_every, "begin_from": begin_from}
    reports = steps(name, data, out=out, preset=preset, quiet=quiet, **own, **hyperparameters)
    return finish(reports)


def finish(reports: Reports) -> GenerativeModel:
    """Let a training go on to its end; returns the model."""
    while True:
        try:
            next(reports)
        except StopIteration as end:
            return end.value


def steps(
    name: str,
    data: str | Path | Data | np.ndarray[Any, Any] = "digits",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    quiet: bool = False,
    **options: Any,
) -> Reports:
    """Train as `train` does, and yield each line of the log (`log.jsonl`) as it is written, for any tracker:

        for report in fabulate.steps("vae", "mnist", out="runs/vae", epochs=10):
            wandb.log(report, step=report["step"])

    A report has `step`, `epoch`, `seconds` and some of `train`, `validation`, `test` and `samples`, each a dict of
    numbers (docs/reliability.md has the table). A loop that is left saves first; the same call continues.
    """
    named = ("device", "save_every", "evaluate_every", "begin_from")
    own = {key: options.pop(key) for key in named if key in options}
    config, training = configure(name, preset, options)
    console = Console(quiet=quiet)
    if not isinstance(data, Data):
        data = load_data(data)
        if data.report.warning:
            console.print(data.report.warning, highlight=False, markup=False, soft_wrap=True)
    out = Path(out) if out is not None else default_out(name, data)
    return (yield from run(name, config, training, data, out, **own, console=console))


def default_out(name: str, data: Data) -> Path:
    """Where a run goes when nobody says: runs/FAMILY-DATA."""
    return Path("runs") / f"{name}-{data.name}"


def configure(name: str, preset: str | Preset, hyperparameters: Mapping[str, Any]) -> tuple[Any, Training]:
    """The specs of the model and of its training: a preset, or the name of one, with some values changed.

    >>> configure("vae", "tutorial", {"latent_dim": 2, "steps": 10})[0].latent_dim
    2

    Errors: `ConfigError` for unknown presets, hyperparameters and networks (naming the nearest) and for bad values.
    """
    presets, own = family(name).presets, family(name).networks
    if isinstance(preset, str):
        if preset not in presets:
            raise ConfigError(
                f"{name} has no preset {preset!r}{nearest(preset, [*presets])} (presets: {', '.join(presets)})"
            )
        preset = presets[preset]
    values = dict(hyperparameters)
    for part, kinds in choices(family(name).Config).items():
        if isinstance(kind := values.get(part), str):
            if kind not in kinds:
                raise ConfigError(
                    f"there is no {part} {kind!r}{nearest(kind, [*kinds])} ({part}s of {name}: {', '.join(kinds)})"
                )
            usual = getattr(preset.model, part)
            values[part] = usual if usual.kind == kind else own[kind] if kind in own else kinds[kind]()
    of_training = {field.name for field in fields(Training)}
    if any(values.get(budget) is not None for budget in BUDGETS):  # a budget replaces the preset's
        values = dict.fromkeys(BUDGETS) | values
    model = {key: value for key, value in values.items() if key not in of_training}
    training = {key: value for key, value in values.items() if key in of_training}
    return override(preset.model, model), override(preset.training, training)


def choices(config: type[Any]) -> dict[str, dict[str, type[Any]]]:
    """The hyperparameters of a family that are one of several specs, told apart by their kind: {name: {kind: spec}}.

    >>> [*choices(family("vae").Config)["network"]]
    ['auto', 'mlp', 'conv', 'dcgan', 'gru']
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
    begin_from: str | Path | None = None,
    console: Console,
) -> Reports:
    """Train what the specs say on `data` in the run folder `out`, continuing what is there; yields its log."""
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
    sentences = []
    if training.conditional and data.test is not None and data.test.y is None:
        data = replace(data, test=None)
        sentences = ["No test loss: the model learns p(x | class), and the test images have no classes."]
    with ExitStack() as stack:
        stack.enter_context(flushed())
        model = fresh(name, config, training, data.shape, data.classes if training.conditional else (), device)
        given, training, chosen = training, settled(training, model)[0], choices_told(config, model)
        if begin_from is not None and not has_checkpoints(out):
            chosen.append(take_over(model, begin_from))
        processes = stack.enter_context(together(model.device))
        before = processes.broadcast_object(processes.leads(lambda: begun(out)))
        how = processes.broadcast_object(processes.leads(lambda: arithmetic(training, model, processes.count, before)))
        stack.enter_context(threads(how["threads"]))
        if before is None:
            make = partial(fresh, name, config, given, classes=model.classes, device=device)
            chosen += processes.leads(lambda: estimate(make, given, model.shape, len(data.train))) or []
        images, held_out = parts(model, training, data)
        learned = override(training, {"precision": how["precision"]})
        learner = Learner(model, learned, images, processes, held_out, how["micro_batches"])
        settings = {**described(model, training, data), "arithmetic": how}
        if begin_from is not None:
            settings["from"] = str(begin_from)
        folder = processes.leads(lambda: claimed(out, settings))
        if folder is None:
            return follow(learner, stack.enter_context(catching(Stop())))
        stack.callback(folder.close)
        quality = None if evaluate_every is None else SampleQuality.of(evaluate_every, data, model.device)
        stop = stack.enter_context(catching(Stop()))
        display = stack.enter_context(Display(console, name, stop, model.shape.medium))
        for sentence in (*chosen, *rounding(before, how), *sentences):
            display.say(sentence)
        session = Session(learner, folder, data, display, stop, save_every, quality)
        stack.enter_context(session.leaving())
        if session.begin():
            for terms in learner.steps():
                yield from session.after_step(terms)
            yield from session.end()
        return session.model()


def fit(
    name: str,
    config: Any,
    training: Training,
    images: BatchSource,
    shape: ImageShape,
    classes: Sequence[str] = (),
    *,
    device: str = "auto",
    latents_of: BatchSource | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GenerativeModel:
    """Train what the specs say on `images` in memory, without a run folder; returns the model, ready to use.

    `latents_of`: the images that a family fits what is left to (a mixture of latents, say) in the end, where these are
    others. `progress`: called with (steps done, all steps), where their number is known. Errors: `DivergedError`.
    """
    learner = Learner(fresh(name, config, training, shape, classes, device), training, images)
    for _ in learner.steps():
        if progress is not None and learner.total is not None:
            progress(learner.step, learner.total)
    learner.sampler().fit_latents(images if latents_of is None else latents_of)
    return learner.average.eval().requires_grad_(False)


def fresh(
    name: str, config: Any, training: Training, shape: ImageShape, classes: Sequence[str], device: str
) -> GenerativeModel:
    """A model with the weights of the training's seed."""
    with seeded(training.seed, "weights"):
        model = family(name)(config, shape, classes)
    return model.to(pick_device(device))


def take_over(model: GenerativeModel, source: str | Path) -> str:
    """Put another model's weights into this one wherever name and shape agree; returns a sentence on what was taken.

    `source`: a run, a model folder or a hub id. Errors: `ConfigError` for another family's, or when nothing fits.
    """
    other = load(source)
    if other.family not in (model.family, *model.akin):
        raise ConfigError(f"{source} is of the family {other.family}, and this is {model.family}: their weights differ")
    own, weights = model.state_dict(), other.state_dict()
    taken = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    if not any(name in taken for name, _ in model.named_parameters()):
        raise ConfigError(f"no layer of this model has its like in {source}: is the network another?")
    share = sum(value.numel() for value in taken.values()) / sum(value.numel() for value in own.values())
    model.load_state_dict({**own, **taken})
    new = [name for name in own if name not in taken]
    rest = f"; begun anew: {', '.join(new[:5])}{', ...' if len(new) > 5 else ''}" if new else ""
    return f"Begins with weights of {source}: {len(taken)} of {len(own)} tensors, {share:.0%} of the numbers{rest}"


def choices_told(config: Any, model: GenerativeModel) -> list[str]:
    """A sentence on each part that was left to the images: what they chose, and why."""
    why = {"network": reason, "space": spaces.reason}
    left = [part for part in choices(type(config)) if isinstance(getattr(config, part), Auto)]
    because = {part: f" ({why[part](model.shape)})" if part in why else "" for part in left}
    told = [f"{part}: {getattr(model.config, part).kind}{because[part]}" for part in left]
    if model.device.type == "cuda" and "gpu" in model.presets and config == model.presets["default"].model:
        told.append("preset: default, made for minutes of a CPU; on a GPU --preset gpu trains a larger network")
    return told


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


def described(model: GenerativeModel, training: Training, data: Data) -> dict[str, Any]:
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
