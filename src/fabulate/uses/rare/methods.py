"""`estimate`: how likely a simulator fails, by one of three methods."""

from collections.abc import Callable
from concurrent.futures import Executor
from math import isfinite
from pathlib import Path
from typing import Any

from fabulate.config import nearest
from fabulate.errors import ConfigError
from fabulate.types import Progress, silent
from fabulate.uses.rare.adaptive import adaptive
from fabulate.uses.rare.calls import Array, Calls
from fabulate.uses.rare.classical import cross_entropy, subset
from fabulate.uses.rare.event import RareEvent
from fabulate.uses.rare.proposal import Fit, subspace_mixture

FEWEST_CALLS = 100
METHODS: dict[str, Callable[..., RareEvent]] = {
    "adaptive": adaptive,
    "subset": subset,
    "cross-entropy": cross_entropy,
}


def estimate(
    g: Callable[[Array], Any],
    dim: int,
    threshold: float,
    *,
    calls: int = 40_000,
    method: str = "adaptive",
    seed: int = 0,
    workers: int | Executor = 1,
    file: str | Path | None = None,
    proposal: Fit = subspace_mixture,
    progress: Progress = silent,
) -> RareEvent:
    """P(g(X) > threshold) for X ~ N(0, I) of `dim` numbers, with an interval, from at most `calls` points.

    `g` takes a float64 array (N, D) and gives N numbers (N,), larger the nearer to failure; an array, a list or a
    tensor will do, infinities too. It is asked for about calls / 21 points at a time, twice that at first; before that
    for calls / 40 points far out, N(0, 9 I). Points at
    which it raises or gives NaN are no failures; by the method adaptive the interval reaches up to what they could add,
    the others only tell them. For other distributions of independent inputs let g begin with x = F^-1(Phi(u)), e.g.
    `scipy.stats.gumbel_r.ppf(scipy.stats.norm.cdf(u))`.
    `method`: "adaptive" (importance sampling, the default), "subset" or "cross-entropy" (`classical.py`). `workers`:
    processes that share the points (-1: one for each core), or an executor. `file`: an .npz that keeps what g said; the
    same call again goes on from there, so each g has a file of its own. `proposal`: of the method adaptive; fits a
    density to weighted points (`Fit`).
    Errors: `ConfigError`; `DataError` for what g gives; `RunError` for the file.

    >>> event = estimate(lambda x: x.sum(1) / 20**0.5, dim=20, threshold=3.0, calls=8_000)
    >>> event.interval[0] < 0.00135 < event.interval[1]
    True
    """
    if dim < 1:
        raise ConfigError(f"dim must be at least 1, not {dim}: it is the number of g's inputs")
    if not isfinite(threshold):
        raise ConfigError(f"threshold must be a finite number, not {threshold}")
    if calls < FEWEST_CALLS:
        raise ConfigError(
            f"calls must be at least {FEWEST_CALLS}, not {calls}: with fewer there is nothing to learn from"
        )
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}{nearest(method, [*METHODS])} ({', '.join(METHODS)})")
    ask = Calls(g, workers, file)
    if method == "adaptive":
        return adaptive(ask, dim, threshold, calls, seed, progress, proposal)
    return METHODS[method](ask, dim, threshold, calls, seed, progress)
