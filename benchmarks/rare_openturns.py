"""The problems of `rare_problems.py` by OpenTURNS: python benchmarks/rare_openturns.py [choose|judge] [--seeds 10]

In an environment of its own: `pip install openturns numpy scipy`. Subset simulation and cross-entropy importance
sampling in the standard space, both with quantiles of 0.1; each level gets as many calls as make the budget, for a
probability that is known beforehand, which favours them. What does not end within ten budgets counts as 0.
"""

import argparse
from collections.abc import Callable
from math import ceil, log10, sqrt

import numpy as np
import openturns as ot
from rare_problems import CALLS, Problem, choose, judge


def event_of(problem: Problem) -> ot.ThresholdEvent:
    asked = 0

    def g(x: ot.Sample) -> np.ndarray:
        nonlocal asked
        asked += len(x)
        if asked > 10 * CALLS:
            raise RuntimeError("no end")
        return problem.g(np.asarray(x, dtype=float))[:, None]

    function = ot.PythonFunction(problem.dim, 1, func_sample=g)
    output = ot.CompositeRandomVector(function, ot.RandomVector(ot.Normal(problem.dim)))
    return ot.ThresholdEvent(output, ot.Greater(), 0.0)


def subset(problem: Problem, each: int) -> ot.EventSimulation:
    algorithm = ot.SubsetSampling(event_of(problem))
    algorithm.setMaximumOuterSampling(max(1, each // 100))
    algorithm.setBlockSize(100)
    return algorithm


def cross_entropy(problem: Problem, each: int) -> ot.EventSimulation:
    algorithm = ot.StandardSpaceCrossEntropyImportanceSampling(event_of(problem), 0.1)
    algorithm.setMaximumOuterSampling(max(1, each // 100))
    algorithm.setBlockSize(100)
    return algorithm


METHODS: dict[str, Callable[[Problem, int], ot.EventSimulation]] = {"subset": subset, "cross-entropy": cross_entropy}


def ratios(problem: Problem, method: str, seeds: int) -> np.ndarray:
    """Estimates over the truth; 0 where the method stops with an error."""
    each = CALLS // ceil(-log10(problem.truth))
    found = []
    for seed in range(seeds):
        ot.RandomGenerator.SetSeed(1000 + seed)
        algorithm = METHODS[method](problem, each)
        try:
            algorithm.run()
            found.append(algorithm.getResult().getProbabilityEstimate())
        except (TypeError, RuntimeError):
            found.append(0.0)
    return np.array(found) / problem.truth


def main(half: str, seeds: int) -> None:
    print(f"OpenTURNS {ot.__version__}, {seeds} seeds of about {CALLS:,} calls, {half}\n")
    print("| problem | truth | subset: error | median / truth | cross-entropy: error | median / truth |")
    print("|" + "---|" * 6)
    for problem in {"choose": choose, "judge": judge}[half]():
        cells = []
        for method in METHODS:
            ratio = ratios(problem, method, seeds)
            cells.append(f"{sqrt(np.mean((ratio - 1) ** 2)):.1%} | {np.median(ratio):.3f}")
        print(f"| {problem.name} | {problem.truth:.3g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("half", nargs="?", choices=["choose", "judge"], default="judge")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.half, arguments.seeds)
