"""Noise paths: how an image turns into noise, and what a network may be asked to predict on the way.

At time t in [0, 1] an image x and noise eps ~ N(0, 1) are mixed,

    x_t = alpha(t) x + sigma(t) eps,           from x_0 = x to x_1 = eps,

and a path is the pair alpha, sigma with its derivatives: `linear` (flow matching, optimal transport: Lipman et al.,
"Flow matching for generative modeling", 2023, https://arxiv.org/abs/2210.02747), `cosine` (variance-preserving: Nichol,
Dhariwal 2021, https://arxiv.org/abs/2102.09672), `ddpm` (Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239, whose
linear betas in continuous time are Song et al.'s, 2021, https://arxiv.org/abs/2011.13456).

Whatever a network predicts is a row (a, b): target = a x + b eps. With the mixture itself that is a 2x2 system,

    [ x_t    ]   [ alpha  sigma ] [ x   ]
    [ target ] = [ a      b     ] [ eps ],

whose inverse gives x and eps back: one inversion for every target on every path.

Legend: B batch; times are tensors of any shape.
"""

from collections.abc import Callable
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 1000  # of the discrete diffusion models, whose step i = 0..999 is here the time (i + 1) / 1001
FIRST, LAST = 1 / (STEPS + 1), STEPS / (STEPS + 1)  # between these times every row of the table can be inverted
SKIP = 0.1  # noise level below which the target x_skip is no longer the image
DATA_STD = 0.5  # of pixels in [-1, 1], roughly (Karras et al. 2022, table 1: sigma_data)


class Level(NamedTuple):
    """A path at some times: the factors of image and noise, and their derivatives by t."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Path(NamedTuple):
    """How images turn into noise."""

    level: Callable[[Tensor], Level]
    """The factors at a time."""
    time: Callable[[Tensor], Tensor]
    """The time at which sigma / alpha has a value, the inverse of the path's noise-to-image ratio."""


class Row(NamedTuple):
    """What a network predicts, target = a x + b eps, and what its input x_t is multiplied by."""

    a: Tensor
    b: Tensor
    scale: Tensor


def _linear(t: Tensor) -> Level:
    return Level(1 - t, t, -torch.ones_like(t), torch.ones_like(t))


def _cosine(t: Tensor) -> Level:
    angle = t * pi / 2
    return Level(angle.cos(), angle.sin(), -pi / 2 * angle.sin(), pi / 2 * angle.cos())


LOW, HIGH = 1e-4 * STEPS, 0.02 * STEPS  # the first and the last of DDPM's betas, per unit of time


def _ddpm(t: Tensor) -> Level:
    log_alpha = -(HIGH - LOW) * t.square() / 4 - LOW * t / 2
    slope = -(HIGH - LOW) * t / 2 - LOW / 2
    alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
    return Level(alpha, sigma, alpha * slope, -alpha.square() * slope / sigma)


def _ddpm_time(ratio: Tensor) -> Tensor:
    # log(1 + ratio^2) / 2 = -log alpha is a quadratic in t; its positive root, without cancellation.
    half = torch.log1p(ratio.square()) / 2
    return 2 * half / (LOW / 2 + (LOW**2 / 4 + (HIGH - LOW) * half).sqrt())


PATHS: dict[str, Path] = {
    "linear": Path(_linear, lambda ratio: ratio / (1 + ratio)),
    "cosine": Path(_cosine, lambda ratio: ratio.atan() * 2 / pi),
    "ddpm": Path(_ddpm, _ddpm_time),
}


def _edm(level: Level) -> Row:
    # F of Karras et al. 2022: the denoiser is c_skip x_t + c_out F(c_in x_t), all three chosen for variance 1.
    norm = (level.alpha.square() * DATA_STD**2 + level.sigma.square()).sqrt()
    return Row(level.sigma / (DATA_STD * norm), -level.alpha * DATA_STD / norm, 1 / norm)


def _x_skip(level: Level) -> Row:
    # The image where the noise is strong, as a network with fewer features than a patch has pixels can give it and not
    # the noise (Li, He 2025, https://arxiv.org/abs/2511.13720); below a noise level of SKIP what is to be taken off, by
    # EDM's skip of the input.
    s = level.sigma / level.alpha
    norm = (s.square() + SKIP**2).sqrt()
    return _plain(s / norm, -(SKIP**2) / norm)


def _plain(a: Tensor, b: Tensor) -> Row:
    return Row(a, b, torch.ones_like(a))


TARGETS: dict[str, Callable[[Level], Row]] = {
    "x": lambda level: _plain(torch.ones_like(level.alpha), torch.zeros_like(level.alpha)),
    "eps": lambda level: _plain(torch.zeros_like(level.alpha), torch.ones_like(level.alpha)),
    # Salimans, Ho, "Progressive distillation", 2022, https://arxiv.org/abs/2202.00512
    "v": lambda level: _plain(-level.sigma, level.alpha),
    # dx_t/dt, what flow matching learns
    "velocity": lambda level: _plain(level.d_alpha, level.d_sigma),
    # Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
    # https://arxiv.org/abs/2206.00364
    "edm": _edm,
    "x_skip": _x_skip,
}


def velocity_weight(level: Level, row: Row) -> Tensor:
    """How large an error of the velocity dx_t/dt an error of the target is.

    >>> level = PATHS["linear"].level(torch.tensor(0.25))
    >>> velocity_weight(level, TARGETS["x"](level))
    tensor(4.)
    """
    between = level.d_alpha * level.sigma - level.d_sigma * level.alpha
    return (between / (level.alpha * row.b - level.sigma * row.a)).abs()


def invert(level: Level, row: Row, x_t: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The image and the noise (x, eps) behind a mixture x_t and a target.

    >>> level = PATHS["linear"].level(torch.tensor(0.25))
    >>> invert(level, TARGETS["velocity"](level), x_t=torch.tensor(2.5), target=torch.tensor(2.0))
    (tensor(2.), tensor(4.))
    """
    determinant = level.alpha * row.b - level.sigma * row.a
    x = (row.b * x_t - level.sigma * target) / determinant
    eps = (level.alpha * target - row.a * x_t) / determinant
    return x, eps


# How times are drawn in training: inverse distribution functions of u in (0, 1).
TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    # More often in the middle, where the task is hardest (Esser et al. 2024, https://arxiv.org/abs/2403.03206)
    "logit_normal": lambda u: torch.sigmoid(torch.special.ndtri(u)),
}
