"""How close two images are, pixel by pixel: mean squared error, peak signal-to-noise ratio, structural similarity.

Pixels are compared in [0, 1], as in most papers: an error of 0.01 is a tenth of the range at each pixel. The first two
are one number in two units,  PSNR = -10 log10(MSE) dB.  Neither cares whether neighbours err together, and eyes do.
Structural similarity compares means, variances and the covariance in a Gaussian window around each pixel,

    SSIM = (2 mu_x mu_y + c_1) (2 s_xy + c_2) / ((mu_x^2 + mu_y^2 + c_1) (s_x^2 + s_y^2 + c_2)),

and takes the mean over all places where the window fits, and over channels (Wang, Bovik, Sheikh, Simoncelli, "Image
quality assessment: from error visibility to structural similarity", 2004, https://doi.org/10.1109/TIP.2003.819861).

Legend: N images, C H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.errors import DataError
from fabulate.types import meant, to_float, unit

WINDOW, SIGMA = 11, 1.5  # of the paper, in pixels
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 of the paper for pixels in [0, 1], so L = 1


def mse(x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of each pair of images (N, C, H, W), uint8 or in [-1, 1], on pixels in [0, 1]: (N,).

    Errors: `DataError` for images of different shapes, as in the other functions here.

    >>> mse(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # gray against white
    tensor([0.2500], dtype=torch.float64)
    """
    x, y = _pixels(x, y)
    return (x - y).square().mean((1, 2, 3))


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each pair of images (N, C, H, W), in dB, higher is closer: (N,).

    Equal images have infinity, which a mean over images cannot hide.

    >>> psnr(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # gray against white
    tensor([6.0206], dtype=torch.float64)
    """
    return -10 * mse(x, y).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity of each pair of images (N, C, H, W), at most 1, which equal images have: (N,).

    The window is 11 pixels wide; on images with a side below 11 it is the largest odd number that fits, so that the
    numbers of 8x8 and of 32x32 images should not be compared. Nothing is padded, as in the paper's own code; libraries
    that mirror the borders differ in the second digit on small images.

    >>> x = torch.rand(2, 3, 16, 16)
    >>> ssim(x, x)
    tensor([1., 1.], dtype=torch.float64)
    """
    x, y = _pixels(x, y)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    return (light * structure).mean((1, 2, 3))


def _pixels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in [0, 1], float64."""
    if x.shape != y.shape or x.ndim != 4:
        raise DataError(
            f"images are compared in pairs, (N, C, H, W) each, but shapes are {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return unit(to_float(meant(x)).double()), unit(to_float(meant(y)).double())


def _blur(x: Tensor) -> Tensor:
    """The Gaussian mean around each place where the window fits (N, C, H', W')."""
    width = min(WINDOW, *(side - (side + 1) % 2 for side in x.shape[2:]))
    place = torch.arange(width, dtype=x.dtype, device=x.device) - width // 2
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(x, weights, groups=x.shape[1]), weights.transpose(2, 3), groups=x.shape[1])
