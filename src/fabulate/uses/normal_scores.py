"""Each column of rows made Gaussian by its ranks, and back: normal scores.

Columns come in any unit and any shape. A distance means something when each has been bent to N(0, 1) first: a value
becomes the quantile of N(0, 1) that its rank among the rows is (van der Waerden 1952; with a covariance on top it is
the nonparanormal: Liu, Lafferty, Wasserman 2009, https://arxiv.org/abs/0903.0655). Whether somebody gave lengths,
squares or logarithms then makes no difference. Beyond the last ranks that are kept it goes straight on, in units of
the column's spread, so that what is farther out is farther out.

No single row counts for much, however large its numbers: ranks do not see them, the spread is that of the middle half,
and the lowest and the highest row are no knots where others lie between.

Legend: N M rows, D columns, Q knots.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

REACH = 4.0  # deviations that make the 1 of a model whose data lie in [-1, 1]
KNOTS = 200  # ranks that are kept of a column, at most, and one for two rows
SPREADS = (0.25, 0.1, 0.025, 0.005)  # shares below and above what a spread is measured between: the first that has one


def fit_columns(rows: Tensor) -> dict[str, Tensor]:
    """The knots (Q, D) of each column's curve from values to normal scores, and its spread (D,), of rows (M, D)."""
    from scipy.special import ndtri

    x = rows.numpy()
    count = min(KNOTS, max(1, len(x) // 2))
    levels = (np.arange(count) + 0.5) / count
    places = levels * (len(x) - 1)  # of rows that are there: a mean of one and a far outlier would be another
    ordered = np.sort(x, axis=0)
    values = ordered[np.where(levels < 0.5, np.ceil(places), np.floor(places)).astype(int)]
    scores = np.repeat(ndtri(levels)[:, None], x.shape[1], axis=1)
    for value, score in zip(values.T, scores.T, strict=True):  # equal values have the mean of their scores
        _, place, times = np.unique(value, return_inverse=True, return_counts=True)
        score[:] = (np.bincount(place, score) / times)[place]
    state = {"values": values, "scores": scores, "width": spread(x)}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


def spread(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The deviation (D,) that each column of rows (M, D) would have as a Gaussian, by its middle half; never 0.

    >>> x = np.arange(-50.0, 51.0)
    >>> [round(float(spread(column[:, None])[0])) for column in (x, np.append(x, 1e9), np.zeros(9))]
    [37, 37, 1]
    """
    from scipy.special import ndtri

    width = np.zeros(x.shape[1])
    for share in SPREADS:  # a column that is mostly one value has no middle half
        low, high = np.quantile(x, [share, 1 - share], axis=0)
        width = np.where(width > 0, width, (high - low) / (-2 * ndtri(share)))
    width = np.where(width > 0, width, x.std(axis=0))
    return np.where(width > 0, width, 1.0)  # of a column that never changes no unit is known


def normal_scores(state: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Rows (N, D) with each column bent to N(0, 1): float64.

    >>> rows = torch.arange(1.0, 100.0).double()[:, None]
    >>> normal_scores(fit_columns(rows), torch.tensor([[50.0], [75.0]]).double()).round(decimals=1)
    tensor([[0.0000],
            [0.7000]], dtype=torch.float64)
    """
    x, values, scores = rows.numpy(), state["values"].numpy(), state["scores"].numpy()
    bent = np.stack([np.interp(x[:, j], values[:, j], scores[:, j]) for j in range(x.shape[1])], axis=1)
    beyond = np.minimum(x - values[0], 0) + np.maximum(x - values[-1], 0)
    return torch.from_numpy(bent + beyond / state["width"].numpy())


def from_normal_scores(state: dict[str, Tensor], scores: Tensor) -> Tensor:
    """Rows (N, D) whose normal scores these are: the inverse, float64. A column of one value gets that value back.

    >>> rows = torch.tensor([[-1.0, 7.0], [0.0, 7.0], [0.5, 7.0], [1.0, 7.0]]).double()
    >>> state = fit_columns(rows)
    >>> from_normal_scores(state, normal_scores(state, rows))[1:3]
    tensor([[0.0000, 7.0000],
            [0.5000, 7.0000]], dtype=torch.float64)
    """
    z, values, known = scores.numpy(), state["values"].numpy(), state["scores"].numpy()
    columns = []
    for j in range(z.shape[1]):
        value, first = np.unique(values[:, j], return_index=True)  # scores rise with values: each of both once
        columns.append(np.interp(z[:, j], known[first, j], value))
    beyond = np.minimum(z - known[0], 0) + np.maximum(z - known[-1], 0)
    width = np.where(values[0] < values[-1], state["width"].numpy(), 0)
    return torch.from_numpy(np.stack(columns, axis=1) + beyond * width)
