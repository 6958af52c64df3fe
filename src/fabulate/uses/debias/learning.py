"""Training the model of structure and palette, which is shown more often what is rare: each epoch anew, as in DB-VAE.

After each epoch all images are encoded, the density of their codes is fitted again, and the images of the next epoch
are drawn by the new weights (Amini et al. 2019, https://doi.org/10.1145/3306618.3314243). Densities are always those of
all images as they are; only what the model is shown changes. Half of what it is shown stays as it is, or it would
forget what is common.

Legend: N images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fabulate.config import Training
from fabulate.data import Images
from fabulate.seeds import seeded
from fabulate.training.loop import Learner
from fabulate.types import Batch, BatchSource
from fabulate.uses.debias.densities import Numbers
from fabulate.uses.debias.duotone import Duotone, DuotoneConfig
from fabulate.uses.debias.weights import drawn

Progress = Callable[[int, int], None]
STEPS = 2000
FIRST = 0.3  # of the steps go by before the first weights: codes of an untrained model mean nothing
MOST = 8  # times that weights are renewed, at most
KEPT = 0.5  # share of an epoch's images that are drawn without weights
PORTION = 2000  # images encoded at a time


class Resampled(BatchSource):
    """Images of which each epoch sees a choice of its own."""

    def __init__(self, images: Images) -> None:
        self.images, self.chosen = images, torch.arange(len(images))

    def __len__(self) -> int:
        return len(self.images)

    def stored(self, indices: Tensor) -> Batch:
        """The chosen images at `indices` (B,)."""
        return self.images.stored(self.chosen[indices])


def learn(
    images: Images,
    config: DuotoneConfig,
    weigh: Callable[[Tensor], Numbers],
    *,
    seed: int = 0,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Duotone:
    """A model of images; `weigh` turns their codes (N, Z) into weights (N,). `progress`: (steps done, all steps)."""
    with seeded(seed, "debias", "weights"):
        model = Duotone(config, images.shape)
    source = Resampled(images)
    batch = min(128, len(images))
    training = Training(steps=steps, lr=2e-3, batch_size=batch, seed=seed)
    learner = Learner(model.to(device), training, source)
    every = max(len(images) // batch, int((1 - FIRST) * steps) // MOST, 1)
    for _ in learner.steps():
        if learner.step >= FIRST * steps and learner.step % every == 0 and learner.step < steps:
            now = weigh(codes(learner.sampler(), images))  # type: ignore[arg-type]  # the average is a Duotone too
            shown = KEPT + (1 - KEPT) * now / now.mean()
            source.chosen = drawn(shown, len(images), seed, "debias", "shown", learner.step)
        if progress is not None:
            progress(learner.step, steps)
    found = learner.sampler().eval().requires_grad_(False)
    assert isinstance(found, Duotone)
    return found


def codes(model: Duotone, images: Images) -> Tensor:
    """The codes of all images (N, Z), on the CPU."""
    parts = torch.split(torch.arange(len(images)), PORTION)
    return torch.cat([model.encode(images.batch(part).x).cpu() for part in parts])
