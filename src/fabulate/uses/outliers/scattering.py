"""Features of images that nothing has to learn: a scattering transform.

Wavelets psi of scale 2^j and direction theta find the edges of an image, the modulus forgets where exactly they are,
and an average over 2^J pixels, phi, forgets it some more; a second pass keeps what the first average lost:

    S x = { x * phi,   |x * psi_1| * phi,   ||x * psi_1| * psi_2| * phi },    scales j_1 < j_2 < J.

Small shifts and bends of an image hardly move S x, and images of one kind lie close to an affine space of few
dimensions. Distances to such spaces, one for each class and fitted to that class alone, told digits apart better than
any network of its day (Bruna, Mallat, "Invariant scattering convolution networks", 2013,
https://arxiv.org/abs/1203.1513): just what a detector needs that knows one kind only.

The filters are Morlet wavelets with the constants of the paper's own software, applied as products of Fourier
transforms; what has been smoothed to 2^j pixels is kept on every 2^j-th pixel only, by folding its spectrum.

Legend: N images, C H W image, P the sides after padding, K paths (channels of S), D features.
"""

from functools import lru_cache
from math import cos, log2, pi, sin

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.types import to_float, unit

DIRECTIONS = 4  # with 6 letters and digits are told apart no better, in twice the time
ROWS = 8  # about so many places a side are left of an image
SIGMA, XI = 0.8, 3 * pi / 4  # width in pixels, and frequency, of the finest wavelet
PORTION = 50  # images at a time


def scattering(images: Tensor) -> Tensor:
    """Images (N, C, H, W), uint8 or floats in [-1, 1], to features (N, D), float32.

    >>> scattering(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 80])
    """
    return torch.cat([_portion(unit(to_float(part).float())) for part in torch.split(images, PORTION)])


def octaves(height: int, width: int) -> int:
    """How often an image is halved, J: at least once.

    >>> octaves(8, 8), octaves(28, 28), octaves(64, 64)
    (1, 2, 3)
    """
    return max(1, round(log2(min(height, width) / ROWS)))


def _portion(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    levels = octaves(height, width)
    down, across = (-side % 2**levels + 2**levels for side in (height, width))  # half of them on each side
    x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate")
    wavelets, average = filters(x.shape[2], x.shape[3], levels)
    spectrum = torch.fft.fft2(x)[:, :, None]  # (N, C, 1, P, P)
    found = [_smooth(spectrum, average, 0, levels)]
    for first in range(levels):
        edges = torch.fft.fft2(_modulus(spectrum, wavelets[first], 0, first))  # (N, C, L, P / 2^j, P / 2^j)
        found.append(_smooth(edges, average, first, levels))
        for second in range(first + 1, levels):
            corners = _modulus(edges[:, :, :, None], wavelets[second], first, second).flatten(2, 3)
            found.append(_smooth(torch.fft.fft2(corners), average, second, levels))
    paths = torch.cat(found, dim=2)  # (N, C, K, rows, columns)
    rows, columns = (-(-side // 2**levels) for side in (height, width))
    top, left = (paths.shape[3] - rows) // 2, (paths.shape[4] - columns) // 2
    return paths[..., top : top + rows, left : left + columns].reshape(n, -1)


def _modulus(spectrum: Tensor, wavelets: Tensor, before: int, after: int) -> Tensor:
    """|x * psi| for all directions, on every 2^after-th pixel, of a spectrum on every 2^before-th."""
    return torch.fft.ifft2(_product(spectrum, wavelets, before, after)).abs()


def _smooth(spectrum: Tensor, average: Tensor, before: int, after: int) -> Tensor:
    """x * phi on every 2^after-th pixel, of a spectrum on every 2^before-th."""
    return torch.fft.ifft2(_product(spectrum, average, before, after)).real


def _product(spectrum: Tensor, filters: Tensor, before: int, after: int) -> Tensor:
    # Leaving pixels out averages the frequencies that then look alike; a filter keeps its height.
    return _fold(spectrum * (_fold(filters, before) / 4 ** (after - before)), after - before)


def _fold(spectrum: Tensor, octaves: int) -> Tensor:
    """Frequencies that look alike on every 2^octaves-th pixel, added."""
    for _ in range(octaves):
        height, width = spectrum.shape[-2] // 2, spectrum.shape[-1] // 2
        spectrum = spectrum[..., :height, :] + spectrum[..., height:, :]
        spectrum = spectrum[..., :width] + spectrum[..., width:]
    return spectrum


@lru_cache(maxsize=8)
def filters(height: int, width: int, levels: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The spectra of the wavelets, (L, P, P) of each scale, and of the average (P, P)."""
    wavelets = tuple(
        torch.stack([_morlet(height, width, j, pi * k / DIRECTIONS) for k in range(DIRECTIONS)]) for j in range(levels)
    )
    average = _gabor(height, width, SIGMA * 2 ** (levels - 1), 0.0, 0.0, 1.0)
    return wavelets, average / average[0, 0]


def _morlet(height: int, width: int, j: int, theta: float) -> Tensor:
    """A wave of direction theta under a Gaussian, less so much of the Gaussian that its mean is 0."""
    slant = 4 / DIRECTIONS
    wave = _gabor(height, width, SIGMA * 2**j, theta, XI / 2**j, slant)
    hill = _gabor(height, width, SIGMA * 2**j, theta, 0.0, slant)
    return wave - wave[0, 0] / hill[0, 0] * hill


def _gabor(height: int, width: int, sigma: float, theta: float, xi: float, slant: float) -> Tensor:
    """The spectrum (P, P) of exp(-|u|^2 / (2 sigma^2) + i xi u_1), u turned by theta, u_2 stretched by 1 / slant."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None] * 2 * pi
    columns = torch.fft.fftfreq(width, dtype=torch.float64)[None] * 2 * pi
    total = torch.zeros(height, width, dtype=torch.float64)
    for up in (-2, -1, 0, 1, 2):  # sampled in space, a spectrum repeats every 2 pi
        for along in (-2, -1, 0, 1, 2):
            v, u = rows + 2 * pi * up, columns + 2 * pi * along
            ahead, beside = cos(theta) * u + sin(theta) * v - xi, -sin(theta) * u + cos(theta) * v
            total += torch.exp(-(sigma**2) / 2 * (ahead**2 + (beside / slant) ** 2))
    return (total * sigma**2 / slant).float()
