"""Convolutions over an image's patches: the grid in which each patch is one place, with its numbers as channels.

All of it runs at the grid's resolution, where a convolution is p^2 times cheaper than on pixels. The last layer begins
at zero, so that what adds its output to something else begins as that.

Legend: B batch, h w places, D numbers in a patch.
"""

from torch import Tensor, nn

from fabulate.nets.blocks import keep_variance
from fabulate.nets.grid import Residual


class Correction(nn.Module):
    """Grids (B, inputs, h, w) to grids (B, outputs, h, w), zero before training."""

    def __init__(self, inputs: int, outputs: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)), nn.GroupNorm(1, width), nn.SiLU())
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        keep_variance(self)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(x)))


class PatchAutoencoder(nn.Module):
    """What an encoder and a decoder add to principal components: numbers of patches to latents, and back."""

    def __init__(self, numbers: int, latents: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.encoder = Correction(numbers, latents, width=width, blocks=blocks)
        self.decoder = Correction(latents, numbers, width=width, blocks=blocks)
