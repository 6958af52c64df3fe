"""What a model can do beyond `sample`: small abstract classes, asked with `isinstance`, never `hasattr`.

Legend: N samples, C H W image, Z latent.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from fabulate.errors import CapabilityError, ConfigError
from fabulate.models.base import TILE, Conditional, GenerativeModel, Labels, evaluating
from fabulate.prob import BIN, Measure, bits_per_dim
from fabulate.seeds import generator
from fabulate.types import Batch, to_float


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 - t) a + t b."""
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Turn from a to b at an even angle, the length changing evenly; straight where the two are parallel."""
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
    angle = torch.acos((unit_a * unit_b).sum(1, keepdim=True).clamp(-1, 1))
    if angle.sin().abs().min() < 1e-6:
        return linear(a, b, t)
    direction = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / angle.sin()
    return linear(length_a, length_b, t) * direction


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"linear": linear, "spherical": spherical}


class HasLatent(GenerativeModel):
    """Images are decoded from codes z (N, Z)."""

    code_error: float = 1e-5
    """How far a pixel of the image at `code(seed)` may be from that of the sample; one row is rounded otherwise than
    many."""

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """n codes (N, Z) from the distribution that samples are decoded from: N(0, 1), where a family has no other."""
        return torch.randn(n, self.config.latent_dim, generator=generator).to(next(self.parameters()))

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        """Codes (N, Z) as `prior` draws them, made of N(0, 1) numbers (N, Z) and of uniform ones in [0, 1) (N,).

        As a function, it can be written down for programs that have no generator of torch's (`fabulate/share`).
        """
        if type(self).prior is not HasLatent.prior:
            raise CapabilityError(f"how {self.family} draws codes is not written as a function of noise")
        return noise

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (N, Z) to images (N, C, H, W) in [-1, 1]."""

    def priors(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        """Codes (N, Z), TILE of them for each (CPU) generator."""
        given = [None] * len(tiles) if y is None else [*y.view(-1, TILE)]
        return torch.cat([self.prior(TILE, part, tile) for part, tile in zip(given, tiles, strict=True)])

    def draw(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        return self.decode(self.priors(tiles, y), y)

    @torch.no_grad()
    def code(self, seed: int, y: Labels = None) -> Tensor:
        """The code (1, Z) of the first sample of a seed."""
        labels = self.labels(y, 1)
        tile = None if labels is None else labels.expand(TILE).to(self.device)
        with evaluating(self):
            return self.prior(TILE, tile, generator(seed, "sample", 0))[:1]

    @torch.no_grad()
    def interpolate(
        self,
        start: Tensor,
        end: Tensor,
        steps: int = 10,
        y: Labels = None,
        path: Literal["linear", "spherical"] = "spherical",
    ) -> Tensor:
        """Images (steps, C, H, W) along the path between two codes (1, Z), both ends included.

        Codes come from `encode(image)` or from `code(seed)`. Linear goes straight; spherical keeps to the shell on
        which Gaussian codes lie (Shoemake 1985, https://doi.org/10.1145/325165.325242).
        """
        if steps < 2:
            raise ConfigError(f"an interpolation needs at least 2 steps, given {steps}")
        t = torch.linspace(0, 1, steps, device=start.device)[:, None]
        labels = self.labels(y, steps)
        with evaluating(self):
            return self.decode(PATHS[path](start, end, t), None if labels is None else labels.to(self.device))


class Reconstructs(ABC):
    """Images can be passed through the model and compared with what comes out."""

    slow: ClassVar[bool] = False
    """Whether that takes so many calls of the networks that training draws such pictures once, at its end."""

    @abstractmethod
    def reconstruct(self, x: Tensor, y: Labels = None) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to their reconstructions in [-1, 1]."""


class Encodes(HasLatent, Reconstructs):
    """Images also have codes: a family gives `codes`, and has `encode` and `reconstruct`."""

    @abstractmethod
    def codes(self, batch: Batch) -> Tensor:
        """The codes (B, Z) of a batch's images (B, C, H, W) in [-1, 1]."""

    @torch.no_grad()
    def encode(self, x: Tensor, y: Labels = None) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to codes (N, Z)."""
        batch = self.given(x, y)
        with evaluating(self):
            return self.codes(batch)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Labels = None) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to what their codes are decoded to."""
        batch = self.given(x, y)
        with evaluating(self):
            return self.decode(self.codes(batch), batch.y)


class HasPosterior(Encodes):
    """Each image has a distribution of codes, q(z | x): a Gaussian whose numbers are independent."""

    @abstractmethod
    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the codes of a batch's images, each (B, Z)."""

    def codes(self, batch: Batch) -> Tensor:
        """The means of q(z | x): (B, Z)."""
        return self.posterior(batch)[0]


class Fills(ABC):
    """Items of which parts are given can be completed: drawn from p(the rest | what is given)."""

    @abstractmethod
    def fill(self, x: Tensor, known: Tensor, y: Labels = None, *, n: int = 4, seed: int = 0, **sampling: Any) -> Tensor:
        """n completions (n, ...) of an item x (1, ...), of which `known`, bool in its dimensions, marks what is given.

        Sample i of a seed is the same for any n. Further arguments are those of `sample`.
        """


class Scores(ABC):
    """Images can be ranked by how typical the model finds them."""

    @abstractmethod
    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        """One number for each image (N,), higher = more typical."""


class Evidence(NamedTuple):
    """The two terms of a lower bound, log p(x) >= reconstruction - rate, in nats for each image (N,)."""

    reconstruction: Tensor
    """log p(x | z), for a code z of the image."""
    rate: Tensor
    """What the code costs: the KL, or the length of a discrete code."""

    @property
    def bound(self) -> Tensor:
        """The lower bound of log p(x), in nats (N,)."""
        return self.reconstruction - self.rate


class HasBound(Scores):
    """The model knows a lower bound of log p(x), the ELBO with its two terms; its score is that or a tighter one."""

    rate_name: ClassVar[str]
    """What the second term is called in the family's words."""

    @property
    @abstractmethod
    def measure(self) -> Literal[Measure, "dynamic", "threshold"]:
        """What the bound bounds: as a likelihood's measure, or the probability of images binarised in this way."""

    @abstractmethod
    def evidence(self, x: Tensor, y: Labels = None, *, seed: int = 0) -> Evidence:
        """The bound's terms for images (N, C, H, W), uint8 or in [-1, 1]; the seed is that of codes that are drawn."""


class ImportanceWeighted(HasBound):
    """The bound gets tighter with more codes of each image (Burda et al. 2016, https://arxiv.org/abs/1509.00519)."""

    @abstractmethod
    def score(self, x: Tensor, y: Labels = None, *, k: int = 16, seed: int = 0) -> Tensor:
        """The importance-weighted lower bound of log p(x) with k codes per image, in nats (N,)."""


def dequantised(x: Tensor, seed: int) -> Tensor:
    """Images, uint8 or in [-1, 1], as floats with uniform noise about each pixel, as wide as a pixel's step."""
    x = to_float(x)
    noise = torch.rand(x.shape, generator=generator(seed, "dequantise"), dtype=x.dtype).to(x.device)
    return x + BIN * (noise - 0.5)


class HasLikelihood(Scores):
    """The model knows p(x): exactly, or as `method` says."""

    passes: ClassVar[int] = 1
    """Of an image through the network, for its log p(x)."""
    method: str = "exact, by the change of variables"
    """How log p(x) is computed, in a phrase."""
    measure: ClassVar[Literal["density", "levels"]] = "density"
    """What p(x) is: a density over floats, or a probability of images of few gray levels (and of symbols)."""

    @abstractmethod
    def log_prob(self, x: Tensor, y: Labels = None) -> Tensor:
        """log p(x) in nats for each image (N,), as a density over floats in [-1, 1]."""

    @torch.no_grad()
    def bits_per_dim(self, x: Tensor, y: Labels = None, *, seed: int = 0) -> Tensor:
        """Bits that each number of an image costs (N,): an upper bound for uint8 images, by uniform dequantisation."""
        x = dequantised(x, seed)
        return bits_per_dim(self.log_prob(x, y), x[0].numel())

    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        with torch.no_grad():
            return self.log_prob(x, y)


CAPABILITIES: dict[str, type] = {
    "latent": HasLatent,
    "encode": Encodes,
    "reconstruct": Reconstructs,
    "fill": Fills,
    "score": Scores,
    "likelihood": HasLikelihood,
    "conditional": Conditional,
}
