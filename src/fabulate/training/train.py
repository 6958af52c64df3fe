"""From a family and images to a trained model in a run folder: what happens between the steps of the loop.

`train` takes words and hyperparameters, as the command line does, and turns them into specs; `run` takes the specs
and does the work: it claims the folder, restores the newest good checkpoint, and between steps logs, draws, tests and
saves.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from fabulate.config import BUDGETS, Training, nearest, override, to_json
from fabulate.data import Data, load_data
from fabulate.errors import ConfigError, DivergedError
from fabulate.models import GenerativeModel, family
from fabulate.models.base import Reconstructs
from fabulate.nets import NETWORKS
from fabulate.pictures import grid, paired_rows, save_curves, save_png
from fabulate.seeds import seeded
from fabulate.training.folder import RunFolder, read_log
from fabulate.training.loop import Learner, score_images, take
from fabulate.training.progress import Display
from fabulate.training.signals import InterruptedTraining, Stop, catching_signals
from fabulate.types import to_uint8

PICTURES = 8  # times in a run that samples are drawn and the test images scored
REPORTS = 200  # lines in the log of a run whose length is known; with a budget in minutes, one every 50 steps
SAVE_SECONDS = 30.0  # between checkpoints, unless asked otherwise


def train(
    name: str,
    data: str | Path | Data | np.ndarray[Any, Any] = "digits",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    device: str = "auto",
    save_every: int | None = None,
    quiet: bool = False,
    **hyperparameters: Any,
) -> GenerativeModel:
    """Train a family on images and return the model, ready to sample; everything is kept in the folder `out`.

    `name` is a family ("vae"), `data` a source or what `load_data` gave. Hyperparameters are those of the family and of
    the training: `latent_dim=64, epochs=10, network="conv"`. The same call again continues where the last one stopped,
    bit for bit; `save_every` is the number of steps between checkpoints (default: every 30 seconds).

    Errors: `ConfigError` for names and values that do not fit, `DataError` for the images, `RunError` for the folder,
    `DivergedError` when a loss is not finite, `InterruptedTraining` after SIGINT or SIGTERM.
    """
    config, training = configure(name, preset, hyperparameters)
    console = Console(quiet=quiet)
    if not isinstance(data, Data):
        data = load_data(data)
        if data.report.warning:
            console.print(data.report.warning, highlight=False, markup=False, soft_wrap=True)
    out = Path(out) if out is not None else default_out(name, data)
    return run(name, config, training, data, out, device=device, save_every=save_every, console=console)


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
    if isinstance(kind := values.get("network"), str):
        if kind not in NETWORKS:
            raise ConfigError(
                f"there is no network {kind!r}{nearest(kind, [*NETWORKS])} (networks: {', '.join(NETWORKS)})"
            )
        values["network"] = NETWORKS[kind]()
    of_training = {field.name for field in fields(Training)}
    if any(values.get(budget) is not None for budget in BUDGETS):  # a budget replaces the preset's
        values = dict.fromkeys(BUDGETS) | values
    model = {key: value for key, value in values.items() if key not in of_training}
    training = {key: value for key, value in values.items() if key in of_training}
    return override(presets[preset].model, model), override(presets[preset].training, training)


def run(
    name: str,
    config: Any,
    training: Training,
    data: Data,
    out: Path,
    *,
    device: str = "auto",
    save_every: int | None = None,
    console: Console,
) -> GenerativeModel:
    """Train what the specs say on `data` in the run folder `out`, continuing what is there."""
    if training.conditional and not data.classes:
        raise ConfigError(
            f"{data.spec.source} has no classes to learn p(x | class) of; put the images of each in a folder"
        )
    with seeded(training.seed, "weights"):
        model = family(name)(config, data.shape, data.classes if training.conditional else ())
    learner = Learner(model.to(pick_device(device)), training, data.train)
    folder = RunFolder(out)
    try:
        folder.claim(settings(model, training, data))
        with Display(console, name) as display, catching_signals() as stop:
            return Session(learner, folder, data, display, save_every).finish(stop)
    finally:
        folder.close()


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is the first GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from error
    return torch.device(name)


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
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


class Session:
    """One sitting at a run: from the newest checkpoint to the end of the budget, or to a signal."""

    def __init__(
        self, learner: Learner, folder: RunFolder, data: Data, display: Display, save_every: int | None
    ) -> None:
        self.learner, self.folder, self.data, self.display, self.save_every = learner, folder, data, display, save_every
        self.shown = data.test if data.test is not None else data.train  # whose reconstructions are drawn
        self.tested: dict[str, float] = {}
        self.saved_at = time.monotonic()

    def finish(self, stop: Stop) -> GenerativeModel:
        """Train to the end and return the model."""
        learner, folder = self.learner, self.folder
        self.restore()
        log = read_log(folder.path)
        if log and log[-1].get("finished"):
            self.display.say(
                f"{folder.path} is finished: {learner.step:,} steps. For another run give another --out; "
                f"fabulate info {folder.path} tells its numbers."
            )
            self.tested = next((row["test"] for row in reversed(log) if "test" in row), {})
            return self.model()
        self.train(stop)
        self.picture()
        folder.report({**self.where(), "test": self.tested})
        self.summary_pictures()
        self.save()
        self.save_model()
        folder.report({**self.where(), "finished": True})  # last of all: a kill before this line repeats the end
        return self.model()

    def restore(self) -> None:
        """Go to the newest good checkpoint; say which were passed over."""
        state, passed = self.folder.restore()
        for sentence in passed:
            self.display.say(f"Warning: {sentence}; going back to the one before it.")
        if state is not None:
            self.learner.restore(state)
            self.display.say(f"Continuing {self.folder.path} from step {self.learner.step:,}.")
        self.folder.rewind(self.learner.step)

    def train(self, stop: Stop) -> None:
        """The steps, and what happens between them."""
        learner, count, began = self.learner, 0, self.learner.seconds
        sums: dict[str, torch.Tensor] = {}
        interval = max(1, learner.total // REPORTS) if learner.total else 50
        pictures = int(learner.progress * PICTURES)
        try:
            for terms in learner.steps():
                for name, value in terms.items():
                    sums[name] = sums[name] + value if name in sums else value
                count += 1
                if learner.step % interval == 0 or learner.progress >= 1:
                    means = {name: float(value) / count for name, value in sums.items()}
                    speed = count * learner.training.batch_size / max(learner.seconds - began, 1e-9)
                    self.folder.report({**self.where(), "images_per_second": round(speed, 1), "train": means})
                    self.display.update(learner.progress, learner.step, speed, means)
                    sums, count, began = {}, 0, learner.seconds
                if int(learner.progress * PICTURES) > pictures and learner.progress < 1:
                    pictures = int(learner.progress * PICTURES)
                    self.picture()
                    self.folder.report({**self.where(), "test": self.tested})
                    self.save_model()
                    learner.model.train()
                if stop.number is not None:
                    self.leave(stop.number)
                if self.due():
                    self.save()
        except DivergedError as error:
            saved = self.folder.restore()[0]
            kept = f"step {saved['step']:,}" if saved else "none yet"
            raise DivergedError(f"{error}. Last good checkpoint in {self.folder.path}: {kept}") from error

    def where(self) -> dict[str, Any]:
        """How far training has come, as each line of the log says it."""
        learner = self.learner
        return {"step": learner.step, "epoch": round(learner.epoch, 3), "seconds": round(learner.seconds, 3)}

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.save_every is not None:
            return self.learner.step % self.save_every == 0
        return time.monotonic() - self.saved_at >= SAVE_SECONDS

    def save(self) -> None:
        """Write a checkpoint."""
        self.folder.save(self.learner.state())
        self.saved_at = time.monotonic()

    def leave(self, number: int) -> None:
        """A signal came: save everything and go."""
        self.save()
        self.save_model()
        raise InterruptedTraining(
            number, f"Stopped at step {self.learner.step:,}, saved in {self.folder.path}. The same command continues."
        )

    def model(self) -> GenerativeModel:
        """The model to use, with what its card tells."""
        model = self.learner.sampler().eval().requires_grad_(False)
        model.record = {
            "data": self.data.name,
            "steps": self.learner.step,
            "seconds": round(self.learner.seconds, 1),
            "test": self.tested,
        }
        return model

    def save_model(self) -> None:
        """Write the folder for users."""
        with self.folder.writing():
            self.model().save_pretrained(self.folder.model)

    def picture(self) -> None:
        """Draw 64 samples from fixed noise, some reconstructions, and score the test images."""
        model, step = self.learner.sampler(), f"step-{self.learner.step:08d}"
        if self.data.test is not None:
            self.tested = score_images(model, self.data.test, self.learner.training.seed)
        with self.folder.writing():
            save_png(grid(to_uint8(model.sample(64)).cpu().numpy(), columns=8), self.folder.samples / f"{step}.png")
            if isinstance(model, Reconstructs):
                batch = take(self.shown, torch.arange(min(32, len(self.shown))), model)
                copies = model.reconstruct(batch.x, batch.y)
                pairs = paired_rows(to_uint8(batch.x).cpu().numpy(), to_uint8(copies).cpu().numpy(), columns=8)
                save_png(grid(pairs, columns=8), self.folder.samples / f"reconstructions-{step}.png")

    def summary_pictures(self) -> None:
        """The run's last pictures under plain names, and its curves."""
        step = f"step-{self.learner.step:08d}.png"
        with self.folder.writing():
            for old, new in ((step, "samples.png"), (f"reconstructions-{step}", "reconstructions.png")):
                if (self.folder.samples / old).exists():
                    (self.folder.path / new).write_bytes((self.folder.samples / old).read_bytes())
            save_curves(read_log(self.folder.path), self.folder.path / "curves.png", str(self.folder.path.name))
