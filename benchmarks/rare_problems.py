"""Limit states of known probability, many seeds each: python benchmarks/rare_problems.py [choose|judge] [--seeds 40]

`--method subset` and `--method cross-entropy` are the classical ones of this package; `rare_openturns.py` has those of
OpenTURNS on the same problems.

What is tried is chosen on the first half and judged on the second, which has the same kinds with other numbers: modes
of different slopes, chances of 1e-3 to 1e-12, no direction that stands out, one variable. Truths are formulae or
quadrature.

A run is a silent miss if it gives no warning and is wrong by more than a fifth.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from scipy import integrate, stats

CALLS, SILENT = 40_000, 0.2


@dataclass(frozen=True)
class Problem:
    name: str
    g: Callable[[np.ndarray], np.ndarray]
    """Failure is g > 0."""
    dim: int
    truth: float
    calls: int = CALLS


def direction(dim: int, k: int) -> np.ndarray:
    """One of the orthonormal directions (dim,) that lie along no axis."""
    return np.linalg.qr(np.random.default_rng(7).standard_normal((dim, min(dim, 4))))[0][:, k]


def linear(dim: int, truth: float) -> Problem:
    u, reach = direction(dim, 0), stats.norm.isf(truth)
    return Problem(f"plane, d = {dim}, {truth:.0e}", lambda x: x @ u - reach, dim, truth)


def mechanisms(dim: int, slope: float, reach: float = 4.0, other: float = 4.0) -> Problem:
    """Two independent ones, the second in a unit that is `slope` times as small."""
    u, v = direction(dim, 0), direction(dim, 1)
    truth = 1 - stats.norm.cdf(reach) * stats.norm.cdf(other)
    return Problem(
        f"slopes 1:{slope:g}, d = {dim}", lambda x: np.maximum(x @ u - reach, slope * (x @ v - other)), dim, truth
    )


def branches(reach: float, other: float) -> Problem:
    """Two bent branches and two straight ones, of another slope (after Waarts, 2000)."""

    def g(x: np.ndarray) -> np.ndarray:
        u, v = (x[:, 0] + x[:, 1]) / sqrt(2), (x[:, 0] - x[:, 1]) / sqrt(2)
        return np.maximum(abs(u) - 0.2 * v**2 - reach, sqrt(2) * (abs(v) - other))

    bent = integrate.quad(
        lambda v: 2 * stats.norm.sf(reach + 0.2 * v * v) * stats.norm.pdf(v), -other, other, epsabs=0, epsrel=1e-9
    )[0]
    return Problem(f"branches {reach:g}, {other:g}, d = 2", g, 2, bent + 2 * stats.norm.sf(other))


def many_branches(dim: int, reach: float) -> Problem:
    """Four equal modes (Demange-Chryst et al., 2024)."""
    u, v = direction(dim, 0), direction(dim, 1)
    truth = 1 - (1 - 2 * stats.norm.sf(reach)) ** 2
    return Problem(f"four modes, d = {dim}", lambda x: np.maximum(abs(x @ u), abs(x @ v)) - reach, dim, truth)


def discs(*places: tuple[float, float, float]) -> Problem:
    """Discs (x, y, radius); two of them are the "leaf" of NOFIS (Gao et al., 2023)."""

    def g(x: np.ndarray) -> np.ndarray:
        return np.max([r - np.hypot(x[:, 0] - a, x[:, 1] - b) for a, b, r in places], 0)

    truth = sum(stats.ncx2.cdf(r * r, 2, a * a + b * b) for a, b, r in places)
    return Problem(f"{len(places)} discs, d = 2", g, 2, truth)


def corner(dim: int, reach: float) -> Problem:
    return Problem(f"corner, d = {dim}", lambda x: x.min(1) - reach, dim, stats.norm.sf(reach) ** dim)


def ball(dim: int, truth: float) -> Problem:
    reach = sqrt(stats.chi2.isf(truth, dim))
    return Problem(f"outside a ball, d = {dim}", lambda x: np.linalg.norm(x, axis=1) - reach, dim, truth)


def one(reach: float, other: float, slope: float) -> Problem:
    truth = stats.norm.sf(reach) + stats.norm.sf(other)
    return Problem(
        f"one variable, slopes 1:{slope:g}",
        lambda x: np.maximum(x[:, 0] - reach, slope * (-x[:, 0] - other)),
        1,
        truth,
    )


def interval(low: float, high: float) -> Problem:
    """Between two numbers of one variable."""
    middle, half = (low + high) / 2, (high - low) / 2
    return Problem(
        "one variable, interval", lambda x: half - abs(x[:, 0] - middle), 1, stats.norm.sf(low) - stats.norm.sf(high)
    )


def levy_terms(x: np.ndarray, last: bool) -> np.ndarray:
    w = 1 + (x - 1) / 4
    return (w - 1) ** 2 * (1 + (np.sin(2 * pi * w) ** 2 if last else 10 * np.sin(pi * w + 1) ** 2))


def levy(dim: int, truth: float, step: float = 0.02) -> Problem:
    """The sum of functions of one coordinate each, so its law is a convolution."""
    x = np.linspace(-9, 9, 400_001)
    mass = stats.norm.pdf(x) * (x[1] - x[0])
    size = 2**14
    parts = []
    for kind in range(3):
        values = levy_terms(x, kind == 2) + (np.sin(pi * (1 + (x - 1) / 4)) ** 2 if kind == 0 else 0)
        parts.append(np.bincount((values / step + 0.5).astype(int).clip(max=size - 1), mass, size))
    first, middle, last = (np.fft.rfft(part, 4 * size) for part in parts)
    law = np.fft.irfft(first * middle ** (dim - 2) * last, 4 * size).clip(0)
    tail = law[::-1].cumsum()[::-1]
    at = int(np.argmax(tail < truth))

    def g(x: np.ndarray) -> np.ndarray:
        total = np.sin(pi * (1 + (x[:, 0] - 1) / 4)) ** 2 + levy_terms(x[:, :-1], False).sum(1)
        return total + levy_terms(x[:, -1], True) - (at - 0.5) * step

    return Problem(f"Levy, d = {dim}", g, dim, float(tail[at]))


def exponentials(dim: int, truth: float) -> Problem:
    """A sum of exponential numbers, whose law is Gamma: all inputs matter alike, none linearly."""
    reach = stats.gamma.isf(truth, dim)
    return Problem(f"{dim} exponentials, {truth:.0e}", lambda x: -stats.norm.logsf(x).sum(1) - reach, dim, truth)


def plateaus(dim: int, reach: float, step: float) -> Problem:
    """Two opposite modes that are seen in steps only."""
    u = direction(dim, 0)
    return Problem(
        f"plateaus, d = {dim}",
        lambda x: np.floor(abs(x @ u) / step) * step - (reach - step / 2),
        dim,
        2 * stats.norm.sf(reach),
    )


def ring(count: int, dim: int, reach: float) -> Problem:
    """So many modes: the corners of a polygon in a plane of two directions, each at its own distance."""
    u, v = direction(dim, 0), direction(dim, 1)
    angles = 2 * pi * np.arange(count) / count
    towards = np.stack([np.cos(angles), np.sin(angles)])  # (2, count)
    reaches = reach + 0.05 * np.arange(count)
    fine = np.linspace(0, 2 * pi, 200_001)[:-1]
    with np.errstate(divide="ignore"):
        cosines = np.cos(fine[:, None] - angles)
        edge = np.where(cosines > 1e-9, reaches / cosines, np.inf).min(1)  # from where on a direction fails
    return Problem(
        f"{count} modes, d = {dim}",
        lambda x: (np.stack([x @ u, x @ v], 1) @ towards - reaches).max(1),
        dim,
        float(np.exp(-(edge**2) / 2).mean()),
    )


def choose() -> list[Problem]:
    return [
        branches(5.0, 4.914),
        mechanisms(2, 3),
        mechanisms(50, 10),
        discs((3.8, 3.8, 1.0), (-3.8, -3.8, 1.0)),
        corner(4, 1.8),
        linear(10, 1e-9),
        ball(3, 1e-6),
        one(4.5, 4.6, 3),
        many_branches(100, 3.5),
        levy(8, 1e-5),
        exponentials(10, 1e-6),
        plateaus(20, 4.5, 0.5),
        ring(6, 10, 4.0),
    ]


def judge() -> list[Problem]:
    return [
        branches(4.2, 4.6),
        mechanisms(2, 10, 4.2, 4.1),
        mechanisms(50, 3, 3.8, 3.9),
        discs((3.8, -3.0, 0.8), (-4.2, -3.0, 1.0), (0.0, 4.6, 0.7)),
        corner(6, 1.8),
        linear(50, 1e-12),
        ball(30, 1e-6),
        interval(4.7, 4.9),
        many_branches(30, 4.2),
        levy(20, 4e-6),
        exponentials(50, 1e-8),
        plateaus(3, 4.0, 0.8),
        ring(10, 30, 3.8),
        linear(300, 1e-6),
    ]


def run(problem: Problem, seeds: int, method: str = "adaptive") -> str:
    from fabulate import rare  # late: OpenTURNS asks the same problems where there is no fabulate

    began = time.process_time()
    events = [
        rare.estimate(problem.g, problem.dim, 0.0, calls=problem.calls, method=method, seed=1000 + i)
        for i in range(seeds)
    ]
    ratio = np.array([event.probability for event in events]) / problem.truth
    quiet = np.array([not event.warnings for event in events])
    held = np.array([event.interval[0] <= problem.truth <= event.interval[1] for event in events])
    return (
        f"| {problem.name} | {problem.truth:.3g} | {sqrt(np.mean((ratio - 1) ** 2)):.1%} | {np.median(ratio):.3f} | "
        f"{held.sum()} | {quiet.sum()} | {(held & quiet).sum()} | {(quiet & (abs(ratio - 1) > SILENT)).sum()} | "
        f"{(time.process_time() - began) / seeds:.2f} |"
    )


def main(half: str, seeds: int, only: str, method: str) -> None:
    print(f"{seeds} seeds of {CALLS:,} calls, {method}, {half}\n")
    print("| problem | truth | error | median / truth | held | no warning | of these held | silent misses | CPU s |")
    print("|" + "---|" * 9)
    for problem in {"choose": choose, "judge": judge}[half]():
        if only in problem.name:
            print(run(problem, seeds, method), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("half", nargs="?", choices=["choose", "judge"], default="judge")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--method", default="adaptive")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    arguments = parser.parse_args()
    main(arguments.half, arguments.seeds, arguments.only, arguments.method)
