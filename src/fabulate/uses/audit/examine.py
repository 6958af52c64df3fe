"""What an audit asks: of samples, of the images that the model was trained on, and of images that it never saw."""

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
from fabulate.metrics.intervals import Estimate
from fabulate.metrics.manifold import nearest_rows
from fabulate.metrics.membership import auc, tpr_at
from fabulate.models import GenerativeModel
from fabulate.seeds import permutation
from fabulate.training import is_run, read_config
from fabulate.training.folder import recorded
from fabulate.training.validation import split
from fabulate.types import Stages
from fabulate.uses.audit import attacks
from fabulate.uses.audit.near_copies import Copies, Judged, Measure, chunks, planted

LEVEL = 0.01  # of false alarms, and of the attacks' false positives
MOST = 2000  # members, and images held out, that are compared
PLANTED = 100  # copies of each kind


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
        f"nearest sample, by {name}": [attacks.nearest_sample(images, samples) for images in both]
        for name, (samples, *both) in measured.items()
    }
    name = attacks.how(model)
    if name is not None and not (model.classes and (data.train.y is None or data.test.y is None)):
        both = [
            attacks.by_model(model, images, classes, seed=seed, progress=partial(told, f"membership, {what}"))
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
