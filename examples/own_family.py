"""A new family in one file: probabilistic PCA (Tipping, Bishop 1999), trained by its exact likelihood.

fabulate check examples/own_family.py
fabulate train ppca --import examples/own_family.py --data digits
"""

import torch
from torch import Tensor, nn

from fabulate.config import PositiveInt, Preset, spec
from fabulate.models.base import Labels, Player
from fabulate.models.capabilities import Encodes, HasLikelihood
from fabulate.types import Batch, ImageShape


@spec
class PPCAConfig:
    """Probabilistic PCA: x = W z + mean + noise."""

    latent_dim: PositiveInt = 16
    """Numbers in a code."""


class PPCA(Encodes, HasLikelihood, family="ppca"):
    """Probabilistic PCA (Tipping, Bishop 1999, https://doi.org/10.1111/1467-9868.00196)."""

    Config = PPCAConfig
    presets = {"default": Preset(PPCAConfig())}

    def __init__(self, config: PPCAConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, shape, classes)
        self.axes = nn.Parameter(0.1 * torch.randn(self.shape.size, config.latent_dim))
        self.mean = nn.Parameter(torch.zeros(self.shape.size))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))

    def density(self) -> torch.distributions.LowRankMultivariateNormal:
        noise = torch.exp(2 * self.log_noise).expand(self.shape.size)
        return torch.distributions.LowRankMultivariateNormal(self.mean, self.axes, noise)

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": -self.density().log_prob(batch.x.flatten(1)).mean()}

    def log_prob(self, x: Tensor, y: Labels = None) -> Tensor:
        return self.density().log_prob(self.given(x, y).x.flatten(1))

    def codes(self, batch: Batch) -> Tensor:
        """E[z | x] = M^-1 W' (x - mean), M = W' W + noise^2."""
        m = self.axes.T @ self.axes + torch.exp(2 * self.log_noise) * torch.eye(self.axes.shape[1]).to(self.axes)
        return torch.linalg.solve(m, (batch.x.flatten(1) - self.mean) @ self.axes, left=False)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.axes.T + self.mean).unflatten(1, self.shape).clamp(-1, 1)
