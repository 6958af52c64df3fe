"""The small convolutional network behind trained features, for sides from 8 to 64, gray or colour.

A first layer with a wide kernel brings any image to 8 to 16 pixels a side, so that large images cost hardly more than
small ones; three stages halve what is left while channels double, each convolution followed by batch normalisation
(Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167) and a ReLU; the mean over all places is the features. As in
ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) there is no layer of full size at the end: features do not
know where they were found.

Legend: N images, C H W image, D features.
"""

import torch
from torch import Tensor, nn

from fabulate.nets.blocks import check_sides, keep_variance
from fabulate.types import ImageShape

LARGEST_MAP = 16  # pixels a side after the first layer, at most
SMALL_IMAGE = 16  # images with no longer side have half as many features


class Trunk(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to features (N, D), D = `dim`.

    >>> trunk = Trunk(ImageShape(1, 28, 28)).eval()
    >>> trunk(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 128])

    Errors: `ConfigError` for sides outside 8..64.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        check_sides("the network of trained features", shape, otherwise=", or the features 'pixels'")
        self.shape = ImageShape(*shape)
        width = 16 if max(shape.height, shape.width) <= SMALL_IMAGE else 32
        self.dim = 4 * width
        down, across = (-(-side // LARGEST_MAP) for side in (shape.height, shape.width))
        first = nn.Conv2d(
            shape.channels,
            width,
            (2 * down + 1, 2 * across + 1),
            stride=(down, across),
            padding=(down, across),
            bias=False,
        )
        self.layers = nn.Sequential(
            *(first, nn.BatchNorm2d(width), nn.ReLU()),
            *stage(width, 2 * width),
            *stage(2 * width, 4 * width),
        )
        keep_variance(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))  # (N, D)


def stage(before: int, after: int) -> list[nn.Module]:
    """Half the size, rounded up, and then a convolution that keeps it."""
    return [
        *(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    ]
