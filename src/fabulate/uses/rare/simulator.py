"""A model as the simulator of `rare.estimate`: from standard normal numbers to codes, images and their scores.

g(u) = score(decode(T(u))), with T from `codes`. Images are rounded to 256 values before they are judged: scores are
those of the images as they are written. A score that is itself estimated with random numbers, as a VAE's bound with
random codes, is noisy, and the event then means: it scored above the threshold when it was looked at. All that is done
here stays right for such scores, as long as a score, once given, is kept.

Legend: N, M points, U standard normal numbers, Z latent, C H W image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fabulate.errors import ConfigError, DataError
from fabulate.models.base import GenerativeModel, Labels, evaluating
from fabulate.models.capabilities import HasLatent
from fabulate.seeds import generator, seed_at
from fabulate.types import to_float, to_uint8
from fabulate.uses.rare.codes import codes
from fabulate.uses.rare.event import Array, RareEvent

Progress = Callable[[int, int], None]
Score = Callable[[Tensor, Tensor], Tensor]
"""From images (N, C, H, W) in [-1, 1] and their codes (N, Z) to one number each (N,), the larger the nearer."""

TOGETHER = 500  # images decoded at a time
PORTION = 5000  # plain draws held at a time
TRIES = 10  # rounds of draws before a proposal that meets too few images is given up
STEPS = 40  # of moving; with the acceptance below a point forgets where it came from in about ten
ACCEPTED = 0.3  # the share of steps that are to succeed; the best is about that in many dimensions
FIRST_REACH, SHORTEST = 0.5, 0.01


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
        for turn in range(TRIES):
            u, weights = (torch.from_numpy(part) for part in event.sample(n, seed_at(seed, "turn", turn)))
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
