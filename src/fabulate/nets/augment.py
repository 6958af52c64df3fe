"""Differentiable augmentation: a critic that sees images only after random changes cannot learn them by heart.

With few images a critic soon knows each of them, and then tells the generator nothing about what they have in common.
Changing only the real images would teach the generator the changes. So real and fake are changed alike, before every
look of the critic's, and the generator learns through the change (Zhao et al., "Differentiable augmentation for
data-efficient GAN training", 2020, https://arxiv.org/abs/2006.10738, whose strengths these are):

    D(x), D(G(z))   become   D(T(x)), D(T(G(z))).

Each image has a change of its own, drawn from torch's global generator, which the training loop seeds. A strength of 0
is the identity. Outside the image is 0, mid-gray.

Legend: B batch, C H W image.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def colour(x: Tensor, strength: float = 1.0) -> Tensor:
    """Brightness + U(-1/2, 1/2), saturation times U(0, 2), contrast times U(1/2, 3/2); gray has no saturation."""
    brightness, saturation, contrast = (strength * (torch.rand(3, len(x), 1, 1, 1, device=x.device) - 0.5)).to(x.dtype)
    x = x + brightness
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (1 + 2 * saturation)
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * (1 + contrast)


def shift(x: Tensor, strength: float = 1.0) -> Tensor:
    """Moved by whole pixels, up to an eighth of the side each way."""
    for side in (2, 3):
        n = x.shape[side]
        most = int(strength * n / 8 + 0.5)
        moved = torch.randint(-most, most + 1, (len(x), 1, 1), device=x.device)
        places = torch.arange(n, device=x.device)
        # A matrix of ones where a pixel goes: gradients are products too, which add in a fixed order.
        matrix = (places[:, None] == places - moved).to(x.dtype)[:, None]  # (B, 1, from, to)
        x = x @ matrix if side == 3 else matrix.mT @ x
    return x


def cutout(x: Tensor, strength: float = 1.0) -> Tensor:
    """A rectangle of half the sides, its centre anywhere, is gone."""
    inside = x.new_ones(len(x), 1, 1, 1, dtype=torch.bool)
    for side in (2, 3):
        n = x.shape[side]
        length = int(strength * n / 2 + 0.5)
        first = torch.randint(0, n + (length % 2 == 0), (len(x), 1, 1, 1), device=x.device) - length // 2
        places = torch.arange(n, device=x.device).view(-1, 1) if side == 2 else torch.arange(n, device=x.device)
        inside = inside & (first <= places) & (places < first + length)
    return x * ~inside


Change = Literal["colour", "shift", "cutout"]
CHANGES: dict[Change, Callable[[Tensor], Tensor]] = {"colour": colour, "shift": shift, "cutout": cutout}


def augment(x: Tensor, changes: tuple[Change, ...]) -> Tensor:
    """Images (B, C, H, W) after random changes, one after the other; differentiable."""
    for change in changes:
        x = CHANGES[change](x)
    return x
