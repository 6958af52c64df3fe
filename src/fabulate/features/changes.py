"""Random changes of images that leave what they show as it is: for training on more images than there are.

Each image of a batch has a change of its own, drawn from the generator that is given; nothing loops over images.
Outside the image its border goes on, so that a dark background stays dark.

Legend: B batch, C H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 8  # a shift is at most this part of the side: 1 pixel of 8, 3 of 28, 4 of 32


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels, up to an eighth of the side each way."""
    rows, columns = (_places(len(x), side, generator) for side in x.shape[2:])
    images = torch.arange(len(x))
    return x.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _places(n: int, side: int, generator: torch.Generator) -> Tensor:
    """For each image and each of its new rows the old row it is taken from: (n, side)."""
    most = max(1, side // REACH)
    moved = torch.randint(-most, most + 1, (n, 1), generator=generator)
    return (torch.arange(side) + moved).clamp(0, side - 1)


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), half of them mirrored left to right."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def zoom(x: Tensor, generator: torch.Generator, smallest: float = 0.6) -> Tensor:
    """A part of each image (B, C, H, W), anywhere, its sides `smallest` to 1 of the image's, brought to full size."""
    scale = smallest + (1 - smallest) * torch.rand(len(x), 2, generator=generator)  # (B, 2), of width and height
    centre = (2 * torch.rand(len(x), 2, generator=generator) - 1) * (1 - scale)
    moves = torch.cat([torch.diag_embed(scale), centre[:, :, None]], dim=2)  # (B, 2, 3)
    grid = F.affine_grid(moves, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def light(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) with other brightness and contrast, and colours where they have three channels."""
    channels = torch.rand(2, len(x), x.shape[1], 1, 1, generator=generator) - 0.5
    brightness, contrast = torch.rand(2, len(x), 1, 1, 1, generator=generator) - 0.5
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * (1 + contrast + 0.4 * channels[0]) + 0.8 * brightness + 0.4 * channels[1]


def noise(x: Tensor, generator: torch.Generator, most: float = 0.2) -> Tensor:
    """Images (B, C, H, W) with Gaussian noise, its deviation 0 to `most` (of the range -1 to 1)."""
    deviation = most * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x + deviation * torch.randn(x.shape, generator=generator)
