"""A player's turn as one function: the terms of its loss and the gradients of its parameters."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fabulate.models.base import Player
from fabulate.types import Batch


class Turn(NamedTuple):
    """What a turn gives: each logged term, detached, and a gradient for each parameter, None where there is none."""

    terms: dict[str, Tensor]
    gradients: Sequence[Tensor | None]


Take = Callable[[Player, Sequence[Tensor], Batch, int], Turn]


def turn(player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Turn:
    """A player's terms on a micro-batch, and the gradients of a `parts`-th of its loss."""
    terms = player.loss(batch.floats())
    gradients = torch.autograd.grad(terms["loss"] / parts, parameters, allow_unused=True)
    # A fused optimiser reads memory in order, so a gradient must lie as its parameter does.
    laid = [
        g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for g, p in zip(gradients, parameters, strict=True)
    ]
    return Turn({name: value.detach().float() for name, value in terms.items()}, laid)
