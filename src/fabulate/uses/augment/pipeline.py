"""From images with unequal classes to an augmented data set in a folder: cut, learn, draw, filter, write.

The cut comes before the training; what can be refused is refused before either. One network draws all classes, so that
what frequent classes show of styles (slant, width, light) serves the rare ones. Trained on images as they come, it
would see a class of 40 among 4,000 in one image of a hundred, and hardly learn it. So images of rare classes come again
within an epoch until all classes are as many. Nothing is copied: only the numbers of the images are. (For generators:
Mariani et al., "BAGAN: data augmentation with balancing GAN", 2018, https://arxiv.org/abs/1803.09655.)

Legend: N images, B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from fabulate import training
from fabulate.config import BUDGETS, Training, nearest, to_json
from fabulate.data import Data, Images
from fabulate.data.listing import Labels
from fabulate.errors import CapabilityError, ConfigError, RunError
from fabulate.files import key
from fabulate.models import GenerativeModel, family
from fabulate.models.base import Conditional, able
from fabulate.nets.blocks import LARGEST_SIDE, SMALLEST_SIDE
from fabulate.pictures import save_png, sheet
from fabulate.types import Batch, Stages, silent
from fabulate.uses.augment.filters import COPY, FAR, Filters, Synthetic, rejection_sampling
from fabulate.uses.augment.folder import (
    SHARE,
    SYNTHETIC,
    Split,
    claim,
    counted,
    finish,
    labels,
    rejoined,
    split,
    write_part,
)

SHOWN = 12  # of each class in samples.png

RECIPES: dict[str, dict[str, Any]] = {
    # Codes are drawn from one Gaussian fitted to those of each class: 40 images, shown 100 times, would get a mixture
    # of 20 that knows each of them.
    "vae": {"preset": "conv", "prior": "normal", "latent_dim": 16, "components": 1, "steps": 3000, "epochs": None},
}
"""Hyperparameters that serve this use, by family; other families start from their default."""


class Made(NamedTuple):
    """What `augment` did."""

    cut: Split
    synthetic: Synthetic


def augment(
    data: Data,
    out: str | Path,
    *,
    family: str = "vae",
    run: str | Path | None = None,
    to: str = "balanced",
    share: float = SHARE,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    console: Console | None = None,
    progress: Stages | None = None,
) -> Made:
    """Make synthetic images of the classes that lack some, and write them, with a record, into the folder `out`.

    `family`: what is trained, unless `run` is a run of a conditional model on the same data. `to`: how many
    images a class shall have (`missing`). `share`: of each class, kept for the test. `hyperparameters`: over
    those of the family's recipe. `progress`: called with (what is done, parts done, all parts).
    Errors: `DataError` for images without classes, `ConfigError` for words and numbers that do not fit, `RunError` for
    the folder or the run, `CapabilityError` for a family that cannot learn classes; and those of training.
    """
    out, told = Path(out), progress or silent
    labels(data)
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in data.shape[1:]):
        raise ConfigError(
            f"what filters samples takes images of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side, "
            f"given {data.shape}: --size"
        )
    if run is None:
        cut, model = split(data, share), None
        config, schedule = conditional(family, {"seed": seed, **(hyperparameters or {})})
    else:
        cut = cut_of_run(data, Path(run), share)
        model = training.load(run, device)
        agrees(model, data)
    lacking = missing(to, counted(cut.train, data.classes))
    claim(out, data, cut, overwrite)
    if model is None:  # the test is not even looked at; the same call goes on where it was interrupted
        shown = replace(data, train=Balanced(cut.train.x, cut.train.y), test=None, fingerprint=fingerprint(data, cut))
        console = console or Console(quiet=True)
        reports = training.run(family, config, schedule, shown, out / "run", device=device, console=console)
        model = training.finish(reports)
    filters = Filters.of(cut.train, data.classes, seed=seed, progress=partial(told, "training the referee"))
    made = rejection_sampling(model, filters, lacking, data.classes, seed=seed, progress=partial(told, "drawing"))
    write(out, data, cut, model, made, seed, told)
    return Made(cut, made)


def cut_of_run(data: Data, run: Path, share: float) -> Split:
    """How the data were cut for a run: as an augmentation cuts them, or as `fabulate train` does.

    Errors: `RunError` when the run was trained on anything else.
    """
    own = training.read_config(run)["data"]["fingerprint"]
    cut = split(data, share)
    if own == fingerprint(data, cut):
        return cut
    if own == data.fingerprint and data.test is not None:
        return rejoined(data, [])
    raise RunError(
        f"{run} was not trained on the training part of {data.spec.source}: nobody can tell which test images it saw; "
        f"train one with `fabulate train FAMILY --conditional --data {data.spec.source}`, or leave --run out"
    )


def agrees(model: GenerativeModel, data: Data) -> None:
    """Refuse a model that cannot draw the data's classes."""
    if not model.classes:
        raise ConfigError(f"this {model.family} learnt no classes; train it with --conditional")
    if set(model.classes) != set(data.classes) or model.shape != data.shape:
        raise ConfigError(
            f"the model makes {model.shape} images of {', '.join(model.classes)}; "
            f"{data.name} has {data.shape} ones of {', '.join(data.classes)}"
        )


def write(out: Path, data: Data, cut: Split, model: GenerativeModel, made: Synthetic, seed: int, told: Stages) -> None:
    """Images, their record and a picture of some."""
    y, names = made.images.class_numbers, data.classes
    paths = write_part(out, SYNTHETIC, made.images, names, made.numbers, partial(told, "writing"))
    write_part(out, "real", cut.train, names, progress=partial(told, "writing real images"))
    write_part(out, "test", cut.test, names, progress=partial(told, "writing test images"))
    shown = np.concatenate([np.flatnonzero(y == k)[:SHOWN] for k in np.unique(y)])
    title, legend = f"{data.name}: synthetic images by {model.family}", f"the first {SHOWN} kept of each class"
    save_png(sheet(made.images.x[shown], title, legend, y[shown], names, SHOWN), out / "samples.png")
    counts: dict[str, dict[str, int]] = {name: {"real": n} for name, n in counted(cut.train, names).items()}
    for name, n in counted(cut.test, names).items():
        counts[name] |= {"test": n} | (made.tallies[name]._asdict() if name in made.tallies else {})
    about = {
        "classes": list(names),
        "model": {
            "family": model.family,
            "sha256": model.weights_hash(),
            "sampling": to_json(model.sampling),
            "trained": model.record,
        },
        "seed": seed,
        "seeds": made.seeds,
        "filters": {"far": FAR, "copy": COPY},
        "counts": counts,
    }
    files = {path: (names[int(k)], int(number)) for path, k, number in zip(paths, y, made.numbers, strict=True)}
    finish(out, data, cut, files, about)


def missing(to: str, counts: Mapping[str, int]) -> dict[str, int]:
    """How many images each class lacks (0: none) of its target, from how many real ones it has.

    Targets, real and synthetic images together: `balanced` (all as many as the largest), a number (all up to it), or
    `name=number,...` (these up to theirs). Nothing is ever taken away from a class.

    >>> missing("balanced", {"cat": 50, "dog": 8}), missing("dog=10", {"cat": 50, "dog": 8})
    ({'cat': 0, 'dog': 42}, {'cat': 0, 'dog': 2})

    Errors: `ConfigError` for words that are no target, for unknown classes, and when no class lacks any.
    """
    goals = _targets(to.strip(), counts)
    lacking = {name: max(0, goals.get(name, 0) - count) for name, count in counts.items()}
    if not any(lacking.values()):
        has = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name in goals)
        raise ConfigError(f"nothing to make: with --to {to} no class lacks images (it has: {has}); ask for more")
    return lacking


def _targets(to: str, counts: Mapping[str, int]) -> dict[str, int]:
    if to == "balanced":
        return dict.fromkeys(counts, max(counts.values()))
    if "=" not in to:
        return dict.fromkeys(counts, _number(to, to))
    goals = {}
    for part in to.split(","):
        name, _, number = part.rpartition("=")
        name = name.strip()
        if name not in counts:
            hint = nearest(name, [*counts])
            raise ConfigError(f"--to {to}: there is no class {name!r}{hint} (classes: {', '.join(counts)})")
        goals[name] = _number(number, to)
    return goals


def _number(word: str, to: str) -> int:
    if not word.strip().isdecimal():
        raise ConfigError(f"--to takes balanced, a number, or name=number,...; given {to!r}")
    return int(word)


@dataclass(frozen=True, eq=False)
class Balanced(Images):
    """Images whose rare classes come again until all classes are as many as the largest, as nearly as may be.

    >>> images = Images(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array([0, 0, 0, 1]))
    >>> np.bincount(Balanced(images.x, images.y).batch(torch.arange(6)).y).tolist()
    [3, 3]
    """

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def rows(self) -> Tensor:
        """Numbers of the images, those of rare classes several times."""
        return balanced_rows(self.class_numbers)

    def stored(self, indices: Tensor) -> Batch:
        return super().stored(self.rows[indices])

    def pixels(self, indices: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return super().pixels(self.rows[indices])


def balanced_rows(y: Labels) -> Tensor:
    """Numbers of images of classes y (N,), those of rare classes several times: as many of each as of the largest."""
    own = [np.flatnonzero(y == k) for k in np.unique(y)]
    most = max(map(len, own))
    return torch.from_numpy(np.concatenate([np.resize(numbers, most) for numbers in own]))


def fingerprint(data: Data, cut: Split) -> str:
    """Hexadecimal; that of the data, unless some of their training images are kept for the test."""
    if not cut.held_out:
        return data.fingerprint
    return key((data.fingerprint, cut.held_out))


def conditional(name: str, hyperparameters: Mapping[str, Any], recipe: bool = True) -> tuple[Any, Training]:
    """The specs of a family's model of p(x | class) and of its training, with the family's recipe or without.

    Errors: as `fabulate.train`; `CapabilityError` for a family that cannot learn classes.
    """
    if not issubclass(family(name), Conditional):
        raise CapabilityError(f"{name} cannot learn p(x | class); {able(Conditional)}")
    values: dict[str, Any] = dict(RECIPES.get(name, {}) if recipe else {})
    if any(hyperparameters.get(budget) is not None for budget in BUDGETS):  # replaces the recipe's
        values = {key: value for key, value in values.items() if key not in BUDGETS}
    values |= hyperparameters
    return training.configure(name, values.pop("preset", "default"), values | {"conditional": True})
