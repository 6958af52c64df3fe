"""Random changes of images: so that a network which sees few of them learns what they have in common.

Each image of a batch has a change of its own; nothing loops over images. Random numbers come from the (CPU) generator
that is given, or else from torch's global one, on the images' device. What a change leaves as it is depends on its use:

    a critic (`augment`)       sees real and generated images changed alike, so that it cannot memorise the real ones,
                               and the generator learns through the change (Zhao et al., "Differentiable augmentation
                               for data-efficient GAN training", 2020, https://arxiv.org/abs/2006.10738, whose
                               strengths these are). Outside the image is 0, mid-gray.
    a classifier, an encoder   learns from `shift`, `flip`, `zoom`, `light`, `noise`, which leave the class as it is,
                               or from two of many by chance (`randaugment`). Outside the image its border goes on, so
                               that a dark background stays dark.
    a description of normals   learns from `with_variants`: each normal as another hand would have drawn it (Simard,
                               LeCun, Denker, "Efficient pattern recognition using a new transformation distance", 1992,
                               https://proceedings.neurips.cc/paper/1992/hash/26408ffa703a72e8ac0117e74ad46f33-Abstract.html).
                               Resampling blurs; lines bear that, the textures of photographs do not.

Legend: B batch, N images, C H W image.
"""

from collections.abc import Callable
from math import pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.errors import ConfigError
from fabulate.seeds import generator as generator_at

REACH = 8  # a shift is at most this part of the side
SHIFT = 1 / 28  # of a variant, as a part of the side, each way: a pixel of 28
TURN = 8 * pi / 180
STRETCH, SLANT = 0.08, 0.1  # of each side, and of a side for each side
MOST_TURN, MOST_SHEAR, MOST_STRETCH = 15 * pi / 180, 0.2, 0.2  # of `randaugment`
ERASED = 0.35  # of each side


def translate(x: Tensor, down: Tensor, across: Tensor, border: bool) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels (B,); what comes in is the border gone on, or 0."""
    for side, moved in ((2, down), (3, across)):
        places = torch.arange(x.shape[side], device=x.device)
        source = places - moved[:, None]  # (B, side): where each pixel comes from
        source = source.clamp(0, len(places) - 1) if border else source
        # A matrix of ones where a pixel goes: gradients are products too, which add in a fixed order.
        matrix = (places[:, None] == source[:, None]).to(x.dtype)[:, None]  # (B, 1, from, to)
        x = x @ matrix if side == 3 else matrix.mT @ x
    return x


def warp(x: Tensor, matrices: Tensor) -> Tensor:
    """Images (B, C, H, W) resampled by affine maps (B, 2, 3) of places in [-1, 1]; outside, their border goes on."""
    grid = F.affine_grid(matrices.to(x), list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


# For classifiers and encoders


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels, up to an eighth of the side each way: 1 of 8, 3 of 28, 4 of 32."""
    down, across = (
        torch.randint(-most, most + 1, (len(x),), generator=generator).to(x.device)
        for most in (max(1, side // REACH) for side in x.shape[2:])
    )
    return translate(x, -down, -across, border=True)


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), half of them mirrored left to right."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored.to(x.device), x.flip(3), x)


def zoom(x: Tensor, generator: torch.Generator, smallest: float = 0.6) -> Tensor:
    """A part of each image (B, C, H, W), anywhere, its sides `smallest` to 1 of the image's, brought to full size."""
    scale = smallest + (1 - smallest) * torch.rand(len(x), 2, generator=generator)  # (B, 2), of width and height
    centre = (2 * torch.rand(len(x), 2, generator=generator) - 1) * (1 - scale)
    return warp(x, torch.cat([torch.diag_embed(scale), centre[:, :, None]], dim=2))


def light(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) with other brightness and contrast, and colours where they have three channels."""
    channels = torch.rand(2, len(x), x.shape[1], 1, 1, generator=generator).to(x.device) - 0.5
    brightness, contrast = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device) - 0.5
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * (1 + contrast + 0.4 * channels[0]) + 0.8 * brightness + 0.4 * channels[1]


def noise(x: Tensor, generator: torch.Generator, most: float = 0.2) -> Tensor:
    """Images (B, C, H, W) with Gaussian noise, its standard deviation 0 to `most` (of the range -1 to 1)."""
    deviation = most * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x + (deviation * torch.randn(x.shape, generator=generator)).to(x.device)


def shifts(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) moved, and colour ones mirrored: what hardly any class minds."""
    x = shift(x, generator)
    return flip(x, generator) if x.shape[1] >= 3 else x


def randaugment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) after `shifts`, each then in two of five ways: turned, sheared, stretched, lit, erased.

    After Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020,
    https://arxiv.org/abs/1909.13719, with two changes of moderate strength and without those that undo a drawing
    (inversion, posterising).
    """
    x = shifts(x, generator)
    chosen = torch.rand(len(x), 5, generator=generator).argsort(1).argsort(1) < 2  # (B, 5)
    turn, shear, wide, high = (2 * torch.rand(4, len(x), generator=generator) - 1) * torch.stack(
        [chosen[:, 0], chosen[:, 1], chosen[:, 2], chosen[:, 2]]
    )
    cos, sin = torch.cos(MOST_TURN * turn), torch.sin(MOST_TURN * turn)
    wide, high = 1 + MOST_STRETCH * wide, 1 + MOST_STRETCH * high
    still = torch.zeros(len(x))
    above = torch.stack([cos * wide, MOST_SHEAR * shear - sin * high, still], dim=1)
    x = warp(x, torch.stack([above, torch.stack([sin * wide, cos * high, still], dim=1)], dim=1))
    lit, whole = light(x, generator), x
    x = torch.where(chosen[:, 3, None, None, None].to(x.device), lit, x)
    places = torch.rand(2, len(x), 1, 1, generator=generator).to(x.device)
    down, across = (torch.arange(side, device=x.device) / side for side in x.shape[2:])
    inside = ((down[:, None] - places[0]).abs() < ERASED / 2) & ((across - places[1]).abs() < ERASED / 2)  # (B, H, W)
    inside &= chosen[:, 4, None, None].to(x.device)
    return torch.where(inside[:, None], whole.mean((2, 3), keepdim=True), x)


# For a critic: differentiable, from the global generator, which the training loop seeds


def colour(x: Tensor) -> Tensor:
    """Brightness + U(-1/2, 1/2), saturation times U(0, 2), contrast times U(1/2, 3/2); gray has no saturation."""
    brightness, saturation, contrast = (torch.rand(3, len(x), 1, 1, 1, device=x.device) - 0.5).to(x.dtype)
    x = x + brightness
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (1 + 2 * saturation)
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * (1 + contrast)


def translation(x: Tensor) -> Tensor:
    """Moved by whole pixels, up to an eighth of the side each way; 0 comes in."""
    down, across = (
        torch.randint(-most, most + 1, (len(x),), device=x.device)
        for most in (int(side / REACH + 0.5) for side in x.shape[2:])
    )
    return translate(x, down, across, border=False)


def cutout(x: Tensor) -> Tensor:
    """A rectangle of half the sides, its centre anywhere, is 0."""
    inside = x.new_ones(len(x), 1, 1, 1, dtype=torch.bool)
    for side in (2, 3):
        n = x.shape[side]
        length = int(n / 2 + 0.5)
        first = torch.randint(0, n + (length % 2 == 0), (len(x), 1, 1, 1), device=x.device) - length // 2
        places = torch.arange(n, device=x.device).view(-1, 1) if side == 2 else torch.arange(n, device=x.device)
        inside = inside & (first <= places) & (places < first + length)
    return x * ~inside


Change = Literal["colour", "shift", "cutout"]
CHANGES: dict[Change, Callable[[Tensor], Tensor]] = {"colour": colour, "shift": translation, "cutout": cutout}


def augment(x: Tensor, changes: tuple[Change, ...]) -> Tensor:
    """Images (B, C, H, W) after random changes, one after the other; differentiable."""
    for change in changes:
        x = CHANGES[change](x)
    return x


# For a description of normals


def with_variants(images: Tensor, n: int, seed: int) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], then `n` of each a little moved, turned and stretched: ((n + 1) N, C, H, W).

    >>> with_variants(torch.zeros(5, 1, 8, 8), 2, seed=0).shape
    torch.Size([15, 1, 8, 8])

    Errors: `ConfigError` for rows (N, D), and for less than 0.
    """
    if n < 0 or (n and images.ndim != 4):
        raise ConfigError(f"variants are slightly moved copies of each image, 0 or more, none of rows; given {n}")
    return torch.cat([images, *(bent(images, generator_at(seed, "variants", i)) for i in range(n))])


def bent(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), each with a move, turn, slant and stretch of its own."""
    across, down, turn, slant, wide, high = 2 * torch.rand(6, len(images), generator=generator) - 1
    cos, sin = torch.cos(TURN * turn), torch.sin(TURN * turn)
    wide, high = torch.exp(STRETCH * wide), torch.exp(STRETCH * high)
    above = torch.stack([cos * wide, SLANT * slant - sin * high, 2 * SHIFT * across], dim=1)
    below = torch.stack([sin * wide, cos * high, 2 * SHIFT * down], dim=1)
    return warp(images, torch.stack([above, below], dim=1))
