"""The loop in which feature networks learn: batches by addressed permutations, one learning-rate cycle, AdamW.

The rate rises over a fifth of the steps and then falls to nearly nothing, which makes a few epochs enough (Smith, Topin
2018, "Super-convergence", https://arxiv.org/abs/1708.07120). Weight decay is that of Loshchilov, Hutter 2019
(https://arxiv.org/abs/1711.05101). Only the seed, the images and the number of steps decide the result.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from fabulate.errors import DivergedError
from fabulate.seeds import permutation
from fabulate.types import Progress

BATCH = 128
RATE = 0.01


def fit(
    module: nn.Module,
    loss: Callable[[int, Tensor], Tensor],
    n: int,
    *,
    seed: int,
    steps: int,
    progress: Progress | None = None,
) -> None:
    """Minimise `loss(step, indices)` over the module's parameters; indices (B,) go through 0..n-1 in random order.

    Afterwards the module is in evaluation mode. Errors: `DivergedError` when a loss is not finite.
    """
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.05)
    schedule = OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.2)
    for step, indices in zip(range(steps), batches(n, seed), strict=False):
        value = loss(step, indices)
        if not value.isfinite():
            raise DivergedError(f"training the feature network met a loss of {float(value)} at step {step + 1}")
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    module.eval()


def batches(n: int, seed: int) -> Iterator[Tensor]:
    """Batches of indices without end; each epoch has an order of its own and leaves its last few out."""
    size, epoch = min(BATCH, n), 0
    while True:
        yield from torch.split(permutation(n, seed, "features", epoch), size)[: n // size]
        epoch += 1
