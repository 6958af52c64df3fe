"""A player's turn as one function: the terms of its loss and the gradients of its parameters; and when it is compiled.

Compiled, the loss, the gradients in it (a gradient penalty's, say) and the gradients of it are one region. On a CPU
fully connected networks gain a third, convolutions next to nothing (docs/LOG.md has the numbers).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fabulate.compiling import Compiled, Say, announced
from fabulate.config import Training
from fabulate.models.base import GenerativeModel, Player
from fabulate.types import Batch

ENOUGH_STEPS, ENOUGH_MINUTES = 5000, 10.0  # that what compiling saves is more than what it costs
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


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


def turns(model: GenerativeModel, training: Training, total: int | None, say: Say) -> dict[str, Take]:
    """Each player's turn, compiled when that is wanted or pays; `total` is in steps, `say` takes sentences."""
    must = training.compile == "on"
    if must or (training.compile == "auto" and pays(model, training, total, model.device)):
        say(announced("the step"))
        return {name: Compiled(turn, "the step", must, say) for name in model.players()}
    return dict.fromkeys(model.players(), turn)


def pays(model: nn.Module, training: Training, total: int | None, device: torch.device) -> bool:
    """Whether compiling saves more time than it costs, by the model and the budget alone.

    A run that continues must round as it began, so no clock decides.
    """
    if device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return False
    enough = total is None or total >= ENOUGH_STEPS
    return enough and (training.minutes is None or training.minutes >= ENOUGH_MINUTES)
