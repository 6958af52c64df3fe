"""Adam, all parameters of a player in one operation: `torch.optim.adam.adam(fused=True)`.

The class `torch.optim.Adam` is not used because making one loads torch's compiler: a second of every start.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

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
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.counts = [torch.zeros((), device=p.device) for p in parameters]  # of updates

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None], rate: float, dropped: Tensor | None = None) -> None:
        """One update; gradients lie in memory as their parameters do, and one without (None) stands still.

        Where `dropped` (0-d, on the device) is 1, nothing changes.
        """
        each = zip(self.parameters, gradients, self.means, self.squares, self.counts, strict=True)
        moved = [some for some in each if some[1] is not None]
        if moved:
            parameters, given, means, squares, counts = (list(column) for column in zip(*moved, strict=True))
            adam(
                parameters,
                given,
                means,
                squares,
                [],
                counts,
                fused=True,
                found_inf=dropped,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=rate,
                eps=EPS,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
            )

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs, in the words of `torch.optim.Adam`."""
        each = zip(self.counts, self.means, self.squares, strict=True)
        return {"state": {i: {"step": n, "exp_avg": m, "exp_avg_sq": s} for i, (n, m, s) in enumerate(each)}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `KeyError` or `ValueError` where it does not cover every parameter."""
        if [*state["state"]] != [*range(len(self.means))]:
            raise ValueError(f"it tells of {len(state['state'])} parameters, and there are {len(self.means)}")
        for i, of_one in state["state"].items():
            names = {"step": self.counts[i], "exp_avg": self.means[i], "exp_avg_sq": self.squares[i]}
            for name, own in names.items():
                if own.shape != of_one[name].shape:
                    raise ValueError(f"parameter {i} is {tuple(own.shape)}, and {tuple(of_one[name].shape)} was saved")
                own.copy_(of_one[name])
