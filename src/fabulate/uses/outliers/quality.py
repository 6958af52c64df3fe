"""Sharpness, contrast and exposure of an image at its own size: what a network that tells things apart forgets.

A blurred dog is a dog. So that a blurred one among sharp ones is found, eleven numbers say how it was taken. Of the
gray image: its mean, the darkest and the brightest hundredth, the logarithm of its standard deviation; at three scales,
each half the size of the one before, the logarithm of the root mean square of the Laplacian; at the finest, the
logarithms of its largest value and of its median; the skewness of the gray values. Of the colours: the logarithm of
their mean distance from gray. What is transparent lies on white. Which of them go together (texture at one scale with
that at the next) is for the Mahalanobis distance to learn.

Legend: N images, C H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.features.base import coloured

SCALES = 3
FAINT = 1 / 255  # of the range of pixels: what is below is no difference
PORTION = 500  # images at a time


def quality(images: Tensor) -> Tensor:
    """Sharpness, contrast and exposure of images (N, C, H, W) in [-1, 1]: (N, 11), float64.

    >>> quality(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 11])
    """
    return torch.cat([_portion((coloured(part.float()) + 1) / 2) for part in torch.split(images, PORTION)]).double()


def _portion(x: Tensor) -> Tensor:
    gray = x.mean(1, keepdim=True)
    flat = gray.flatten(1)
    middle, deviation = flat.mean(1), flat.std(1, unbiased=False)
    skewness = ((flat - middle[:, None]).pow(3).mean(1)) / (deviation + FAINT).pow(3)
    dark, bright = flat.quantile(torch.tensor([0.01, 0.99]), dim=1)
    numbers = [middle, dark, bright, _log(deviation), skewness, _log((x - gray).abs().mean((1, 2, 3)))]
    level = gray
    for scale in range(SCALES):
        edges = _laplacian(level).abs().flatten(1)
        numbers.append(_log(edges.square().mean(1).sqrt()))
        if not scale:
            numbers += [_log(edges.amax(1)), _log(edges.median(1).values)]
        level = F.avg_pool2d(level, 2, ceil_mode=True, count_include_pad=False)
    return torch.stack(numbers, dim=1)


def _laplacian(x: Tensor) -> Tensor:
    """How much each pixel (N, 1, H, W) differs from the mean of the four beside it; outside, the border goes on."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    beside = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return x - beside / 4


def _log(x: Tensor) -> Tensor:
    return (x + FAINT).log()
