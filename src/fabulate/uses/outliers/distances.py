"""How far vectors lie from normals, and how far each normal lies from the others: what most scores are.

The Mahalanobis distance is taken under N(mean, covariance), the covariance shrunk towards a multiple of the identity by
just so much as minimises its expected error (Ledoit, Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices", 2004, https://doi.org/10.1016/S0047-259X(03)00096-4): there may be more dimensions than normals.
Numbers that are many and much alike are shrunk by no less than a fiftieth: else directions in which normals hardly move
would rule the distance. Of more than `DIRECTIONS` numbers the directions of largest variance are kept, and the others
share what is left (Tipping, Bishop, "Probabilistic principal component analysis", 1999,
https://doi.org/10.1111/1467-9868.00196). `knn` is the mean distance to the k nearest normals (Angiulli, Pizzuti, "Fast
outlier detection in high dimensional spaces", 2002, https://doi.org/10.1007/3-540-45681-3_2): the normals may lie
anywhere.

A normal that was fitted to looks more normal than it is. What it would score had it, and all of its group, been left
out, needs no other fit: of neighbours those of its group are passed over, and a covariance without a few rows has a
closed form (Sherman, Morrison 1950; Woodbury 1950).

Legend: N vectors, M normals, D numbers, R directions, m normals of a group.
"""

from math import sqrt

import torch
from torch import Tensor

from fabulate.metrics.manifold import blocks
from fabulate.uses.outliers.features import State

NEAREST = 3
STILL = 1e-3  # of the mean deviation, added to all: numbers that hardly move are not blown up
SHRUNK = 0.02  # on digits held out of MNIST's training part: 98.7; with Ledoit and Wolf's own 0.002: 98.6
LEAST = 1e-9  # of the mean variance, that every direction has at least
DIRECTIONS = 1000
SINGLE = 2**20  # numbers of a table
TOGETHER = 2000  # normals at a time


def fit_mahalanobis(x: Tensor, *, equal: bool = False) -> State:
    """What the distance from normals (M, D), float64, needs: their mean, directions, and the variance of each.

    `equal`: numbers are in different units, so each is first divided by its deviation; pixels are not.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    n, dim = x.shape
    mean = x.mean(0)
    width = x.new_ones(dim)
    if equal and n > 1:
        deviation = x.std(0)
        width = (deviation + STILL * deviation.mean()).clamp(min=LEAST)
    x = (x - mean) / width
    shrunk = float(ledoit_wolf_shrinkage(x.numpy(), assume_centered=True)) if n > 1 else 0.0
    shrunk = max(shrunk, SHRUNK) if equal else shrunk
    level = float(x.square().mean())
    if n < dim:  # no more directions than normals
        found, turned = torch.linalg.eigh(x @ x.T / n)
        directions = x.T @ turned / (n * found.clamp(min=LEAST * level)).sqrt()
        kept = found > 1e-9 * float(found.max())
        found, directions = found[kept], directions[:, kept]
    else:
        found, directions = torch.linalg.eigh(x.T @ x / n)
    found, directions = found[-DIRECTIONS:], directions[:, -DIRECTIONS:]
    rest = max(dim * level - float(found.sum()), 0.0) / max(dim - len(found), 1)
    least = LEAST * level or LEAST
    variances = (1 - shrunk) * found.clamp(min=0) + shrunk * level + least
    return {
        "mean": mean,
        "width": width,
        "directions": single(directions.contiguous()),
        "variances": variances,
        "rest": x.new_tensor((1 - shrunk) * rest + shrunk * level + least),
        "weight": x.new_tensor((1 - shrunk) / n),  # of one normal in the covariance
    }


def single(x: Tensor) -> Tensor:
    """A table that is kept: in single precision where it is large, so that a detector's file stays small."""
    return x.float() if x.numel() > SINGLE else x


def whitened(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N, D) in units of the normals' deviations: along the directions (N, R), and beside them (N, D)."""
    directions = state["directions"].double()
    centred = (x - state["mean"]) / state["width"]
    along = centred @ directions
    if directions.shape[1] == len(directions):
        return along / state["variances"].sqrt(), x.new_zeros(len(x), 1)
    beside = (centred - along @ directions.T) / state["rest"].sqrt()
    return along / state["variances"].sqrt(), beside


def mahalanobis(state: State, x: Tensor) -> Tensor:
    """Minus the Mahalanobis distance of vectors (N, D), over the root of D: (N,)."""
    along, beside = whitened(state, x)
    return -(along.square().sum(1) + beside.square().sum(1)).sqrt() / sqrt(x.shape[1])


def mahalanobis_left_out(state: State, x: Tensor, groups: Tensor) -> Tensor:
    """What `mahalanobis` gives each normal (M, D) by the fit without its group (M,): (M,).

    With y the group's rows less the mean, b their sum, M - m normals are left. Their mean is moved by -b / (M - m), and
    their covariance is, but for a factor, the whole one less weight * (y^T y + b b^T / (M - m)). All of it
    is known from the products y C^-1 y^T (m, m). Shrinkage and deviations stay those of all normals.
    """
    found, total = x.new_empty(len(x)), len(x)
    order = torch.argsort(groups, stable=True)
    sizes = torch.unique(groups, return_counts=True)[1]
    starts = sizes.cumsum(0) - sizes
    for m in sizes.unique().tolist():
        members = order[starts[sizes == m][:, None] + torch.arange(m)]  # (groups, m)
        for part in torch.split(members, max(1, TOGETHER // m)):
            whole = torch.cat(whitened(state, x[part.flatten()]), dim=1).view(len(part), m, -1)
            found[part] = _left_out(whole @ whole.mT, total, float(state["weight"]))
    return -found.sqrt() / sqrt(x.shape[1])


def _left_out(products: Tensor, total: int, weight: float) -> Tensor:
    """Squared distances (groups, m) of normals by the fit without their group, of their products (groups, m, m)."""
    m = products.shape[1]
    left = total - m
    eye, ones = torch.eye(m, dtype=products.dtype), products.new_ones(m, 1)
    taken = torch.cat([eye, ones / sqrt(left)], dim=1)  # of the scatter: the rows, and the mean's move
    moved = eye + 1 / left  # the rows less the mean of those left
    both = taken.T @ products
    inner = torch.eye(m + 1, dtype=products.dtype) - weight * both @ taken
    across = both @ moved  # (groups, m + 1, m)
    more = (across * torch.linalg.solve(inner, across)).sum(1)
    squares = (moved * (products @ moved)).sum(1) + weight * more
    return squares.clamp(min=0) / (1 + weight * total * m / left)  # the mean square of fewer rows, where not shrunk


def fit_knn(x: Tensor, *, whiten: bool = False) -> State:
    """What the nearest of normals (M, D) need: they themselves; `whiten`: in units of their covariance."""
    if not whiten:
        return {"normals": single(x)}
    state = fit_mahalanobis(x, equal=True)
    return {**state, "normals": single(_in_units(state, x))}


def _in_units(state: State, x: Tensor) -> Tensor:
    return torch.cat(whitened(state, x), dim=1) if "directions" in state else x


def knn(state: State, x: Tensor) -> Tensor:
    """Minus the mean distance of vectors (N, D) to the nearest normals: (N,)."""
    normals = state["normals"].double()
    k = min(NEAREST, len(normals))
    found = [b.squares.topk(k, dim=1, largest=False).values for b in blocks(_in_units(state, x), normals)]
    return -torch.cat(found).sqrt().mean(1)


def knn_left_out(state: State, x: Tensor, groups: Tensor) -> Tensor:
    """What `knn` gives each normal (M, D) without those of its group (M,): (M,)."""
    k = min(NEAREST, len(x) - int(torch.bincount(groups).max()))
    found = []
    for block in blocks(x, state["normals"].double()):
        block.squares[groups[block.rows, None] == groups] = torch.inf
        found.append(block.squares.topk(k, dim=1, largest=False).values)
    return -torch.cat(found).sqrt().mean(1)
