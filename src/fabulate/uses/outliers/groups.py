"""Normals that belong together: several photographs of one thing, copies, repeated rows.

Of an image that is there three times one copy is held out while the fit has seen another: it scores as what was learnt
does, the threshold comes out too high, and new normals are called outliers far more often than promised. Exposures of
one object, a burst, frames of a film, rows measured twice do the same. What may be exchanged for one another are then
not normals but groups of them; so a group is left out as a whole (`distances.py`), and counts once (`conformal.py`).

Who knows the groups says so. Otherwise they are found where rows lie much nearer to each other than independent ones
ever come. How near is that? Squared distances between independent rows follow a gamma law, about: of k Gaussian numbers
exactly, with shape k / 2, and whatever the law of the rows, its lower end is that of the numbers they really vary in
(C(r) ~ r^k: Grassberger, Procaccia, "Characterization of strange attractors", 1983,
https://doi.org/10.1103/PhysRevLett.50.346). Its two parameters come from distances that are usual, where few pairs are
of one group; its lower tail says how many pairs should lie nearer than r. Pairs count as belonging together up to
the largest r where a tenth of those found would be there by chance (Benjamini, Hochberg 1995,
https://doi.org/10.1111/j.2517-6161.1995.tb02031.x); average linkage makes groups of them, so that chains of
look-alikes do not become one.

Images are compared by scattering coefficients of unit length, which a longer exposure leaves as they are, less their
first principal components: what all images of a set vary in most (thickness of strokes, light) is also what photographs
of one thing differ in. Once there are groups, they say themselves in what their members differ, and a second pass
divides by that (as linear discriminant analysis does: Fisher, 1936, https://doi.org/10.1111/j.1469-1809.1936.tb02137.x).

Legend: N rows, D numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.manifold import blocks
from fabulate.seeds import permutation, seeded
from fabulate.uses.outliers.features import scattering

SOME = 1500  # rows whose distances from each other tell what is usual
FEW, WINDOW = (0.02, 0.1), 4.0  # the law is measured between this share of the pairs and four times as many,
WITHIN = 20  # and no less than what groups of so many rows would fill
CHANCE = 0.1  # of the pairs found, that may be there by chance
LEADING, COMPONENTS = 10, 100  # principal components of images: those left out, and the last that is looked at
ROWS_EACH = 20  # rows to one leading component, at least
LARGEST = 32  # pixels a side that images are compared at
SURE = 0.2  # of the images in groups, that may say what members differ in
NEIGHBOURS = 20  # of each row, that are looked at
MOST = 4000  # rows of a chain that average linkage takes apart: a table of so many distances is 130 MB


def labelled(groups: Any, n: int) -> Tensor:
    """Labels of any kind (N,) as numbers 0, 1, ... in the order of the sorted labels.

    Errors: `DataError` for another number of labels than rows, or only one group.
    """
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise DataError(f"groups is one label for each normal, and there are {n:,}; given an array {labels.shape}")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise DataError("all normals are of one group, so none can be left out: at least two groups are needed")
    return torch.from_numpy(numbers)


def of_rows(x: Tensor) -> Tensor:
    """Which rows (N, D), float64, belong together: numbers of groups (N,).

    >>> x = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).double()
    >>> torch.bincount(of_rows(torch.cat([x, x[:3], x[:2] + 1e-2]))).tolist()[:4]
    [3, 3, 2, 1]
    """
    first, same = np.unique(x.numpy(), axis=0, return_index=True, return_inverse=True)[1:]
    distinct = x[first]
    linked = _links(x, distinct) if len(distinct) > 2 else None
    if linked is None:
        return torch.arange(len(x))
    return _first_come(_average(distinct, *linked)[same.reshape(-1)])


def of_images(images: Tensor) -> Tensor:
    """Which images (N, C, H, W) in [-1, 1] show one thing: numbers of groups (N,)."""
    size = [min(side, round(side * LARGEST / max(images.shape[2:]))) or 1 for side in images.shape[2:]]
    small = F.interpolate(images.mean(1, keepdim=True), size=size, mode="area")
    x = F.normalize(scattering(small).double())
    x = x - x.mean(0)
    with seeded(0, "groups"):
        u, s, _ = torch.svd_lowrank(x, q=min(COMPONENTS, *x.shape), niter=3)
    leading = min(LEADING, len(x) // ROWS_EACH)
    group = of_rows((u * s)[:, leading:])
    return of_rows(_divided((u * s)[:, min(1, leading) :], group)) if alike(group) >= SURE else group


def alike(group: Tensor) -> float:
    """The share of rows whose group (N,) has others."""
    return float((torch.bincount(group)[group] > 1).double().mean())


def _divided(x: Tensor, group: Tensor) -> Tensor:
    """Rows (N, D) in units of how those of a group (N,) differ, and as much again in all directions."""
    sizes = torch.bincount(group)
    means = x.new_zeros(len(sizes), x.shape[1]).index_add_(0, group, x) / sizes[:, None]
    within = (x - means[group])[sizes[group] > 1]
    covariance = within.T @ within / max(len(within) - int((sizes > 1).sum()), 1)
    covariance.diagonal().add_(covariance.diagonal().mean())
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), x.T, upper=False).T


def _links(x: Tensor, distinct: Tensor) -> tuple[npt.NDArray[np.int64], float] | None:
    """Pairs of distinct rows (pairs, 2) that belong together, and the squared distance up to which they do, or None."""
    from scipy.stats import gamma

    usual = torch.pdist(x[permutation(len(x), "outliers", "groups")[:SOME]]).square().numpy()
    share = float(np.clip(WITHIN / len(x), *FEW))
    few, many = np.quantile(usual, [share, WINDOW * share])
    if not 0 < few < many:
        return None  # rows of few different kinds: equal ones are usual
    shape = _shape(float(many / few), share)
    law = gamma(shape, scale=many / gamma.ppf(WINDOW * share, shape))
    rows, others, squares = _near(distinct)
    copies = len(x) - len(distinct)
    if len(squares) == 0:
        return None
    # On a grid (whole numbers, yes and no) a distance stands for all up to the next one. What has hardly a value twice
    # in some column is on no grid, and equal rows are copies.
    step = float(squares[squares > 0].min()) if (squares > 0).any() else 0.0
    grid = max(len(column.unique()) for column in distinct.T) < len(distinct) / 2
    pairs = len(x) * (len(x) - 1) / 2
    expected = pairs * law.cdf(np.append(squares + step / 2, step / 2 if grid else 0.0))
    counted = copies + np.append(np.arange(1, len(squares) + 1), 0)
    good = expected <= CHANCE * counted
    if not good.any():
        return None
    up_to = float(squares[good[:-1]].max()) if good[:-1].any() else 0.0
    near = squares <= up_to
    return np.stack([rows[near], others[near]], axis=1), up_to


def _shape(ratio: float, share: float) -> float:
    """The shape of the gamma law whose quantiles `WINDOW * share` and `share` have this ratio."""
    from scipy.optimize import brentq
    from scipy.stats import gamma

    def miss(log: float) -> float:
        return float(np.log(gamma.ppf(WINDOW * share, np.exp(log)) / gamma.ppf(share, np.exp(log))) - np.log(ratio))

    low, high = np.log(0.1), np.log(5000.0)
    return float(np.exp(low if miss(low) < 0 else high if miss(high) > 0 else brentq(miss, low, high)))


def _near(x: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Each row's nearest others, as pairs that are there once, the nearest first: rows, others, squared distances."""
    k = min(NEIGHBOURS, len(x) - 1)
    parts = []
    for block in blocks(x, x):
        own = torch.arange(block.rows.start, block.rows.stop)
        block.squares.scatter_(1, own[:, None], torch.inf)
        squares, others = block.squares.topk(k, dim=1, largest=False)
        parts.append(torch.stack([own[:, None].expand_as(others).double(), others.double(), squares]).flatten(1))
    rows, others, squares = torch.cat(parts, dim=1).numpy()
    low, high = np.minimum(rows, others).astype(np.int64), np.maximum(rows, others).astype(np.int64)
    once = np.unique(low * len(x) + high, return_index=True)[1]
    once = once[np.argsort(squares[once], kind="stable")]
    return low[once], high[once], squares[once]


def _average(x: Tensor, pairs: npt.NDArray[np.int64], up_to: float) -> npt.NDArray[np.int64]:
    """Groups (N,) of rows by average linkage of squared distances, of those that chains of pairs connect."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import pdist

    n = len(x)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    chains = connected_components(graph, directed=False)[1]
    labels, after = chains.copy(), n
    for chain in np.flatnonzero(np.bincount(chains) > 2):
        members = np.flatnonzero(chains == chain)
        if len(members) <= MOST:
            apart = pdist(x[members].numpy(), "sqeuclidean")
            labels[members] = after + fcluster(linkage(apart, "average"), up_to, "distance")
            after += n
    return labels


def _first_come(labels: npt.NDArray[np.int64]) -> Tensor:
    """The same groups, numbered in the order in which they come."""
    first, numbers = np.unique(labels, return_index=True, return_inverse=True)[1:]
    return torch.from_numpy(np.argsort(np.argsort(first))[numbers.reshape(-1)])
