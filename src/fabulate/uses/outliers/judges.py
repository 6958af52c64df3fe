"""Two judges of vectors: how far from the middle of the normals, and how far from the nearest of them.

`gaussian` is the Mahalanobis distance under N(mean, covariance), the covariance shrunk towards a multiple of the
identity by just so much as minimises its expected error (Ledoit, Wolf, "A well-conditioned estimator for large-
dimensional covariance matrices", 2004, https://doi.org/10.1016/S0047-259X(03)00096-4): there may be more dimensions
than normals. Numbers that are many and much alike are shrunk by no less than a fiftieth: else directions in which
normals hardly move would rule the distance. `neighbours` is the mean distance to the k nearest normals (Angiulli,
Pizzuti, "Fast outlier detection in high dimensional spaces", 2002, https://doi.org/10.1007/3-540-45681-3_2): the
normals may lie anywhere.

Legend: N vectors to judge, M normals, D numbers.
"""

from math import sqrt

import torch
from torch import Tensor

from fabulate.metrics.distances import blocks
from fabulate.uses.outliers.views import State

NEIGHBOURS = 3
STILL = 1e-3  # of the mean deviation, added to all: numbers that hardly move are not blown up
SHRUNK = 0.02  # on digits held out of MNIST's training part: 98.7; with Ledoit and Wolf's own 0.002: 98.6
LEAST = 1e-9  # of the mean variance, that every direction has at least


def fit_gaussian(x: Tensor, *, equal: bool = False) -> State:
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


def gaussian(state: State, x: Tensor) -> Tensor:
    """Minus the Mahalanobis distance of vectors (N, D), over the root of D: (N,)."""
    return -((x - state["mean"]) @ state["whiten"]).norm(dim=1) / sqrt(x.shape[1])


def fit_neighbours(x: Tensor) -> State:
    """The normals themselves (M, D)."""
    return {"normals": x}


def neighbours(state: State, x: Tensor) -> Tensor:
    """Minus the mean distance of vectors (N, D) to the nearest normals: (N,)."""
    k = min(NEIGHBOURS, len(state["normals"]))
    found = [block.squares.topk(k, dim=1, largest=False).values for block in blocks(x, state["normals"])]
    return -torch.cat(found).sqrt().mean(1)
