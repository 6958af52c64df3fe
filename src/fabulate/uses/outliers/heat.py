"""Heat maps: where does an image depart from what a model of normals makes of it?

The reconstruction is the model's, where the detector has one that reconstructs; else that of a linear autoencoder, the
projection on the first principal components of the normals. A pixel's heat is its reconstruction error, averaged over
channels and over a square around it, in units of what normals show at that pixel. So edges, where every reconstruction
errs, are not hot.

Legend: N images, C H W image, Q components.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from fabulate.pictures import Pixels, in_colour, pairs
from fabulate.seeds import seeded
from fabulate.uses.outliers.features import State

COMPONENTS, NUMBERS = 32, 4_000_000  # of a linear autoencoder, at most; and numbers of them all: 16 MB of a file
AROUND = 3  # the side of the square, in pixels
HOTTEST = 8.0  # times what normals show: full colour from here on
COLD = 2.0  # no colour up to here
LEAST = 0.1  # of the mean error: a pixel that never errs on normals would be infinitely hot at the first speck


def fit_linear(images: Tensor, seed: int) -> State:
    """The mean (C H W,) and the principal components (C H W, Q) of normals (N, C, H, W)."""
    x = images.flatten(1)
    mean = x.mean(0)
    with seeded(seed, "linear"):
        q = min(COMPONENTS, max(1, NUMBERS // x.shape[1]), *x.shape)
        components = torch.svd_lowrank(x - mean, q=q, niter=4)[2]
    return {"mean": mean, "components": components}


def linear_reconstructions(state: State, images: Tensor) -> Tensor:
    """The projections (N, C, H, W) of images on the components."""
    x = images.flatten(1) - state["mean"]
    return (state["mean"] + x @ state["components"] @ state["components"].T).view(images.shape)


def errors(images: Tensor, reconstructions: Tensor) -> Tensor:
    """The root of the mean squared error around each pixel (N, H, W)."""
    squares = (images.double() - reconstructions.double()).square().mean(1, keepdim=True)
    return F.avg_pool2d(squares, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)[:, 0].sqrt()


def usual(found: Tensor) -> Tensor:
    """What errors (N, H, W) of normals are like at each pixel (H, W), never near 0."""
    mean = found.mean(0)
    return mean.clamp(min=max(LEAST * float(mean.mean()), 1e-6))


def painted(images: Pixels, heat: npt.NDArray[np.float64]) -> Pixels:
    """Images (N, C, H, W) in gray, red where they are hot (N, H, W): (N, 3, H, W)."""
    gray = in_colour(images).mean(1, keepdims=True).repeat(3, axis=1)
    share = np.clip((heat - COLD) / (HOTTEST - COLD), 0, 1)[:, None]
    red = np.array([235.0, 60.0, 30.0])[None, :, None, None]
    return np.rint(gray + (red - gray) * 0.85 * share).astype(np.uint8)


def gallery(images: Pixels, heat: npt.NDArray[np.float64]) -> Image:
    """A picture of images (N, C, H, W), the strangest first, above their heat maps (N, H, W)."""
    legend = "the strangest first; below each, red where it departs from what is normal"
    return pairs(in_colour(images), painted(images, heat), "Outliers", legend, ("image", "heat map"))
