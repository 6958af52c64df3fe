"""Spaces: what a flow works on instead of images. It learns p(u) of u = E(x), and an image is D(u).

In `pixels` u is the image, as it is up to 32 pixels a side unless another is asked for. docs/LOG.md has the race.

`pca`. Each patch of p x p pixels is written in the orthonormal basis in which the patches of the training images have
uncorrelated coordinates, sorted by their variance (Hotelling 1933). Most of them hardly vary: the K first are kept, as
K channels of an image of one place for each patch,

    u_k = s_k q_k' (x - m),    x = m + sum over k of q_k u_k / s_k.

So a network reads and writes K numbers a place where it had C p^2, and need not learn the basis; after as many steps of
training it is further. What is left out, r = x - D(E(x)), is 0 in samples, and in the likelihood Gaussian noise of the
variance v that it has on average (probabilistic principal component analysis: Tipping, Bishop 1999,
https://doi.org/10.1111/1467-9868.00196):

    log p(x) = log p(u) + sum over k of log s_k - |r|^2 / 2v - (D - K) log(2 pi v) / 2,    for each patch.

`vae`. Latent diffusion (Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022,
https://arxiv.org/abs/2112.10752) trains an autoencoder first, which keeps of an image what is seen, and then a flow of
its latents. Theirs learns for days. This one is trained in the first part of the same run, begins where it costs
nothing, at the principal components, and learns what two networks over the grid of patches add to them,

    z = E(x) + f(x),      x = D(z + s eps) + g(z + s eps),      L = E |x - x'| + beta E z^2 / 2,

f and g zero at first. The noise, q(z | x) = N(z, s^2) with one s for all, makes the decoder blind to small errors of
the flow, and keeps latents from being numbers with an image in their last digits; the other term keeps them from
growing until no noise is felt: together they are the KL divergence to N(0, 1). When its span of the budget is over, the
weights stand still, and the flow works on u = (z - mean) / scale. With them log p(x) has a lower bound,

    log p(x) >= E_q [log N(x; x', v) + log p(u)] + (1 + log 2 pi s^2) / 2 - log scale,    for each latent,

with v the mean squared error on training images.

Legend: B batch, C H W image, p side of a patch, h w places, D = C p^2 numbers in a patch, K of them kept.
"""

from abc import ABC, abstractmethod
from math import ceil, log, pi
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import NonNegativeFloat, PositiveInt, override, spec
from fabulate.errors import ConfigError
from fabulate.models.base import Player
from fabulate.nets import Auto
from fabulate.nets.blocks import patch_for
from fabulate.nets.patches import PatchAutoencoder
from fabulate.paths import DATA_STD
from fabulate.types import Batch, BatchSource, ImageShape, some_of

LARGEST_PLAIN = 32  # pixels a side up to which images are worked on as they are
FITTED = 2**14  # patches that a basis is fitted to, about
SMALLEST_VARIANCE = 1e-6  # of a coordinate: a thousandth of a gray value; images can be exactly constant in some
MEASURED = 1000  # training images that tell the latents' mean and scale, and the error
BETA = 1e-4  # of the KL beside the mean absolute error of a number in [-1, 1]


class Space(nn.Module, ABC):
    """What a flow works on instead of images of a shape."""

    method = ""
    """What is to be said of log p(x) in this space, after a comma."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape
        """That of u, (channels, height, width)."""

    def fit(self, images: BatchSource) -> None:
        """Set what the training images tell, before the flow's first step: by default nothing."""

    def players(self) -> dict[str, Player]:
        """Who moves before the flow does: by default nobody."""
        return {}

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to u (B, *shape)."""

    @abstractmethod
    def decode(self, u: Tensor) -> Tensor:
        """u (B, *shape) to images (B, C, H, W)."""

    def rest(self, x: Tensor) -> Tensor:
        """log p(x) - log p(u) in nats: (B,)."""
        return x.new_zeros(len(x))

    def evidence(self, x: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """u (B, *shape), and what log p(x) is more than log p(u) in nats (B,): exactly, or at least and on average."""
        return self.encode(x), self.rest(x)


class PixelSpace(Space):
    """u = x."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, u: Tensor) -> Tensor:
        return u


@spec
class Pixels:
    """The pixels."""

    kind: Annotated[Literal["pixels"], tyro.conf.Suppress] = "pixels"

    def of(self, image: ImageShape) -> Space:
        """The space of images of a shape."""
        return PixelSpace(image)

    def kept(self) -> "Pixels":
        """The space of a model that is trained on in it."""
        return self


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


class LatentSpace(Space):
    """See the module's text; statistics are saved with the model's weights."""

    method = "a lower bound, with one code drawn for each image"

    mean: Tensor
    scale: Tensor
    error: Tensor
    measured: Tensor

    def __init__(self, config: "VAE", components: PCASpace) -> None:
        super().__init__(components.shape)
        self.components, self.share, self.noise = components, config.share, config.noise
        numbers = len(components.mean)
        self.autoencoder = PatchAutoencoder(numbers, self.shape.channels, width=config.width, blocks=config.blocks)
        self.register_buffer("mean", torch.zeros(self.shape.channels, 1, 1))  # of each latent
        self.register_buffer("scale", torch.tensor(1.0))  # what they are divided by so that they vary as pixels do
        self.register_buffer("error", torch.tensor(1.0))  # v, of a number of an image
        self.register_buffer("measured", torch.tensor(0))  # images that these are of

    def players(self) -> dict[str, Player]:
        return {"autoencoder": Player(self.autoencoder, self.loss, span=(0, self.share))}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean absolute error of a number, and what keeps latents from growing."""
        z = self.latents(batch.x)
        error = F.l1_loss(self.image(z + self.noise * torch.randn_like(z)), batch.x)
        return {"loss": error + BETA * z.square().mean() / 2, "error": error}

    @torch.no_grad()
    def fit(self, images: BatchSource) -> None:
        """Fit the components, and measure the latents of the autoencoder as it is now, unless it was trained before."""
        self.components.fit(images)
        if self.measured and not self.share:
            return
        chosen = some_of(images, MEASURED, "latents")
        total, squares, errors = torch.zeros_like(self.mean), torch.zeros_like(self.mean), torch.zeros_like(self.error)
        for part in torch.split(chosen, self.components.image.together(len(chosen))):
            x = images.batch(part).x.to(self.mean)
            z = self.latents(x)
            total += z.mean((0, 2, 3))[:, None, None] * len(part)
            squares += z.square().mean((0, 2, 3))[:, None, None] * len(part)
            errors += (self.image(z) - x).square().mean() * len(part)
        n = len(chosen)
        self.measured.fill_(n)
        self.mean.copy_(total / n)
        self.scale.copy_((squares / n - self.mean.square()).mean().clamp_min(SMALLEST_VARIANCE).sqrt() / DATA_STD)
        self.error.copy_((errors / n).clamp_min(SMALLEST_VARIANCE))

    def latents(self, x: Tensor) -> Tensor:
        """z for images (B, C, H, W): (B, K, h, w)."""
        return self.components.encode(x) + self.autoencoder.encoder(self.components.patches(x))

    def image(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) for z (B, K, h, w)."""
        return self.components.whole(self.components.seen(z) + self.autoencoder.decoder(z))

    def encode(self, x: Tensor) -> Tensor:
        return (self.latents(x) - self.mean) / self.scale

    def decode(self, u: Tensor) -> Tensor:
        return self.image(u * self.scale + self.mean)

    def evidence(self, x: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        z = self.latents(x)
        eps = torch.randn(z.shape, generator=chance).to(z)
        z = z + self.noise * eps
        lost = (self.image(z) - x).square().sum((1, 2, 3))
        log_p_x = -lost / (2 * self.error) - x[0].numel() / 2 * torch.log(2 * pi * self.error)
        log_q = -eps.square().sum((1, 2, 3)) / 2 - self.shape.size * (log(2 * pi * self.noise**2) / 2)
        return (z - self.mean) / self.scale, log_p_x - log_q - self.shape.size * self.scale.log()


@spec
class VAE:
    """Latents of an autoencoder, trained in the first part of the budget."""

    kind: Annotated[Literal["vae"], tyro.conf.Suppress] = "vae"
    patch: PositiveInt | None = None
    """Side of the patches that are one place each (default: what makes a grid of at most 8 by 8)."""
    keep: PositiveInt | None = None
    """Latents of each place (default: a twelfth of a patch's numbers, but 16 to 48)."""
    width: PositiveInt = 128
    """Features of encoder and decoder."""
    blocks: Annotated[int, Field(ge=0)] = 2
    """Residual blocks in each of them."""
    share: Annotated[NonNegativeFloat, Field(lt=1)] = 0.25
    """Share of the budget that the autoencoder has; 0 leaves it as it is."""
    noise: Annotated[float, Field(gt=0)] = 0.05
    """Standard deviation of the noise on latents, which vary by about 0.5, while the autoencoder learns."""
    whiten: Annotated[NonNegativeFloat, Field(le=1)] = 0.5
    """How far the variances of the components that it begins with are made equal."""

    def of(self, image: ImageShape) -> Space:
        """The space of images of a shape. Errors: `ConfigError` where more is to be kept than there is."""
        patch = self.patch or patch_for(image, tokens=8)
        numbers = image.channels * patch**2
        keep = self.keep or min(numbers, max(16, min(48, numbers // 12)))
        return LatentSpace(self, PCA(patch=patch, keep=keep, whiten=self.whiten).of(image))

    def kept(self) -> "VAE":
        """The space of a model that is trained on in it: the autoencoder stays."""
        return override(self, {"share": 0.0})


SpaceOrAuto = Annotated[Auto | Pixels | PCA | VAE, Field(discriminator="kind")]
SPACES: dict[str, type[Any]] = {cls().kind: cls for cls in (Pixels, PCA, VAE)}


def space_for(space: Auto | Pixels | PCA | VAE, image: ImageShape) -> Pixels | PCA | VAE:
    """The space as it is, or the one that suits images of a shape.

    >>> space_for(Auto(), ImageShape(3, 32, 32)).kind, space_for(Auto(), ImageShape(3, 64, 48)).kind
    ('pixels', 'pca')
    """
    if not isinstance(space, Auto):
        return space
    return Pixels() if max(image.height, image.width) <= LARGEST_PLAIN else PCA()


def reason(image: ImageShape) -> str:
    """Why images of a shape got the space that they got, in words."""
    if max(image.height, image.width) <= LARGEST_PLAIN:
        return f"{image}: up to {LARGEST_PLAIN} pixels a side nothing is gained by another"
    return f"{image}: above {LARGEST_PLAIN} pixels a side a network is further in the same time; or --space pixels"
