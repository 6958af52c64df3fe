"""Which normals repeat others? They count once, or the promise breaks.

A rate of false alarms is promised by normals that no fit has seen. Of an image that is there three times, one copy is
held out while a fit has seen another: it scores as what was learnt does, the threshold comes out too high, and new
normals are called outliers far more often than promised. Near copies (saved again, a little noise) do the same.

A row repeats an earlier one when it is as good as equal: nearer to it than a tenth of what two rows usually lie apart,
and nearer than rows that have nothing to do with each other ever come. That depends on how many numbers they really
vary in: thousands of points on a line lie close together, digits never do. So the distances that say how the number of
pairs grows with distance (C(r) ~ r^d: Grassberger, Procaccia, "Characterization of strange attractors", 1983,
https://doi.org/10.1103/PhysRevLett.50.346) are followed down to where one row in a hundred would have a neighbour.

Legend: N rows, D numbers.
"""

from math import log

import numpy as np
import torch
from torch import Tensor

from fabulate.metrics.distances import blocks
from fabulate.seeds import permutation

NEAR = 0.1  # of the median distance. Of digits, MNIST and CIFAR-10 no two lie so near; noise of 8 in 255 moves less
ALONE = 0.01  # the share of rows that may have so near a neighbour by chance
SOME = 1000  # rows whose distances from each other tell what is usual
FEW, MANY = 0.1, 0.4  # shares of the pairs between whose distances d is measured


def repeats(x: Tensor) -> Tensor:
    """Which rows (N, D), float64, repeat one that comes before: bool (N,).

    >>> x = torch.eye(50).double()
    >>> repeats(torch.cat([x, x[:3], x[:2] + 1e-3])).nonzero().flatten().tolist()
    [50, 51, 52, 53, 54]
    """
    first = np.unique(x.numpy(), axis=0, return_index=True)[1]  # equal rows, however many, need no distances
    kept = torch.from_numpy(np.sort(first))
    found = torch.ones(len(x), dtype=torch.bool)
    found[kept] = False
    distinct = x[kept]
    near = radius(distinct) ** 2
    for block in blocks(distinct, distinct):
        before = torch.arange(len(distinct)) < torch.arange(block.rows.start, block.rows.stop)[:, None]
        found[kept[block.rows]] = ((block.squares < near) & before).any(1)
    return found


def radius(x: Tensor) -> float:
    """The distance below which two of these rows (N, D), no two of them equal, are near copies."""
    apart = torch.pdist(x[permutation(len(x), "outliers", "repeats")[:SOME]])
    if len(apart) < 1 / FEW:
        return 0.0
    few, many, half = (float(apart.kthvalue(max(1, int(share * len(apart)))).values) for share in (FEW, MANY, 0.5))
    if not 0 < few < many:
        return NEAR * half
    dimension = log(MANY / FEW) / log(many / few)
    return min(NEAR * half, few * (ALONE / (FEW * len(x))) ** (1 / dimension))
