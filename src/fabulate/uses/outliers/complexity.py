"""The complexity of an image: how many nats a simple lossless code takes for it.

A likelihood is high for plain images, whatever they show, since plain images are easy to predict; so a model of clothes
gives digits more than clothes. What a code without any training saves on a plain image should be taken off (Serrà et
al., "Input complexity and out-of-distribution detection with likelihood-based generative models", 2020,
https://arxiv.org/abs/1909.11480):

    score(x) = log p(x) + L(x),         L the length of the code in nats.

The paper takes PNG or the like. The code here is of that kind, and counts all images at once. Each pixel is predicted
from those to its left and above (the median edge detector of JPEG-LS: Weinberger, Seroussi, Sapiro 2000,
https://doi.org/10.1109/83.855427), and the errors are coded by their frequencies so far (Krichevsky, Trofimov 1981,
https://doi.org/10.1109/TIT.1981.1056331), whose length has a closed form, with n errors, n_v of value v:

    L = log Gamma(n + 128) - log Gamma(128) - sum_v [log Gamma(n_v + 1/2) - log Gamma(1/2)].

Legend: N images, C H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.types import to_uint8

VALUES = 256


def code_length(images: Tensor) -> Tensor:
    """Nats (N,), float64, that images (N, C, H, W), uint8 or in [-1, 1], take in the code.

    >>> plain, noise = torch.zeros(1, 1, 16, 16), 2 * torch.rand(1, 1, 16, 16) - 1
    >>> bool(code_length(plain) < code_length(noise))
    True
    """
    errors = prediction_errors(to_uint8(images).cpu().long()).flatten(1)  # (N, n)
    counts = torch.zeros(len(errors), VALUES, dtype=torch.int64).scatter_add_(1, errors, torch.ones_like(errors))
    half, prior = torch.tensor(0.5, dtype=torch.float64), torch.tensor(VALUES / 2, dtype=torch.float64)
    coded = torch.lgamma(counts.double() + half) - torch.lgamma(half)
    return torch.lgamma(errors.shape[1] + prior) - torch.lgamma(prior) - coded.sum(1)


def prediction_errors(pixels: Tensor) -> Tensor:
    """The error of each pixel's prediction, modulo 256, of images (N, C, H, W) int64; outside them all is 0."""
    padded = F.pad(pixels, (1, 0, 1, 0))
    left, above, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    low, high = torch.minimum(left, above), torch.maximum(left, above)
    guess = torch.where(corner >= high, low, torch.where(corner <= low, high, left + above - corner))
    return (pixels - guess) % VALUES
