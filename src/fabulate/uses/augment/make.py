"""From images with unequal classes to an augmented data set in a folder: cut, learn, draw, judge, write.

The cut comes before the training; what can be refused is refused before either.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from fabulate import training
from fabulate.config import to_json
from fabulate.data import Data
from fabulate.errors import ConfigError, RunError
from fabulate.folder_names import folder_name
from fabulate.models import GenerativeModel
from fabulate.pictures import save_png, sheet
from fabulate.uses.augment.amounts import missing
from fabulate.uses.augment.drawing import Synthetic, fill
from fabulate.uses.augment.folder import claim, finish, write_part
from fabulate.uses.augment.learning import check, fingerprint, learn
from fabulate.uses.augment.rules import COPY, FAR, Judge
from fabulate.uses.augment.split import SHARE, Split, labels, rejoined, split

SHOWN = 12  # of each class in samples.png
LARGEST = 64  # pixels a side that the classifiers here take

Progress = Callable[[str, int, int], None]
"""Called with (what is done now, parts done, all parts)."""


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
    progress: Progress | None = None,
) -> Made:
    """Make synthetic images of the classes that lack some, and write them, with a record, into the folder `out`.

    `family`: what is trained, unless `run` is a run of a conditional model on the same data. `to`: how many
    images a class shall have (`amounts.missing`). `share`: of each class, kept for the test. `hyperparameters`: over
    those of the family's recipe. `progress`: called with (what is done, parts done, all parts).
    Errors: `DataError` for images without classes, `ConfigError` for words and numbers that do not fit, `RunError` for
    the folder or the run, `CapabilityError` for a family that cannot learn classes; and those of training.
    """
    out, told = Path(out), progress or (lambda what, done, total: None)
    labels(data)
    if not all(8 <= side <= LARGEST for side in data.shape[1:]):
        raise ConfigError(
            f"what judges samples takes images of 8 to {LARGEST} pixels a side, given {data.shape}: --size"
        )
    folders = {folder_name(name): name for name in data.classes}
    if len(folders) < len(data.classes):
        twin = next(name for name in data.classes if folders[folder_name(name)] != name)
        raise ConfigError(f"the classes {twin} and {folders[folder_name(twin)]} would share a folder: rename one")
    if run is None:
        cut, model = split(data, share), None
        check(family, dict(hyperparameters or {}))
    else:
        cut = cut_of_run(data, Path(run), share)
        model = training.load(run, device)
        agrees(model, data)
    lacking = missing(to, counted(cut, data.classes))
    claim(out, data, cut, overwrite)
    if model is None:
        model = learn(
            family,
            data,
            cut,
            out / "run",
            hyperparameters={"seed": seed, **(hyperparameters or {})},
            device=device,
            console=console or Console(quiet=True),
        )
    judge = Judge.of(cut.train, data.classes, seed=seed, progress=partial(told, "training the referee"))
    made = fill(model, judge, lacking, data.classes, seed=seed, progress=partial(told, "drawing"))
    write(out, data, cut, model, made, seed, told)
    return Made(cut, made)


def counted(cut: Split, classes: tuple[str, ...]) -> dict[str, int]:
    """How many images of each class there are to learn from."""
    counts = np.bincount(cut.train.y if cut.train.y is not None else [], minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


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


def write(
    out: Path, data: Data, cut: Split, model: GenerativeModel, made: Synthetic, seed: int, told: Progress
) -> None:
    """Images, their record and a picture of some."""
    y = made.images.y
    assert y is not None
    paths = write_part(out, "synthetic", made.images, data.classes, made.numbers, partial(told, "writing"))
    write_part(out, "real", cut.train, data.classes, None, partial(told, "writing real images"))
    write_part(out, "test", cut.test, data.classes, None, partial(told, "writing test images"))
    shown = np.concatenate([np.flatnonzero(y == k)[:SHOWN] for k in np.unique(y)])
    title, legend = f"{data.name}: synthetic images by {model.family}", f"the first {SHOWN} kept of each class"
    save_png(sheet(made.images.x[shown], title, legend, y[shown], data.classes, SHOWN), out / "samples.png")
    real, test = (counted(part, data.classes) for part in (cut, Split(cut.test, cut.test)))
    about = {
        "classes": list(data.classes),
        "model": {
            "family": model.family,
            "sha256": model.weights_hash(),
            "sampling": to_json(model.sampling),
            "trained": model.record,
        },
        "seed": seed,
        "seeds": made.seeds,
        "rules": {"far": FAR, "copy": COPY},
        "counts": {
            name: {"real": real[name], "test": test[name]}
            | ({} if name not in made.tallies else made.tallies[name]._asdict())
            for name in data.classes
        },
    }
    files = {path: (data.classes[int(k)], int(number)) for path, k, number in zip(paths, y, made.numbers, strict=True)}
    finish(out, data, cut, files, about)
