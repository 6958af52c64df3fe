"""Consistency models: from noise to an image in one to four evaluations of the network.

A flow follows the path of its ODE from noise to an image, in twenty small steps. A consistency model learns where that
path ends: D(u, s) is the same image for all points u of a path, and D(u, 0) = u. For an image x and noise eps the two
points x + s eps and x + r eps, r a little below s, lie on nearly the same path, so

    L = E d(D(x + s eps, s), stopgrad D(x + r eps, r)) / (s - r),    d(a, b) = sqrt(|a - b|^2 + c^2) - c

(Song, Dhariwal, Chen, Sutskever, "Consistency models", 2023, https://arxiv.org/abs/2303.01469; d and c: Song, Dhariwal
2024, https://arxiv.org/abs/2310.14189). At small s the mean image, which a flow's network gives, is nearly that end. So
learning begins with a flow's weights (Geng et al., "Consistency models made easy", 2024,
https://arxiv.org/abs/2406.14548): `fabulate distil RUN`. A sample is D(S z, S) for noise z at the highest level S, or,
better, that image with less noise added and taken off again, once for each further evaluation. That noise is z again,
its rows and columns moved on: so a sample follows from z alone, and z is its code.

Legend: B batch, N images, Z numbers in an image of the space.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fabulate.config import PositiveInt, Preset, Training, spec
from fabulate.models.denoising import Denoising
from fabulate.models.spaces import Pixels, SpaceOrAuto
from fabulate.nets import Auto, Backbone, UNet
from fabulate.samplers import HIGHEST, LOWEST, grid
from fabulate.types import Batch

MEAN, STD = -1.1, 2.0  # of log s in training (Karras et al. 2022 have -1.2 and 1.2; wider: Geng et al. 2024)
GAP = 0.1  # r = (1 - GAP) s
ROUND = 0.00054  # c, for each square root of the numbers in an image (Song, Dhariwal 2024, section 3.3)
AGAIN = 0.8  # the lowest level that noise is added at in sampling (Song, Dhariwal 2024, section 3.4: 0.821)


@spec
class ConsistencySampling:
    """How samples are drawn."""

    evaluations: PositiveInt = 2
    """Of the network for each image."""


@spec
class ConsistencyConfig:
    """A consistency model."""

    path: Literal["linear", "cosine", "ddpm"] = "linear"
    """How an image turns into noise."""
    target: Literal["x_skip", "eps", "v", "velocity", "edm"] = "x_skip"
    """What the network predicts: noise, or a mixture of image and noise."""
    drop_class: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of images trained without their class."""
    space: SpaceOrAuto = Auto()
    """What images are while noise is taken off them."""
    network: Backbone = UNet()
    """The denoiser."""
    sampling: ConsistencySampling = ConsistencySampling()
    """How samples are drawn unless asked otherwise."""


class Consistency(Denoising, family="consistency"):
    """Consistency model (Song et al. 2023, https://arxiv.org/abs/2303.01469)."""

    Config = ConsistencyConfig
    units = {"loss": "distance per noise level"}
    akin = ("flow",)
    presets = {
        "default": Preset(ConsistencyConfig(), Training(steps=5000, batch_size=64, lr=5e-4)),
        "tutorial": Preset(  # the network's parts of Karras et al. 2022, as in the paper
            ConsistencyConfig(target="edm", space=Pixels(), sampling=ConsistencySampling(evaluations=1)),
            Training(epochs=10, steps=None, batch_size=128, lr=4e-4, schedule="constant", ema=0.9999),
        ),
    }
    validates = False  # the loss is least where the network says the same of all noise

    config: ConsistencyConfig
    sampling: ConsistencySampling

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far apart the ends are that two near points of a path are told."""
        x, y = self.space.encode(batch.x), self.dropped(batch.y)
        eps = torch.randn_like(x)
        u = (torch.arange(len(x), device=x.device) + torch.rand(len(x), device=x.device)) / len(x)  # one in each share
        s = (MEAN + STD * torch.special.ndtri(u)).exp().clamp(LOWEST, HIGHEST)[:, None, None, None]
        r = (1 - GAP) * s
        denoise, first = self.denoiser(y), r < LOWEST  # below, the image itself is the end
        with torch.no_grad():
            end = torch.where(first, x, denoise(x + r * eps, r))
        r = torch.where(first, 0, r)
        apart = (denoise(x + s * eps, s) - end).square().sum((1, 2, 3))
        c = ROUND * self.space.shape.size**0.5
        distance = (apart + c**2).sqrt() - c
        return {"loss": (distance / (s - r).flatten()).mean()}

    def test_terms(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The images (N, C, H, W) that codes (N, Z) are carried to."""
        denoise, noise, count = self.denoiser(y), self.images(z), self.sampling.evaluations
        u = noise * HIGHEST
        for i, (s, below) in enumerate(pairwise(grid(count, lowest=AGAIN)), start=1):
            moved = [i * side // count for side in noise.shape[2:]]
            u = denoise(u, s) + below * noise.roll(moved, dims=(2, 3))
        return self.space.decode(u).clamp(-1, 1)
