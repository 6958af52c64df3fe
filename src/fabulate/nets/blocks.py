"""The small pieces that networks share: activations, normalisations, how time and class enter, how weights begin.

Legend: B batch, C channels, H W height and width, F features, E numbers of an embedding, K classes.
"""

from collections.abc import Callable
from math import ceil, gcd, log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.errors import ConfigError
from fabulate.types import ImageShape

Activation = Literal["relu", "leaky_relu", "silu", "tanh"]
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

Norm = Literal["none", "group"]
NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    # Wu, He 2018, https://arxiv.org/abs/1803.08494: over each image's own pixels and groups of channels.
    "group": lambda channels: nn.GroupNorm(gcd(channels, 8), channels),
}


SMALLEST_SIDE, LARGEST_SIDE = 8, 256  # of images that networks with scales or patches take
TIME_SCALE = 1001  # a time in [0, 1] as DDPM's step number: step i of 0..999 is the time (i + 1) / 1001
LONGEST = 10_000  # period of the slowest wave (Vaswani et al. 2017, section 3.5)


def check_sides(what: str, shape: ImageShape, otherwise: str = "") -> None:
    """Errors: `ConfigError` for sides outside 8..256, saying what takes no others and what to do."""
    if min(shape.height, shape.width) < SMALLEST_SIDE or max(shape.height, shape.width) > LARGEST_SIDE:
        raise ConfigError(
            f"{what} takes sides from {SMALLEST_SIDE} to {LARGEST_SIDE}, and the images are {shape}; "
            f"use --size, e.g. --size 32{otherwise}"
        )


def with_class(features: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """Append the class as a one-hot vector: (B, F) -> (B, F + K). Without classes the features stay as they are.

    The vector is as long as F features of variance 1 are. At length 1 a decoder hardly hears it beside the code, and
    learns to take the class from there: then a sample of a class is often not of it.
    """
    if not classes:
        return features
    assert y is not None, "a class-conditional network was called without classes"
    # One-hot times a matrix rather than an embedding: its backward pass adds in a fixed order, so runs repeat exactly.
    loudness = max(features.shape[1], 1) ** 0.5
    return torch.cat([features, loudness * F.one_hot(y, classes).to(features.dtype)], dim=1)


class ByClass(nn.Module):
    """A class weighs the features that are read next, f * (1 + g_y): (B, F) -> (B, F).

    Before a linear layer of one output it is the projection critic, w'f + e_y'f (Miyato, Koyama 2018,
    https://arxiv.org/abs/1802.05637), with e_y = w * g_y. Without classes the features stay as they are.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(classes, features)) if classes else None

    def forward(self, features: Tensor, y: Tensor | None) -> Tensor:
        if self.gain is None:
            return features
        assert y is not None, "a class-conditional network was called without classes"
        return features * (1 + F.one_hot(y, len(self.gain)).to(features.dtype) @ self.gain)


class Residual(nn.Module):
    """x + s * conv(act(norm(conv(act(norm(x)))))), He et al. 2016 (https://arxiv.org/abs/1603.05027): size unchanged.

    The branch speaks softly, s = `scale`, so that a block begins near the identity (Zhang et al. 2019,
    https://arxiv.org/abs/1901.09321) and stays there a while: of a branch that begins at zero instead, Adam would move
    each weight by the learning rate at once.
    """

    def __init__(self, channels: int, norm: Norm, activation: Activation, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.branch = nn.Sequential(
            *(NORMS[norm](channels), ACTIVATIONS[activation](), nn.Conv2d(channels, channels, 3, padding=1)),
            *(NORMS[norm](channels), ACTIVATIONS[activation](), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


def keep_variance(network: nn.Module) -> None:
    """Initial weights that keep a signal's size through any depth, which torch's default weights shrink layer by layer.

    He et al. 2015, https://arxiv.org/abs/1502.01852.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pick(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of a learned table (K, F): indices (...) -> (..., F).

    One-hot times a matrix rather than an embedding: its backward pass adds in a fixed order, so runs repeat exactly.
    """
    return F.one_hot(indices, len(table)).to(table.dtype) @ table


def sinusoidal(t: Tensor, size: int) -> Tensor:
    """Times (B,) in [0, 1] as cosines and sines of their step number at `size` / 2 frequencies: (B, size)."""
    half = size // 2
    frequencies = torch.exp(-log(LONGEST) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = (TIME_SCALE * t - 1).to(torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeLayers(nn.Module):
    """Two layers on the sinusoidal embedding of the time."""

    def __init__(self, size: int, embedding: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(size, embedding), nn.Linear(embedding, embedding)

    def forward(self, time: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(time.to(self.linear_1.weight.dtype))))


class Condition(nn.Module):
    """Time, and class when there are any, as one vector (B, E). Class number K means "any", what guidance needs."""

    def __init__(self, size: int, embedding: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        self.time_embedding = TimeLayers(size, embedding)
        self.class_embedding = nn.Embedding(classes + 1, embedding) if classes else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        told = self.time_embedding(sinusoidal(t, self.size))
        if self.class_embedding is None:
            return told
        assert y is not None, "a class-conditional network was called without classes"
        return told + pick(self.class_embedding.weight, y)


def patch_for(shape: ImageShape, tokens: int) -> int:
    """The smallest power of two that cuts the longer side into at most `tokens` patches.

    >>> [patch_for(ImageShape(1, side, side), tokens=16) for side in (8, 16, 28, 32, 64)]
    [1, 1, 2, 2, 4]
    """
    return 1 << (ceil(max(shape.height, shape.width) / tokens) - 1).bit_length()
