"""Adam, all parameters of a player in one operation.

It is the arithmetic of `torch.optim.Adam(fused=True)`, by the same kernel and to the last bit. The class is not used
because it loads torch's compiler, a second of every start, and asks each parameter questions in every step, a twentieth
of a small one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EPS = 1e-8


class Adam:
    """Moves parameters by their gradients' running mean over its running size (Kingma, Ba, "Adam: a method for
    stochastic optimization", 2015, https://arxiv.org/abs/1412.6980).

    >>> p = torch.tensor([1.0, 1.0])
    >>> Adam([p], betas=(0.9, 0.999)).update([torch.tensor([5.0, -0.1])], rate=0.25)
    >>> p
    tensor([0.7500, 1.2500])
    """

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float]) -> None:
        self.parameters, self.betas = parameters, betas
        self.count = torch.zeros((), device=parameters[0].device)  # of updates
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], rate: float, dropped: Tensor | None = None) -> None:
        """One update; gradients lie in memory as their parameters do, and one without (None) stands still.

        Where `dropped` (0-d, on the device) is 1, nothing changes.
        """
        each = zip(self.parameters, gradients, self.means, self.squares, strict=True)
        moved = [(p, g, m, s) for p, g, m, s in each if g is not None]
        self.count += 1
        torch._fused_adam_(
            [p for p, _, _, _ in moved],
            [g for _, g, _, _ in moved],
            [m for _, _, m, _ in moved],
            [s for _, _, _, s in moved],
            [],
            [self.count] * len(moved),
            lr=rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
            found_inf=dropped,
        )
        if dropped is not None:
            self.count -= dropped

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs, in the words of `torch.optim.Adam`."""
        each = zip(self.means, self.squares, strict=True)
        return {
            "state": {i: {"step": self.count.clone(), "exp_avg": m, "exp_avg_sq": s} for i, (m, s) in enumerate(each)}
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `KeyError` or `ValueError` where it does not cover every parameter."""
        if [*state["state"]] != [*range(len(self.means))]:
            raise ValueError(f"it tells of {len(state['state'])} parameters, and there are {len(self.means)}")
        for i, of_one in state["state"].items():
            for own, saved in ((self.means[i], of_one["exp_avg"]), (self.squares[i], of_one["exp_avg_sq"])):
                if own.shape != saved.shape:
                    raise ValueError(f"parameter {i} is {tuple(own.shape)}, and {tuple(saved.shape)} was saved")
                own.copy_(saved)
            self.count.copy_(of_one["step"])
