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

Legend: N real images, M fakes, D features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.metrics.distances import blocks, radii
from fabulate.metrics.frechet import frechet_interval
from fabulate.metrics.inputs import checked
from fabulate.metrics.intervals import Estimate
from fabulate.metrics.kernel import kernel_distance

K_PRECISION = 3  # each paper's own k
K_DENSITY = 5


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
    """Density and coverage of fakes (M, D) against real images (N, D), by their features; errors as above."""
    real, fake = checked(k + 1, real=real, fake=fake)
    return _compare(real, fake, k, k)[1]


def fidelity(
    real: Tensor, fake: Tensor, *, k: int = K_PRECISION, k_density: int = K_DENSITY, seed: int = 0
) -> dict[str, Estimate]:
    """All six distances and shares of fakes (M, D) against real images (N, D), computing each distance once.

    Keys, in this order: frechet_distance, kernel_distance, precision, recall, density, coverage.
    Errors: `DataError` for fewer than max(k, k_density) + 1 rows, unequal D or numbers that are not finite.
    """
    real, fake = checked(max(k, k_density) + 1, real=real, fake=fake)
    precision, density = _compare(real, fake, k, k_density)
    return {
        "frechet_distance": frechet_interval(real, fake, seed=seed),
        "kernel_distance": kernel_distance(real, fake, seed=seed),
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
