"""A class-conditional model of unequal classes: rare classes are shown as often as frequent ones.

One network draws all classes, so that what frequent classes show of styles (slant, width, light) serves the rare ones.
Trained on images as they come, it would see a class of 40 among 4,000 in one image of a hundred, and hardly learn it.
So images of rare classes come again within an epoch until all classes are as many. Nothing is copied: only the numbers
of the images are. (For generators: Mariani et al., "BAGAN: data augmentation with balancing GAN", 2018,
https://arxiv.org/abs/1803.09655.)

Legend: N images, B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from fabulate import training
from fabulate.config import BUDGETS, Training
from fabulate.data import Data, Images
from fabulate.errors import CapabilityError
from fabulate.models import GenerativeModel, family
from fabulate.models.base import Conditional, able
from fabulate.types import Batch
from fabulate.uses.augment.split import Split

RECIPES: dict[str, dict[str, Any]] = {
    # Codes are drawn from one Gaussian fitted to those of each class: 40 images, shown 100 times, would get a mixture
    # of 20 that knows each of them.
    "vae": {"preset": "conv", "prior": "normal", "latent_dim": 16, "components": 1, "steps": 3000, "epochs": None},
}
"""Hyperparameters that serve this use, by family; other families start from their default."""


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
        assert self.y is not None
        return balanced_rows(self.y)

    def stored(self, indices: Tensor) -> Batch:
        return super().stored(self.rows[indices])

    def pixels(self, indices: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return super().pixels(self.rows[indices])


def balanced_rows(y: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """Numbers of images of classes y (N,), those of rare classes several times: as many of each as of the largest."""
    own = [np.flatnonzero(y == k) for k in np.unique(y)]
    most = max(map(len, own))
    return torch.from_numpy(np.concatenate([np.resize(numbers, most) for numbers in own]))


def learn(
    name: str,
    data: Data,
    cut: Split,
    out: Path,
    *,
    hyperparameters: dict[str, Any],
    device: str = "auto",
    console: Console,
) -> GenerativeModel:
    """A conditional model of the training part of a cut, trained in the run folder `out`; the same call continues.

    `hyperparameters`: as `fabulate.train` takes them, over those of the family's recipe. Errors: as `fabulate.train`;
    `CapabilityError` for a family that cannot learn classes.
    """
    config, schedule = check(name, hyperparameters)
    train = Balanced(cut.train.x, cut.train.y)
    shown = replace(data, train=train, test=None, fingerprint=fingerprint(data, cut))  # the test is not even looked at
    return training.run(name, config, schedule, shown, out, device=device, console=console)


def fingerprint(data: Data, cut: Split) -> str:
    """Hexadecimal; that of the data, unless some of their training images are kept for the test."""
    if not cut.held_out:
        return data.fingerprint
    return blake2b(repr((data.fingerprint, cut.held_out)).encode(), digest_size=16).hexdigest()


def check(name: str, hyperparameters: Mapping[str, Any], recipe: bool = True) -> tuple[Any, Training]:
    """The specs of a family's model and of its training for this use, with its recipe or without; errors of `learn`."""
    if not issubclass(family(name), Conditional):
        raise CapabilityError(f"{name} cannot learn p(x | class); {able(Conditional)}")
    values: dict[str, Any] = dict(RECIPES.get(name, {}) if recipe else {})
    if any(hyperparameters.get(budget) is not None for budget in BUDGETS):  # replaces the recipe's
        values = {key: value for key, value in values.items() if key not in BUDGETS}
    values |= hyperparameters
    preset = values.pop("preset", "default")
    return training.configure(name, preset, values | {"conditional": True})
