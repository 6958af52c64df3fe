"""From a run and real images to a report: samples are drawn once, then each section measures what it can.

A section is a function from a `Subject` to a `Findings`. One that cannot measure something says why instead.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fabulate.compiling import Say
from fabulate.config import Compile
from fabulate.data import Data, load_spec
from fabulate.data.stream import in_memory
from fabulate.errors import ConfigError, DataError
from fabulate.evaluation.classes import classes
from fabulate.evaluation.codes import latent, reconstruction
from fabulate.evaluation.fidelity import MEMORISATION, fidelity, memorisation
from fabulate.evaluation.likelihood import likelihood
from fabulate.evaluation.report import Report, Settings
from fabulate.evaluation.sequences import of_sequences
from fabulate.evaluation.subject import Findings, Measured, Subject, timed
from fabulate.features import features_for
from fabulate.models import GenerativeModel
from fabulate.samples import Order
from fabulate.seeds import permutation
from fabulate.training import is_run, load, own_data, read_config
from fabulate.types import ImageShape, Progress, SequenceShape, Stages, silent

SECTIONS: dict[str, Callable[[Subject, Settings, Progress], Findings]] = {
    "fidelity": lambda subject, asked, _: fidelity(subject),
    "classes": lambda subject, asked, counter: classes(subject, progress=counter),
    "memorisation": lambda subject, asked, _: memorisation(subject),
    "likelihood": lambda subject, asked, counter: likelihood(subject, k=asked.k, images=asked.images, progress=counter),
    "reconstruction": lambda subject, asked, counter: reconstruction(subject, progress=counter),
    "latent": lambda subject, asked, _: latent(subject),
}

FEWEST = 20  # samples, and real images: below, not even neighbours can be counted


def evaluate(
    run: str | Path | GenerativeModel,
    data: Data | None = None,
    *,
    n: int = 10_000,
    features: str | nn.Module = "auto",
    seed: int = 0,
    k: int = 100,
    images: int = 1000,
    device: str = "auto",
    compile: Compile = "auto",
    say: Say = lambda sentence: None,
    progress: Stages | None = None,
) -> Report:
    """Measure what a model's samples are worth: its report.

    `run`: a run folder, a model folder or a model. `data`: default the images of the run; the training images of
    others are taken for the model's own unless its run says otherwise; of streamed ones at most 60,000 stand for all.
    `n`: samples, and at most as many real images.
    `features`: what `features_for` takes. `k`: codes of each image in the importance-weighted bound, and `images`: how
    many have their likelihood computed, where the family has one. `device`: where a run's model is put. `compile`:
    whether samples are drawn by compiled networks, of which `say` takes a sentence. `progress`: called with (what is
    done, parts done, all parts).
    Errors: `ConfigError` for images of another shape or too small an n, `DataError` for too few images, `RunError`.
    """
    if k < 1 or images < 1:
        raise ConfigError(f"a likelihood needs at least 1 code and 1 image; given k={k} and images={images}")
    told = progress or silent
    model = run if isinstance(run, GenerativeModel) else load(run, device)
    config = None if isinstance(run, GenerativeModel) or not is_run(Path(run)) else read_config(Path(run))
    data = data or trained_on(run)
    check(model, data, n)
    data = in_memory(data, partial(told, "reading images"))
    asked = settings(data, n, features, seed, k, images)
    own = config is None or config["data"]["fingerprint"] == data.fingerprint
    shape: Any = data.shape
    if isinstance(shape, SequenceShape):
        found = of_sequences(model, data, n, seed, told)
    else:
        found = of_images(model, data, asked, own, features, compile, say, told)
    return Report(
        name=model.family if isinstance(run, GenerativeModel) else Path(run).resolve().name,
        family=model.family,
        model_sha256=model.weights_hash(),
        classes=model.classes,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=model.record,
        data=data.name,
        settings=asked,
        sampling_seconds=found.seconds["samples"],
        versions={"fabulate": version("fabulate"), "torch": version("torch"), "numpy": np.__version__},
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **found._asdict(),
    )


def of_images(
    model: GenerativeModel,
    data: Data,
    asked: Settings,
    own: bool,
    features: str | nn.Module,
    compile: Compile,
    say: Say,
    told: Stages,
) -> Measured:
    """What is measured of images. `own`: whether the model was trained on these."""
    n, seed = asked.n, asked.seed
    seconds: dict[str, float] = {}
    with timed(seconds, "features"):
        of = features_for(data, features, device=model.device, progress=partial(told, "features"))
    with timed(seconds, "samples"):
        samples, y = sampled(model, data, n, seed, compile, say, partial(told, "samples"))
    subject = Subject(model=model, data=data, samples=samples, y=y, features=of, seed=seed)
    sections = []
    for name, section in SECTIONS.items():
        told(name, 0, 1)
        foreign = name == "memorisation" and not own
        with timed(seconds, name):
            sections.append(FOREIGN if foreign else section(subject, asked, partial(told, name)))
    return Measured(subject.named, len(subject.real), of.describe(), seconds, warnings(subject, own), tuple(sections))


FOREIGN = Findings(
    title=MEMORISATION,
    absent={MEMORISATION: "the images given are not those the model was trained on, so it cannot have copied them"},
)


def settings(data: Data, n: int, features: str | nn.Module, seed: int, k: int, images: int) -> Settings:
    """The settings of an evaluation, by which reports are told apart."""
    named = features if isinstance(features, str) else type(features).__name__
    return Settings(data=data.fingerprint, n=n, seed=seed, features=named, k=k, images=images)


def trained_on(run: str | Path | GenerativeModel) -> Data:
    """The images that a run was trained on, read as it read them."""
    if isinstance(run, GenerativeModel) or not is_run(Path(run)):
        raise ConfigError(
            f"{run if isinstance(run, str | Path) else run.family} does not say what images it saw: give data"
        )
    return load_spec(own_data(Path(run)))


def check(model: GenerativeModel, data: Data, n: int) -> None:
    """Refuse what cannot be measured before work is done."""
    if data.shape != model.shape:
        raise ConfigError(
            f"the model makes {model.shape.medium} of {model.shape} and {data.name} has {data.shape.medium} of "
            f"{data.shape}; give {model.shape.medium} of its own shape and symbols (--size and --channels do that for "
            f"images)"
        )
    if n < FEWEST:
        raise ConfigError(f"an evaluation needs at least {FEWEST} samples; given n={n}")
    real = len(data.train) // 2 if data.test is None else min(len(data.test), len(data.train))
    if real < FEWEST and isinstance(model.shape, ImageShape):
        held = f"{real} of its {len(data.train) + len(data.test or ())} images are" if data.test else f"{real} would be"
        raise DataError(
            f"an evaluation needs at least {FEWEST} real images to compare with, and of {data.name} {held} held out: "
            f"give --data with more images, or with a folder test/ of {FEWEST} or more"
        )


def sampled(
    model: GenerativeModel,
    data: Data,
    n: int,
    seed: int,
    compile: Compile = "off",
    say: Say = lambda sentence: None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Samples 0 .. n - 1 of a seed, uint8 (N, C, H, W), and the classes (N,) asked for, as `data` numbers them.

    A conditional model is asked for classes as often as they are among the training images: its samples are then of
    p(x). When the images know other classes, every class in turn.
    """
    y = None
    if model.classes and data.train.y is not None and set(model.classes) <= set(data.classes):
        rows = permutation(len(data.train), seed, "evaluate", "classes")[torch.arange(n) % len(data.train)]
        drawn = torch.from_numpy(data.train.y[rows.numpy()])
        known = torch.tensor([i for i, name in enumerate(data.classes) if name in model.places])
        y = drawn[torch.isin(drawn, known)]  # images may know more classes than the model
        y = y[torch.arange(n) % len(y)] if len(y) else None
    names = None if y is None else [data.classes[int(c)] for c in y]
    samples = torch.empty(n, *model.shape, dtype=torch.uint8)
    order = Order(model, n, names, seed=seed, compile=compile, say=say, progress=progress)
    for start, images in order.batches():
        samples[start : start + len(images)] = torch.from_numpy(images)
    return samples, y


def warnings(subject: Subject, own: bool) -> tuple[str, ...]:
    """What stands above everything else."""
    found = []
    if subject.data.test is None:
        found.append(
            "These images have no test part. Samples are compared with training images, which a model that copies them "
            "matches best of all: trust no number here that a copy would improve, and hold images out."
        )
    if not own:
        found.append(
            "These are not the images the model was trained on: distances tell the two sets of images apart too."
        )
    data = subject.data
    if len(data.train) < data.report.train:
        found.append(
            f"These images are streamed. {len(data.train):,} of the {data.report.train:,} training images stand for "
            "all: a copy of another is not seen."
        )
    if warning := subject.features.describe().get("warning"):
        found.append(str(warning))
    return tuple(found)
