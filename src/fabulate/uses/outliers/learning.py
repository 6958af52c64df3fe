"""A generative model of normals, for the scores that need one: trained in memory, without a run folder.

Legend: N rows or images, C H W image.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fabulate.config import BUDGETS
from fabulate.models import GenerativeModel
from fabulate.training import configure, fit
from fabulate.types import Batch, BatchSource, ImageShape, Progress

STEPS = 1500  # where no budget is given: a detector has to be quick, and copies need not be sharp


class Normals(BatchSource):
    """Images (N, C, H, W) in [-1, 1] that batches are taken from."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,)."""
        return Batch(self.x[indices])


def learn(
    name: str,
    hyperparameters: Mapping[str, Any] | None,
    x: Tensor,
    *,
    seed: int,
    device: str = "auto",
    progress: Progress | None = None,
) -> GenerativeModel:
    """A model of the family `name`, trained on images (N, C, H, W) in [-1, 1], ready to use.

    `hyperparameters`: of the model and of the training, and the `preset` they start from. `progress`: called with
    (steps done, all steps), where their number is known. Errors: as `fabulate.train`.
    """
    values = dict(hyperparameters or {})
    preset = values.pop("preset", "default")
    if all(values.get(budget) is None for budget in BUDGETS):
        values["steps"] = STEPS
    config, training = configure(name, preset, values | {"seed": seed})
    return fit(name, config, training, Normals(x), ImageShape(*x.shape[1:]), device=device, progress=progress)
