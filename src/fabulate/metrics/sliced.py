"""MIND, the Monge inception distance: what it takes to move one cloud of features onto another, line by line.

    MIND = 3 D  E_u W(u.a, u.b)^2,    W(s, t)^2 = mean_i (s_(i) - t_(i))^2,    u uniform on the unit sphere

(Berthet, Wu, Crepy, Elie, Greff, Sander, "MIND: Monge Inception Distance for generative models evaluation", 2026,
https://arxiv.org/abs/2605.06797; the sliced Wasserstein distance of Rabin, Peyré, Delon, Bernot, 2011). On a line the
cheapest way to move n numbers onto n others keeps their order, so sorting is all it takes. Unlike the Fréchet distance
it takes neither cloud for a Gaussian, and needs no covariance: it is steadier where images are few. The factor 3 D is
the paper's; a shift by s gives 3 |s|^2.

The directions come in orthonormal bases, five hundred or more in all: each direction is uniform, and of a shift each
basis sees all.

The error is that of the images, by the limit law of W^2 (del Barrio, Loubes, "Central limit theorems for empirical
transportation cost in general dimension", 2019, https://arxiv.org/abs/1705.01299): W^2 moves by the mean of a potential
whose slope at s is 2 (s - T(s)), T being the map that keeps the order. Here it is averaged over the directions. For
equal distributions there is no such potential, what remains is the bias, and the interval says little.

Legend: N rows (images), D features, U directions of a basis.
"""

from math import ceil, sqrt

import torch
from torch import Tensor

from fabulate.metrics.intervals import Estimate, checked
from fabulate.seeds import generator

DIRECTIONS = 500  # at least; the paper takes 1,000 independent ones
MOST = 5000  # rows: with so many the paper's distance tells models apart as the Fréchet distance of 50,000 does
SCALE = 3.0  # times D, so the paper


def monge_distance(a: Tensor, b: Tensor, *, seed: int = 0) -> Estimate:
    """MIND of two sets of features (N, D): 0 or more, lower is closer.

    The first rows count, as many of each set, 5,000 at most. It is biased upwards as the Fréchet distance is, so
    compare it at equal N only. `seed` chooses the directions.
    Errors: `DataError` for fewer than 2 rows, unequal D or numbers that are not finite.

    >>> a = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None] ** torch.tensor([1.0, 2.0, 3.0])
    >>> round(monge_distance(a, a + torch.tensor([0.0, 1.0, 0.0])).value, 9)
    3.0
    """
    a, b = checked(2, a=a, b=b)
    n, dim = min(len(a), len(b), MOST), a.shape[1]
    a, b = a[:n], b[:n]
    bases = ceil(DIRECTIONS / dim)
    total, potentials = 0.0, torch.zeros(2, n, dtype=torch.float64)
    for i in range(bases):
        gaussian = torch.randn(dim, dim, generator=generator(seed, "monge", i), dtype=torch.float64)
        basis = torch.linalg.qr(gaussian).Q
        (s, s_order), (t, t_order) = ((x @ basis).T.contiguous().sort(1) for x in (a, b))  # (U, N)
        moved = s - t
        total += float(moved.square().mean(1).sum())
        for row, places, order, slope in ((0, s, s_order, 2 * moved), (1, t, t_order, -2 * moved)):
            potential = torch.zeros_like(places)
            potential[:, 1:] = ((slope[:, 1:] + slope[:, :-1]) / 2 * places.diff(dim=1)).cumsum(1)
            potential -= potential.mean(1, keepdim=True)
            potentials[row] += torch.zeros_like(places).scatter_(1, order, potential).sum(0)
    factor = SCALE * dim / (bases * dim)
    deviation = factor * sqrt(float(potentials.var(1).sum()) / n)
    return Estimate.about(factor * total, deviation)
