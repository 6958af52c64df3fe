"""Which samples are nearly training images?

A copy lies much nearer to one training image than to any other. For a sample with distances d_1 <= d_2 <= ... to the
training images this is measured by

    r = d_1 / median(d_2, ..., d_21),

after the adaptive threshold of Carlini et al., "Extracting training data from diffusion models", 2023,
https://arxiv.org/abs/2301.13188: where training images lie dense, so do honest samples. It is measured twice: in the
features of the data set, and on thumbnails without brightness and contrast, moved and scaled a little. Each time the
smaller ratio of the sample and of its mirror image counts, and of both measures the smaller one, each as a multiple of
what the nearest hundredth of images held out has.

How small is too small tell the images held out, which are no copies: p is the share of them whose number is as small (a
conformal p-value: Bates et al., "Testing for outliers with conformal p-values", 2023,
https://arxiv.org/abs/2104.08279). So of honest samples at most a share `level` has p <= level, if they lie to the
training images as held-out images do. What of copies would be found is told by copies that are made (`planted`).

Legend: S samples, H held-out images, N training images, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fabulate.data import Images
from fabulate.metrics.manifold import blocks
from fabulate.pictures import Pixels, from_image, to_image
from fabulate.types import to_float

AROUND = 20  # neighbours that tell how dense training images lie
CANDIDATES = 30  # training images that are looked at again, with small changes
THUMBNAIL = 16  # pixels a side, at most
FLAT = 1e-3  # deviation below which a thumbnail shows nothing
LOW = 0.01  # share of the held-out images by whose ratio a measure's are divided
CHUNK = 1000  # training images measured at a time
TOGETHER = 64  # images that are looked at again at a time
Measure = Callable[[Tensor], Tensor]
"""From images, uint8 (N, C, H, W), to what they are compared by (N, D)."""


class Nearness(NamedTuple):
    """How near images come to training images for how dense these lie."""

    ratios: Tensor
    """(S,), 0 for an exact copy, near 1 for an image that has no nearest one."""
    nearest: Tensor
    """The number of the nearest training image: (S,) int64."""


def smaller(a: Nearness, b: Nearness) -> Nearness:
    """Of each image the smaller ratio."""
    closer = b.ratios < a.ratios
    return Nearness(torch.where(closer, b.ratios, a.ratios), torch.where(closer, b.nearest, a.nearest))


def thumbnails(images: Tensor) -> Tensor:
    """Images, uint8 (N, C, H, W), as small pictures without brightness and contrast: (N, C h w), of length 1.

    >>> thumbnails(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)).norm().round().item()
    1.0
    """
    size = [min(side, THUMBNAIL) for side in images.shape[2:]]
    small = F.interpolate(to_float(images), size, mode="area").flatten(1)
    small = small - small.mean(1, keepdim=True)
    return small / small.norm(dim=1, keepdim=True).clamp_min(FLAT * small.shape[1] ** 0.5)


def measured(images: Images, measure: Measure) -> Tensor:
    """What all images are compared by (N, D), some at a time: they may lie on the disk."""
    return torch.cat([measure(part) for part in chunks(images)])


def chunks(images: Images) -> Iterator[Tensor]:
    """All images, uint8 (B, C, H, W) at a time."""
    for rows in torch.split(torch.arange(len(images)), CHUNK):
        yield torch.from_numpy(images.pixels(rows))


def moved(images: Tensor) -> Iterator[Tensor]:
    """Images (N, C, H, W) as they are, moved by 3 % of a side in eight directions, and 10 % smaller and larger."""
    height, width = images.shape[2:]
    up, across = (max(1, round(0.03 * side)) for side in (height, width))
    x = images.float()
    wide = F.pad(x, (across, across, up, up), mode="replicate")
    for i, j in product((1, 0, 2), repeat=2):
        yield wide[:, :, i * up : i * up + height, j * across : j * across + width].to(images.dtype)
    inner_up, inner_across = max(1, round(0.05 * height)), max(1, round(0.05 * width))
    inner = x[:, :, inner_up : height - inner_up, inner_across : width - inner_across]
    outer = F.pad(x, (inner_across, inner_across, inner_up, inner_up), mode="replicate")
    for other in (inner, outer):
        yield F.interpolate(other, (height, width), mode="bilinear", antialias=True).round().to(images.dtype)


def nearness(images: Sequence[Tensor], train: Tensor) -> Nearness:
    """Of images to training images (N, D), by what they are compared by: each (S, D), first as they are, then changed.

    The nearest training image is sought among the `CANDIDATES` nearest of the first, by the smallest of all distances.
    """
    train, (first, *_) = train.double(), images
    ratios, nearest = [], []
    for block in blocks(first.double(), train):
        squares, places = block.squares.topk(min(max(CANDIDATES, AROUND + 1), len(train)), dim=1, largest=False)
        around = squares[:, 1 : AROUND + 1].sqrt().median(1).values
        # Of what is nearly 0 the rounding is large: distances are computed again, without the product.
        for part in torch.split(torch.arange(len(places)), TOGETHER):
            near = train[places[part]].float()  # (P, K, D)
            rows = part + block.rows.start
            again = torch.stack([(one[rows, None].float() - near).norm(dim=2) for one in images]).min(0).values
            least, at = again.min(1)
            ratios.append(least.double() / around[part].clamp_min(torch.finfo(torch.float64).tiny))
            nearest.append(places[part].gather(1, at[:, None])[:, 0])
    return Nearness(torch.cat(ratios), torch.cat(nearest))


class Judged(NamedTuple):
    """What is found of images."""

    p_values: Tensor
    """(S,) float64."""
    ratios: Tensor
    """(S,), by the measure in which the image is nearest; 1 is what one held-out image in a hundred has."""
    nearest: Tensor
    """The training image that it is nearest to: (S,) int64."""


class Copies:
    """Finds near copies of training images.

    `held_out`: uint8 (H, C, H, W); `features`: what images are compared by beside thumbnails.
    """

    def __init__(self, train: Images, held_out: Tensor, features: Measure) -> None:
        self.features = features
        self.train = measured(train, features), measured(train, thumbnails)
        found = self._found(held_out)
        self.low = [one.ratios.quantile(LOW).clamp_min(torch.finfo(torch.float64).tiny) for one in found]
        self.held_out = self._combined(found).ratios.sort().values

    def judge(self, images: Tensor) -> Judged:
        """p-values of images, uint8 (S, C, H, W)."""
        found = self._combined(self._found(images))
        as_near = torch.searchsorted(self.held_out, found.ratios, right=True)
        return Judged((1 + as_near).double() / (len(self.held_out) + 1), *found)

    def _found(self, images: Tensor) -> list[Nearness]:
        """By each measure, of an image or its mirror image."""
        turned = images, images.flip(3)
        by_features = [nearness([self.features(x)], self.train[0]) for x in turned]
        by_thumbnails = [nearness([thumbnails(one) for one in moved(x)], self.train[1]) for x in turned]
        return [smaller(*by_features), smaller(*by_thumbnails)]

    def _combined(self, found: Sequence[Nearness]) -> Nearness:
        """By the measure in which an image is nearer, compared with what is low for held-out images."""
        return smaller(*(Nearness(one.ratios / low, one.nearest) for one, low in zip(found, self.low, strict=True)))


def planted(images: Pixels, chance: np.random.Generator) -> dict[str, Pixels]:
    """Copies of images (N, C, H, W) as a model, or somebody who hides them, would make them, by what was done."""
    _, c, height, width = images.shape
    most = max(1, round(0.03 * max(height, width)))  # 1 pixel of 32
    edge = max(1, round(0.05 * min(height, width)))
    noise = images + chance.normal(0, 8, images.shape)
    made = {
        "exact": images,
        "noise": noise,
        "brightness": 1.15 * images.astype(np.float64) - 10,
        "mirrored": images[..., ::-1],
        "shifted": np.roll(images, (most, -most), (2, 3)),
        "cropped": [cropped(image, edge) for image in images],
    }
    if c in (1, 3):
        made["JPEG"] = [jpeg(image) for image in images]
    return {how: np.clip(np.rint(np.asarray(x)), 0, 255).astype(np.uint8) for how, x in made.items()}


def cropped(image: Pixels, edge: int) -> Pixels:
    """An image (C, H, W) without its edge, enlarged to what it was."""
    _, height, width = image.shape
    inner = to_image(np.ascontiguousarray(image[:, edge : height - edge, edge : width - edge]))
    return from_image(inner.resize((width, height), Image.Resampling.BICUBIC))


def jpeg(image: Pixels, quality: int = 60) -> Pixels:
    """An image (C, H, W) after a JPEG file."""
    file = BytesIO()
    to_image(image).save(file, "JPEG", quality=quality)
    return from_image(Image.open(file))
