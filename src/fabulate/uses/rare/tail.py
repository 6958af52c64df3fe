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

A score s(x, z) of images and their codes is higher the nearer to the event:

    surprise      -log p(x), or minus the bound or the score that stands for it: how unusual the model finds its image
    brightness    the mean pixel in [0, 1], and darkness, 1 minus it
    odds          log p(c | x) / (1 - p(c | x)) of a class by a classifier: above 0 it is the likeliest answer of two
    along         z . v: how far the code lies in a direction v

Any function of this form will do. An event is what its score says and nothing else: log p(x) of images is highest where
they are simple (Nalisnick et al., "Do deep generative models know what they don't know?", 2019,
https://arxiv.org/abs/1810.09136), so `surprise` finds cluttered images; and a classifier has an opinion of images that
it never learnt about.

Legend: N images, M points, U standard normal numbers, Z latent, K classes, C H W image.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from fabulate.config import nearest
from fabulate.data import Data
from fabulate.errors import CapabilityError, ConfigError, RunError
from fabulate.features import ClassifierFeatures, features_for
from fabulate.models.base import GenerativeModel, Labels, able
from fabulate.models.capabilities import HasBound, HasLatent, HasLikelihood, Scores
from fabulate.models.directions import check_size, of_samples
from fabulate.pictures import Pixels
from fabulate.prob import effective_size, systematic
from fabulate.seeds import seed_at
from fabulate.types import Progress, unit
from fabulate.uses.rare.event import Array, RareEvent
from fabulate.uses.rare.methods import FEWEST_CALLS, estimate
from fabulate.uses.rare.simulator import STEPS, Score, Simulator

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
    return Tail(
        event=event,
        threshold=threshold,
        images=ended.images.numpy(),
        scores=ended.scores.numpy(),
        rarities=rarities.numpy(),
        typical=typical[typical_scores.argsort(descending=True, stable=True)].numpy(),
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


# Scores


def brightness(x: Tensor, z: Tensor) -> Tensor:
    """The mean of images' pixels (N, C, H, W), 0 black to 1 white: (N,).

    >>> brightness(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1), torch.zeros(3, 2))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return unit(x).mean((1, 2, 3))


def darkness(x: Tensor, z: Tensor) -> Tensor:
    """1 minus the brightness: (N,)."""
    return 1 - brightness(x, z)


def surprise(model: GenerativeModel, y: Labels = None) -> Score:
    """Minus the model's score, where it has one: nats of log p(x), or of its bound.

    `y`: the class that samples are drawn of, for a model with classes. Errors: `CapabilityError` for other families.
    """
    if not isinstance(model, Scores):
        raise CapabilityError(
            f"{model.family} knows no p(x), so it cannot say which images are rare; {able(Scores)}. Or ask for a tail "
            f"that needs no p(x): a class, a direction of the code, brightness"
        )
    return lambda x, z: -model.score(x, None if y is None else model.labels(y, len(x)))


def odds(classifier: nn.Module, number: int) -> Score:
    """The log odds of a class, by a classifier from images (N, C, H, W) in [-1, 1] to logits (N, K).

    >>> score = odds(nn.Flatten(), 1)  # its logits are the pixels
    >>> score(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), torch.zeros(1, 3))
    tensor([2.])
    """

    def score(x: Tensor, z: Tensor) -> Tensor:
        logits = classifier(x)
        others = logits.clone()
        others[:, number] = -torch.inf
        return logits[:, number] - others.logsumexp(1)

    return score


def along(direction: Tensor) -> Score:
    """How far codes (N, Z) lie along a direction (Z,).

    Errors: `ConfigError` for codes of another length.
    """

    def score(x: Tensor, z: Tensor) -> Tensor:
        if direction.shape != z.shape[1:]:
            raise ConfigError(f"the direction has shape {tuple(direction.shape)}, and codes have {z.shape[1]} numbers")
        return z.double() @ direction.to(z).double()

    return score


def named(name: str, model: GenerativeModel, label: str | None) -> tuple[Score, str]:
    """A score that needs no data, and what it is in words. Errors: as of `surprise`."""
    if name == "surprise":
        kinds = {HasLikelihood: "-log p(x) in nats", HasBound: "minus the bound of log p(x) in nats"}
        kind = next(
            (words for kind, words in kinds.items() if isinstance(model, kind)), "minus the score of the family"
        )
        return surprise(model, label), f"surprise: {kind}"
    if name == "brightness":
        return brightness, "brightness: mean pixel, 0 to 1"
    return darkness, "darkness: 1 - mean pixel, 0 to 1"


def towards(
    model: GenerativeModel,
    data: Data,
    name: str,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Score, str]:
    """The log odds of a class, by a classifier that is trained on labelled images, and that in words.

    Errors: `ConfigError` for a class that the data do not have, and images of another shape than the model's.
    """
    if name not in data.classes:
        hint = nearest(name, list(data.classes))
        raise ConfigError(f"{data.name} has no class {name!r}{hint} (classes: {', '.join(data.classes) or 'none'})")
    if data.shape != model.shape:
        raise ConfigError(f"{data.name} has images of {data.shape}, and the model draws {model.shape}")
    features = features_for(data, "classifier", device=device, progress=progress)
    assert isinstance(features, ClassifierFeatures)
    return odds(features.classifier, data.classes.index(name)), f"log odds of class {name}"


def along_direction(model: HasLatent, k: int, label: str | None) -> tuple[Score, str]:
    """How far codes lie along the k-th direction of those that change the image most (-k: against it), and in words.

    Directions are those of `fabulate traverse`. Errors: `ConfigError` for a direction that there is not.
    """
    check_size(model, model.code(0, label))
    directions = of_samples(model, y=label)[1].vectors  # as of `fabulate traverse`: direction 3 is the same there
    count = len(directions)
    if not 1 <= abs(k) <= count:
        raise ConfigError(f"--direction is 1 to {count}, or -1 to -{count} for its other end, not {k}")
    vector = directions[abs(k) - 1]
    way = "along" if k > 0 else "against"
    return along(vector if k > 0 else -vector), f"how far the code lies {way} direction {abs(k)}"
