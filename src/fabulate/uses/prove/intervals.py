"""How sure a difference is when both the training and the test images have chance in them.

Let r_si be 1 where the classifier of seed s is right about test image i, or, for two ways of training compared seed by
seed and image by image, the difference of two such numbers, -1 to 1. The value is the mean over classes of the mean
over a class's images, averaged over seeds. Its chance has two parts that cross,

    v_seeds  = Var_s(value of seed s) / S,          S - 1 degrees of freedom,
    v_images = 1/K^2 sum_k Var_{i in k}(mean_s r_si) / n_k,

and their sum is, if anything, too large: what depends on seed and image together is counted in both. The interval is
Student's, with the degrees of freedom of such a sum (Welch, "The generalization of Student's problem when several
different population variances are involved", 1947, https://doi.org/10.1093/biomet/34.1-2.28). Each class's variance is
taken with one image added at either end, so that a class of few images, all alike, does not count as certain.

It says nothing of the generator's own chance: the synthetic images are the same for all seeds.

Legend: S seeds, N test images, K classes.
"""

from math import sqrt

import torch
from torch import Tensor

from fabulate.metrics.intervals import Estimate


def over_classes(values: Tensor, y: Tensor, lowest: float) -> Estimate:
    """The mean over classes of values (S, N) within [lowest, 1], of images of classes y (N,), with its 95 % interval.

    One seed leaves the interval open: nan.

    >>> y = torch.tensor([0, 0, 0, 1])
    >>> over_classes(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), y, 0.0).value
    0.25
    """
    from scipy.stats import t

    values = values.double()
    own = [values[:, y == k] for k in sorted(set(y.tolist()))]
    by_seed = torch.stack([part.mean(1) for part in own]).mean(0)  # (S,)
    value = float(by_seed.mean())
    if len(values) < 2:
        return Estimate(value)
    parts = [(float(by_seed.var()) / len(values), len(values) - 1)]  # variances and their degrees of freedom
    ends = torch.tensor([lowest, 1.0], dtype=torch.float64)
    for part in own:
        n = part.shape[1]
        parts.append((float(torch.cat([part.mean(0), ends]).var()) / n / len(own) ** 2, n + 1))
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    reach = float(t.ppf(0.975, freedom)) * sqrt(variance)
    return Estimate(value, max(lowest, value - reach), min(1.0, value + reach))
