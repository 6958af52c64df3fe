"""Denoisers: models of which one network, told how noisy an image is, is all there is to learn.

Whatever the network predicts, at a noise level s it gives an image D(u, s) for u = x + s eps (`paths.py`). What that
image is, is up to the family: the mean of all that may lie behind the noise (`families/flow.py`), or the one in which
the path through u ends (`families/consistency.py`).

Legend: B batch, N images, Z numbers in an image of the space.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fabulate.config import override
from fabulate.errors import ConfigError
from fabulate.models.base import Conditional, Player
from fabulate.models.capabilities import HasLatent
from fabulate.models.spaces import space_for
from fabulate.paths import PATHS, TARGETS, Level, Path, Row, invert
from fabulate.samplers import Denoiser
from fabulate.types import Batch, BatchSource, ImageShape


class Denoising(HasLatent, Conditional):
    """A network in a space, and the image it sees behind a noisy one.

    Its hyperparameters have a path, a target, a space, a network, drop_class, the share of images that are trained
    without their class, and sampling with a number of evaluations.
    """

    sampling: Any
    precision: torch.dtype = torch.float32

    def __init__(self, config: Any, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        config = override(config, {"space": space_for(config.space, ImageShape(*shape))})
        super().__init__(config, shape, classes)
        config.network.check(self.shape)
        self.space = config.space.of(self.shape)
        self.network = config.network.denoiser(self.space.shape, len(classes))

    @property
    def path(self) -> Path:
        """How images turn into noise; looked up, not kept, since functions without a name cannot be pickled."""
        return PATHS[self.config.path]

    @property
    def row(self) -> Callable[[Level], Row]:
        """What the network predicts at a level."""
        return TARGETS[self.config.target]

    def init_from_data(self, images: BatchSource) -> None:
        self.space.fit(images)

    def players(self) -> dict[str, Player]:
        first = self.space.players()
        ready = max((player.span[1] for player in first.values()), default=0.0)
        return {**first, "model": Player(self.network, self.loss, span=(ready, 1))}

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the network minimises."""

    def repeated(self) -> dict[nn.Module, int]:
        return {self.network: self.sampling.evaluations}

    def answer(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """What the network predicts, in the numbers of x; its products may be of half as many bits."""
        if self.precision == torch.float32:
            return self.network(x, t, y)
        with torch.autocast(x.device.type, self.precision):
            return self.network(x, t, y).to(x)

    def dropped(self, y: Tensor | None) -> Tensor | None:
        """Classes (B,), in training some of them replaced by the number of classes, which stands for any."""
        if y is None or not self.training:
            return y
        return torch.where(torch.rand(len(y), device=y.device) < self.config.drop_class, len(self.classes), y)

    def denoiser(self, y: Tensor | None, guidance: float = 1.0) -> Denoiser:
        """D(u, s) at a level s, 0-dim or (N, 1, 1, 1), of the classes y (N,) and guided."""

        def image(u: Tensor, s: Tensor, y: Tensor | None) -> Tensor:
            t = self.path.time(s.double())
            level = self.path.level(t)
            row = self.row(level)
            x_t = u * level.alpha
            times = t.flatten().to(u).expand(u.shape[0])  # not len(u): in an exported graph that would be a constant
            target = self.answer((x_t * row.scale).to(u), times, y)
            return invert(level, row, x_t, target)[0].to(u)

        if guidance != 1 and not self.classes:
            raise ConfigError(f"guidance {guidance:g} needs a model that learnt classes; train it with --conditional")
        if guidance == 1:
            return lambda u, s: image(u, s, y)
        assert y is not None, "a conditional model was called without classes"
        anything = torch.full_like(y, len(self.classes))
        if guidance == 0:
            return lambda u, s: image(u, s, anything)

        def guided(u: Tensor, s: Tensor) -> Tensor:
            with_class, without = image(torch.cat([u, u]), s, torch.cat([y, anything])).chunk(2)
            return without + guidance * (with_class - without)

        return guided

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.space.shape.size, generator=generator).to(next(self.parameters()))

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        return noise

    def images(self, z: Tensor) -> Tensor:
        """Codes (N, Z) in the shape of images of the space."""
        return z.view(-1, *self.space.shape)
