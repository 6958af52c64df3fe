"""Filling in: what a completion of a partly given item is drawn by.

Of a sequence that is written from its beginning, p(the rest | what is given) is easy where the beginning is given, and
out of reach where a later part is: each symbol would have to look ahead. A particle filter does that. P sequences are
written side by side; where a symbol is given, it is set, and each sequence is weighed by how likely it had made it,

    w = product over given t of p(x_t | what it has written so far);

once the weights are uneven, sequences are drawn anew by them: those that led where the given symbols are go on, the
others end. One of P drawn by weight in the end is a sample of the conditional distribution, exactly as P grows (Gordon,
Salmond, Smith, "Novel approach to nonlinear/non-Gaussian Bayesian state estimation", 1993,
https://doi.org/10.1049/ip-f-2.1993.0015; Doucet, Johansen, "A tutorial on particle filtering and smoothing", 2009).

Of an image that is made out of noise, each step's guess at the image has the given pixels put into it, and is taken
back to the noise and forth again several times, so that what is made and what is given can agree (Lugmayr et al.,
"RePaint", 2022, https://arxiv.org/abs/2201.09865; Wang, Yu, Zhang, "Zero-shot image restoration using denoising
diffusion null-space model", 2022, https://arxiv.org/abs/2212.00490). It is an approximation: of two pixels that go
together by 0.8, one of them given, the other's mean is 0.76 times the given one's, and 0.46 times when each level is
passed once.

Legend: N completions, P particles of each, T places.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fabulate.samplers import Denoiser, Noise

PARTICLES = 32
UNEVEN = 0.5  # of the particles, that the effective number may fall below before they are drawn anew
STEPS, AGAIN = 40, 10  # levels of noise, and how often each is passed


def ancestors(log_w: Tensor, chance: Tensor) -> Tensor:
    """Which particles (N, P) go on, drawn by their weights (N, P) evenly (systematic resampling), by numbers (N,).

    >>> ancestors(torch.tensor([[0.5, 0.0, 0.25, 0.25]]).log(), torch.tensor([0.5])).tolist()
    [[0, 0, 2, 3]]
    """
    p = torch.softmax(log_w.double(), 1).cumsum(1)
    count = log_w.shape[1]
    places = (torch.arange(count, device=log_w.device) + chance.double()[:, None]) / count
    return torch.searchsorted(p, places * p[:, -1:], right=True).clamp_max(count - 1)


def effective(log_w: Tensor) -> Tensor:
    """How many particles (N,) of equal weight would be worth as much as these (N, P)."""
    p = torch.softmax(log_w, 1)
    return 1 / p.square().sum(1)


def inpainted(
    denoise: Denoiser,
    u: Tensor,
    levels: Sequence[Tensor],
    noise: Noise,
    pasted: Callable[[Tensor], Tensor],
    times: int = AGAIN,
) -> Tensor:
    """Noise u (N, ...) to what a denoiser makes of it with the given parts put in by `pasted`; each level is passed
    some `times`."""
    for s, below in pairwise(levels):
        for again in range(times):
            x, kept = pasted(denoise(u, s)), (below / s) ** 2
            down = x + kept * (u - x) + below * (1 - kept).sqrt() * noise()
            if below == 0 or again == times - 1:
                break
            u = down + (s**2 - below**2).sqrt() * noise()
        u = down
    return u
