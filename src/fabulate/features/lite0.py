"""Features that know photographs: what a network trained on ImageNet makes of an image, without any training.

Three depths of EfficientNet-Lite0 (`nets/lite0.py`), each averaged over all places and divided by its length, one after
the other: the length of such a vector says how contrasty an image is, its direction what is in it.

The network saw photographs of 224x224. Images below 96 pixels are enlarged, as it finds nothing in maps of one pixel,
and those above 224 made smaller. Gray becomes three equal channels, and what is transparent lies on white.

Legend: N images, C H W image, D features.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.features.base import NetworkFeatures
from fabulate.nets.lite0 import pretrained

AFTER = (12, 14, 15)  # blocks, all at stride 32: with those at stride 16 too no outliers are told better
SMALLEST, LARGEST = 96, 224  # sides of a square image as the network sees it
RECIPE = 1  # raised when anything here makes other features of the same images
CHUNK = 50
FLATTERS = (
    "The features are of ImageNet's photographs. They can flatter: a model that learnt from ImageNet, or whose critic "
    "used such features, looks better than it is, and what ImageNet does not know is not seen. Compare with the "
    "features 'classifier' or 'encoder', which know these images."
)


class Pooled(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to features (N, 704)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pretrained()

    def forward(self, x: Tensor) -> Tensor:
        levels = self.network.pyramid(resized(coloured(x)), AFTER)
        return torch.cat([F.normalize(level.mean((2, 3))) for level in levels], dim=1)


def coloured(x: Tensor) -> Tensor:
    """Images of 1 to 4 channels as three: gray repeated, the last of 2 and of 4 channels taken for opacity over white.

    >>> clear = torch.tensor([0.5, 0.5, 0.5, -1.0]).view(1, 4, 1, 1)
    >>> coloured(clear).flatten().tolist(), coloured(torch.zeros(1, 1, 2, 2)).shape
    ([1.0, 1.0, 1.0], torch.Size([1, 3, 2, 2]))
    """
    if x.shape[1] in (2, 4):
        opacity = (x[:, -1:] + 1) / 2
        x = x[:, :-1] * opacity + (1 - opacity)
    return x.expand(-1, 3, -1, -1)


def resized(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) at the size that the network works at; their shape stays.

    >>> [tuple(resized(torch.zeros(1, 3, *size)).shape[2:]) for size in ((32, 32), (150, 150), (448, 112))]
    [(96, 96), (150, 150), (448, 112)]
    """
    side = sqrt(x.shape[2] * x.shape[3])
    scale = min(max(side, SMALLEST), LARGEST) / side
    if scale == 1:
        return x
    size = [max(1, round(scale * length)) for length in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(-1, 1)


def lite0(device: torch.device | str = "cpu") -> NetworkFeatures:
    """The features. Errors: `ConfigError` where the extra `features` is not installed, or its weights are others."""
    network = Pooled().to(device)
    found = NetworkFeatures(network, "lite0, of ImageNet", dim=704, facts={"warning": FLATTERS}, chunk=CHUNK)
    found.key = f"{found.key} {RECIPE}"
    return found
