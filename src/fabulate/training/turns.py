"""Which code takes the players' turns: what is written, or what torch's compiler makes of it.

Compiled, the loss, the gradients in it (a gradient penalty's, say) and the gradients of it become one region: on a CPU
a library (`ahead.py`), on a GPU a function of `torch.compile` (`compiling.py`). Whether that pays is decided by the
model and the budget: a run that continues must round as it began. On a CPU fully connected networks gain a third to a
half, convolutions next to nothing (docs/LOG.md has the numbers).
"""

import torch
from torch import nn

from fabulate.compiling import Compiled, Say, announced
from fabulate.config import Training
from fabulate.models.base import GenerativeModel
from fabulate.training.ahead import Ahead
from fabulate.training.turn import Take, turn

ENOUGH_STEPS, ENOUGH_MINUTES = 5000, 2.0  # that what compiling saves is more than what it costs
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def turns(model: GenerativeModel, training: Training, total: int | None, say: Say) -> dict[str, Take]:
    """Each player's turn, compiled when that is wanted or pays; `total` is in steps, `say` takes sentences."""
    must = training.compile == "on"
    if must or (training.compile == "auto" and pays(model, training, total, model.device)):
        say(announced("the step"))
        if model.device.type == "cpu":
            return {name: Ahead(model, must, say) for name in model.players()}
        return {name: Compiled(turn, "the step", model.device, must, say) for name in model.players()}
    return dict.fromkeys(model.players(), turn)


def pays(model: nn.Module, training: Training, total: int | None, device: torch.device) -> bool:
    """Whether compiling saves more time than it costs, by the model and the budget alone."""
    if device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return False
    enough = total is None or total >= ENOUGH_STEPS
    return enough and (training.minutes is None or training.minutes >= ENOUGH_MINUTES)
