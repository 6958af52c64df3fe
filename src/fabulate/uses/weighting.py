"""What weighted points are worth, and points that count alike in their place."""

import torch
from torch import Tensor


def effective_size(weights: Tensor) -> float:
    """The effective sample size of weights (N,), (sum w)^2 / sum w^2 (Kish 1965); 0 for none.

    >>> effective_size(torch.ones(10)), effective_size(torch.tensor([1.0, 0.0]))
    (10.0, 1.0)
    """
    return float(weights.sum().square() / weights.square().sum().clamp_min(torch.finfo(weights.dtype).tiny))


def systematic(weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n indices by weights (N,), each as often as its share of them, give or take one: systematic resampling.

    Where the first falls is random, by the generator, or the middle (Kitagawa, "Monte Carlo filter and smoother for
    non-Gaussian nonlinear state space models", 1996, https://doi.org/10.1080/10618600.1996.10474692).

    >>> systematic(torch.tensor([0.5, 0.25, 0.25]), 4).tolist()
    [0, 0, 1, 2]
    """
    first = 0.5 if generator is None else torch.rand(1, generator=generator, dtype=torch.float64)
    marks = (torch.arange(n, dtype=torch.float64) + first) / n
    edges = weights.double().cumsum(0)
    return torch.searchsorted(edges / edges[-1], marks).clamp_max(len(weights) - 1)
