"""Filling up rare pairs of class and attribute, where the attribute is known: a model of the pairs draws new images.

A conditional model that takes (class, attribute) for one class learns p(x | class, attribute); what pairs have in
common it learns from all of them, so that thirteen images of a pair can be enough. Pairs are then filled up to a
number, and every pair counts as much as every other of its class: the attribute tells nothing of the class any more.
A pair of which there is no image at all cannot be asked for.

Legend: N images, P pairs, C H W image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fabulate.data import Images
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models import family
from fabulate.models.base import Conditional, able
from fabulate.prob import systematic
from fabulate.seeds import generator
from fabulate.training import configure, fit
from fabulate.types import Progress, Selected, to_uint8
from fabulate.uses.debias.debiaser import KEPT
from fabulate.uses.debias.densities import Labels, Numbers

Pair = tuple[int, str]
"""Number of the class, and attribute."""
STEPS = 3000
PORTION = 256  # images drawn at a time


class Filled(NamedTuple):
    """Real images followed by generated ones."""

    images: Images
    attributes: tuple[str, ...]
    """Of all images (N,)."""
    real: int
    """How many of them are real: the first."""
    weights: Numbers
    """With which all pairs of a class count alike (N,), on average 1."""
    absent: tuple[Pair, ...]
    """Pairs of which there is no image to learn from."""


def pair_weights(y: Labels, attributes: Sequence[str]) -> Numbers:
    """How much each image counts (N,), on average 1, when all pairs of a class count alike and classes as they are.

    >>> pair_weights(np.array([0, 0, 0, 1]), ["a", "a", "b", "a"])
    array([0.75, 0.75, 1.5 , 1.  ])
    """
    pairs = list(zip(y.tolist(), attributes, strict=True))
    counts, classes = Counter(pairs), Counter(y.tolist())
    kinds = Counter(k for k, _ in counts)
    return np.array([classes[k] / kinds[k] / counts[k, a] for k, a in pairs])


def check(name: str, y: Labels, attributes: Sequence[str]) -> None:
    """Refuse what cannot be filled up. Errors: `CapabilityError` for a family, `ConfigError` for attributes."""
    if not issubclass(family(name), Conditional):
        raise CapabilityError(f"{name} cannot learn pairs of class and attribute; {able(Conditional)}")
    if len(set(attributes)) < 2:
        raise ConfigError(f"an attribute has at least two values; all images have {attributes[0]!r}")
    if len(set(attributes)) > len(y) // 10:
        raise ConfigError(
            f"an attribute groups images; this one has {len(set(attributes)):,} values for {len(y):,} images"
        )


def fill(
    images: Images,
    attributes: Sequence[str],
    *,
    up_to: int = 200,
    name: str = "vae",
    hyperparameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Filled:
    """Draw images of every pair that has some, but fewer than `up_to`. `progress`: (steps done, all steps).

    `name` and `hyperparameters` are those of the model, as for `fabulate.train`. Errors: as `check` and `train`.
    """
    check(name, images.class_numbers, attributes)
    pairs = list(zip(images.class_numbers.tolist(), attributes, strict=True))
    counts = Counter(pairs)
    known = sorted(counts)
    wanted = [number for number, pair in enumerate(known) for _ in range(up_to - counts[pair])]
    every = [(k, a) for k in sorted({k for k, _ in known}) for a in sorted(set(attributes))]
    made = np.empty((len(wanted), *images.shape), np.uint8)
    if wanted:
        numbers = {pair: number for number, pair in enumerate(known)}
        y = np.array([numbers[pair] for pair in pairs], np.int64)
        titles = [f"{k}, {a}" for k, a in known]
        # Half of what the model sees is drawn evenly from all pairs: else it would see a rare one once in hundreds of
        # steps, and have hardly a code of it to draw from.
        evenly = 1 / (len(known) * np.array([counts[pair] for pair in pairs]))
        shown = torch.from_numpy(KEPT / len(images) + (1 - KEPT) * evenly)
        source = Selected(Images(images.x, y), systematic(shown, len(images), generator(seed, "debias", "pairs")))
        values = {"steps": STEPS, **(hyperparameters or {}), "seed": seed, "conditional": True}
        config, training = configure(name, str(values.pop("preset", "default")), values)
        model = fit(name, config, training, source, images.shape, titles, device=device, progress=progress)
        for first in range(0, len(wanted), PORTION):
            part = torch.tensor(wanted[first : first + PORTION])
            made[first : first + len(part)] = to_uint8(model.sample(len(part), part, seed=seed, start=first)).cpu()
    all_y = np.concatenate([images.class_numbers, np.array([known[number][0] for number in wanted], np.int64)])
    named = (*attributes, *(known[number][1] for number in wanted))
    both = Images(np.concatenate([images.x, made]), all_y)
    absent = tuple(pair for pair in every if pair not in counts)
    return Filled(both, named, len(images), pair_weights(all_y, named), absent)
