"""The table of scores. Each is two functions: what to keep of normals, and how normal something else is, given that.

    mahalanobis, knn                   of rows, or of an image's pixels
    mahalanobis:scattering, ...        of an image's scattering coefficients
    mahalanobis:lite0                  of what a network of ImageNet's photographs sees (`features/lite0.py`)
    mahalanobis:quality                of an image's sharpness, contrast and exposure (`quality.py`)
    reconstruction                     minus a model's reconstruction error, pixel by pixel
    reconstruction:scattering          the same in scattering coefficients: shape counts, place hardly
    likelihood                         what the family's `score` says: log p(x), a bound, or minus an error
    likelihood:complexity              the same, corrected by the image's complexity
    likelihood:regret                  minus the likelihood regret
    latent                             the Mahalanobis distance of codes

The Mahalanobis distance is taken under N(mean, covariance), the covariance shrunk towards a multiple of the identity by
just so much as minimises its expected error (Ledoit, Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices", 2004, https://doi.org/10.1016/S0047-259X(03)00096-4): there may be more dimensions than normals.
Numbers that are many and much alike are shrunk by no less than a fiftieth: else directions in which normals hardly move
would rule the distance. `knn` is the mean distance to the k nearest normals (Angiulli, Pizzuti, "Fast outlier detection
in high dimensional spaces", 2002, https://doi.org/10.1007/3-540-45681-3_2): the normals may lie anywhere.

What needs a model says which capability; a family without it is refused by name. A new score is one more row.

Legend: N rows or images to judge, M normals, D numbers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fabulate.config import nearest
from fabulate.errors import CapabilityError, ConfigError
from fabulate.metrics.manifold import blocks
from fabulate.models import family
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, Reconstructs, Scores
from fabulate.models.families.vae import VAE
from fabulate.nets.lite0 import installed
from fabulate.uses.outliers.features import Inputs, State, scattered
from fabulate.uses.outliers.likelihood import code_length, regret

Kind = Literal["auto", "scattering", "lite0"]
"""Features of images, where no scores are asked for."""

LEAST_SIDE = 32  # pixels: measured from here on
GRAY = 0.01  # of the range of two, that red and green differ on average: less is gray, saved as colours
NEAREST = 3
STILL = 1e-3  # of the mean deviation, added to all: numbers that hardly move are not blown up
SHRUNK = 0.02  # on digits held out of MNIST's training part: 98.7; with Ledoit and Wolf's own 0.002: 98.6
LEAST = 1e-9  # of the mean variance, that every direction has at least


def fit_mahalanobis(x: Tensor, *, equal: bool = False) -> State:
    """The mean (D,) and the inverse Cholesky factor (D, D) of normals (M, D).

    `equal`: numbers are in different units, so each is first divided by its deviation; pixels are not.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    mean = x.mean(0)
    width = x.new_ones(x.shape[1])
    if equal and len(x) > 1:
        deviation = x.std(0)
        width = (deviation + STILL * deviation.mean()).clamp(min=LEAST)
    x = x / width
    mean = mean / width
    if len(x) > 1:
        x = x - mean
        shrunk = ledoit_wolf_shrinkage(x.numpy(), assume_centered=True)
        covariance = x.T @ x / len(x)
        level = covariance.diagonal().mean()
        shrunk = max(shrunk, SHRUNK) if equal else shrunk
        covariance = (1 - shrunk) * covariance
        covariance.diagonal().add_(shrunk * level)
    else:
        covariance = x.new_zeros(x.shape[1], x.shape[1])
    least = LEAST * float(covariance.diagonal().mean()) or LEAST
    factor = torch.linalg.cholesky(covariance + least * torch.eye(x.shape[1], dtype=x.dtype))
    identity = torch.eye(x.shape[1], dtype=x.dtype)
    whiten = torch.linalg.solve_triangular(factor, identity, upper=False).T
    return {"mean": mean * width, "whiten": (whiten / width[:, None]).contiguous()}


def mahalanobis(state: State, x: Tensor) -> Tensor:
    """Minus the Mahalanobis distance of vectors (N, D), over the root of D: (N,)."""
    return -((x - state["mean"]) @ state["whiten"]).norm(dim=1) / sqrt(x.shape[1])


def knn(state: State, x: Tensor) -> Tensor:
    """Minus the mean distance of vectors (N, D) to the nearest normals: (N,)."""
    k = min(NEAREST, len(state["normals"]))
    found = [block.squares.topk(k, dim=1, largest=False).values for block in blocks(x, state["normals"])]
    return -torch.cat(found).sqrt().mean(1)


class Score(NamedTuple):
    """A way of telling how normal something is."""

    fit: Callable[[Inputs], State]
    """What to keep of normals."""
    score: Callable[[State, Inputs], Tensor]
    """How normal others are: (N,), float64, higher = more normal."""
    needs: type | None = None
    """The capability its model must have; None: it needs no model."""
    of: Literal["images", "both"] = "both"
    """Whether rows can be judged as well."""
    deep: bool = False
    """Whether it looks at `Inputs.deep`."""
    guards: bool = False
    """It speaks only of what is among the strangest 2 % by it, beside scores that always do."""


def nothing(x: Inputs) -> State:
    """For scores that are a model's alone."""
    return {}


def reconstruction(state: State, x: Inputs) -> Tensor:
    """Minus the root of the mean squared error of the copies (N,)."""
    return -(x.reconstructions - x.images.double()).square().flatten(1).mean(1).sqrt()


def scattered_reconstruction(state: State, x: Inputs) -> Tensor:
    """Minus the distance between the scattering coefficients of images and of their copies (N,)."""
    return -(scattered(x.reconstructions) - x.scattered).norm(dim=1)


def likelihood(state: State, x: Inputs) -> Tensor:
    """The family's own score (N,)."""
    model: object = x.model
    assert isinstance(model, Scores)
    return x.through(model.score)


def complexity(state: State, x: Inputs) -> Tensor:
    """The family's own score and the image's complexity, both in nats, added (N,)."""
    return likelihood(state, x) + code_length(x.images)


def minus_regret(state: State, x: Inputs) -> Tensor:
    """Minus the likelihood regret (N,)."""
    assert isinstance(x.model, VAE)
    return -x.through(partial(regret, x.model))


def codes(x: Inputs) -> Tensor:
    """Codes (N, Z)."""
    assert isinstance(x.model, Encodes)
    return x.through(x.model.encode)


def distances(vectors: Callable[[Inputs], Tensor], *, equal: bool = False, **needs: Any) -> Score:
    """The Mahalanobis distance of vectors (N, D); `equal` as in `fit_mahalanobis`."""
    return Score(
        lambda x: fit_mahalanobis(vectors(x), equal=equal), lambda state, x: mahalanobis(state, vectors(x)), **needs
    )


def nearest_normals(vectors: Callable[[Inputs], Tensor], **needs: Any) -> Score:
    """The mean distance of vectors (N, D) to the nearest normals."""
    return Score(lambda x: {"normals": vectors(x)}, lambda state, x: knn(state, vectors(x)), **needs)


SCORES: dict[str, Score] = {
    "mahalanobis": distances(lambda x: x.plain),
    "knn": nearest_normals(lambda x: x.plain),
    "mahalanobis:scattering": distances(lambda x: x.scattered, equal=True, of="images"),
    "knn:scattering": nearest_normals(lambda x: x.scattered, of="images"),
    "mahalanobis:lite0": distances(lambda x: x.photographed, equal=True, of="images", deep=True),
    "mahalanobis:quality": distances(lambda x: x.quality, equal=True, of="images", guards=True),
    "reconstruction": Score(nothing, reconstruction, needs=Reconstructs),
    "reconstruction:scattering": Score(nothing, scattered_reconstruction, needs=Reconstructs, of="images"),
    "likelihood": Score(nothing, likelihood, needs=Scores),
    "likelihood:complexity": Score(nothing, complexity, needs=Scores, of="images"),
    "likelihood:regret": Score(nothing, minus_regret, needs=VAE),
    "latent": distances(codes, needs=Encodes),
}

# Chosen on the digits inside scikit-learn and on letters of printed fonts, bent at random: one kind against the others.
# Pixels as a second score help small images a little (0.1 points of AUROC) and harm larger ones (2.5).
FOR_IMAGES = {"scattering": ("mahalanobis:scattering",), "lite0": ("mahalanobis:lite0", "mahalanobis:quality")}
FOR_ROWS = ("mahalanobis", "knn")


def default(features: Kind, x: Tensor) -> Literal["scattering", "lite0"]:
    """The features that images (N, C, H, W) in [-1, 1] are judged by: of photographs those of ImageNet, if installed.

    What has colours, and `LEAST_SIDE` pixels a side, is taken for photographs. Errors: `ConfigError` for others.
    """
    if features not in get_args(Kind):
        hint = nearest(str(features), [*get_args(Kind)])
        raise ConfigError(f"there are no features {features!r}{hint} (features: {', '.join(get_args(Kind))})")
    if features != "auto":
        return features
    coloured = x.ndim == 4 and x.shape[1] >= 3 and bool((x[:, 0] - x[:, 1]).abs().mean() > GRAY)
    return "lite0" if coloured and min(x.shape[2:]) >= LEAST_SIDE and installed() else "scattering"


def named(
    names: Sequence[str] | str | None, name: str, images: bool, features: Literal["scattering", "lite0"] = "scattering"
) -> tuple[str, ...]:
    """The scores asked for, or the default ones, checked against the family `name` before anything is trained.

    `features`: of the default scores of images. Errors: `ConfigError` for unknown scores (naming the nearest) and for
    those of images when there are rows; `CapabilityError` for a family that lacks what a score needs, naming those that
    have it.
    """
    if names is None:
        return FOR_IMAGES[features] if images else FOR_ROWS
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ConfigError(f"a detector needs a score, one or several of {', '.join(SCORES)}")
    for each in names:
        if each not in SCORES:
            raise ConfigError(f"there is no score {each!r}{nearest(each, [*SCORES])} (scores: {', '.join(SCORES)})")
        score = SCORES[each]
        if score.of == "images" and not images:
            raise ConfigError(
                f"the score {each!r} is of images, and these are rows of numbers; give image_shape=(C, H, W)"
            )
        if score.needs is not None and not issubclass(family(name), score.needs):
            raise CapabilityError(f"the score {each!r} cannot be had from the family {name!r}; {able(score.needs)}")
    return names
