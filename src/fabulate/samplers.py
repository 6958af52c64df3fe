"""Samplers: from noise to an image with few evaluations of a denoiser.

A denoiser gives the mean image behind a noisy one, D(u, s) = E[x | u = x + s eps]. Divided by alpha, every path of
`paths.py` is this one mixture u = x_t / alpha with noise level s = sigma / alpha, and its probability flow is one ODE,

    du/ds = eps(u, s) = (u - D(u, s)) / s,

whose solution from large s to s = 0 turns noise into an image (Song et al. 2021, https://arxiv.org/abs/2011.13456;
Karras et al. 2022, https://arxiv.org/abs/2206.00364). A solver is a row of a table. They differ in what they make of
few evaluations: the multistep ones reuse earlier evaluations, and are far ahead at about ten.

All walk down a grid of levels s_0 > s_1 > ... >= 0. Backwards, from an image to its noise, the ODE ones do the same.

Legend: N images, shape (N, C, H, W); levels are 0-dim.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.paths import DATA_STD

Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]

LOWEST, HIGHEST = 0.002, 80.0  # noise levels between which samplers walk (Karras et al. 2022, table 1)
LOGARITHMIC = 100.0


class Solver(NamedTuple):
    """How to walk down a grid of levels, and at what price."""

    walk: Callable[[Denoiser, Tensor, Sequence[Tensor], Noise], Tensor]
    evaluations: int = 1
    """Of the denoiser, for each step."""
    random: bool = False
    """Whether it adds noise on the way: then the image does not follow from the noise it began with."""
    rho: float = 7.0
    """The grid's levels are even in s^(1/rho): 7 is Karras et al.'s, LOGARITHMIC even in log s as Lu et al.'s are."""


def grid(steps: int, lowest: float = LOWEST, highest: float = HIGHEST, rho: float = 7.0) -> Tensor:
    """Noise levels (steps + 1,), float64: from the highest to the lowest evenly in s^(1/rho), then 0.

    >>> [round(level, 3) for level in grid(4).tolist()]
    [80.0, 9.723, 0.47, 0.002, 0.0]
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (highest ** (1 / rho) + ramp * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def slope(denoise: Denoiser, u: Tensor, s: Tensor) -> Tensor:
    """du/ds, which is the noise the denoiser sees in u."""
    return (u - denoise(u, s)) / s


def euler(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
    """Straight steps; in these coordinates they are DDIM (Song, Meng, Ermon 2021, https://arxiv.org/abs/2010.02502)."""
    for s, below in pairwise(levels):
        u = u + (below - s) * slope(denoise, u, s)
    return u


def heun(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
    """The mean of the slopes at both ends of a step; straight to level 0 (Karras et al. 2022, algorithm 1)."""
    for s, below in pairwise(levels):
        first = slope(denoise, u, s)
        end = u + (below - s) * first
        u = end if below == 0 else u + (below - s) * (first + slope(denoise, end, below)) / 2
    return u


def ancestral(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
    """Draw each level from its posterior given the one above and the denoised image (Ho et al. 2020, equation 7)."""
    for s, below in pairwise(levels):
        x, kept = denoise(u, s), (below / s) ** 2
        u = x + kept * (u - x) + below * (1 - kept).sqrt() * noise()
    return u


def ipndm(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
    """Adams-Bashforth on the slope, of order 4 once there are 4 (Liu et al. 2022, https://arxiv.org/abs/2202.09778;
    the start by lower orders: Zhang, Chen 2023, https://arxiv.org/abs/2204.13902)."""
    weights = [(1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24)]
    slopes: list[Tensor] = []  # the newest first
    for s, below in pairwise(levels):
        slopes = [slope(denoise, u, s), *slopes][:4]
        u = u + (below - s) * sum(w * d for w, d in zip(weights[len(slopes) - 1], slopes, strict=True))
    return u


def dpm(order: int) -> Callable[[Denoiser, Tensor, Sequence[Tensor], Noise], Tensor]:
    """DPM-Solver++ multistep (Lu et al. 2022, https://arxiv.org/abs/2211.01095): exact in u, and the denoised image
    extrapolated in h = log s by the last 2 or 3; of order 1 to level 0, where h is infinite."""

    def walk(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
        images: list[Tensor] = []  # the newest first
        steps: list[Tensor] = []
        for s, below in pairwise(levels):
            images = [denoise(u, s), *images][:order]
            if below == 0:
                return images[0]
            h = (s / below).log()
            ratio, gain = below / s, -torch.expm1(-h)  # u shrinks by exp(-h), the image fills up the rest
            u = ratio * u + gain * images[0]
            if len(images) > 1:
                first = (images[0] - images[1]) * (h / steps[0])  # differences per h
                if len(images) == 2:
                    u = u + gain * first / 2
                else:
                    second = (images[1] - images[2]) * (h / steps[1])
                    r0, r1 = steps[0] / h, steps[1] / h
                    bend = (first - second) / (r0 + r1)
                    u = u + (1 - gain / h) * (first + r0 * bend) + (gain / h**2 - 1 / h + 1 / 2) * bend
            steps = [h, *steps][: order - 1]
        return u

    return walk


def sde(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor], noise: Noise) -> Tensor:
    """DPM-Solver++ (2M) of the reverse SDE, which renews the noise on the way: what the denoiser got wrong above is
    forgotten (Lu et al. 2022, https://arxiv.org/abs/2211.01095, appendix; Karras et al. 2022, section 4).

    In h = log s the image fills up 1 - exp(-2h) of u, twice as much as along the ODE, and fresh noise the rest.
    """
    last: tuple[Tensor, Tensor] | None = None  # the denoised image before, and the step h to it
    for s, below in pairwise(levels):
        x = denoise(u, s)
        if below == 0:
            return x
        h = (s / below).log()
        gain = -torch.expm1(-2 * h)
        u = (-h).exp() * (below / s) * u + gain * x + below * gain.sqrt() * noise()
        if last is not None:
            u = u + gain / 2 * (h / last[1]) * (x - last[0])
        last = x, h
    return u


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler),
    "ancestral": Solver(ancestral, random=True),
    "heun": Solver(heun, evaluations=2),
    "dpm2": Solver(dpm(2), rho=LOGARITHMIC),
    "dpm3": Solver(dpm(3), rho=LOGARITHMIC),
    "ipndm": Solver(ipndm),
    "sde": Solver(sde, random=True, rho=LOGARITHMIC),
}


Divergence = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]


def exact_divergence(field: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
    """A field at u (N, C, H, W) and its divergence (N,), by one backward pass for each number of an image."""
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        value = field(u)
        flat = value.flatten(1)
        rows = [
            torch.autograd.grad(flat[:, i].sum(), u, retain_graph=True)[0].flatten(1)[:, i]
            for i in range(flat.shape[1])
        ]
    return value.detach(), torch.stack(rows).sum(0)


def estimated_divergence(probe: Tensor) -> Divergence:
    """The divergence as e' J e with e = +-1 (N, C, H, W): right on average (Hutchinson 1990), by one backward pass."""

    def divergence(field: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            value = field(u)
            (product,) = torch.autograd.grad((value * probe).sum(), u)
        return value.detach(), (product * probe).flatten(1).sum(1)

    return divergence


def circular(denoise: Denoiser, angle: Tensor) -> Callable[[Tensor], Tensor]:
    """The same field on a quarter circle: v = cos(angle) x / d + sin(angle) eps, d the data's spread, s = d tan(angle).

    There dv/d(angle) is nearly 0 for images that are nearly a Gaussian of spread d, and few steps go far; that is why
    what must be precise, codes and likelihoods, is computed there (Lu, Song 2025, https://arxiv.org/abs/2410.11081).
    """
    s = DATA_STD * angle.tan()
    return lambda v: (angle.cos() * v - denoise(v * DATA_STD / angle.cos(), s) / DATA_STD) / angle.sin()


def transport(denoise: Denoiser, u: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Carry images from the first level to the last, up or down, by Heun's method on the circle."""
    angles = [(level / DATA_STD).atan() for level in levels]
    v = u * angles[0].cos() / DATA_STD
    for angle, to in pairwise(angles):
        first = circular(denoise, angle)(v)
        v = v + (to - angle) * (first + circular(denoise, to)(v + (to - angle) * first)) / 2
    return v * DATA_STD / angles[-1].cos()


def log_density(denoise: Denoiser, x: Tensor, levels: Sequence[Tensor], divergence: Divergence) -> Tensor:
    """log p(x) in nats (N,) of the images that a denoiser knows, by Heun's method on the circle up a rising grid.

    Along the flow the log density falls by the field's divergence (Chen et al. 2018,
    https://arxiv.org/abs/1806.07366), and at the highest level it is that of N(0, 1).
    """
    angles = [(level / DATA_STD).atan() for level in levels]
    stretch = angles[0].cos() / DATA_STD
    v, grown = x * stretch, x.new_zeros(len(x))
    for angle, to in pairwise(angles):
        first, spread = divergence(circular(denoise, angle), v)
        second, spread2 = divergence(circular(denoise, to), v + (to - angle) * first)
        v, grown = v + (to - angle) * (first + second) / 2, grown + (to - angle) * (spread + spread2) / 2
    flat = v.flatten(1)
    return grown - flat.square().sum(1) / 2 + flat.shape[1] * (float(stretch.log()) - log(2 * pi) / 2)


def steps_within(solver: Solver, evaluations: int) -> int:
    """Steps that a solver can take with so many evaluations of the denoiser; at least one.

    >>> steps_within(SOLVERS["heun"], 19), steps_within(SOLVERS["euler"], 19)
    (10, 19)
    """
    return max(1, (evaluations + solver.evaluations - 1) // solver.evaluations)
