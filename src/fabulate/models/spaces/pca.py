"""Principal components of patches as a space.

Each patch of p x p pixels is written in the orthonormal basis in which the patches of the training images have
uncorrelated coordinates, sorted by their variance (Hotelling 1933). Most of them hardly vary: the K first are kept, as
K channels of an image of one place for each patch,

    u_k = s_k q_k' (x - m),    x = m + sum over k of q_k u_k / s_k.

So a network reads and writes K numbers a place where it had C p^2, and need not learn the basis; after as many steps of
training it is further (docs/LOG.md has the race). What is left out, r = x - D(E(x)), is 0 in samples, and in the
likelihood Gaussian noise of the variance v that it has on average (probabilistic principal component analysis: Tipping,
Bishop 1999, https://doi.org/10.1111/1467-9868.00196):

    log p(x) = log p(u) + sum over k of log s_k - |r|^2 / 2v - (D - K) log(2 pi v) / 2,    for each patch.

Legend: B batch, C H W image, p side of a patch, h w places, D = C p^2 numbers in a patch, K of them kept.
"""

from math import ceil, pi
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, spec
from fabulate.errors import ConfigError
from fabulate.models.spaces.base import Space
from fabulate.nets.blocks import patch_for
from fabulate.paths import DATA_STD
from fabulate.types import BatchSource, ImageShape, some_of

FITTED = 2**14  # patches that a basis is fitted to, about
SMALLEST_VARIANCE = 1e-6  # of a coordinate: a thousandth of a gray value; images can be exactly constant in some


class PCASpace(Space):
    """See the module's text; what it holds is saved with the model's weights."""

    mean: Tensor
    basis: Tensor
    variance: Tensor
    left: Tensor
    fitted: Tensor

    def __init__(self, patch: int, keep: int, whiten: float, image: ImageShape) -> None:
        places = [ceil(side / patch) for side in (image.height, image.width)]  # sides are filled up to whole patches
        super().__init__(ImageShape(keep, *places))
        self.patch, self.whiten, self.image = patch, whiten, image
        numbers = image.channels * patch**2
        self.register_buffer("mean", torch.zeros(numbers))
        basis = torch.zeros(numbers, keep)
        basis.diagonal().fill_(1)  # as in `Mixture`: without torch.eye
        self.register_buffer("basis", basis)  # (D, K), a component in each column
        self.register_buffer("variance", torch.ones(keep))  # of the components kept, falling
        self.register_buffer("left", torch.tensor(1.0))  # v, of each of the others on average
        self.register_buffer("fitted", torch.tensor(0))  # images that these are of

    @property
    def scale(self) -> Tensor:
        """What the components are multiplied by (K,): var^(-whiten / 2), so that u varies as pixels do."""
        factor = self.variance ** (-self.whiten / 2)
        return factor * DATA_STD / (self.variance * factor.square()).mean().sqrt()

    def fit(self, images: BatchSource) -> None:
        """Find the components. Those that are there stay: a network was trained on them."""
        if self.fitted:
            return
        from scipy.linalg import eigh  # late: it takes a while to import

        keep, height, width = self.shape
        chosen = some_of(images, ceil(FITTED / (height * width)), "basis")
        self.fitted.fill_(len(chosen))
        n, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros(2 * self.mean.shape).double()
        for part in torch.split(chosen, self.image.together(len(chosen))):
            patches = self.patches(images.batch(part).x.to(self.mean)).cpu().double()
            rows = patches.movedim(1, -1).flatten(0, 2)  # (n, D)
            n, total, squares = n + len(rows), total + rows.sum(0), squares + rows.T @ rows
        mean = total / n
        covariance = squares / n - mean.outer(mean)
        numbers = len(mean)
        variance, basis = eigh(covariance.numpy(), subset_by_index=(numbers - keep, numbers - 1))  # rising
        left = (covariance.trace() - variance.sum()) / max(numbers - keep, 1)
        self.mean.copy_(mean)
        self.basis.copy_(torch.from_numpy(basis[:, ::-1].copy()))
        self.variance.copy_(torch.from_numpy(variance[::-1].copy()).clamp_min(SMALLEST_VARIANCE))
        self.left.copy_(left.clamp_min(SMALLEST_VARIANCE))

    def patches(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) cut into patches (B, D, h, w)."""
        fill = (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch)
        return F.pixel_unshuffle(F.pad(x, fill, mode="replicate"), self.patch)

    def encode(self, x: Tensor) -> Tensor:
        u = torch.einsum("bdhw,dk->bkhw", self.patches(x) - self.mean[:, None, None], self.basis)
        return u * self.scale[:, None, None]

    def seen(self, u: Tensor) -> Tensor:
        """The patches (B, D, h, w) that u has."""
        return torch.einsum("bkhw,dk->bdhw", u, self.basis / self.scale) + self.mean[:, None, None]

    def decode(self, u: Tensor) -> Tensor:
        return self.whole(self.seen(u))

    def whole(self, patches: Tensor) -> Tensor:
        """Patches (B, D, h, w) put together to images (B, C, H, W)."""
        return F.pixel_shuffle(patches, self.patch)[:, :, : self.image.height, : self.image.width]

    def rest(self, x: Tensor) -> Tensor:
        keep, height, width = self.shape
        lost = (self.patches(x) - self.seen(self.encode(x))).square().sum((1, 2, 3))
        noise = (len(self.mean) - keep) * torch.log(2 * pi * self.left)
        return -lost / (2 * self.left) + height * width * (self.scale.log().sum() - noise / 2)


@spec
class PCA:
    """Principal components of patches."""

    kind: Annotated[Literal["pca"], tyro.conf.Suppress] = "pca"
    patch: PositiveInt | None = None
    """Side of a patch (default: what makes a grid of at most 8 by 8)."""
    keep: PositiveInt | None = None
    """Components kept of each patch, at most all (default: a quarter of its numbers, but 32 to 64)."""
    whiten: Annotated[NonNegativeFloat, Field(le=1)] = 0.5
    """How far the variances of components are made equal: 0 leaves them as they are, 1 makes them equal."""

    def of(self, image: ImageShape) -> "PCASpace":
        """The space of images of a shape. Errors: `ConfigError` where more is to be kept than there is."""
        patch = self.patch or patch_for(image, tokens=8)
        numbers = image.channels * patch**2
        keep = self.keep or min(numbers, max(32, min(64, numbers // 4)))
        if keep > numbers:
            raise ConfigError(
                f"a patch of {patch}x{patch} pixels has {numbers} components; --space.keep {keep} is more"
            )
        return PCASpace(patch, keep, self.whiten, image)

    def kept(self) -> "PCA":
        """The space of a model that is trained on in it."""
        return self
