"""What detectors look at: rows or images, and the vectors they are compared in.

Rows come as normal scores (`normal_scores.py`). Images are floats in [-1, 1]; as vectors they are their pixels,
averaged over squares where there are too many; their scattering coefficients, of which the logarithm is taken, as a
stroke twice as strong is no other stroke; or their sharpness, contrast and exposure.

Legend: N rows or images, C H W image, D numbers, P the sides after padding, K paths (channels of S).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import cos, log2, pi, sin

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.features.base import Pixels
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import Reconstructs
from fabulate.nets.lite0 import coloured
from fabulate.types import to_float, unit
from fabulate.uses.normal_scores import REACH

State = dict[str, Tensor]
"""What was fitted to normals, by name; all of it can be written to a file."""

TOGETHER = 500  # images through a model at a time
FAINT = 1e-4  # of the range of pixels: edges below it are none
LARGEST_GRAY, LARGEST_COLOUR = 64, 32  # sides of images that are scattered: some 5,000 numbers are the most
DIRECTIONS = 4  # with 6 letters and digits are told apart no better, in twice the time
ROWS = 8  # about so many places a side are left of an image
SIGMA, XI = 0.8, 3 * pi / 4  # width in pixels, and frequency, of the finest wavelet
SCATTERED = 50  # images at a time
SCALES = 3
LEVEL = 1 / 255  # of the range of pixels: what is below is no difference


@dataclass(frozen=True)
class Inputs:
    """Rows (N, D), as normal scores, float64, or images (N, C, H, W) in [-1, 1], float32; a model of them, or None."""

    x: Tensor
    model: GenerativeModel | None = None
    deep: Tensor | None = None
    """What a network of ImageNet's photographs sees (N, 704), where a score asks: computed once, shared by all fits."""

    def __getitem__(self, rows: Tensor | slice) -> "Inputs":
        """Some of the rows or images."""
        return replace(self, x=self.x[rows], deep=None if self.deep is None else self.deep[rows])

    def __len__(self) -> int:
        return len(self.x)

    @property
    def images(self) -> Tensor:
        """What a model takes: images, or rows as images of one line (N, 1, 1, D), shrunk to about [-1, 1]."""
        return self.x if self.x.ndim == 4 else (self.x / REACH).float()[:, None, None]

    def through(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A model's function of the images, a portion at a time, on its device: float64 on the CPU."""
        assert self.model is not None
        parts = torch.split(self.images, TOGETHER)
        return torch.cat([function(part.to(self.model.device)).double().cpu() for part in parts])

    @cached_property
    def reconstructions(self) -> Tensor:
        """The model's reconstructions of the images (N, C, H, W), float64."""
        model: object = self.model
        assert isinstance(model, Reconstructs)  # `scores.named` refused other families
        return self.through(model.reconstruct)

    @cached_property
    def plain(self) -> Tensor:
        """Rows, or pixels: (N, D), float64."""
        return self.x if self.x.ndim == 2 else Pixels()(self.x).double()

    @cached_property
    def scattered(self) -> Tensor:
        """Logarithms of scattering coefficients (N, D), float64."""
        return scattered(self.x)

    @cached_property
    def photographed(self) -> Tensor:
        """The network's features (N, 704), float64."""
        assert self.deep is not None  # `OutlierDetector` computes them where a score is `deep`
        return self.deep.double()

    @cached_property
    def quality(self) -> Tensor:
        """Sharpness, contrast and exposure of images (N, 11), float64."""
        return quality(self.x)


def scattered(images: Tensor) -> Tensor:
    """The logarithms of the scattering coefficients of images (N, C, H, W): (N, D), float64."""
    larger = max(images.shape[2:])
    largest = LARGEST_GRAY if images.shape[1] == 1 else LARGEST_COLOUR
    if larger > largest:
        size = [max(1, round(side * largest / larger)) for side in images.shape[2:]]
        images = F.interpolate(images.float(), size=size, mode="area")
    return (scattering(images).abs() + FAINT).log().double()


# Scattering


def scattering(images: Tensor) -> Tensor:
    """The scattering transform of images (N, C, H, W), uint8 or floats in [-1, 1]: (N, D), float32.

    Wavelets psi of scale 2^j and direction theta find the edges of an image, the modulus forgets where exactly they
    are, and an average over 2^J pixels, phi, forgets it some more; a second pass keeps what the first average lost:

        S x = { x * phi,   |x * psi_1| * phi,   ||x * psi_1| * psi_2| * phi },    scales j_1 < j_2 < J.

    Small shifts and bends of an image hardly move S x, and images of one kind lie close to an affine space of few
    dimensions. Distances to such spaces, one for each class and fitted to that class alone, told digits apart better
    than any network of its day (Bruna, Mallat, "Invariant scattering convolution networks", 2013,
    https://arxiv.org/abs/1203.1513): just what a detector needs that knows one kind only.

    The filters are Morlet wavelets with the constants of the paper's own software, applied as products of Fourier
    transforms; what has been smoothed to 2^j pixels is kept on every 2^j-th pixel only, by folding its spectrum.

    >>> scattering(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 80])
    """
    return torch.cat([_scattering(unit(to_float(part).float())) for part in torch.split(images, SCATTERED)])


def octaves(height: int, width: int) -> int:
    """How often an image is halved, J: at least once.

    >>> octaves(8, 8), octaves(28, 28), octaves(64, 64)
    (1, 2, 3)
    """
    return max(1, round(log2(min(height, width) / ROWS)))


def _scattering(x: Tensor) -> Tensor:
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


# Sharpness, contrast and exposure


def quality(images: Tensor) -> Tensor:
    """Sharpness, contrast and exposure of images (N, C, H, W) in [-1, 1]: (N, 11), float64.

    A blurred dog is a dog to a network that tells things apart. So that it is found among sharp ones, eleven numbers
    say how an image was taken. Of the gray image: its mean, the darkest and the brightest hundredth, the logarithm of
    its standard deviation; at three scales, each half the size of the one before, the logarithm of the root mean square
    of the Laplacian; at the finest, the logarithms of its largest value and of its median; the skewness of the gray
    values. Of the colours: the logarithm of their mean distance from gray. What is transparent lies on white. Which of
    them go together (texture at one scale with that at the next) is for the Mahalanobis distance to learn.

    >>> quality(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 11])
    """
    return torch.cat([_quality((coloured(part.float()) + 1) / 2) for part in torch.split(images, TOGETHER)]).double()


def _quality(x: Tensor) -> Tensor:
    gray = x.mean(1, keepdim=True)
    flat = gray.flatten(1)
    middle, deviation = flat.mean(1), flat.std(1, unbiased=False)
    skewness = ((flat - middle[:, None]).pow(3).mean(1)) / (deviation + LEVEL).pow(3)
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
    return (x + LEVEL).log()
