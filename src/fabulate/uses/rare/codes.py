"""Codes as a function of N(0, I): what lets importance sampling look for rare samples of a model.

`rare.estimate` asks for P(g(u) > threshold), u ~ N(0, I). A model draws codes z ~ p(z) and decodes them. So what is
needed is a map T under which T(u) has the law p(z). There is one for each family:

    gan, nf, flow     p(z) = N(0, s^2 I)                        z = s u
    gan               p(z) uniform in [-1, 1]                   z = 2 Phi(u) - 1
    ae, vae           p(z) = sum_k w_k N(m_k, S_k)              z = m_k + S_k^1/2 v,   u = (c, v),
                                                                k where Phi(c) falls among the running sums of w
    vqvae             p(z) = prod_t p(z_t | z_<t)               z_t where Phi(u_t) falls among those of p(z_t | z_<t)

The third is exact but jumps with c. So that c may tell something of the event, components stand in the order of what is
asked about, at their means (only then did 40,000 calls reach an event of 1e-4 of a VAE of the digits); and S^1/2 is the
symmetric root, which turns nothing: v means nearly the same in all components. The map of Rosenblatt and Knothe, which
does not jump, was no better and 30 times slower.

A family of one's own whose codes are N(0, I) works as it is; one with other codes says how: `@codes.register`.

Legend: N points, U standard normal numbers, Z latent, K components.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import CapabilityError
from fabulate.models.base import GenerativeModel, able
from fabulate.models.capabilities import HasLatent
from fabulate.models.families.ae import AE
from fabulate.models.families.flow import Flow
from fabulate.models.families.gan import GAN
from fabulate.models.families.nf import NF
from fabulate.models.families.vae import VAE
from fabulate.models.families.vqvae import VQVAE
from fabulate.models.mixture import Mixture

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
            f"fabulate.uses.rare.codes.codes.register"
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
def _(model: Flow, label: int | None, rank: Rank) -> Codes:
    return normal(model.shape.size)


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
