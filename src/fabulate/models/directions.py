"""Directions in the space of codes, and walks along them: what does a number of the code, or a class, look like?

Axes. A VAE pays nats for each number of a code that it uses, so a number it uses may mean something by itself and the
others carry nothing. What axis i carries is told by its variance over images, Var_x z_i(x) (Burda et al. 2016, sec.
5.2, https://arxiv.org/abs/1509.00519), and walking along it shows what it means (Higgins et al., "beta-VAE", 2017).

Principal directions. An autoencoder's codes can be turned at no cost, so its axes mean nothing, but the eigenvectors of
the codes' covariance do: the directions in which codes differ most.

Jacobian directions. A GAN draws all axes alike, and what differs is what the generator makes of them. With J its
Jacobian, |J v|^2 is how fast the image changes along v, and the eigenvectors of E_z[J'J] are the directions that
change it most (Ramesh et al., "A spectral regularizer for unsupervised disentanglement", 2019,
https://arxiv.org/abs/1812.01161, at one z). For a linear decoder these are its right singular vectors.

Attributes. The difference of the mean codes of two classes, added to the code of an image of the first, leads to the
second (Larsen et al. 2016, https://arxiv.org/abs/1512.09300; White 2016, https://arxiv.org/abs/1609.04468).

Legend: N codes, Z latent, A directions, S steps, C H W image, D pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.errors import CapabilityError
from fabulate.models.base import Labels, evaluating
from fabulate.models.capabilities import HasLatent
from fabulate.seeds import generator

PAIRS = 2048  # of decoded images on which Jacobian directions rest, or one code's where it has more numbers
LARGEST_CODE = 1024  # beyond it a code is an image of its own, and no few directions hold what varies
STEP = 0.1  # of a finite difference, in standard deviations of the code: a slope that is meant


class Directions(NamedTuple):
    """Directions in the space of codes, the one that varies most first."""

    names: tuple[str, ...]
    vectors: Tensor
    """Of length 1: (A, Z)."""
    spreads: Tensor
    """The standard deviation of the codes along each: (A,)."""
    shares: Tensor
    """What each holds of all there is, the codes' variance or the image's change: (A,), of all Z together 1."""

    def first(self, n: int) -> "Directions":
        """The first n directions."""
        return Directions(self.names[:n], self.vectors[:n], self.spreads[:n], self.shares[:n])


def axes(codes: Tensor) -> Directions:
    """The axes of the code space by the variance of codes (N, Z) along them."""
    variances = codes.var(0, correction=0)
    shares, order = share(variances).sort(descending=True, stable=True)
    vectors = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)[order]
    return Directions(tuple(f"axis {int(i)}" for i in order), vectors, variances[order].sqrt(), shares)


def principal(codes: Tensor) -> Directions:
    """The eigenvectors of the covariance of codes (N, Z)."""
    variances, vectors = eigenvectors(torch.cov(codes.T, correction=0).view(codes.shape[1], -1))
    return Directions(numbered(vectors), vectors, variances.sqrt(), share(variances))


@torch.no_grad()
def jacobian(model: HasLatent, codes: Tensor, y: Labels = None, probes: int = 32) -> Directions:
    """The directions in which the decoded image changes most for a standard deviation of codes (N, Z) of class y.

    The change is measured at the first `probes` codes, with 2 Z decoded images for each.
    """
    spread = codes.std(0, correction=0).mean().clamp_min(1e-6)  # codes may all be the same
    nudges = STEP * spread * torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
    metric = torch.zeros_like(nudges)  # E[J'J], (Z, Z)
    for z in codes[:probes]:
        both = decode_rows(model, torch.stack([z + nudges, z - nudges]), y)  # (2, Z, C, H, W)
        slopes = (both[0] - both[1]).flatten(1) / (2 * STEP * spread)  # J', (Z, D)
        metric += slopes @ slopes.T / len(codes[:probes])
    changes, vectors = eigenvectors(metric)
    spreads = (codes @ vectors.T).std(0, correction=0)
    return Directions(numbered(vectors), vectors, spreads, share(changes * spreads.square()))


def of_samples(model: HasLatent, n: int = 2000, y: str | None = None) -> tuple[Tensor, Directions]:
    """Codes (n, Z) that samples of a class are drawn from, always the same, and their Jacobian directions."""
    labels = model.labels(y, n)
    codes = model.prior(n, None if labels is None else labels.to(model.device), generator(0, "traverse"))
    return codes, jacobian(model, codes, y, max(1, PAIRS // codes.shape[1]))


def eigenvectors(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, the largest first, and eigenvectors in rows, each with its largest number positive."""
    values, columns = torch.linalg.eigh(symmetric)
    vectors = columns.T.flip(0)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return values.flip(0).clamp_min(0), vectors * largest.sign()


def share(variances: Tensor) -> Tensor:
    """Each as a part of their sum; nothing where nothing varies."""
    return variances / variances.sum().clamp_min(torch.finfo(variances.dtype).tiny)


def numbered(vectors: Tensor) -> tuple[str, ...]:
    """direction 1, direction 2, ..."""
    return tuple(f"direction {i + 1}" for i in range(len(vectors)))


@torch.no_grad()
def traverse(model: HasLatent, base: Tensor, directions: Directions, values: Tensor, y: Labels = None) -> Tensor:
    """Images (A, S, C, H, W) of a code (1, Z) moved along each direction by values (S,), in its standard deviations."""
    moves = directions.spreads[:, None, None] * values[:, None] * directions.vectors[:, None]  # (A, S, Z)
    return decode_rows(model, base + moves, y)


def difference(first: Tensor, second: Tensor) -> Tensor:
    """The direction (1, Z) that leads from the codes (N, Z) of one class to those of another."""
    return second.mean(0, keepdim=True) - first.mean(0, keepdim=True)


@torch.no_grad()
def morph(model: HasLatent, codes: Tensor, direction: Tensor, strengths: Tensor) -> Tensor:
    """Images (N, S, C, H, W) of codes (N, Z) moved along a direction (1, Z) by strengths (S,).

    Errors: `CapabilityError` for a class-conditional model, whose codes leave the class out.
    """
    if model.classes:
        raise CapabilityError(
            "a class-conditional model is told the class beside the code, so no direction of the code changes it; "
            "decode a code with another class instead, or train without --conditional"
        )
    return decode_rows(model, codes[:, None] + strengths[:, None] * direction, None)


@torch.no_grad()
def as_classes(model: HasLatent, codes: Tensor, classes: Sequence[int | str]) -> Tensor:
    """Images (N, S, C, H, W) of codes (N, Z), each decoded as each of S classes: what the code leaves to the class."""
    return decode_rows(model, codes[:, None].expand(-1, len(classes), -1), classes)


def decode_rows(model: HasLatent, codes: Tensor, y: Labels) -> Tensor:
    """Codes (A, S, Z) to images (A, S, C, H, W)."""
    labels = model.labels(y, codes.shape[1])
    labels = None if labels is None else labels.to(model.device)
    with evaluating(model):
        return torch.stack([model.decode(row, labels) for row in codes])


def check_size(model: HasLatent, codes: Tensor) -> None:
    """Errors: `CapabilityError` for codes (N, Z) that are too long to have directions worth looking at."""
    from fabulate.models.families import families

    if codes.shape[1] > LARGEST_CODE:
        short = [name for name, cls in families().items() if hasattr(cls.Config, "latent_dim")]
        raise CapabilityError(
            f"a code of this {model.family} has {codes.shape[1]:,} numbers: no few directions hold what varies in it; "
            f"families with short codes: {', '.join(short)}"
        )
