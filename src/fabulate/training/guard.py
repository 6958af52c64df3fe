"""Nothing that is not finite reaches the weights, and training does not go on after it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fabulate.errors import DivergedError


class Guard:
    """Looks at the terms of every turn: at once on a CPU; on a GPU when asked, for a look makes the host wait."""

    def __init__(self, patient: bool, lr: float) -> None:
        self.patient, self.lr = patient, lr
        self.unchecked: list[tuple[int, str, list[str], Tensor]] = []  # step, player, names of terms, their values

    def watch(self, step: int, player: str, terms: Mapping[str, Tensor]) -> Tensor | None:
        """Take in a turn's terms (0-d each); the patient gives 1 for an update to be dropped on the device, else 0.

        Errors: `DivergedError` at once unless patient.
        """
        values = torch.stack([value.to(torch.float32) for value in terms.values()])
        self.unchecked.append((step, player, [*terms], values))
        if self.patient:
            return (~torch.isfinite(values).all()).float()
        self.check()
        return None

    def check(self) -> None:
        """Look at all turns since the last look. Errors: `DivergedError` for the first with what is not finite."""
        for step, player, terms, values in self.unchecked:
            bad = [
                f"{term} = {value}"
                for term, value in zip(terms, values.tolist(), strict=True)
                if not math.isfinite(value)
            ]
            if bad:
                raise DivergedError(
                    f"training diverged at step {step}: the player {player!r} has {', '.join(bad)}. Nothing was "
                    f"updated with it; the last checkpoint is good. Try a lower --lr (now {self.lr:g}), --clip 1, or a "
                    f"longer --warmup"
                )
        self.unchecked.clear()


@torch.no_grad()
def check_finite(what: str, model: nn.Module, step: int) -> None:
    """Look at all weights and buffers of a model. Errors: `DivergedError` naming the first that is not finite.

    An update can overflow though its loss and gradient were finite, by a learning rate that is far too large.
    """
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point() and value.numel()}
    if not state or math.isfinite(
        float(torch.stack([value.sum(dtype=torch.float64) for value in state.values()]).sum())
    ):
        return  # one sum over all is quick; it is finite only where every number is
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise DivergedError(
            f"training diverged: after step {step} the {what} are not finite ({len(bad)} of {len(state)} tensors, "
            f"the first of them {bad[0]}). They were not saved; try a lower --lr"
        )
