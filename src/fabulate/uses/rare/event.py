"""What an estimate of a rare event is: a probability with its interval, and words where it cannot be trusted."""

from dataclasses import dataclass, field
from math import exp, nan

import numpy as np
import numpy.typing as npt

from fabulate.seeds import generator
from fabulate.uses.rare.proposal import Proposal

Array = npt.NDArray[np.float64]
SURE = 0.95  # the interval holds the truth 95 times in 100


@dataclass(frozen=True, kw_only=True)
class RareEvent:
    """P(g(X) > threshold), with its interval; `warnings` says in words why it should not be trusted, if so."""

    probability: float
    standard_error: float
    interval: tuple[float, float]
    """It holds the truth 95 times in 100. Where no failure was seen: 0 and the upper bound that plain draws allow."""
    calls: int
    """Points that g was asked for."""
    effective_samples: float
    """The effective sample size of the failures: (sum of weights)^2 / sum of squared weights."""
    pareto_k: float = nan
    """Of the failures' weights: up to 0.7 the error can be relied on (`pareto.py`); nan where they are too few to tell,
    and where a method weighs nothing."""
    levels: tuple[float, ...]
    """The thresholds proposals were fitted at, up to the one that was asked for if it was reached."""
    warnings: tuple[str, ...] = ()
    proposal: Proposal = field(repr=False)
    """The last one."""

    def sample(self, n: int, seed: int = 0) -> tuple[Array, Array]:
        """n points (n, D) that resemble failures, and weights (n,), their density over the proposal's.

        Those of them with g(x) > threshold, weighted, follow the distribution of X given a failure.
        """
        x = self.proposal.draw(n, generator(seed, "rare", "sample"))
        return x.numpy(), (-self.proposal.log_ratio(x)).exp().numpy()

    def __str__(self) -> str:
        """The probability with its interval, calls and warnings."""
        low, high = self.interval
        first = f"{self.probability:.3g} ({low:.3g} to {high:.3g}) from {self.calls} calls"
        return "\n".join([first, *(f"warning: {words}" for words in self.warnings)])


def interval(probability: float, deviation: float, effective: float) -> tuple[float, float]:
    """Around a positive estimate with its standard error: symmetric in its logarithm, as its distribution is skewed.

    >>> low, high = interval(1e-3, 1e-4, 1000.0)
    >>> round(low, 6), round(high, 6)
    (0.000822, 0.001217)
    """
    from scipy.stats import t

    reach = float(t.ppf((1 + SURE) / 2, max(effective - 1, 1))) * deviation / probability
    return probability * exp(-reach), min(1.0, probability * exp(min(reach, 700.0)))


def unseen(draws: int) -> float:
    """The largest probability that `draws` plain draws without a failure allow, about 3 / draws (the rule of three).

    >>> round(unseen(3000), 6)
    0.000998
    """
    return float(1 - (1 - SURE) ** (1 / draws))
