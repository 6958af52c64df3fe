"""Two methods to compare with, or to trust more: subset simulation, and the plain cross-entropy method.

Subset simulation (Au, Beck, "Estimation of small failure probabilities in high dimensions by subset simulation", 2001,
https://doi.org/10.1016/S0266-8920(01)00019-4) writes P as a product of conditional probabilities of a tenth each. The
points beyond a level are the seeds of Markov chains that give as many points there as before, by conditional sampling

    x' = rho x + (1 - rho^2)^(1/2) xi,    xi ~ N(0, I),    taken if g(x') is beyond the level,

which is right for N(0, I) in any dimension (Papaioannou, Betz, Zwirglmaier, Straub, "MCMC algorithms for subset
simulation", 2015, https://doi.org/10.1016/j.probengmech.2015.06.006, with rho by the share taken). Its variance is the
sum over levels of (1 - p) / (p N) (1 + gamma), gamma from the correlation within chains; levels count as independent,
so intervals are somewhat too short.

The cross-entropy method (Rubinstein, Kroese, "The cross-entropy method", 2004, chapter 3) fits means and deviations of
independent Gaussians to the best tenth of each round, weighted by p / q, until that tenth fails, and takes the estimate
of importance sampling from the last round alone.

Legend: N points of a level, D dimensions, C chains, T states of a chain.
"""

from math import exp, inf, log, sqrt

import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.prob import effective_size
from fabulate.seeds import generator
from fabulate.types import Progress, silent
from fabulate.uses.rare.calls import Calls
from fabulate.uses.rare.event import RareEvent, interval, unseen
from fabulate.uses.rare.pareto import RELIED, heavy, pareto_k
from fabulate.uses.rare.proposal import Defended, Nominal

SHARE = 0.1  # conditional probability of a level; the best of a round
LEVELS = 8  # that the calls are shared among: 1e-8 is reached
TAKEN = 0.44  # share of moves to be taken (Papaioannou et al. 2015)
DEFENCE = 0.1  # share of plain draws in the proposal that `sample` takes
NARROWEST = 1e-3  # deviation


def subset(ask: Calls, dim: int, threshold: float, calls: int, seed: int, progress: Progress = silent) -> RareEvent:
    """P(g(X) > threshold) by subset simulation."""
    n = max(calls // LEVELS, 20)
    chance = generator(seed, "rare", "subset")
    x = Nominal(dim).draw(n, chance)
    g, failed = said(ask, x)
    refuse_silence(failed, n, dim)
    spent, logs, variance, levels = n, 0.0, 0.0, list[float]()
    chains = torch.arange(n)[:, None]  # (C, T), numbers of the states of each chain
    while True:
        level = float(g.sort(descending=True).values[max(1, int(SHARE * n)) - 1])
        beyond = g >= level
        spending = n - int(beyond.sum())
        reached = level > threshold
        if reached:
            levels.append(threshold)
        last = reached or spent + spending > calls or level <= (levels or [-inf])[-1]
        if last:
            beyond = g > threshold
        p = float(beyond.double().mean())
        variance += squared_variation(beyond[chains], p)
        logs += log(p) if p else -inf
        if last:
            break
        levels.append(level)
        x, g, chains, broken = moved(ask, x[beyond], g[beyond], level, n, chance)
        spent, failed = spent + spending, failed + broken
        progress(spent, calls)
    progress(calls, calls)
    probability = exp(logs)
    warnings = []
    if (levels and levels[-1] < threshold) or not probability:
        highest = levels[-1] if levels else float(g.max())
        warnings.append(f"level {highest:.4g} was reached, not the threshold {threshold:.4g}: allow more calls")
    if failed:
        warnings.append(f"g gave NaN for {failed} points, counted as no failures")
    reach = sqrt(variance)
    return RareEvent(
        probability=probability,
        standard_error=probability * reach,
        interval=interval(probability, probability * reach, inf) if probability else (0.0, unseen(n)),
        calls=spent,
        effective_samples=1 / variance if variance else float(n),
        levels=tuple(levels),
        warnings=tuple(warnings),
        proposal=States(x[g > threshold], logs) if probability else Nominal(dim),
    )


def said(ask: Calls, x: Tensor) -> tuple[Tensor, int]:
    """What a simulator says of points (N, D), -inf where it fails, and at how many it failed."""
    g = torch.from_numpy(ask(x.numpy()).values)
    return g.nan_to_num(-inf, inf, -inf), int(g.isnan().sum())


def refuse_silence(failed: int, n: int, dim: int) -> None:
    """Refuse a simulator that failed at all of n points."""
    if failed == n:
        raise DataError(f"g gave NaN for all of {n} points: try it on numpy.random.randn({n}, {dim})")


def moved(
    ask: Calls, x: Tensor, g: Tensor, level: float, n: int, chance: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, int]:
    """n states beyond a level, by chains from points (C, D); their g, their numbers by chains, and failures."""
    order = torch.randperm(len(x), generator=chance)
    x, g, step, broken = x[order], g[order], 0.6, 0
    states, values, kept = [x], [g], len(x)
    while kept < n:
        moving = min(len(x), n - kept)
        now, at = states[-1][:moving], values[-1][:moving]
        rho = sqrt(1 - step**2)
        tried = rho * now + step * torch.randn(now.shape, generator=chance, dtype=torch.float64)
        try_g, failed = said(ask, tried)
        taken = try_g >= level
        states.append(torch.where(taken[:, None], tried, now))
        values.append(torch.where(taken, try_g, at))
        step = min(1.0, max(0.01, step * exp(float(taken.double().mean()) - TAKEN)))
        kept, broken = kept + moving, broken + failed
    whole = sum(len(part) == len(x) for part in states)
    chains = torch.arange(whole * len(x)).view(whole, len(x)).T  # the last, shorter states are in none
    return torch.cat(states), torch.cat(values), chains, broken


def squared_variation(beyond: Tensor, p: float) -> float:
    """The squared coefficient of variation of a share p, from states (C, T) of chains that are beyond or not."""
    length = beyond.shape[1]
    if not 0 < p < 1:
        return 0.0
    z = beyond.double() - p
    gamma = 0.0
    for lag in range(1, length):
        rho = float((z[:, lag:] * z[:, :-lag]).mean()) / (p * (1 - p))
        gamma += 2 * (1 - lag / length) * rho
    return (1 - p) / (p * beyond.numel()) * max(1 + gamma, 0.1)


class States:
    """Failures (N, D) that chains met, of which each weighs P: in the place of a density to draw from."""

    def __init__(self, x: Tensor, log_probability: float) -> None:
        self.x, self.log_probability = x, log_probability

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.x[torch.randint(len(self.x), (n,), generator=generator)]

    def log_ratio(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), -self.log_probability, dtype=torch.float64)


class Gaussian:
    """Independent Gaussians with the means and deviations of weighted points (N, D)."""

    def __init__(self, x: Tensor, weights: Tensor) -> None:
        self.mean = weights @ x
        self.deviation = (weights @ (x - self.mean).square()).sqrt().clamp(min=NARROWEST)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mean + self.deviation * torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)

    def log_ratio(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.deviation
        return (x.square() - z.square()).sum(1) / 2 - self.deviation.log().sum()


def cross_entropy(
    ask: Calls, dim: int, threshold: float, calls: int, seed: int, progress: Progress = silent
) -> RareEvent:
    """P(g(X) > threshold) by the plain cross-entropy method."""
    n, spent, failed, levels = max(calls // LEVELS, 20), 0, 0, list[float]()
    chance = generator(seed, "rare", "cross-entropy")
    proposal: Nominal | Gaussian = Nominal(dim)
    while spent + 2 * n <= calls and not (levels and levels[-1] >= threshold):
        x = proposal.draw(n, chance)
        g, broken = said(ask, x)
        refuse_silence(broken, n, dim)
        spent, failed = spent + n, failed + broken
        level = min(threshold, float(g.sort(descending=True).values[max(1, int(SHARE * n)) - 1]))
        best = g >= level
        weights = (-proposal.log_ratio(x[best])).softmax(0)
        proposal = Gaussian(x[best], weights)
        levels.append(level)
        progress(spent, calls)
    rest = calls - spent
    x = proposal.draw(rest, chance)
    g, broken = said(ask, x)
    progress(calls, calls)
    values = (-proposal.log_ratio(x)).exp() * (g > threshold)
    probability, error = float(values.mean()), float(values.std()) / sqrt(rest)
    effective = effective_size(values) if probability else 0.0
    k = pareto_k(values[values > 0].numpy())
    warnings = [heavy(k)] if k > RELIED else []
    if not (levels and levels[-1] >= threshold):
        warnings.append(f"level {(levels or [float('nan')])[-1]:.4g} was reached, not the threshold {threshold:.4g}")
    if not probability:
        warnings.append(f"no failure in the last {rest} calls")
    if failed + broken:
        warnings.append(f"g gave NaN for {failed + broken} points, counted as no failures")
    return RareEvent(
        probability=probability,
        standard_error=error,
        interval=interval(probability, error, effective) if probability else (0.0, 1.0),
        calls=calls,
        effective_samples=effective,
        pareto_k=k,
        levels=tuple(levels),
        warnings=tuple(warnings),
        proposal=Defended(proposal, dim, DEFENCE),
    )
