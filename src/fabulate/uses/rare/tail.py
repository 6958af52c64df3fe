"""Images from the tail of a model: how often does it draw one with score(x) > threshold, and what do these look like?

A sample is x = decode(T(u)), u ~ N(0, I), so a rare image is a rare event of g(u) = score(decode(T(u))) (`simulator`),
and `rare.estimate` gives its probability with an interval. Its last proposal q is a model of the points behind the
event. Draws from q that score beyond the threshold, each with weight p(u) / q(u), follow the model's own law given the
event:

    E[f(x) | score(x) > threshold]  =  sum_i w_i f(x_i) / sum_i w_i        over draws with score(x_i) > threshold.

Images that count for different amounts are of little use. So draws are taken in proportion to their weights, and moved
by steps that leave that law as it is (`Simulator.moved`): all images count alike, and they are as rejection of plain
samples would give them. P(score > s) for s beyond the threshold tells how rare each of them is.

Where the threshold is asked for as a quantile, it is taken from plain draws; for rarer ones the tail beyond a first
threshold is drawn as above and the next threshold taken from it, until the quantile is reached. The estimate does not
use these draws, so its interval knows nothing of that choice.

Legend: N images, M points, U standard normal numbers, Z latent, C H W image.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from fabulate.errors import ConfigError, RunError
from fabulate.models.base import GenerativeModel, Labels
from fabulate.pictures import Pixels
from fabulate.seeds import seed_at
from fabulate.types import Progress
from fabulate.uses.rare.adaptive import FEWEST_CALLS, Array, RareEvent, estimate
from fabulate.uses.rare.simulator import STEPS, Score, Simulator
from fabulate.uses.weighting import effective_size, systematic

PLAIN = 4000  # draws that a threshold is taken from, or as many as there are calls
SEEN = 30  # effective draws beyond a threshold that is taken from them: its quantile is then right to a fifth
POOL = 1000  # images of the tail that its quantiles rest on, where calls are not few
RAREST = 1e-9  # quantile
CLIMBS = 30  # towards it
HASTE = 2  # of the calls one part is spent on each of them: a threshold may be rough


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Images beyond a threshold, the rarest first, and how likely they are."""

    event: RareEvent
    """P(score > threshold), with its interval and warnings."""
    threshold: float
    images: Pixels
    """uint8 (N, C, H, W)."""
    scores: Array
    """(N,)."""
    rarities: Array
    """P(score >= that of the image) under the model: (N,)."""
    typical: Pixels
    """As many plain draws, the highest score first: (N, C, H, W)."""
    typical_scores: Array
    ancestors: int
    """Different draws of the proposal that the images descend from."""
    again: int
    """Of the images, those that score beyond the threshold when judged again: all, but for a noisy score."""
    calls: int
    """Images decoded for all this."""
    plain_scores: Array
    """Of the plain draws that were looked at first."""

    @property
    def variance_reduction(self) -> float:
        """The variance reduction over plain Monte Carlo of as many samples; nan without an error to compare."""
        share, error = self.event.probability, self.event.standard_error
        return share * (1 - share) / error**2 / self.event.calls if error else float("nan")


def tail(
    model: GenerativeModel,
    score: Score,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    n: int = 64,
    y: Labels = None,
    calls: int = 40_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tail:
    """n images that score above a threshold, or among the highest `quantile` of what the model draws (0.01).

    `score(x, z)` judges images (N, C, H, W) in [-1, 1] and their codes (N, Z). `y`: the class, of a model with classes.
    `calls`: images decoded for the probability; some more are for threshold and tail. `progress(done, all)`.
    Errors: `CapabilityError` for families without codes, `ConfigError`, and `RunError` when no such image was found.

    >>> from fabulate.models.families.gan import GAN
    >>> from fabulate.types import ImageShape
    >>> found = tail(GAN(GAN.Config(latent_dim=4), ImageShape(1, 8, 8)), lambda x, z: z[:, 0], threshold=2.5, n=8)
    >>> found.images.shape, bool((found.scores > 2.5).all())
    ((8, 1, 8, 8), True)
    >>> found.event.interval[0] < 0.00621 < found.event.interval[1]
    True
    """
    check_tail(threshold, quantile, n, calls)
    quantile = 0.01 if threshold is None and quantile is None else quantile
    simulator = Simulator(model, score, y, progress, PLAIN + calls + 2 * max(POOL, n) + (STEPS + 2) * n)
    _, plain_scores = simulator.plain(min(PLAIN, calls), seed, "threshold")
    if threshold is None:
        assert quantile is not None  # one of the two is given
        threshold = threshold_at(simulator, plain_scores, quantile, max(calls // HASTE, FEWEST_CALLS), seed)
    event = estimate(simulator, simulator.codes.dim, threshold, calls=calls, seed=seed)
    if not event.probability:
        raise RunError(
            f"none of {calls:,} images scored above {threshold:.4g} (of {len(plain_scores):,} plain ones the highest "
            f"{float(plain_scores.max()):.4g}): the chance is below {event.interval[1]:.2g}, if it is not 0; "
            f"ask for a lower threshold, or allow more calls"
        )
    draws = simulator.beyond(event, threshold, max(n, min(POOL, calls // 10)), seed)
    if not len(draws.u):
        raise RunError(f"the proposal met no image above {threshold:.4g}: allow more calls than {calls:,}")
    chosen = systematic(draws.weights, n)
    ended = simulator.moved(draws.of(chosen), threshold, seed)
    ended = ended.of(ended.scores.argsort(descending=True, stable=True))
    # Both are samples of the tail: the draws with their weights, and the images; each counts by what it is worth.
    both = torch.cat([draws.weights * effective_size(draws.weights), torch.ones(n, dtype=torch.float64)])
    rarities = event.probability * tails(torch.cat([draws.scores, ended.scores]), both)[len(draws.scores) :]
    again = simulator.decoded(ended.u.roll(1, 0))[1] > threshold
    typical, typical_scores = simulator.plain(n, seed, "typical")
    descending = typical_scores.argsort(descending=True, stable=True)
    return Tail(
        event=event,
        threshold=threshold,
        images=ended.images.numpy(),
        scores=ended.scores.numpy(),
        rarities=rarities.numpy(),
        typical=typical[descending].numpy(),
        typical_scores=typical_scores[descending].numpy(),
        ancestors=len(set(chosen.tolist())),
        again=int(again.sum()),
        calls=simulator.calls,
        plain_scores=plain_scores.numpy(),
    )


def check_tail(threshold: float | None, quantile: float | None, n: int, calls: int) -> None:
    """Refuse what cannot be asked."""
    if threshold is not None and quantile is not None:
        raise ConfigError(f"give a threshold or a quantile, not both ({threshold} and {quantile})")
    if threshold is not None and not isfinite(threshold):
        raise ConfigError(f"the threshold must be a finite number, not {threshold}")
    if quantile is not None and not RAREST <= quantile < 1:
        raise ConfigError(f"a quantile is a share of the model's images, {RAREST:g} to less than 1, not {quantile}")
    if n < 1 or calls < FEWEST_CALLS:
        raise ConfigError(f"n must be at least 1 and calls at least {FEWEST_CALLS}, given {n} and {calls}")


def threshold_at(simulator: Simulator, scores: Tensor, quantile: float, calls: int, seed: int) -> float:
    """A threshold that about a share `quantile` of the model's images exceeds, from scores of plain draws (M,)."""
    weights, share = torch.ones_like(scores), 1.0
    for step in range(CLIMBS):
        scores, order = scores.sort(descending=True)
        weights = weights[order]
        reached = share * weights.cumsum(0) / weights.sum()
        effective = weights.cumsum(0).square() / weights.square().cumsum(0)
        enough = min(int((effective < SEEN).sum()), len(scores) - 1)
        if reached[enough] <= quantile:
            break
        level = float(scores[enough])
        event = estimate(simulator, simulator.codes.dim, level, calls=calls, seed=seed_at(seed, "tail", "level", step))
        if not event.probability:  # nothing scores above this
            break
        draws = simulator.beyond(event, level, min(POOL, calls // 5), seed_at(seed, "tail", "beyond", step))
        if not len(draws.u):
            break
        scores, weights = draws.scores, draws.weights
        share = event.probability
    return float(scores[min(int((reached < quantile).sum()), len(scores) - 1)])


def tails(scores: Tensor, weights: Tensor) -> Tensor:
    """The share of the weight (N,) that lies at each score (N,) or above.

    >>> tails(torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 1.0, 1.0]))
    tensor([0.2000, 1.0000, 0.6000, 0.6000])
    """
    ascending, order = scores.sort()
    below = torch.cat([weights.new_zeros(1), weights[order].cumsum(0)])  # of the first k
    return 1 - below[torch.searchsorted(ascending, scores)] / weights.sum()
