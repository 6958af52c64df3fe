"""Adaptive importance sampling in rounds: each draws from a proposal fitted to all rounds before it.

Round 0 draws from the prior. After each round the next level is the highest threshold, up to the one asked for,
beyond which all points so far are worth enough equally weighted ones; the next proposal is fitted to those points, and
where it does not cover failures that were met far out (`scouts.py`), a share of its draws looks for more of them
(cross-entropy method: Rubinstein, Kroese, 2004; levels by effective sample size: Papaioannou, Geyer, Straub, "Improved
cross entropy-based importance sampling with a flexible mixture model", 2019, https://doi.org/10.1016/j.ress.2019.106564).
All rounds are used again in each fit, each point with p over the mixture of all proposals so far: a mode that a later
proposal no longer draws keeps the weight that earlier ones gave it.

A round's estimate is P_k = mean 1{g(x) > threshold} p(x) / q_k(x), unbiased given the past, since q_k is known before
the round is drawn. The result is their mean, each weighted by n_k P^2 over the variance that the failures of the other
rounds promise q_k (`promise`; compare Owen, Zhou, "The square root rule for adaptive importance sampling", 2019,
https://doi.org/10.1145/3350426). So no round weighs itself, and none is trusted because it is blind to what others saw.
The standard error is that of independent rounds, which they nearly are: later proposals were fitted to what earlier
rounds drew, and weigh those, so nothing here is exactly unbiased; how often intervals hold is measured (docs/rare.md).
The estimate itself with weights over the mixture of all proposals (the balance heuristic, as in Cornuet et al.,
"Adaptive multiple importance sampling", 2012) would re-use more, but a proposal is too high at just those points that
it was fitted to: such estimates came out low by several of their standard errors when we tried them.

Legend: N points of a round, D dimensions.
"""

from collections.abc import Sequence
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import NORMAL_95
from fabulate.prob import effective_size
from fabulate.seeds import generator
from fabulate.types import Progress, silent
from fabulate.uses.rare.calls import Calls
from fabulate.uses.rare.event import RareEvent, interval, unseen
from fabulate.uses.rare.pareto import RELIED, heavy, pareto_k
from fabulate.uses.rare.proposal import Defended, Fit, Nominal, Proposal, subspace_mixture
from fabulate.uses.rare.scouts import failed_scouts, scouting, scouts

Array = npt.NDArray[np.float64]

UNLIKELY = 1e-3  # chance of a warning where all is well
ROUNDS = 20  # twelve do not reach events of 1e-12 with 40,000 calls
FIRST = 2  # rounds that the first is as large as: modes that it does not show may never be found
LARGEST = 4_000  # points in a round; more rounds where the budget is large: they reach rarer events
MOST = 40  # rounds; each proposal's density is needed at the points of all
SMALLEST = 250  # points in a round; fewer rounds where the budget is small
PER_DIMENSION = 10  # points in a round at least, or directions cannot be told from noise
ENOUGH = 0.25  # a level is worth this share of a round's points
HURRIED = 0.1  # the same in the second half of the rounds, where the threshold must come within reach
DEFENCE = 0.1  # share of plain draws in each round
TRUSTED = 100  # effective failures; a standard error from fewer is itself too uncertain
JUDGED = 100  # effective failures of a round whose standard error is compared with those of others
TRIED = 100  # candidates for a level
BLIND = 5  # times less trusted than another round: known to be blind to something, so not compared with others
LEAST = 0.1  # variance of a draw over P^2, or a few failures that happen to weigh alike promise too much


class Round(NamedTuple):
    x: Tensor  # (N, D)
    g: Tensor  # (N,); NaN stands as -inf
    weights: Tensor  # (N,), nominal density over proposal
    mixed: Tensor  # (N,), log of sum_j n_j q_j / p: of the densities of all rounds so far
    broken: Tensor  # (N,), where g was NaN or failed
    error: str = ""  # the last that it failed with


def adaptive(
    ask: Calls,
    dim: int,
    threshold: float,
    calls: int,
    seed: int,
    progress: Progress = silent,
    fit: Fit = subspace_mixture,
) -> RareEvent:
    """P(g(X) > threshold) by adaptive importance sampling, with proposals by `fit`."""
    scouted = scouts(calls)
    far = failed_scouts(ask, dim, threshold, scouted, seed)
    calls -= scouted
    if scouted:
        progress(scouted, scouted + calls)
    count = min(max(ROUNDS, min(MOST, calls // LARGEST)), max(1, calls // max(SMALLEST, PER_DIMENSION * dim)))
    size = calls // (count + FIRST - 1)
    sizes = [calls - size * (count - 1)] + [size] * (count - 1)
    current = Defended(Nominal(dim), dim, 1.0)
    proposals: list[Defended] = []
    rounds: list[Round] = []
    levels: list[float] = []
    for k, n in enumerate(sizes):
        chance = generator(seed, "rare", k)
        if k:
            enough = max((ENOUGH if k <= count // 2 else HURRIED) * size, ENOUGH * PER_DIMENSION * dim)
            x, weights, level = failures(rounds, threshold, enough)
            current = Defended(scouting(fit(x, weights, chance), far, chance), dim, DEFENCE)
            levels.append(level)
        x = current.draw(n, chance)
        rounds = [r._replace(mixed=r.mixed.logaddexp(current.log_ratio(r.x) + log(n))) for r in rounds]
        own = current.log_ratio(x)
        others = [q.log_ratio(x) + log(m) for q, m in zip(proposals, sizes[:k], strict=True)]
        mixed = torch.stack([*others, own + log(n)]).logsumexp(0)
        rounds.append(asked(ask, x, (-own).exp(), mixed))
        proposals.append(current)
        progress(scouted + sum(sizes[: k + 1]), scouted + calls)
    plain = [sizes[0]] + [current.plain(n) for n in sizes[1:]]
    trust = [
        n * promise(rounds[:k] + rounds[k + 1 :], q, threshold)
        for k, (q, n) in enumerate(zip(proposals, sizes, strict=True))
    ]
    return combined(rounds, plain, trust, threshold, levels, current, scouted + calls)


def asked(ask: Calls, x: Tensor, weights: Tensor, mixed: Tensor) -> Round:
    """What the simulator says of points (N, D). Errors: `DataError` where it fails at all of them."""
    values, error = ask(x.numpy())
    g = torch.from_numpy(values)
    broken = g.isnan()
    if broken.all():
        raise DataError(
            f"g gave NaN for all of {len(x)} points{f' ({error})' if error else ''}: try it on "
            f"numpy.random.randn({len(x)}, {x.shape[1]})"
        )
    return Round(x, g.masked_fill(broken, -torch.inf), weights, mixed, broken, error)


def failures(rounds: list[Round], threshold: float, enough: float) -> tuple[Tensor, Tensor, float]:
    """All points beyond the next level, their weights, which sum to 1, and the level."""
    x, g = torch.cat([r.x for r in rounds]), torch.cat([r.g for r in rounds])
    weights = (-torch.cat([r.mixed for r in rounds])).exp()
    newest = rounds[-1].g.sort(descending=True).values
    lower = [t for t in newest[:: max(1, len(newest) // TRIED)].tolist() if t < threshold]
    for level in [threshold, *lower, -torch.inf]:
        beyond = g > threshold if level == threshold else g >= level
        if effective_size(weights[beyond]) >= enough:
            break
    return x[beyond], weights[beyond] / weights[beyond].sum(), float(level)


def promise(rounds: list[Round], proposal: Proposal, threshold: float) -> float:
    """What a draw of a proposal will be worth, by the failures before: P^2 / variance of 1{g > threshold} p / q.

    The variance over all failures so far, weighted over the densities of all rounds: a proposal that is blind to some
    of them promises little, though its own draws would never show it.
    """
    failed = [r.g > threshold for r in rounds]
    if not sum(int(bad.sum()) for bad in failed):
        return 0.0
    x = torch.cat([r.x[bad] for r, bad in zip(rounds, failed, strict=True)])
    weights = torch.cat([(-r.mixed[bad]).exp() for r, bad in zip(rounds, failed, strict=True)])
    share = weights / weights.sum()
    second = float((share * (-proposal.log_ratio(x)).exp()).sum() / weights.sum())
    seen = min(1.0, effective_size(weights) / TRUSTED)
    return seen / max(second - 1, LEAST)


def combined(
    rounds: list[Round],
    plain: list[int],
    promised: list[float],
    threshold: float,
    levels: list[float],
    last: Defended,
    calls: int,
) -> RareEvent:
    """The rounds' estimates in one; `plain[k]` is how many first points of round k came from the prior."""
    sizes = [len(r.g) for r in rounds]
    failed = [r.g > threshold for r in rounds]
    values = [r.weights * bad for r, bad in zip(rounds, failed, strict=True)]
    trust = shares(promised)
    if not any(share and bool(bad.any()) for share, bad in zip(trust, failed, strict=True)):
        trust = shares(sizes)  # rather all rounds alike than none of the few failures that were met
    parts = [float(share) / n * value for share, n, value in zip(trust, sizes, values, strict=True)]
    probability = float(sum(part.sum() for part in parts))
    variance = sum(float(part.var()) * n for part, n in zip(parts, sizes, strict=True))
    weighed = torch.cat(parts)
    effective, k = effective_size(weighed), pareto_k(weighed[weighed > 0].numpy())
    draws = sum(plain)
    seen = sum(int(bad[:n].sum()) for bad, n in zip(failed, plain, strict=True))

    warnings = []
    if levels and levels[-1] < threshold:
        warnings.append(f"level {levels[-1]:.4g} was reached, not the threshold {threshold:.4g}: allow more calls")
    if not probability:
        low, high = 0.0, unseen(draws)
        warnings.append(f"no failure in {calls} calls: {high:.2g} is what {draws} plain draws without one allow")
    else:
        low, high = interval(probability, sqrt(variance), effective)
        if effective < TRUSTED:
            warnings.append(f"the estimate rests on {effective:.0f} effective failures: the true error may be larger")
        if k > RELIED:
            warnings.append(heavy(k))
        able = [
            value
            for share, value in zip(trust, values, strict=True)
            if share >= trust.max() / BLIND and effective_size(value) >= JUDGED and value.std() > 0
        ]
        errors = [float(value.std()) / sqrt(len(value)) for value in able]
        if len(able) > 1 and disagree([float(value.mean()) for value in able], errors):
            warnings.append(
                "the rounds disagree by more than chance explains: some proposals missed failures, or g does not "
                "give the same for the same"
            )
        if contradicted(seen, draws, probability):
            warnings.append(
                f"{seen} of {draws} plain draws failed, more than the estimate explains: it misses failures"
            )
    if broken := sum(int(r.broken.sum()) for r in rounds):
        parts = [float(share) / n * r.weights * r.broken for share, n, r in zip(trust, sizes, rounds, strict=True)]
        share = float(sum(part.sum() for part in parts))
        spread = sqrt(sum(float(part.var()) * n for part, n in zip(parts, sizes, strict=True)))
        high = min(1.0, high + share + NORMAL_95 * spread)
        error = next((r.error for r in rounds[::-1] if r.error), "")
        warnings.append(
            f"g gave NaN for {broken} points{f' ({error})' if error else ''}, counted as no failures; as failures they "
            f"would add {share:.2g}, which the interval's upper end allows for"
        )
    return RareEvent(
        probability=probability,
        standard_error=sqrt(variance),
        interval=(low, high),
        calls=calls,
        effective_samples=effective,
        pareto_k=k,
        levels=tuple(levels),
        warnings=tuple(warnings),
        proposal=last,
    )


def contradicted(failures: int, draws: int, probability: float) -> bool:
    """Whether plain draws saw more failures than an estimate explains, but for an unlikely chance."""
    from scipy.stats import binom

    return bool(binom.sf(failures - 1, draws, probability) < UNLIKELY)


def disagree(values: Sequence[float], errors: Sequence[float]) -> bool:
    """Whether independent estimates of one number, with their standard errors, differ by more than chance explains.

    >>> disagree([1.0, 1.1, 0.9], [0.1, 0.1, 0.1]), disagree([0.4, 1.1, 0.9], [0.05, 0.1, 0.1])
    (False, True)
    """
    from scipy.stats import chi2

    weights = np.asarray(errors, dtype=np.float64) ** -2.0
    off = np.asarray(values) - weights @ np.asarray(values) / weights.sum()
    return bool(chi2.sf(weights @ off**2, len(weights) - 1) < UNLIKELY)


def shares(weights: Sequence[float]) -> Array:
    """Weights that sum to 1; all on the last if none is positive."""
    values = np.asarray(weights, dtype=np.float64)
    return values / values.sum() if values.sum() > 0 else np.eye(len(values))[-1]
