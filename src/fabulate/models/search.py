"""Codes by search, for families that decode and have no encoder.

A generator g turns codes into images. The code of an image x is then what it has to be given to make x,

    z(x) = argmin over z of  mean (g(z) - x)^2  +  weight * mean z^2,

the first mean over pixels, the second over the numbers of the code: up to a factor minus the logarithm of
p(x | z) p(z), for pixels with Gaussian noise and codes from N(0, 1). Without the second term codes stray to where the
generator was never trained (Zhu et al., "Generative visual manipulation on the natural image manifold", 2016,
https://arxiv.org/abs/1609.03552; Lipton, Tripathi, "Precise recovery of latent vectors from generative adversarial
networks", 2017, https://arxiv.org/abs/1702.04782).

The landscape has many valleys. So many codes are drawn, those nearest to the image are followed a short way by
gradient descent, and the best of them the whole way. Each image is searched for by itself: Adam scales every number by
its own gradients, so the other images of a batch change a code by rounding only.

Legend: N images, K starts of each, M codes drawn, C H W image, Z latent.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fabulate.models.base import Labels, evaluating
from fabulate.models.capabilities import Encodes
from fabulate.seeds import generator
from fabulate.types import Batch

Decode = Callable[[Tensor, Tensor | None], Tensor]

# Tuned on test images of the digits and of MNIST, with fully connected generators: error against steps and lengths of
# codes, which with this weight are those of codes drawn from N(0, 1).
STEPS, RATE, BETAS, WEIGHT = 100, 0.1, (0.9, 0.9), 0.003
DRAWN, KEPT = 256, 2  # codes drawn, and begun from
BLOCK = 8  # images searched for together: always so many, as their number decides how products round


def invert(
    decode: Decode, x: Tensor, starts: Tensor, y: Tensor | None = None, steps: int = STEPS, weight: float = WEIGHT
) -> tuple[Tensor, Tensor]:
    """The codes (N, Z) that decode to images x (N, C, H, W), and what they leave of the objective (N,).

    `starts` (N, K, Z) are codes to begin from: all are followed for a quarter of the steps, the best for all of them.
    """
    n, k, _ = starts.shape
    repeated = None if y is None else y.repeat_interleave(k)
    z, left = descend(decode, x.repeat_interleave(k, 0), starts.flatten(0, 1), repeated, steps // 4, weight)
    best = torch.arange(n, device=x.device) * k + left.view(n, k).argmin(1)
    return descend(decode, x, z[best], y, steps, weight)


def descend(decode: Decode, x: Tensor, z: Tensor, y: Tensor | None, steps: int, weight: float) -> tuple[Tensor, Tensor]:
    """Codes (N, Z) moved by steps of Adam, and the objective (N,) where they arrive."""

    def objective(z: Tensor) -> Tensor:
        return (decode(z, y) - x).square().mean((1, 2, 3)) + weight * z.square().mean(1)  # (N,)

    z = z.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    for _ in range(steps):
        with torch.enable_grad():
            (z.grad,) = torch.autograd.grad(objective(z).sum(), z)
        optimizer.step()
        schedule.step()
    z = z.detach()
    with torch.no_grad():
        return z, objective(z)


class EncodesBySearch(Encodes):
    """A family that decodes gets `encode` and `reconstruct` by this base class alone."""

    @torch.no_grad()
    def codes(self, batch: Batch, steps: int = STEPS, seed: int = 0) -> Tensor:
        """Codes (B, Z) that make the batch's images; the seed draws those that the search begins from."""
        n = len(batch.x)
        starts = self.starts(batch, seed)
        found = []
        for first in range(0, n, BLOCK):
            rows = torch.arange(first, first + BLOCK, device=self.device).clamp(max=n - 1)  # the last may repeat
            y = None if batch.y is None else batch.y[rows]
            found.append(invert(self.decode, batch.x[rows], starts[rows], y, steps)[0])
        return torch.cat(found)[:n]

    def encode(self, x: Tensor, y: Labels = None, *, steps: int = STEPS, seed: int = 0) -> Tensor:
        """Images (N, C, H, W), uint8 or in [-1, 1], to codes (N, Z) that make them, found in `steps` from a seed."""
        batch = self.given(x, y)
        with evaluating(self):
            return self.codes(batch, steps, seed)

    def starts(self, batch: Batch, seed: int) -> Tensor:
        """For each image the codes (N, K, Z), of M drawn, whose own images of its class are nearest to it."""
        starts: dict[int, Tensor] = {}
        for group in range(max(len(self.classes), 1)):
            rows = (
                torch.arange(len(batch.x), device=self.device) if batch.y is None else torch.where(batch.y == group)[0]
            )
            if not len(rows):
                continue
            y = None if batch.y is None else torch.full((DRAWN,), group, device=self.device)
            z = self.prior(DRAWN, y, generator(seed, "encode"))  # (M, Z)
            parts = torch.split(z, self.shape.together(DRAWN))
            drawn = [self.decode(part, None if y is None else y[: len(part)]) for part in parts]
            distances = torch.cdist(batch.x[rows].flatten(1), torch.cat(drawn).flatten(1))
            nearest = z[distances.topk(KEPT, largest=False).indices]  # (rows, K, Z)
            starts |= dict(zip(rows.tolist(), nearest, strict=True))
        return torch.stack([starts[row] for row in range(len(batch.x))])
