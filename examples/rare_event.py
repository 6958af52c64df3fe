"""How often does a cantilever of 40 random wind loads bend too far? Importance sampling against plain simulation.

python examples/rare_event.py
"""

import numpy as np
from scipy.stats import gumbel_r, norm

from fabulate import rare

SEGMENTS = 40
LIMIT = 1.55  # the tip's deflection that counts as failure, in units of its mean


def deflection(u: np.ndarray) -> np.ndarray:
    """Of the tip, for standard normal inputs (N, 41): a Gumbel load on each segment, and a lognormal stiffness."""
    load = gumbel_r.ppf(norm.cdf(u[:, :SEGMENTS]), loc=1 - 0.5772 * 0.4, scale=0.4)  # x = F^-1(Phi(u)), mean 1
    stiffness = np.exp(0.08 * u[:, SEGMENTS])
    at = (np.arange(SEGMENTS) + 0.5) / SEGMENTS
    reach = at**2 * (3 - at)  # what a load at this place does at the tip
    return load @ reach / reach.sum() / stiffness


def main(calls: int = 40_000) -> rare.RareEvent:
    event = rare.estimate(deflection, dim=SEGMENTS + 1, threshold=LIMIT, calls=calls)
    print(event)
    plain = deflection(np.random.default_rng(0).normal(size=(calls, SEGMENTS + 1))) > LIMIT
    print(f"plain simulation: {plain.sum()} failures in {calls} calls")
    gain = event.probability / event.standard_error**2 / calls  # a plain estimate's variance is P / calls
    print(f"variance reduction of {gain:.0f} over plain Monte Carlo")

    u, weights = event.sample(4000)
    weights = weights * (deflection(u) > LIMIT)
    mean = weights @ u / weights.sum()
    print(f"in a typical failure the stiffness lies {mean[-1]:+.1f} standard deviations off its median")
    return event


if __name__ == "__main__":
    main()
