"""Quantisers: from any vector to one of K codes, with a gradient.

A code has a number, for a prior to learn, and a vector, for a decoder to read. Choosing the code has no gradient, so
it is passed straight through: backwards, the quantised vector counts as the vector before quantisation.

**Codebook** (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937): K learned vectors c_k; a vector e becomes the
nearest. Each c_k is the mean of the e that chose it, over about the last 100 batches (appendix A.1 there), and e is
held near its code by its commitment, beta * |e - c|^2. Codes that nobody chooses would stay dead; they begin anew at
vectors of the batch (as in Dhariwal et al. 2020, https://arxiv.org/abs/2005.00341, section 3.1).

**FSQ**, finite scalar quantisation (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505): nothing is learned. Number
d of the vector is squashed and rounded to L_d evenly spaced values; the codes are all combinations, K = L_1 ... L_D.
No code can die, no commitment is needed.

Legend: B batch, T cells of a grid, D numbers in a vector, K codes.
"""

from math import prod
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import NonNegativeFloat, PositiveInt, spec

FORGET = 0.99  # decay of the codebook's statistics, as in appendix A.1 of the paper
DEAD = 0.1  # a code chosen less often than this share of the average is dead


class Quantised(NamedTuple):
    """Vectors after quantisation."""

    z: Tensor
    """The codes' vectors (B, T, D), with the gradient straight through."""
    indices: Tensor
    """The codes' numbers (B, T), 0..K-1."""
    commitment: Tensor
    """What the vectors pay for straying from their codes, mean over the batch: a scalar."""


@spec
class FSQ:
    """Finite scalar quantisation: each number of a vector is rounded to a few values."""

    kind: Annotated[Literal["fsq"], tyro.conf.Suppress] = "fsq"
    levels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (8, 6, 5)
    """How many values each number of a vector takes; their product is the number of codes."""

    def build(self) -> "FiniteScalarQuantiser":
        """The quantiser."""
        return FiniteScalarQuantiser(self.levels)


@spec
class Codebook:
    """A learned codebook: each vector is replaced by the nearest code."""

    kind: Annotated[Literal["codebook"], tyro.conf.Suppress] = "codebook"
    size: Annotated[int, Field(ge=2)] = 256
    """Codes in the codebook."""
    dim: PositiveInt = 16
    """Numbers in a code's vector."""
    commitment: NonNegativeFloat = 0.25
    """Weight of the squared distance between a vector and its code (beta in the paper)."""

    def build(self) -> "VectorQuantiser":
        """The quantiser."""
        return VectorQuantiser(self)


Quantiser = Annotated[FSQ | Codebook, Field(discriminator="kind")]


def straight_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """`value` to the bit; its gradient goes to `gradient_of` (Bengio et al. 2013, https://arxiv.org/abs/1308.3432)."""
    return value.detach() + (gradient_of - gradient_of.detach())


def perplexity(indices: Tensor, size: int) -> Tensor:
    """How many of the codes are in use: exp of the entropy of their shares, from 1 to K.

    >>> perplexity(torch.tensor([[0, 1], [1, 0]]), 8)
    tensor(2.)
    """
    shares = torch.bincount(indices.flatten(), minlength=size) / indices.numel()
    return torch.special.entr(shares).sum().exp()


class FiniteScalarQuantiser(nn.Module):
    """Squash to 0..L-1, round, spread over [-1, 1]; the code's number has the rounded values as its digits."""

    levels: Tensor
    places: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.size = len(levels), prod(levels)
        # What one step of each digit is worth, as 1, 10, 100 are in tens.
        places = [prod(levels[:d]) for d in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)  # (D,)
        self.register_buffer("places", torch.tensor(places), persistent=False)  # (D,)

    def forward(self, e: Tensor) -> Quantised:
        steps = self.levels - 1
        place = steps * torch.sigmoid(e)  # (B, T, D), in 0..L-1
        digits = place.round()
        z = straight_through(2 * digits / steps - 1, 2 * place / steps - 1)
        return Quantised(z, (digits.long() * self.places).sum(-1), e.new_zeros(()))

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes' numbers (...) to their vectors (..., D)."""
        digits = indices[..., None] // self.places % self.levels
        return 2 * digits.to(torch.get_default_dtype()) / (self.levels - 1) - 1

    def remember(self, e: Tensor, indices: Tensor) -> None:
        """Nothing is learnt from the vectors that were quantised."""


class VectorQuantiser(nn.Module):
    """A codebook of moving averages: buffers, moved by `remember`."""

    codebook: Tensor
    shares: Tensor

    def __init__(self, config: Codebook) -> None:
        super().__init__()
        self.dim, self.size, self.commitment = config.dim, config.size, config.commitment
        self.register_buffer("codebook", torch.randn(config.size, config.dim))  # (K, D)
        self.register_buffer("shares", torch.zeros(config.size))  # (K,): all are dead, and begin at the first batch

    def forward(self, e: Tensor) -> Quantised:
        indices = torch.cdist(e.flatten(0, 1), self.codebook).argmin(1).view(e.shape[:2])
        z = self.vectors(indices)
        commitment = self.commitment * (e - z).square().sum((1, 2)).mean()
        return Quantised(straight_through(z, e), indices, commitment)

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes' numbers (...) to their vectors (..., D)."""
        return self.codebook[indices]

    @torch.no_grad()
    def remember(self, e: Tensor, indices: Tensor) -> None:
        """Move each code towards the mean of the vectors (B, T, D) that chose it, and restart the dead codes."""
        e = e.flatten(0, 1)  # (B * T, D)
        chose = F.one_hot(indices.flatten(), self.size).to(e.dtype) / len(e)  # (B * T, K)
        share = chose.sum(0)
        self.shares.lerp_(share, 1 - FORGET)
        # The mean over a decaying memory, as a step: m / N more of the news, where N remembers the m.
        news = chose.T @ e - share[:, None] * self.codebook
        self.codebook.add_((1 - FORGET) * news / self.shares.clamp_min(1e-12)[:, None])
        dead = self.shares < DEAD / self.size
        anew = e[torch.randint(len(e), (self.size,), device=e.device)]  # seeded by the loop
        self.codebook.copy_(torch.where(dead[:, None], anew, self.codebook))
        self.shares.masked_fill_(dead, 1 / self.size)
