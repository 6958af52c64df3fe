"""Euclidean distances between many rows, a block at a time, and the nearest row.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b makes all distances of two sets one matrix product, the fastest thing a computer does.
The price is rounding: what should be 0 comes out near 1e-16 (|a|^2 + |b|^2). Hence three habits here. Features are
centred first, so that the squares are no larger than they must be. What is compared is compared with a `SLACK` above
that rounding, so that ties are ties in blocks of any size. And distances that are handed out are computed anew from the
difference of the two rows: those of equal rows are exactly 0.

Legend: N M rows, D features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CELLS = 2**23  # distances in one block: 64 MB in float64
SLACK = 1e-12  # of the summed squares |a|^2 + |b|^2: rounding takes some 1e-15 of them


class Block(NamedTuple):
    """Squared distances from some rows of a set to all rows of another."""

    rows: slice
    squares: Tensor
    """(rows, M), at least 0."""
    slack: Tensor
    """What rounding may have changed in any of a row's squares, and more: (rows, 1)."""


def blocks(a: Tensor, b: Tensor) -> Iterator[Block]:
    """Squared distances between the rows of a (N, D) and b (M, D), float64, some rows of a at a time."""
    centre = b.mean(0)
    b = b - centre
    b_squares = b.square().sum(1)
    step = max(1, CELLS // len(b))
    for start in range(0, len(a), step):
        part = a[start : start + step] - centre
        squares = part.square().sum(1, keepdim=True)
        block = torch.addmm(b_squares[None], part, b.T, alpha=-2).add_(squares).clamp_(min=0)
        yield Block(slice(start, start + len(part)), block, SLACK * (squares + b_squares.max()))


def nearest_rows(a: Tensor, b: Tensor, *, but: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest row of b (M, D) to each row of a (N, D), and how far it is: (N,) int64 and (N,) float64.

    `but`: for each row of a the number of a row of b that does not count (N,), such as the row itself.

    >>> a = torch.tensor([[0.0], [10.0]]).double()
    >>> nearest_rows(a, torch.tensor([[10.0], [1.0], [0.0]]).double())
    (tensor([2, 0]), tensor([0., 0.], dtype=torch.float64))
    >>> nearest_rows(a, a, but=torch.arange(2))
    (tensor([1, 0]), tensor([10., 10.], dtype=torch.float64))
    """
    found = []
    for block in blocks(a, b):
        if but is not None:
            block.squares.scatter_(1, but[block.rows, None], torch.inf)
        found.append(block.squares.argmin(1))
    indices = torch.cat(found)
    step = max(1, CELLS // a.shape[1])
    parts = zip(torch.split(a, step), torch.split(indices, step), strict=True)
    return indices, torch.cat([(part - b[index]).norm(dim=1) for part, index in parts])


def radii(features: Tensor, k: int) -> Tensor:
    """Squared distances from each row (N, D) to its k nearest other rows, nearest first: (N, k)."""
    found = []
    for block in blocks(features, features):
        own = torch.arange(block.rows.start, block.rows.stop)
        block.squares.scatter_(1, own[:, None], torch.inf)  # a row is no neighbour of itself; an equal row is
        found.append(block.squares.topk(k, dim=1, largest=False).values)
    return torch.cat(found)
