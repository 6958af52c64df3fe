"""The vector-quantised VAE: an autoencoder whose code is a small grid of symbols, and a model of those grids.

An encoder turns an image into a grid of vectors e, a quantiser replaces each by one of K codes, z = q(e), and a decoder
computes p(x | z) from the codes' vectors. What is left of an image is a short text: T codes of an alphabet of K. A
causal transformer learns to write such texts, p(z), and a sample is a text it wrote, decoded. Because every image has
one text, z(x), the sum p(x) = sum_z p(z) p(x | z) has a lower bound that needs no average,

    log p(x) >= log p(x | z(x)) + log p(z(x)),
                (reconstruction)  (minus the code's length, in nats)

(van den Oord, Vinyals, Kavukcuoglu, "Neural discrete representation learning", 2017, https://arxiv.org/abs/1711.00937,
section 3). There is no KL term: in the first phase p(z) counts as uniform, so codes cost the same. Two players, then:
the autoencoder moves by the first term and the quantiser's commitment, the prior by the second, on codes as they are
now. The quantisers, the paper's codebook and FSQ, are in `nets/vq.py`, the transformer is in `nets/tokens.py`.

Legend: B batch, N samples, C H W image, T = h w cells of the grid, D numbers in a vector, Z = D T latent, K codes.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fabulate.config import PositiveFloat, PositiveInt, Preset, Training, spec
from fabulate.models.base import TILE, Conditional, Labels, Player, evaluating
from fabulate.models.capabilities import Encodes, Evidence, HasBound
from fabulate.nets.grid import GridDecoder, GridEncoder, scales
from fabulate.nets.tokens import TokenTransformer, Transformer
from fabulate.nets.vq import FSQ, Codebook, Quantised, Quantiser, perplexity
from fabulate.prob import LIKELIHOODS, Measure
from fabulate.types import Batch, ImageShape, unit


@spec
class Sampling:
    """How codes are drawn from the prior."""

    temperature: PositiveFloat = 1.0
    """1 draws from p(z); less keeps to likelier codes: cleaner images, less variety."""


@spec
class VQVAEConfig:
    """A vector-quantised VAE."""

    cells: PositiveInt = 16
    """Most cells of the grid of codes (halved until so few, at least once): fewer sample better, more copy better."""
    quantiser: Quantiser = FSQ()
    """From the encoder's vectors to codes."""
    width: PositiveInt = 64
    """Channels of encoder and decoder at the grid; half as many at twice its size, and so on."""
    blocks: Annotated[int, Field(ge=0)] = 2
    """Residual blocks of the encoder, and of the decoder, at the grid."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "gaussian"
    """What p(x | z) is: binary pixels, or a Gaussian or discretised logistic with a learned noise level."""
    prior: Transformer = Transformer()
    """The transformer that learns p(z)."""
    sampling: Sampling = Sampling()
    """How codes are drawn from it."""


class Autoencoder(nn.Module):
    """Images to codes and back: what the first player moves."""

    def __init__(self, config: VQVAEConfig, shape: ImageShape, classes: int) -> None:
        super().__init__()
        size = {"width": config.width, "blocks": config.blocks, "cells": config.cells}
        self.grid = scales(shape, config.cells)[-1]  # (h, w)
        self.quantiser = config.quantiser.build()
        self.encoder = GridEncoder(shape, self.quantiser.dim, **size)
        self.decoder = GridDecoder(self.quantiser.dim, shape, classes, **size)
        self.likelihood = LIKELIHOODS[config.likelihood]()

    def vectors(self, x: Tensor) -> Tensor:
        """The encoder's vectors, cell by cell: images (B, C, H, W) to (B, T, D)."""
        return self.encoder(x).flatten(2).transpose(1, 2)

    def raw(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The decoder's output for vectors (B, T, D): (B, C, H, W), which the likelihood reads."""
        return self.decoder(z.transpose(1, 2).reshape(z.shape[0], -1, *self.grid), y)


class VQVAE(Encodes, HasBound, Conditional, family="vqvae"):
    """Vector-quantised VAE (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

    The preset `tutorial` has from the paper the quantiser with its loss (beta 0.25, codes as moving averages: appendix
    A.1), two halvings of 32x32 to 8x8, two residual blocks, and Adam at 2e-4. Its own are the size (64 channels and
    256 codes for 256 and 512), the restart of dead codes, the normalisation, and a transformer for the PixelCNN.
    """

    Config = VQVAEConfig
    renamed = {"thought": "mlp", "before_thought": "before_mlp", "places": "positions"}
    units = {
        "loss": "nats per image",
        "reconstruction": "nats per image",
        "code_length": "nats per image",
        "mse": "pixels in [0, 1]",
        "perplexity": "codes",
    }
    presets = {
        "default": Preset(VQVAEConfig(), Training(epochs=40, lr=3e-3)),  # few images are soon memorised
        "tutorial": Preset(
            VQVAEConfig(cells=64, quantiser=Codebook()),
            Training(
                epochs=10, steps=None, batch_size=128, lr=2e-4, schedule="constant", warmup=0, ema=0, validation=0
            ),
        ),
    }

    config: VQVAEConfig
    sampling: Sampling
    rate_name = "Code length"

    def __init__(self, config: VQVAEConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, shape, classes)
        self.autoencoder = Autoencoder(config, self.shape, len(classes))
        codes = self.autoencoder.quantiser.size
        self.transformer = TokenTransformer(config.prior, codes, self.autoencoder.grid, len(classes))

    def players(self) -> dict[str, Player]:
        return {
            "autoencoder": Player(self.autoencoder, self.autoencoder_loss),
            "prior": Player(self.transformer, self.prior_loss),
        }

    def autoencoder_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus log p(x | z) in nats per image, plus the quantiser's commitment; how many codes are in use."""
        e = self.autoencoder.vectors(batch.x)  # (B, T, D)
        z, indices, commitment = self.quantise(e)
        reconstruction = -self.log_p_x(batch, z).mean()
        if self.training:
            self.autoencoder.quantiser.remember(e, indices)
        used = perplexity(indices, self.autoencoder.quantiser.size)
        return {"loss": reconstruction + commitment, "reconstruction": reconstruction, "perplexity": used}

    def prior_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The length of the codes under the prior, in nats per image."""
        with torch.no_grad():
            indices = self.quantise(self.autoencoder.vectors(batch.x)).indices
        return {"loss": -self.transformer.log_prob(indices, batch.y).mean()}

    def test_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Minus the bound and its two terms, in nats per image; the squared error of copies; codes in use."""
        z, indices, _ = self.quantise(self.autoencoder.vectors(batch.x))
        copy, length = -self.log_p_x(batch, z).mean(), -self.transformer.log_prob(indices, batch.y).mean()
        error = (unit(self.decode(z.transpose(1, 2).flatten(1), batch.y)) - unit(batch.x)).square().mean()
        used = perplexity(indices, self.autoencoder.quantiser.size)
        return {"loss": copy + length, "reconstruction": copy, "code_length": length, "mse": error, "perplexity": used}

    def quantise(self, e: Tensor) -> Quantised:
        """The codes of the encoder's vectors (B, T, D)."""
        return self.autoencoder.quantiser(e)

    def log_p_x(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x | z) in nats, for codes' vectors (B, T, D): (B,)."""
        return self.autoencoder.likelihood.log_prob(batch.x, self.autoencoder.raw(z, batch.y))

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.written(self.uniform(n, generator), y)

    def priors(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        return self.written(torch.cat([self.uniform(TILE, tile) for tile in tiles]), y)  # all are written at once

    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        """What decides n sequences: numbers (N, T) uniform in [0, 1)."""
        return torch.rand(n, self.transformer.length, generator=generator, dtype=torch.float64)

    def written(self, uniform: Tensor, y: Tensor | None) -> Tensor:
        """Grids written by the transformer from numbers (N, T), as the codes' vectors (N, Z)."""
        indices = self.transformer.sample(uniform.to(self.device), y, self.sampling.temperature)
        return self.autoencoder.quantiser.vectors(indices).transpose(1, 2).flatten(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Grids of vectors (N, Z), of codes or between them, to images (N, C, H, W) in [-1, 1]."""
        vectors = z.view(z.shape[0], self.autoencoder.quantiser.dim, -1).transpose(1, 2)
        return self.autoencoder.likelihood.mean(self.autoencoder.raw(vectors, y))

    def codes(self, batch: Batch) -> Tensor:
        """The vectors of the images' codes (B, Z)."""
        return self.quantise(self.autoencoder.vectors(batch.x)).z.transpose(1, 2).flatten(1)

    @property
    def measure(self) -> Measure:
        return self.autoencoder.likelihood.measure

    @torch.no_grad()
    def evidence(self, x: Tensor, y: Labels = None, *, seed: int = 0) -> Evidence:
        """The bound's terms at the only code z(x) of each image, in which there is no chance."""
        batch = self.given(x, y)
        with evaluating(self):
            z, indices, _ = self.quantise(self.autoencoder.vectors(batch.x))
            return Evidence(self.log_p_x(batch, z), -self.transformer.log_prob(indices, batch.y))

    def score(self, x: Tensor, y: Labels = None) -> Tensor:
        """log p(x | z(x)) + log p(z(x)), a lower bound of log p(x), in nats."""
        return self.evidence(x, y).bound
