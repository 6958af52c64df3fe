"""The small pieces that networks share: activations, how a class enters, how weights begin.

Legend: B batch, F features, K classes.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "leaky_relu", "silu"]
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
}


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
