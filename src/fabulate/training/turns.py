"""A player's turn as one function: the terms of its loss and the gradients of its parameters.

Run as it is written, torch takes one small operation after the other, and between them Python. Compiled, the loss, the
gradients in it (a gradient penalty's, say) and the gradients of it become one region of machine code (`torch.compile`):
elementwise work is fused, and nothing of Python is left. The noise is the same, since random numbers are drawn as
without compiling, and sums differ in how they round.

Compiling costs about ten seconds on a CPU the first time and two or three afterwards, when the code is in the cache.
Whether it pays is decided by the model and the budget, never by the clock: a run that continues must round as it began.
On a CPU fully connected networks gain a quarter to a half, convolutions next to nothing (docs/LOG.md has the numbers).
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fabulate.config import Training
from fabulate.data.cache import root
from fabulate.errors import ConfigError
from fabulate.models.base import GenerativeModel, Player
from fabulate.training.vectors import vectors_tried
from fabulate.types import Batch

ENOUGH_STEPS, ENOUGH_MINUTES = 5000, 2.0  # that what compiling saves is more than what it costs
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class Turn(NamedTuple):
    """What a turn gives: each logged term, detached, and a gradient for each parameter, None where there is none."""

    terms: dict[str, Tensor]
    gradients: Sequence[Tensor | None]


Take = Callable[[Player, Sequence[Tensor], Batch, int], Turn]


def turn(player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Turn:
    """A player's terms on a micro-batch, and the gradients of a `parts`-th of its loss."""
    terms = player.loss(batch)
    gradients = torch.autograd.grad(terms["loss"] / parts, parameters, allow_unused=True)
    # A fused optimiser reads memory in order, so a gradient must lie as its parameter does.
    laid = [
        g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for g, p in zip(gradients, parameters, strict=True)
    ]
    return Turn({name: value.detach().float() for name, value in terms.items()}, laid)


def turns(model: GenerativeModel, training: Training, total: int | None, say: Callable[[str], None]) -> dict[str, Take]:
    """Each player's turn, compiled when that is wanted or pays; `total` is in steps, `say` takes sentences."""
    must = training.compile == "on"
    if must or (training.compile == "auto" and pays(model, training, total, model.device)):
        say("Compiling the step: seconds when it is in the cache, else more; --compile off goes without.")
        return {name: Compiled(must, say) for name in model.players()}
    return dict.fromkeys(model.players(), turn)


def pays(model: nn.Module, training: Training, total: int | None, device: torch.device) -> bool:
    """Whether compiling saves more time than it costs, by the model and the budget alone."""
    if device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return False
    enough = total is None or total >= ENOUGH_STEPS
    return enough and (training.minutes is None or training.minutes >= ENOUGH_MINUTES)


class Compiled:
    """A turn compiled when it is first taken; one that cannot be compiled is taken as it is written, and says why."""

    def __init__(self, must: bool, say: Callable[[str], None]) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(root() / "compiled"))
        # Random numbers come from torch's own generators, which the loop has put to this turn's address.
        self.take: Take = torch.compile(turn, fullgraph=True, dynamic=False, options={"fallback_random": True})
        self.must, self.say, self.first = must, say, True

    def __call__(self, player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Turn:
        if not self.first:
            return self.take(player, parameters, batch, parts)
        self.first = False
        import torch._dynamo.config as dynamo
        from torch._dynamo.exc import TorchDynamoException

        if batch.x.device.type == "cpu":
            vectors_tried(root() / "compiled")
        dynamo.trace_autograd_ops = True  # gradients are part of the region
        dynamo.recompile_limit = max(dynamo.recompile_limit, 1000)  # one code serves all players of all runs
        try:
            return self.take(player, parameters, batch, parts)
        except TorchDynamoException as error:
            reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            if self.must:
                raise ConfigError(f"the step cannot be compiled ({reason}); leave out --compile on") from error
            self.say(f"The step is not compiled: {reason}")
            self.take = turn
            return turn(player, parameters, batch, parts)
