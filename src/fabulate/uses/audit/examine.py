"""What an audit asks: of samples, of the images that the model was trained on, and of images that it never saw.

Near copies are sought in `near_copies`. Membership inference attacks are numbers that are higher for images the model
was trained on, as far as it memorised, each judged in `metrics.membership`:

* from the samples alone, the nearest: minus the distance of an image to the nearest of S samples, in features and as
  thumbnails (Chen, Yu, Zhang, Fritz, "GAN-Leaks", 2020, https://arxiv.org/abs/1909.03935; Hilprecht, Härterich, Bernau
  2019, https://doi.org/10.2478/popets-2019-0067);
* with the model, its loss (Yeom et al., "Privacy risk in machine learning", 2018, https://arxiv.org/abs/1709.01604):
  the score of a family that has one and is quick, such as the ELBO or log p(x), else minus the training loss of the
  image alone, with the same noise for each image (of diffusion models: Duan et al. 2023,
  https://arxiv.org/abs/2302.01316). A family of several players has no loss by which images can be compared.

Legend: M images, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor

from fabulate.data import Data, Images
from fabulate.errors import ConfigError
from fabulate.metrics.copies import exact_copies
from fabulate.metrics.intervals import Estimate, checked
from fabulate.metrics.manifold import nearest_rows
from fabulate.metrics.membership import auc, tpr_at
from fabulate.models import GenerativeModel
from fabulate.models.base import evaluating
from fabulate.models.capabilities import Reconstructs, Scores
from fabulate.seeds import permutation, seeded
from fabulate.training import is_run, read_config
from fabulate.training.folder import recorded
from fabulate.training.validation import split
from fabulate.types import Progress, Stages, to_float
from fabulate.uses.audit.near_copies import Copies, Judged, Measure, chunks, planted

LEVEL = 0.01  # of false alarms, and of the attacks' false positives
MOST = 2000  # members, and images held out, that are compared
PLANTED = 100  # copies of each kind
SCORE, LOSS = BY_MODEL = "the model's score", "the model's loss"
TIMES = 16  # that the loss of an image is computed, each with other noise
CHUNK = 256  # images scored at a time
FEW = 200  # images whose loss is computed, at most: each goes through the networks alone, `TIMES` times


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is compared, uint8 (N, C, H, W) each."""

    samples: Tensor
    train: Images
    rows: Tensor
    """Numbers of the members in the training part (M,)."""
    members: Tensor
    """Training images that the weights have seen."""
    held_out: Tensor
    held_out_rows: Tensor
    """Their numbers in the test part (H,)."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an audit knows."""

    parts: Parts
    exact: Tensor
    judged: Judged
    flagged: Tensor
    """Numbers of samples, the most suspicious first."""
    p_value: float
    """How probable so many flagged samples are for a model that copies nothing."""
    planted: dict[str, Estimate]
    attacks: dict[str, tuple[Estimate, Estimate]]
    distances: tuple[Tensor, Tensor]
    """To the nearest training image, in features: of samples and of images held out."""


def divided(source: Any, model: GenerativeModel, data: Data, samples: Tensor, seed: int) -> Parts:
    """What is compared. Of the training part, members are those that were not held out to validate with."""
    assert data.test is not None
    members = torch.arange(len(data.train))
    if not isinstance(source, GenerativeModel) and is_run(Path(source)):
        config = read_config(Path(source))
        if config["data"]["fingerprint"] != data.fingerprint:
            raise ConfigError(f"{source} was trained on other images than {data.name}: give its own")
        training = recorded(config)[0].training
        numbers = split(data.train, training.validation, training.seed) if model.validates else None
        members = members if numbers is None else numbers[0]
    rows = members[permutation(len(members), seed, "audit", "members")[:MOST]]
    held_out_rows = permutation(len(data.test), seed, "audit", "held out")[:MOST]
    return Parts(
        samples=samples,
        train=data.train,
        rows=rows,
        members=torch.from_numpy(data.train.pixels(rows)),
        held_out_rows=held_out_rows,
        held_out=torch.from_numpy(data.test.pixels(held_out_rows)),
    )


def examined(
    model: GenerativeModel, data: Data, parts: Parts, measures: dict[str, Measure], seed: int, told: Stages
) -> Found:
    """Everything that is asked."""
    told("near copies", 0, 2)
    copies = Copies(parts.train, parts.held_out, measures["features"])
    judged = copies.judge(parts.samples)
    order = judged.ratios.argsort(stable=True)  # as the p-values, which have ties
    flagged = order[judged.p_values[order] <= LEVEL]
    told("near copies", 1, 2)
    shown = permutation(len(parts.members), seed, "audit", "planted")[:PLANTED]
    made = planted(parts.members[shown].numpy(), np.random.default_rng(seed))
    seen = copies.judge(torch.from_numpy(np.concatenate([*made.values()]))).p_values <= LEVEL
    power = {
        how: Estimate.of_share(int(found.sum()), len(found))
        for how, found in zip(made, torch.split(seen, len(shown)), strict=True)
    }
    told("near copies", 2, 2)
    asked = parts.samples, parts.members, parts.held_out
    measured = {name: [measure(images) for images in asked] for name, measure in measures.items()}
    of_samples, _, of_held_out = (vectors.double() for vectors in measured["features"])
    of_train = copies.train[0].double()
    return Found(
        parts=parts,
        exact=torch.stack([exact_copies(parts.samples, part) for part in chunks(parts.train)]).any(0),
        judged=judged,
        flagged=flagged,
        p_value=chance_of(len(flagged), len(parts.samples), len(parts.held_out)),
        planted=power,
        attacks=attacked(model, data, parts, measured, seed, told),
        distances=(
            nearest_rows(of_samples, of_train)[1],
            nearest_rows(of_held_out, of_train)[1],
        ),
    )


def chance_of(flagged: int, samples: int, held_out: int) -> float:
    """How probable as many flagged samples, or more, are by chance: the level itself is only known by images held out.

    Of n conformal p-values of h images the number at most a level is beta-binomial.

    >>> round(chance_of(10, 1000, 1000), 2), chance_of(60, 1000, 1000) < 0.001
    (0.5, True)
    """
    rank = int(LEVEL * (held_out + 1))
    return float(betabinom.sf(flagged - 1, samples, rank, held_out + 1 - rank))


def attacked(
    model: GenerativeModel, data: Data, parts: Parts, measured: dict[str, list[Tensor]], seed: int, told: Stages
) -> dict[str, tuple[Estimate, Estimate]]:
    """Each attack's AUC and its true-positive rate.

    `measured`: samples, members and images held out, by each measure.
    """
    assert data.test is not None
    numbers = {
        f"nearest sample, by {name}": [-nearest_rows(*checked(images=images, samples=samples))[1] for images in both]
        for name, (samples, *both) in measured.items()
    }
    name = how(model)
    if name is not None and not (model.classes and (data.train.y is None or data.test.y is None)):
        both = [
            by_model(model, images, classes, seed=seed, progress=partial(told, f"membership, {what}"))
            for what, images, classes in (
                ("training images", parts.members, named(model, data, data.train.y, parts.rows)),
                ("images held out", parts.held_out, named(model, data, data.test.y, parts.held_out_rows)),
            )
        ]
        if all(len(one) for one in both):
            numbers[name] = both
    return {name: (auc(of, no), tpr_at(of, no, LEVEL, seed=seed)) for name, (of, no) in numbers.items()}


def named(model: GenerativeModel, data: Data, y: np.ndarray | None, rows: Tensor) -> list[str] | None:
    """The classes of images by name, as a conditional model is asked for them."""
    return None if not model.classes or y is None else [data.classes[k] for k in y[rows.numpy()]]


def how(model: GenerativeModel) -> str | None:
    """What the attack with the model goes by; None where there is nothing."""
    if isinstance(model, Scores) and not (isinstance(model, Reconstructs) and model.slow):
        return SCORE
    return LOSS if model.validates else None


@torch.no_grad()
def by_model(
    model: GenerativeModel, images: Tensor, y: Sequence[str] | None, *, seed: int = 0, progress: Progress | None = None
) -> Tensor:
    """The model's score of images, uint8 (M, C, H, W), or minus the loss of the first `FEW`: (M,) or fewer.

    `progress`: called with (images done, all).
    """
    found = []
    scored = how(model) == SCORE
    images = images if scored else images[:FEW]
    for first in range(0, len(images), CHUNK if scored else 1):
        part = images[first : first + CHUNK if scored else first + 1]
        labels = None if y is None else list(y[first : first + len(part)])
        if scored:
            assert isinstance(model, Scores)
            found.append(model.score(part, labels).cpu())
        else:
            found.append(loss(model, part, None if labels is None else labels[0], seed))
        if progress is not None:
            progress(first + len(part), len(images))
    return torch.cat(found)


def loss(model: GenerativeModel, image: Tensor, y: str | None, seed: int) -> Tensor:
    """Minus the loss of one image, uint8 (1, C, H, W), with `TIMES` noises that are the same for every image: (1,).

    Of a family that says no loss on images it was not trained on: nothing, (0,).
    """
    many = to_float(image).expand(TIMES, *image.shape[1:])
    with evaluating(model), seeded(seed, "audit", "noise"):
        terms = model.test_terms(model.given(many, y))
    return -terms["loss"].cpu().double().view(1) if "loss" in terms else torch.empty(0)
