"""The table of scores. Each is two functions: what to keep of normals, and how normal something else is, given that.
Where it can be had, a third tells how normal each of those normals is by a fit without it and its group.

    mahalanobis, knn, knn:whitened     of rows, or of an image's pixels
    mahalanobis:scattering, ...        of an image's scattering coefficients
    mahalanobis:lite0                  of what a network of ImageNet's photographs sees (`features/lite0.py`)
    mahalanobis:quality                of an image's sharpness, contrast and exposure (`features.quality`)
    reconstruction                     minus a model's reconstruction error, pixel by pixel
    reconstruction:scattering          the same in scattering coefficients: shape counts, place hardly
    likelihood                         what the family's `score` says: log p(x), a bound, or minus an error
    likelihood:complexity              the same, corrected by the image's complexity
    likelihood:regret                  minus the likelihood regret
    latent                             the Mahalanobis distance of codes

Distances are in `distances.py`.

A likelihood alone is high for plain images, whatever they show; `code_length` and `regret` correct it.

What needs a model says which capability; a family without it is refused by name. A new score is one more row.

Legend: N rows or images to judge, M normals, D numbers, C H W image, Z latent, K codes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.config import nearest
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models import family
from fabulate.models.base import able, evaluating
from fabulate.models.capabilities import Encodes, Reconstructs, Scores
from fabulate.models.families.vae import VAE
from fabulate.nets.lite0 import installed
from fabulate.seeds import generator
from fabulate.types import Batch, to_uint8
from fabulate.uses.outliers.distances import (
    fit_knn,
    fit_mahalanobis,
    knn,
    knn_left_out,
    mahalanobis,
    mahalanobis_left_out,
)
from fabulate.uses.outliers.features import Inputs, State, scattered

Kind = Literal["auto", "scattering", "lite0"]
"""Features of images, where no scores are asked for."""
Look = Literal["drawn", "scattering", "lite0"]
"""What images look like, and so what they are judged by: `FOR_IMAGES`."""

LEAST_SIDE = 32  # pixels: measured from here on
GRAY = 0.01  # of the range of two, that red and green differ on average: less is gray, saved as colours
SAME, GROUND = 0.02, 0.15  # levels that are one; the share of MNIST's pixels is 0.81, of CIFAR-10's 0.05
VALUES = 256
REGRET_STEPS, REGRET_RATE = 50, 0.05  # of Adam
REGRET_CODES = 4


class Score(NamedTuple):
    """A way of telling how normal something is."""

    fit: Callable[[Inputs], State]
    """What to keep of normals."""
    score: Callable[[State, Inputs], Tensor]
    """How normal others are: (N,), float64, higher = more normal."""
    left_out: Callable[[State, Inputs, Tensor], Tensor] | None = None
    """How normal each of the normals is without its group (N,); None: only another fit can tell."""
    needs: type | None = None
    """The capability its model must have; None: it needs no model."""
    of: Literal["images", "rows", "both"] = "both"
    """What can be judged."""
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
        lambda x: fit_mahalanobis(vectors(x), equal=equal),
        lambda state, x: mahalanobis(state, vectors(x)),
        None if "needs" in needs else lambda state, x, groups: mahalanobis_left_out(state, vectors(x), groups),
        **needs,
    )


def nearest_normals(vectors: Callable[[Inputs], Tensor], *, whiten: bool = False, **needs: Any) -> Score:
    """The mean distance of vectors (N, D) to the nearest normals; `whiten`: in units of their covariance."""
    return Score(
        lambda x: fit_knn(vectors(x), whiten=whiten),
        lambda state, x: knn(state, vectors(x)),
        None if whiten else lambda state, x, groups: knn_left_out(state, vectors(x), groups),
        **needs,
    )


SCORES: dict[str, Score] = {
    "mahalanobis": distances(lambda x: x.plain),
    "knn": nearest_normals(lambda x: x.plain),
    "knn:whitened": nearest_normals(lambda x: x.plain, whiten=True, of="rows"),
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
# The guard of sharpness finds blurred photographs (1 % without it, 64 with it), and costs digits: twos 99.3 to 98.8.
FOR_IMAGES = {
    "drawn": ("mahalanobis:scattering",),
    "scattering": ("mahalanobis:scattering", "mahalanobis:quality"),
    "lite0": ("mahalanobis:lite0", "mahalanobis:quality"),
}
FOR_ROWS = ("knn", "knn:whitened")


def default(features: Kind, x: Tensor) -> Look:
    """The features that images (N, C, H, W) in [-1, 1] are judged by: of photographs those of ImageNet, if installed.

    What has colours, and `LEAST_SIDE` pixels a side, is taken for photographs; what has a plain ground for drawn.
    Errors: `ConfigError` for other names of features.
    """
    if features not in get_args(Kind):
        hint = nearest(str(features), [*get_args(Kind)])
        raise ConfigError(f"there are no features {features!r}{hint} (features: {', '.join(get_args(Kind))})")
    if features == "lite0":
        return features
    coloured = x.ndim == 4 and x.shape[1] >= 3 and bool((x[:, 0] - x[:, 1]).abs().mean() > GRAY)
    if features == "auto" and coloured and min(x.shape[2:]) >= LEAST_SIDE and installed():
        return "lite0"
    return "drawn" if x.ndim == 4 and plain_ground(x) else "scattering"


def plain_ground(images: Tensor) -> bool:
    """Whether many pixels of images (N, C, H, W) are what the middle one of them is, as of ink on paper.

    >>> page = torch.ones(2, 1, 8, 8)
    >>> page[:, :, 2:4] = -1
    >>> plain_ground(page), plain_ground(torch.linspace(-1, 1, 64).view(1, 1, 8, 8))
    (True, False)
    """
    flat = images.flatten(2)
    return bool(((flat - flat.median(2, keepdim=True).values).abs() < SAME).float().mean() > GROUND)


def named(
    names: Sequence[str] | str | None,
    name: str,
    images: bool,
    features: Look = "scattering",
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
        if score.of == "rows" and images:
            raise ConfigError(f"the score {each!r} is of rows of numbers, and these are images")
        if score.needs is not None and not issubclass(family(name), score.needs):
            raise CapabilityError(f"the score {each!r} cannot be had from the family {name!r}; {able(score.needs)}")
    return names


# Corrections of a likelihood


def code_length(images: Tensor) -> Tensor:
    """Nats L (N,), float64, that images (N, C, H, W), uint8 or in [-1, 1], take in a code without any training.

    Plain images are easy to predict, so a model of clothes gives digits more than clothes. What such a code saves on a
    plain image should be taken off: score(x) = log p(x) + L(x) (Serrà et al., "Input complexity and out-of-distribution
    detection with likelihood-based generative models", 2020, https://arxiv.org/abs/1909.11480). The paper takes PNG or
    the like. The code here is of that kind, and counts all images at once. Each pixel is predicted from those to its
    left and above (the median edge detector of JPEG-LS: Weinberger, Seroussi, Sapiro 2000,
    https://doi.org/10.1109/83.855427), and the errors are coded by their frequencies so far (Krichevsky, Trofimov 1981,
    https://doi.org/10.1109/TIT.1981.1056331), whose length has a closed form, with n errors, n_v of value v:

        L = log Gamma(n + 128) - log Gamma(128) - sum_v [log Gamma(n_v + 1/2) - log Gamma(1/2)].

    >>> plain, noise = torch.zeros(1, 1, 16, 16), 2 * torch.rand(1, 1, 16, 16) - 1
    >>> bool(code_length(plain) < code_length(noise))
    True
    """
    errors = prediction_errors(to_uint8(images).cpu().long()).flatten(1)  # (N, n)
    counts = torch.zeros(len(errors), VALUES, dtype=torch.int64).scatter_add_(1, errors, torch.ones_like(errors))
    half, prior = torch.tensor(0.5, dtype=torch.float64), torch.tensor(VALUES / 2, dtype=torch.float64)
    coded = torch.lgamma(counts.double() + half) - torch.lgamma(half)
    return torch.lgamma(errors.shape[1] + prior) - torch.lgamma(prior) - coded.sum(1)


def prediction_errors(pixels: Tensor) -> Tensor:
    """The error of each pixel's prediction, modulo 256, of images (N, C, H, W) int64; outside them all is 0."""
    padded = F.pad(pixels, (1, 0, 1, 0))
    left, above, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    low, high = torch.minimum(left, above), torch.maximum(left, above)
    guess = torch.where(corner >= high, low, torch.where(corner <= low, high, left + above - corner))
    return (pixels - guess) % VALUES


def regret(model: VAE, x: Tensor) -> Tensor:
    """The likelihood regret of images (N, C, H, W) in [-1, 1], in nats, at least 0: (N,).

    How much better would the model explain an image, had its encoder looked at this one only? The encoder of a VAE was
    trained on normals, and finds codes for them that are nearly the best. For anything else it guesses badly, and
    searching for q(z | x) anew improves the bound by much (Xiao, Yan, Amit, "Likelihood regret: an out-of-distribution
    detection score for variational auto-encoder", 2020, https://arxiv.org/abs/2003.02977):

        regret(x) = max_q ELBO(x; q) - ELBO(x; encoder(x)) >= 0.

    The noise of both bounds is the same few numbers for every image and every step, so that the difference is exact and
    does not depend on the images beside it.
    """
    # One generator on the CPU gives the same numbers on every device.
    eps = torch.randn(REGRET_CODES, 1, model.config.latent_dim, generator=generator("regret")).to(x)
    with evaluating(model):
        batch = Batch(model.binarise(x))
        with torch.no_grad():
            start = model.posterior(batch)
            before = bound(model, batch, *start, eps)
        mean, logvar = (value.clone().requires_grad_() for value in start)
        optimizer, best = torch.optim.Adam([mean, logvar], lr=REGRET_RATE), before
        for _ in range(REGRET_STEPS):
            value = bound(model, batch, mean, logvar, eps)
            best = torch.maximum(best, value.detach())
            # Of these two only: the model's own gradients stay as they are.
            mean.grad, logvar.grad = torch.autograd.grad(-value.sum(), [mean, logvar])
            optimizer.step()
    return best - before


def bound(model: VAE, batch: Batch, mean: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """The ELBO (N,) under q(z | x) = N(mean, exp(logvar)), by K codes of each image."""
    total = torch.zeros(len(mean), device=mean.device, dtype=mean.dtype)
    for noise in eps:
        z = mean + torch.exp(logvar / 2) * noise  # (N, Z)
        kl = model.p_z.kl(z, mean, logvar, None).sum(1)
        total = total + model.likelihood.log_prob(batch.x, model.raw(z, None)) - kl
    return total / len(eps)
