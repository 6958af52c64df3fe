"""The autoencoder: learn to copy images through a narrow code.

An encoder e maps an image to a code z of few numbers, a decoder d maps it back, and both learn by the error of the
reconstruction

    L = mean (x - d(e(x)))^2                                    x in [0, 1].

What the code cannot hold is lost, so it keeps what matters. With linear layers the best code spans the principal
components (Baldi, Hornik 1989, https://doi.org/10.1016/0893-6080(89)90014-2). With noise > 0 the encoder sees
x + noise * eps and the decoder must still give the clean x: a denoising autoencoder, whose code cannot lean on single
pixels (Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294).

An autoencoder has no p(z) and so does not say how to sample. Ours fits a mixture of Gaussians to the codes of the
training images, of each class when it is conditional, once the weights stand still, and samples codes from it (Ghosh et
al. 2020, https://arxiv.org/abs/1903.12436). Whether images decoded from there look real is not part of the loss: the
gap that the VAE closes.

Legend: B batch, C H W image, Z latent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, Preset, Training, override, spec
from fabulate.models.base import Conditional, Labels, Player
from fabulate.models.capabilities import Encodes, Scores
from fabulate.models.mixture import Mixture, encoded
from fabulate.nets import MLP, Auto, Conv, NetworkOrAuto, network_for
from fabulate.types import Batch, BatchSource, ImageShape, unit


@spec
class AEConfig:
    """An autoencoder, plain or denoising."""

    latent_dim: PositiveInt = 32
    """Numbers in a code."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of the noise added to the input, in pixels of [0, 1]; above 0 the model denoises."""
    components: PositiveInt = 20
    """Gaussians in the mixture that codes are sampled from (of each class), at most."""
    network: NetworkOrAuto = Auto()
    """Encoder and decoder."""


class AE(Encodes, Scores, Conditional, family="ae"):
    """Autoencoder (Hinton, Salakhutdinov 2006, https://doi.org/10.1126/science.1127647)."""

    Config = AEConfig
    units = {"loss": "mean squared error"}
    presets = {
        "default": Preset(AEConfig(), Training(epochs=200, lr=3e-3)),  # few images: stop before they are memorised
        "tutorial": Preset(
            AEConfig(latent_dim=64, components=1, network=MLP(hidden=(128,), activation="relu")),
            Training(
                epochs=10, steps=None, batch_size=128, lr=1e-3, schedule="constant", warmup=0, ema=0, validation=0
            ),
        ),
    }

    networks = {"mlp": MLP(), "conv": Conv(norm="group", activation="silu")}

    config: AEConfig

    def __init__(self, config: AEConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        network = network_for(config.network, shape, self.networks)
        super().__init__(override(config, {"network": network}), shape, classes)
        if isinstance(network, Conv):
            self.usual_optimizer = "muon"
        self.encoder = network.encoder(self.shape, config.latent_dim, len(classes))
        self.decoder = network.decoder(config.latent_dim, self.shape, len(classes))
        self.mixture = Mixture(config.latent_dim, config.components, max(len(classes), 1))

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean squared error of reconstructions, pixels in [0, 1]."""
        x = unit(batch.x)
        noisy = x + self.config.noise * torch.randn_like(x) if self.training and self.config.noise else x
        z = self.encoder(noisy, batch.y)  # (B, Z)
        reconstruction = torch.sigmoid(self.decoder(z, batch.y))
        return {"loss": F.mse_loss(reconstruction, x)}

    def fit_latents(self, images: BatchSource) -> None:
        self.mixture.fit(*encoded(self, images, self.codes))

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.mixture.draw(n, y, generator)

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        return self.mixture.from_noise(noise, choice, y)

    def codes(self, batch: Batch) -> Tensor:
        return self.encoder(unit(batch.x), batch.y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return 2 * torch.sigmoid(self.decoder(z, y)) - 1

    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        """Minus the mean squared error of the reconstruction, pixels in [0, 1]."""
        return -(unit(self.reconstruct(x, y)) - unit(self.given(x, y).x)).square().mean((1, 2, 3))
