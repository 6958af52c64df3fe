"""The latents of an autoencoder as a space, trained in the first part of the same run (latent diffusion).

Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022, https://arxiv.org/abs/2112.10752,
train an autoencoder first, which keeps of an image what is seen, and then a flow of its latents. Theirs learns for
days. This one begins where it costs nothing, at the principal components of patches (`pca.py`), and learns what two
networks over the grid of patches add to them,

    z = E(x) + f(x),      x = D(z + s eps) + g(z + s eps),      L = E |x - x'| + beta E z^2 / 2,

f and g zero at first. The noise, q(z | x) = N(z, s^2) with one s for all, makes the decoder blind to small errors of
the flow, and keeps latents from being numbers with an image in their last digits; the other term keeps them from
growing until no noise is felt: together they are the KL divergence to N(0, 1). When its span of the budget is over, the
weights stand still, and the flow works on u = (z - mean) / scale. With them log p(x) has a lower bound,

    log p(x) >= E_q [log N(x; x', v) + log p(u)] + (1 + log 2 pi s^2) / 2 - log scale,    for each latent,

with v the mean squared error on training images.

Legend: B batch, C H W image, K latents of each place.
"""

from math import log, pi
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, override, spec
from fabulate.models.base import Player
from fabulate.models.spaces.base import Space
from fabulate.models.spaces.pca import PCA, SMALLEST_VARIANCE, PCASpace
from fabulate.nets.blocks import patch_for
from fabulate.nets.patches import PatchAutoencoder
from fabulate.paths import DATA_STD
from fabulate.types import Batch, BatchSource, ImageShape, some_of

MEASURED = 1000  # training images that tell the latents' mean and scale, and the error
BETA = 1e-4  # of the KL beside the mean absolute error of a number in [-1, 1]


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
