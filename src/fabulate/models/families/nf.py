"""The normalizing flow: an invertible network, so the exact likelihood of every image.

An invertible f maps images to codes of as many numbers, z = f(x), whose density is known: N(0, 1). Then the density of
the images is known too, by the change of variables,

    log p(x) = log N(f(x); 0, 1) + log |det df/dx|,

training maximises it as it stands (no bound as in the VAE, no game as in the GAN), and x = f^-1(z) draws. The price is
that each layer must have an inverse and a cheap determinant (see `nets/invertible.py`, `nets/couplings.py`), and that
the code is as large as the image. The flow is that of Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real
NVP", 2017, https://arxiv.org/abs/1605.08803, with the steps of Kingma, Dhariwal, "Glow: generative flow with invertible
1x1 convolutions", 2018, https://arxiv.org/abs/1807.03039.

Pixels have 256 values, and a density could grow without bound there. So noise as wide as their distance, 2 / 255, is
added about each value, which fills [-256/255, 256/255] without a gap. With it -log p bounds the discrete image's cost
from above (Theis, Oord, Bethge, "A note on the evaluation of generative models", 2016, https://arxiv.org/abs/1511.01844):

    bits/dim = -log2(p(x + noise) (2 / 255)^D) / D,        8 for a model that knows nothing.

Legend: B batch, C H W image, D = C H W = Z numbers in an image and in its code.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fabulate.config import PositiveFloat, PositiveInt, Preset, Training, spec
from fabulate.models.base import Conditional, Labels, Player, evaluating
from fabulate.models.capabilities import Encodes, HasLikelihood
from fabulate.nets.flows import Logit, Mixing, MultiScale
from fabulate.prob import BIN, bits_per_dim, log_normal
from fabulate.types import Batch, ImageShape


@spec
class NFSampling:
    """How samples are drawn."""

    temperature: PositiveFloat = 1.0
    """Standard deviation of the codes: 1 draws from p(x), less draws likelier and less varied images."""


@spec
class NFConfig:
    """A normalizing flow."""

    depth: PositiveInt = 4
    """Steps of flow at each size of the image."""
    width: PositiveInt = 32
    """Channels of the couplings' convolutions, which see a neighbourhood."""
    hidden: Annotated[int, Field(ge=0)] = 256
    """Units of the couplings' layer that sees the whole image, when of at most 2048 numbers; 0: no such layer."""
    checkerboards: Annotated[int, Field(ge=0)] = 0
    """Couplings of a checkerboard's two colours before each halving of the image."""
    mixing: Mixing = "rotate"
    """Before a coupling: rotate the channels by a learned matrix (Glow), or swap which half passes (RealNVP)."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """How far pixels in [0, 1] are kept away from 0 and 1, where their logit is infinite."""
    sampling: NFSampling = NFSampling()
    """How samples are drawn, unless said otherwise."""


class NF(Encodes, HasLikelihood, Conditional, family="nf"):
    """Normalizing flow (Dinh et al. 2017, https://arxiv.org/abs/1605.08803)."""

    Config = NFConfig
    renamed = {"boards": "checkerboards", "place": "position"}
    units = {"loss": "nats per image", "bits_per_dim": "bits per number"}
    presets = {
        # At 10,000 steps, or where images are few after 40 epochs: it soon memorises them.
        "default": Preset(NFConfig(), Training(steps=10_000, epochs=40, batch_size=64)),
        # RealNVP's order of couplings, masks, bound scale and margin; for a laptop its networks are Glow's (3x3, 1x1,
        # 3x3) instead of deep residual ones, and Scale stands for its batch normalisation, as in Glow.
        "tutorial": Preset(
            NFConfig(depth=3, checkerboards=3, width=32, hidden=0, mixing="swap", margin=0.05),
            Training(epochs=5, steps=None, batch_size=64, lr=1e-3, schedule="constant", warmup=0, ema=0, validation=0),
        ),
    }

    config: NFConfig
    sampling: NFSampling

    def __init__(self, config: NFConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, shape, classes)
        self.logit = Logit(config.margin)
        self.flow = MultiScale(
            self.shape, config.depth, config.checkerboards, config.width, config.hidden, config.mixing, len(classes)
        )

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def code_and_log_prob(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """z = f(x) (B, Z), and log p(x) by the change of variables (B,), in nats."""
        line, of_logit = self.logit(x)
        z, of_flow = self.flow(line, y)
        log_p_z = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
        return z, log_p_z + of_logit + of_flow

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus log p(x + noise) in nats per image, and the same as bits per number of a uint8 image."""
        x = batch.x + BIN * (torch.rand_like(batch.x) - 0.5)
        loss = -self.code_and_log_prob(x, batch.y)[1].mean()
        return {"loss": loss, "bits_per_dim": bits_per_dim(-loss, self.shape.size)}

    def log_prob(self, x: Tensor, y: Labels = None) -> Tensor:
        """log p(x) in nats (N,): a density over floats, taken at x itself, the middle of a uint8 pixel's bin.

        It is one over the floats in [-256/255, 256/255] and, by a hair, beyond: `margin / (1 - 2 margin)` of that
        interval's length on either side. To price a uint8 image, average over noise, as `loss` does.
        """
        batch = self.given(x, y)
        with evaluating(self):
            return self.code_and_log_prob(batch.x, batch.y)[1]

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.shape.size, generator=generator)
        return self.sampling.temperature * z.to(next(self.parameters()))

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        return self.sampling.temperature * noise

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.logit.inverse(self.flow.inverse(z, y)).clamp(-1, 1)

    def codes(self, batch: Batch) -> Tensor:
        return self.code_and_log_prob(batch.x, batch.y)[0]
