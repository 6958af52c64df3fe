"""Precision, recall, density and coverage: is what is generated real, and is all that is real generated?

A set of images is taken to cover the balls around its members that reach to each one's k-th nearest other member.

* precision: the share of fakes in some ball of the real images; recall: of real images in some ball of the fakes
  (Kynkäänniemi, Karras, Laine, Lehtinen, Aila, "Improved precision and recall metric for assessing generative models",
  2019, https://arxiv.org/abs/1904.06991, with k = 3).
* density: in how many real balls a fake lies, over k, so 1 on average for equal distributions; coverage: the share of
  real balls that hold a fake (Naeem, Oh, Uh, Choi, Yoo, "Reliable fidelity and diversity metrics for generative
  models", 2020, https://arxiv.org/abs/2002.09797, with k = 5). A stray image has a large ball, which precision and
  recall believe; density and coverage suffer less from it.

A ball holds its border (<=, the convention of the first paper and its code), so that a copy of an image that is there k
times over lies in its ball of radius 0. The code of the second paper writes <; the two differ only where distances are
exactly equal. All four depend on the two numbers of images: compare them at equal numbers only.

The intervals are those of a share (or a mean) of so many independent images, against balls that are given. They do not
cover that other real or generated images would make other balls, nor that near images share their fate.

All of this, and the nearest training image of a sample, takes the distances of many rows, a block at a time.
|a - b|^2 = |a|^2 + |b|^2 - 2 a.b makes all distances of two sets one matrix product, the fastest thing a computer does.
The price is rounding: what should be 0 comes out near 1e-16 (|a|^2 + |b|^2). Hence three habits here. Features are
centred first, so that the squares are no larger than they must be. What is compared is compared with a `SLACK` above
that rounding, so that ties are ties in blocks of any size. And distances that are handed out are computed anew from the
difference of the two rows: those of equal rows are exactly 0.

Legend: N real images, M fakes, D features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.metrics.distances import frechet_interval, kernel_distance
from fabulate.metrics.intervals import Estimate, checked
from fabulate.metrics.sliced import monge_distance

K_PRECISION = 3  # each paper's own k
K_DENSITY = 5
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


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], higher is better: of fakes that look real, of real images that could be fakes."""

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """How densely real images surround the fakes (1 is par), and the share of real images with a fake nearby."""

    density: Estimate
    coverage: Estimate


def precision_recall(real: Tensor, fake: Tensor, k: int = K_PRECISION) -> PrecisionRecall:
    """Precision and recall of fakes (M, D) against real images (N, D), by their features.

    Errors: `DataError` for fewer than k + 1 rows, unequal D or numbers that are not finite.

    >>> real = torch.arange(10.0)[:, None]
    >>> found = precision_recall(real, torch.tensor([[0.0], [1.0], [2.0], [30.0], [31.0]]), k=1)
    >>> found.precision.value, found.recall.value
    (0.6, 0.4)
    """
    real, fake = checked(k + 1, real=real, fake=fake)
    return _compare(real, fake, k, k)[0]


def density_coverage(real: Tensor, fake: Tensor, k: int = K_DENSITY) -> DensityCoverage:
    """Density and coverage of fakes (M, D) against real images (N, D), by their features.

    Errors: `DataError` for fewer than k + 1 rows, unequal D or numbers that are not finite.

    >>> real = torch.arange(10.0)[:, None]
    >>> found = density_coverage(real, torch.tensor([[0.0], [1.0], [30.0]]), k=1)
    >>> round(found.density.value, 3), found.coverage.value  # in 2, 3 and 0 balls of radius 1
    (1.667, 0.3)
    """
    real, fake = checked(k + 1, real=real, fake=fake)
    return _compare(real, fake, k, k)[1]


def fidelity(
    real: Tensor, fake: Tensor, *, k: int = K_PRECISION, k_density: int = K_DENSITY, seed: int = 0
) -> dict[str, Estimate]:
    """All seven distances and shares of fakes (M, D) against real images (N, D), computing each distance once.

    Keys, in this order: frechet_distance, kernel_distance, monge_distance, precision, recall, density, coverage.
    Errors: `DataError` for fewer than max(k, k_density) + 1 rows, unequal D or numbers that are not finite.

    >>> real = torch.arange(10.0)[:, None]
    >>> print(fidelity(real, real)["recall"])  # of the same images, for ten of which an interval is wide
    1 (0.7225 to 1)
    """
    real, fake = checked(max(k, k_density) + 1, real=real, fake=fake)
    precision, density = _compare(real, fake, k, k_density)
    return {
        "frechet_distance": frechet_interval(real, fake, seed=seed),
        "kernel_distance": kernel_distance(real, fake, seed=seed),
        "monge_distance": monge_distance(real, fake, seed=seed),
        **precision._asdict(),
        **density._asdict(),
    }


def _compare(real: Tensor, fake: Tensor, k: int, k_density: int) -> tuple[PrecisionRecall, DensityCoverage]:
    real_radii = radii(real, max(k, k_density))
    narrow, wide = real_radii[:, k - 1], real_radii[:, k_density - 1]  # (N,)
    fake_radii = radii(fake, k)[:, -1]  # (M,)
    realistic = torch.zeros(len(fake), dtype=torch.bool)
    balls = torch.zeros(len(fake), dtype=torch.float64)
    recalled = covered = 0
    for rows, squares, slack in blocks(real, fake):
        realistic |= (squares <= narrow[rows, None] + slack).any(0)
        balls += (squares <= wide[rows, None] + slack).sum(0)
        recalled += int((squares <= fake_radii + slack).any(1).sum())
        covered += int((squares.amin(1, keepdim=True) <= wide[rows, None] + slack).sum())
    return (
        PrecisionRecall(
            precision=Estimate.of_share(int(realistic.sum()), len(fake)),
            recall=Estimate.of_share(recalled, len(real)),
        ),
        DensityCoverage(
            density=Estimate.of_mean(balls / k_density),
            coverage=Estimate.of_share(covered, len(real)),
        ),
    )
