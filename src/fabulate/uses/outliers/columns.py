"""Each column of rows made Gaussian by its ranks: normal scores.

Columns come in any unit and any shape. A distance means something when each has been bent to N(0, 1) first: a value
becomes the quantile of N(0, 1) that its rank among the normals is (van der Waerden 1952; with a covariance on top it is
the nonparanormal: Liu, Lafferty, Wasserman 2009, https://arxiv.org/abs/0903.0655). Whether somebody gave lengths,
squares or logarithms then makes no difference. Beyond the lowest and the highest normal it goes straight on, by the
standard deviation, so that what is farther out is farther out.

Legend: N M rows, D columns, Q knots.
"""

import numpy as np
import torch
from torch import Tensor

from fabulate.uses.outliers.views import State

KNOTS = 200  # ranks that are kept of a column, at most


def fit_columns(rows: Tensor) -> State:
    """The knots (Q, D) of each column's curve from values to normal scores, for normals (M, D)."""
    from scipy.special import ndtri

    x = rows.numpy()
    levels = (np.arange(min(KNOTS, len(x))) + 0.5) / min(KNOTS, len(x))
    values = np.quantile(x, levels, axis=0, method="hazen")
    scores = np.repeat(ndtri(levels)[:, None], x.shape[1], axis=1)
    for value, score in zip(values.T, scores.T, strict=True):  # equal values have the mean of their scores
        _, place, count = np.unique(value, return_inverse=True, return_counts=True)
        score[:] = (np.bincount(place, score) / count)[place]
    width = x.std(axis=0)
    constant = np.where(width > 0, width, 1.0)  # of a column that never changes no unit is known
    return {"values": torch.from_numpy(values), "scores": torch.from_numpy(scores), "width": torch.from_numpy(constant)}


def normal_scores(state: State, rows: Tensor) -> Tensor:
    """Rows (N, D) with each column bent to N(0, 1): float64.

    >>> normals = torch.arange(1.0, 100.0).double()[:, None]
    >>> normal_scores(fit_columns(normals), torch.tensor([[50.0], [75.0]]).double()).round(decimals=1)
    tensor([[0.0000],
            [0.7000]], dtype=torch.float64)
    """
    x, values, scores = rows.numpy(), state["values"].numpy(), state["scores"].numpy()
    bent = np.stack([np.interp(x[:, j], values[:, j], scores[:, j]) for j in range(x.shape[1])], axis=1)
    beyond = np.minimum(x - values[0], 0) + np.maximum(x - values[-1], 0)
    return torch.from_numpy(bent + beyond / state["width"].numpy())
