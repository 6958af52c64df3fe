"""The latent space: how many dimensions of a code are used, and whether images change smoothly between two codes.

A dimension is active when the mean of its posterior varies over images (Burda, Grosse, Salakhutdinov, "Importance
weighted autoencoders", 2016, section 5.2, https://arxiv.org/abs/1509.00519).

Smoothness is measured where images are compared, in features, along paths between codes: after the perceptual path
length of Karras, Laine, Aila, "A style-based generator architecture for generative adversarial networks", 2019,
https://arxiv.org/abs/1812.04948, but relative, so that it has no unit and does not reward a model whose images are all
alike. A path as straight and even as can be has ratio 1 and a largest step of 1. A path that jumps has one large step.

Legend: N images, Z latent, P paths, T points on a path, D features.
"""

from typing import NamedTuple

from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics.intervals import Estimate, checked

ACTIVE = 0.01  # the variance over images above which a code dimension is active (Burda et al. 2016)


class Smoothness(NamedTuple):
    """Of images along paths; 1 is ideal in both, lower is smoother."""

    detour: Estimate
    """The length of a path over the distance of its ends: at least 1."""
    largest_step: Estimate
    """The largest step of a path over its mean step: between 1 and T - 1."""


def active_dimensions(means: Tensor) -> Tensor:
    """Which code dimensions are active, by posterior means (N, Z): bool (Z,).

    It keeps to the means' own precision and device, so that a training loss can call it.
    """
    return means.var(0, correction=0) > ACTIVE


def active_units(means: Tensor) -> int:
    """How many code dimensions are active, by posterior means (N, Z).

    Errors: `DataError` for numbers that are not finite.

    >>> import torch
    >>> active_units(torch.tensor([[1.0, 0.1, 3.0], [-1.0, 0.2, 3.0]]))
    1
    """
    (means,) = checked(means=means)
    return int(active_dimensions(means).sum())


def smoothness(paths: Tensor) -> Smoothness:
    """How directly and how evenly images change along paths, by their features (P, T, D), T >= 3; means over paths.

    Errors: `DataError` for paths of fewer than 3 points, whose ends are equal, or with numbers that are not finite.

    >>> import torch
    >>> straight = torch.linspace(0, 1, 5)[None, :, None]
    >>> smoothness(straight).detour.value, smoothness(straight**2).largest_step.value
    (1.0, 1.75)
    """
    if paths.ndim != 3 or paths.shape[1] < 3:
        raise DataError(f"paths must be features (P, T, D) of 3 points or more each, not of shape {tuple(paths.shape)}")
    (points,) = checked(paths=paths.flatten(0, 1))
    points = points.reshape(paths.shape)
    steps = points.diff(dim=1).norm(dim=2)  # (P, T - 1)
    direct = (points[:, -1] - points[:, 0]).norm(dim=1)  # (P,)
    if not direct.all():
        path = int((direct == 0).nonzero()[0, 0])
        raise DataError(f"path {path} begins and ends with equal features; choose ends whose images differ")
    return Smoothness(
        detour=Estimate.of_mean(steps.sum(1) / direct),
        largest_step=Estimate.of_mean(steps.amax(1) / steps.mean(1)),
    )
