"""The four-branch system in 100 dimensions, 100 times: python benchmarks/rare_event.py [--repetitions 100]

x ~ N(0, I) fails when max(|x . u|, |x . v|) > 3.5 for two orthogonal directions, so in four modes, with the exact
probability 1 - (1 - 2 Phi(-3.5))^2 = 9.303e-4. Demange-Chryst, Bachoc, Morio, Krauth, "Variational autoencoder with
weighted samples for high-dimensional non-parametric adaptive importance sampling", 2024,
https://arxiv.org/abs/2310.09194, report a coefficient of variation of 5.30 % from as many calls.
"""

import argparse
from math import sqrt

import numpy as np
from scipy import stats

from fabulate import rare

DIM, THRESHOLD, CALLS, FIRST_SEED = 100, 3.5, 39_900, 70_000
TRUTH = 1 - (1 - 2 * stats.norm.sf(THRESHOLD)) ** 2


def four_branches(x: np.ndarray) -> np.ndarray:
    """How far the furthest of four branches is reached, for points (N, 100)."""
    halves = x.reshape(len(x), 2, DIM // 2).sum(2) / sqrt(DIM)
    return np.maximum(abs(halves[:, 0] + halves[:, 1]), abs(halves[:, 0] - halves[:, 1]))


def main(repetitions: int) -> None:
    events = [
        rare.estimate(four_branches, DIM, THRESHOLD, calls=CALLS, seed=FIRST_SEED + i) for i in range(repetitions)
    ]
    found = np.array([event.probability for event in events])
    held = sum(event.interval[0] <= TRUTH <= event.interval[1] for event in events)
    print(f"{repetitions} repetitions of {CALLS:,} calls; the truth is {TRUTH:.4g}")
    print(f"coefficient of variation {found.std(ddof=1) / TRUTH:.2%} (published VAE: 5.30 %)")
    print(f"bias {found.mean() / TRUTH - 1:+.2%} +- {found.std(ddof=1) / TRUTH / sqrt(repetitions):.2%}")
    print(f"mean reported error {np.mean([event.standard_error for event in events]) / TRUTH:.2%}")
    print(f"intervals that hold the truth {held} of {repetitions}")
    print(f"plain simulation: {sqrt((1 - TRUTH) / TRUTH / CALLS):.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=100)
    main(parser.parse_args().repetitions)
