"""A generative model of normals, for the scores that need one: trained in memory, without a run folder.

Legend: N rows or images, C H W image.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fabulate.config import BUDGETS
from fabulate.models import GenerativeModel, family
from fabulate.seeds import seeded
from fabulate.training import configure
from fabulate.training.devices import pick_device
from fabulate.training.loop import Learner
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
    with seeded(seed, "weights"):
        model = family(name)(config, ImageShape(*x.shape[1:]))
    learner = Learner(model.to(pick_device(device)), training, Normals(x))
    for _ in learner.steps():
        if progress is not None and learner.total is not None:
            progress(learner.step, learner.total)
    learner.sampler().fit_latents(learner.images)
    return learner.average.eval().requires_grad_(False)
