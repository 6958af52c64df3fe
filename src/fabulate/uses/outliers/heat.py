"""Heat maps: where does an image depart from what a model of normals makes of it?

The copy is the model's, where the detector has one that copies; else that of a linear autoencoder, the projection on
the first principal components of the normals. A pixel's heat is the error of its copy, averaged over channels and over
a square around it, in units of what normals show at that pixel. So edges, where every copy errs, are not hot.

Legend: N images, C H W image, Q components.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.seeds import seeded
from fabulate.uses.outliers.views import State

COMPONENTS = 32
AROUND = 3  # the side of the square, in pixels
LEAST = 0.1  # of the mean error: a pixel that never errs on normals would be infinitely hot at the first speck


def fit_linear(images: Tensor, seed: int) -> State:
    """The mean (C H W,) and the principal components (C H W, Q) of normals (N, C, H, W)."""
    x = images.flatten(1)
    mean = x.mean(0)
    with seeded(seed, "linear"):
        q = min(COMPONENTS, *x.shape)
        components = torch.svd_lowrank(x - mean, q=q, niter=4)[2]
    return {"mean": mean, "components": components}


def linear_copies(state: State, images: Tensor) -> Tensor:
    """The projections (N, C, H, W) of images on the components."""
    x = images.flatten(1) - state["mean"]
    return (state["mean"] + x @ state["components"] @ state["components"].T).view(images.shape)


def errors(images: Tensor, copies: Tensor) -> Tensor:
    """The root of the mean squared error around each pixel (N, H, W)."""
    squares = (images.double() - copies.double()).square().mean(1, keepdim=True)
    return F.avg_pool2d(squares, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)[:, 0].sqrt()


def usual(found: Tensor) -> Tensor:
    """What errors (N, H, W) of normals are like at each pixel (H, W), never near 0."""
    mean = found.mean(0)
    return mean.clamp(min=max(LEAST * float(mean.mean()), 1e-6))
