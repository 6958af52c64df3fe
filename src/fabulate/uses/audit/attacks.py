"""Membership inference attacks: numbers that are higher for images the model was trained on, as far as it memorised.

* from the samples alone, the nearest: minus the distance of an image to the nearest of S samples, in features and as
  thumbnails (Chen, Yu, Zhang, Fritz, "GAN-Leaks", 2020, https://arxiv.org/abs/1909.03935; Hilprecht, Härterich, Bernau
  2019, https://doi.org/10.2478/popets-2019-0067);
* with the model, its loss (Yeom et al., "Privacy risk in machine learning", 2018, https://arxiv.org/abs/1709.01604):
  the score of a family that has one and is quick, such as the ELBO or log p(x), else minus the training loss of the
  image alone, with the same noise for each image (of diffusion models: Duan et al. 2023,
  https://arxiv.org/abs/2302.01316). A family of several players has no loss by which images can be compared.

Each is judged in `metrics.membership`. Legend: M images, S samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fabulate.metrics.intervals import checked
from fabulate.metrics.manifold import nearest_rows
from fabulate.models import GenerativeModel
from fabulate.models.base import evaluating
from fabulate.models.capabilities import Reconstructs, Scores
from fabulate.seeds import seeded
from fabulate.types import Progress, to_float

SCORE, LOSS = BY_MODEL = "the model's score", "the model's loss"
TIMES = 16  # that the loss of an image is computed, each with other noise
CHUNK = 256  # images scored at a time
FEW = 200  # images whose loss is computed, at most: each goes through the networks alone, `TIMES` times


def nearest_sample(images: Tensor, samples: Tensor) -> Tensor:
    """Minus the distance of images (M, D) to the nearest sample (S, D), by what they are compared by: (M,)."""
    return -nearest_rows(*checked(images=images, samples=samples))[1]


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
