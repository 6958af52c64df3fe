"""A model as the simulator of `rare.estimate`: from standard normal numbers to codes, images and their scores.

`rare.estimate` asks for P(g(u) > threshold), u ~ N(0, I). A model draws codes z ~ p(z) and decodes them, so here
g(u) = score(decode(T(u))) with a map T under which T(u) has the law p(z). There is one for each family:

    gan, nf, flow     p(z) = N(0, s^2 I)                        z = s u
    gan               p(z) uniform in [-1, 1]                   z = 2 Phi(u) - 1
    ae, vae           p(z) = sum_k w_k N(m_k, S_k)              z = m_k + S_k^1/2 v,   u = (c, v),
                                                                k where Phi(c) falls among the running sums of w
    vqvae             p(z) = prod_t p(z_t | z_<t)               z_t where Phi(u_t) falls among those of p(z_t | z_<t)

The third is exact but jumps with c. So that c may tell something of the event, components stand in the order of what is
asked about, at their means (only then did 40,000 calls reach an event of 1e-4 of a VAE of the digits); and S^1/2 is the
symmetric root, which turns nothing: v means nearly the same in all components. A family of one's own whose codes are
N(0, I) works as it is; one with other codes says how: `@codes.register`.

Images are rounded to 256 values before they are judged: scores are those of the images as they are written. A score
that is itself estimated with random numbers, as a VAE's bound with random codes, is noisy, and the event then means: it
scored above the threshold when it was looked at. All that is done here stays right for such scores, as long as a score,
once given, is kept.

Legend: N, M points, U standard normal numbers, Z latent, K components, C H W image.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.errors import CapabilityError, ConfigError, DataError
from fabulate.models.base import GenerativeModel, Labels, able, evaluating
from fabulate.models.capabilities import HasLatent
from fabulate.models.denoising import Denoising
from fabulate.models.families.ae import AE
from fabulate.models.families.gan import GAN
from fabulate.models.families.nf import NF
from fabulate.models.families.vae import VAE
from fabulate.models.families.vqvae import VQVAE
from fabulate.models.mixture import Mixture
from fabulate.seeds import generator, seed_at
from fabulate.types import Progress, to_float, to_uint8
from fabulate.uses.rare.event import Array, RareEvent

Score = Callable[[Tensor, Tensor], Tensor]
"""From images (N, C, H, W) in [-1, 1] and their codes (N, Z) to one number each (N,), the larger the nearer."""

TOGETHER = 500  # images decoded at a time
PORTION = 5000  # plain draws held at a time
TRIES = 10  # rounds of draws before a proposal that meets too few images is given up
STEPS = 40  # of moving; with the acceptance below a point forgets where it came from in about ten
ACCEPTED = 0.3  # the share of steps that are to succeed; the best is about that in many dimensions
FIRST_REACH, SHORTEST = 0.5, 0.01
NOTHING = 1e-12  # weight of a component that no draw will ever fall on


class Codes(NamedTuple):
    """The law of a model's codes as that of a function of standard normal numbers."""

    dim: int
    """How many numbers: U."""
    of: Callable[[Tensor], Tensor]
    """From float64 numbers (N, U) to codes (N, Z) of float64, on the CPU."""


Rank = Callable[[Tensor], Tensor]
"""From codes (K, Z) of float64 to numbers (K,)."""


@singledispatch
def codes(model: GenerativeModel, label: int | None, rank: Rank) -> Codes:
    """The codes that samples of a class (None: of a model without classes) are decoded from.

    `rank` gives each of some codes a number, by which components of a mixture are put in order.
    Errors: `CapabilityError` for families without codes, or that draw them in a way that is not known here.
    """
    raise CapabilityError(f"{model.family} has no codes among which rare images could be looked for; {able(HasLatent)}")


@codes.register
def _(model: HasLatent, label: int | None, rank: Rank) -> Codes:
    if type(model).prior is not HasLatent.prior:
        raise CapabilityError(
            f"{model.family} draws its codes in a way of its own: register what makes them from N(0, 1) numbers with "
            f"fabulate.uses.rare.simulator.codes.register"
        )
    return normal(model.config.latent_dim)


@codes.register
def _(model: GAN, label: int | None, rank: Rank) -> Codes:
    plain = normal(model.config.latent_dim)
    return {"normal": plain, "uniform": Codes(plain.dim, lambda u: torch.erf(u / 2**0.5))}[model.config.noise]


@codes.register
def _(model: NF, label: int | None, rank: Rank) -> Codes:
    return normal(model.shape.size, model.sampling.temperature)


@codes.register
def _(model: Denoising, label: int | None, rank: Rank) -> Codes:
    return normal(model.space.shape.size)


@codes.register
def _(model: AE, label: int | None, rank: Rank) -> Codes:
    return fitted(model.mixture, label or 0, rank)


@codes.register
def _(model: VAE, label: int | None, rank: Rank) -> Codes:
    if model.sampling.codes == "mixture":
        return fitted(model.mixture, label or 0, rank)
    log_weight, mean, logvar = (part.detach().cpu().double()[label or 0] for part in model.p_z.components())
    return mixture(log_weight.exp(), mean, torch.diag_embed(logvar.exp()), rank)


@codes.register
def _(model: VQVAE, label: int | None, rank: Rank) -> Codes:
    def of(u: Tensor) -> Tensor:
        y = None if label is None else torch.full((len(u),), label, device=model.device)
        indices = model.transformer.sample(torch.special.ndtr(u).to(model.device), y, model.sampling.temperature)
        return model.autoencoder.quantiser.vectors(indices).transpose(1, 2).flatten(1).cpu().double()

    return Codes(model.transformer.length, of)


def normal(dim: int, deviation: float = 1.0) -> Codes:
    """N(0, deviation^2 I)."""
    return Codes(dim, lambda u: deviation * u)


def fitted(law: Mixture, row: int, rank: Rank) -> Codes:
    """A row of a mixture that was fitted to codes."""
    weights, means, roots = (part[row].detach().cpu().double() for part in (law.weights, law.means, law.roots))
    return mixture(weights, means, roots @ roots.mT, rank)


def mixture(weights: Tensor, means: Tensor, covariances: Tensor, rank: Rank) -> Codes:
    """Gaussians with weights (K,), means (K, Z) and covariances (K, Z, Z); one alone needs no number to be chosen by.

    >>> law = mixture(torch.tensor([0.5, 0.5]), torch.tensor([[3.0], [-3.0]]), torch.ones(2, 1, 1), lambda z: z[:, 0])
    >>> law.dim, law.of(torch.tensor([[-0.1, 1.0], [0.1, 1.0]])).flatten().tolist()
    (2, [-2.0, 4.0])
    """
    used = (weights > NOTHING).nonzero().flatten()
    order = used[rank(means[used]).argsort(stable=True)] if len(used) > 1 else used
    means, ends = means[order], weights[order].cumsum(0)
    values, vectors = torch.linalg.eigh(covariances[order])
    roots = vectors * values.clamp_min(0).sqrt()[:, None] @ vectors.mT  # symmetric
    if len(order) == 1:
        return Codes(means.shape[1], lambda u: means[0] + u @ roots[0])

    def of(u: Tensor) -> Tensor:
        k = torch.searchsorted(ends, torch.special.ndtr(u[:, 0]).contiguous()).clamp_max(len(ends) - 1)
        return means[k] + (roots[k] @ u[:, 1:, None]).squeeze(2)

    return Codes(1 + means.shape[1], of)


class Simulator:
    """Decodes points (M, U) and scores the images; `calls` counts them, of about `total` in all."""

    def __init__(self, model: GenerativeModel, score: Score, y: Labels, progress: Progress | None, total: int) -> None:
        self.model, self.score, self.progress, self.total, self.calls = model, score, progress, total, 0
        labels = model.labels(y, 1) if y is not None else None
        if model.classes and labels is None:
            raise ConfigError(
                f"a class-conditional model draws one class at a time here; say which ({', '.join(model.classes)})"
            )
        self.label = None if labels is None else int(labels)
        self.codes = codes(model, self.label, lambda z: self.judged(z)[1])

    def decoded(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Images (M, C, H, W) uint8 and scores (M,) float64, on the CPU, for points (M, U)."""
        found = []
        for part in torch.split(u, TOGETHER):
            found.append(self.judged(self.codes.of(part)))
            self.calls += len(part)
            if self.progress is not None:
                self.progress(self.calls, max(self.total, self.calls))
        images, scores = (torch.cat(part) for part in zip(*found, strict=True))
        return images, scores

    @torch.no_grad()
    def judged(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same for codes (M, Z)."""
        assert isinstance(self.model, HasLatent)  # or it would have no codes
        z = z.to(next(self.model.parameters()))
        y = None if self.label is None else torch.full((len(z),), self.label, device=z.device)
        with evaluating(self.model):
            x = to_uint8(self.model.decode(z, y))
            scores = self.score(to_float(x).to(z), z)
        if scores.shape != (len(z),):
            raise DataError(f"a score is one number for each of {len(z)} images, not {tuple(scores.shape)}")
        return x.cpu(), scores.cpu().double()

    def __call__(self, u: Array) -> Array:
        return self.decoded(torch.from_numpy(u))[1].numpy()

    def plain(self, n: int, seed: int, what: str) -> tuple[Tensor, Tensor]:
        """Images and scores of n draws as the model samples."""
        u = torch.randn(n, self.codes.dim, generator=generator(seed, "tail", what), dtype=torch.float64)
        return self.decoded(u)

    def exceeding(self, threshold: float, n: int, seed: int) -> int:
        """How many of n plain draws score above a threshold, in constant memory."""
        parts = range(0, n, PORTION)
        return sum(
            int((self.plain(min(PORTION, n - first), seed, f"check {first}")[1] > threshold).sum()) for first in parts
        )

    def beyond(self, event: RareEvent, threshold: float, n: int, seed: int) -> "Beyond":
        """n or more draws beyond a threshold; fewer where few are met.

        They come from the event's proposal, and their weights, which sum to 1, make them a sample of the prior there.
        """
        found: list[Beyond] = []
        for attempt in range(TRIES):
            u, weights = (torch.from_numpy(part) for part in event.sample(n, seed_at(seed, "turn", attempt)))
            drawn = Beyond(u, *self.decoded(u), weights)
            found.append(drawn.of(drawn.scores > threshold))
            if sum(len(part.u) for part in found) >= n:
                break
        u, images, scores, weights = (torch.cat(part) for part in zip(*found, strict=True))
        return Beyond(u, images, scores, weights / weights.sum())

    def moved(self, start: "Beyond", threshold: float, seed: int) -> "Beyond":
        """Draws beyond a threshold after some steps that keep the prior's law there.

        A step goes to a neighbour, u' = (1 - b^2)^1/2 u + b eps, eps ~ N(0, I), and back if that is not beyond: the
        modified Metropolis step of subset simulation in the form of Cotter et al., "MCMC methods for functions:
        modifying old algorithms to make them faster", 2013, https://doi.org/10.1214/13-STS421.
        """
        u, images, scores, weights = start
        reach = FIRST_REACH
        for step in range(STEPS):
            eps = torch.randn(u.shape, generator=generator(seed, "step", step), dtype=torch.float64)
            near = (1 - reach**2) ** 0.5 * u + reach * eps
            x, new = self.decoded(near)
            kept = new > threshold
            u, scores = torch.where(kept[:, None], near, u), torch.where(kept, new, scores)
            images = torch.where(kept[:, None, None, None], x, images)
            reach = float(np.clip(reach * np.exp(float(kept.double().mean()) - ACCEPTED), SHORTEST, 1))
        return Beyond(u, images, scores, weights)


class Beyond(NamedTuple):
    """Draws that score beyond a threshold."""

    u: Tensor
    """(N, U)."""
    images: Tensor
    """uint8 (N, C, H, W)."""
    scores: Tensor
    weights: Tensor

    def of(self, chosen: Tensor) -> "Beyond":
        """Those at indices or under a mask."""
        return Beyond(*(part[chosen] for part in self))
