"""Validation: a part of the training images is not learnt from, and its loss says which step's weights are the best.

A model that learns its images by heart goes on to fit them better and new ones worse (overfitting): the training loss
falls while the validation loss rises. So the weights with the lowest validation loss are kept, and training stops early
once there is no hope (early stopping; Prechelt 1998, "Early stopping - but when?"). The test images have no say in it:
what chooses must not be what judges in the end.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.models import GenerativeModel
from fabulate.seeds import permutation
from fabulate.types import Batch, BatchSource

LOOKS = 40  # times in a run that the validation loss is asked for
PATIENCE = 10  # looks without a better one, a quarter of the budget, before training may stop
RISE = 0.02  # of the way that the loss fell from the first look to the best: a rise that is no noise
FEWEST, MOST = 10, 2000  # validation images: a loss of fewer says too little, of more it costs too much


class Selected(BatchSource):
    """Some images of a source, by their numbers there (N,).

    >>> images = Images(np.zeros((10, 1, 8, 8), np.uint8))
    >>> len(Selected(images, torch.tensor([1, 3, 5])))
    3
    """

    def __init__(self, images: BatchSource, numbers: Tensor) -> None:
        self.images, self.numbers = images, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def stored(self, indices: Tensor) -> Batch:
        return self.images.stored(self.numbers[indices])


def split(images: BatchSource, share: float, seed: int) -> tuple[Tensor, Tensor] | None:
    """Numbers of the images to learn from and of those to validate with; None where these would be too few.

    The same share of each class is held out, rounded down, so that a rare class loses none of a handful of images.
    `images`: those of a data set; streamed or weighted ones, which are read in an order of their own, are not split.

    >>> [len(part) for part in split(Images(np.zeros((200, 1, 8, 8), np.uint8)), 0.1, seed=0)]
    [180, 20]
    """
    if type(images) is not Images:  # its subclasses read in ways of their own
        return None
    n = len(images)
    share = min(share, MOST / n)
    order = permutation(n, seed, "validation").numpy()
    y = np.zeros(n, np.int64) if images.y is None else images.y
    by_class = order[np.argsort(y[order], kind="stable")]  # class after class, at random within each
    counts = np.bincount(y)
    place = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # of each within its class
    held = np.zeros(n, bool)
    held[by_class[place < np.repeat((share * counts).astype(int), counts)]] = True
    if held.sum() < FEWEST:
        return None
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


class Validation:
    """The validation losses of a training, and the weights of the best."""

    def __init__(self) -> None:
        self.first = float("nan")  # the loss at the first look
        self.latest = float("nan")
        self.best: tuple[int, float, dict[str, Tensor]] | None = None  # step, loss, weights
        self.since = 0  # looks since then

    def take(self, step: int, loss: float, model: GenerativeModel) -> None:
        """Take in the loss of a step, and its model's weights where none before were better."""
        if self.best is None:
            self.first = loss
        self.latest = loss
        if isfinite(loss) and (self.best is None or loss < self.best[1]):  # nothing is less than what is no number
            self.best = step, loss, {name: value.clone() for name, value in model.state_dict().items()}
            self.since = 0
        else:
            self.since += 1

    @property
    def rose(self) -> bool:
        """Whether the loss has risen since the best look, by more than noise."""
        return self.best is not None and self.latest - self.best[1] > RISE * (self.first - self.best[1])

    @property
    def hopeless(self) -> bool:
        """Whether the loss has been rising for so long that training on is in vain."""
        return self.rose and self.since >= PATIENCE

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {"first": self.first, "latest": self.latest, "best": self.best, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.first, self.latest, self.since = state["first"], state["latest"], state["since"]
        self.best = None if state["best"] is None else tuple(state["best"])
