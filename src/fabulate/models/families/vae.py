"""The variational autoencoder: an autoencoder whose codes have a distribution that can be sampled.

The model says how an image comes to be: draw z from p(z) = N(0, 1), then x from p(x | z), a distribution that a
decoder computes. The integral p(x) = E_p(z) p(x | z) is out of reach, so an encoder learns where the z that explain x
lie, q(z | x) = N(mu(x), sigma(x)^2). Jensen's inequality gives the evidence lower bound (ELBO)

    log p(x) >= E_q log p(x | z)  -  KL(q(z | x) || p(z))
                (reconstruction)     (rate: what the code costs, in nats)

and z = mu + sigma * eps, eps ~ N(0, 1), moves the chance out of the way of the gradient: the reparameterisation trick
(Kingma, Welling, "Auto-encoding variational Bayes", 2014, https://arxiv.org/abs/1312.6114). K samples instead of one
tighten the bound (`importance.py`).

What p(z) is instead of N(0, 1) can be read in `priors.py`. Samples are drawn from p(z), or from a mixture of Gaussians
fitted to the codes of the training images (`mixture.py`); the loss, the bound and the score are always those of p(z).

Legend: B batch, C H W image, Z latent, K samples.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, Preset, Training, override, spec
from fabulate.errors import ConfigError
from fabulate.metrics.latent import active_dimensions
from fabulate.models.base import Conditional, Labels, Player, evaluating
from fabulate.models.capabilities import Evidence, HasPosterior, ImportanceWeighted
from fabulate.models.importance import bound, path_bound
from fabulate.models.mixture import Mixture, encoded
from fabulate.models.priors import PRIORS
from fabulate.nets import GRU, MLP, Auto, CodesOrAuto, Conv, network_for
from fabulate.prob import BINARISATIONS, LIKELIHOODS, Categorical, Measure
from fabulate.seeds import generator as generator_at
from fabulate.seeds import seeded
from fabulate.types import Batch, BatchSource, ImageShape, SequenceShape, shape_of, some_of, unit

CONV = Conv(norm="group", activation="silu")  # without normalisation codes stray from the prior
FREE = 0.25  # nats of each code dimension of a sequence
MOST_AVERAGED = 5000  # images in the mean image


@spec
class VAESampling:
    """How samples are drawn."""

    codes: Literal["prior", "mixture"] = "mixture"
    """Where codes come from: the model's p(z), or a mixture of Gaussians fitted to codes of the training images."""


@spec
class VAEConfig:
    """A variational autoencoder."""

    latent_dim: PositiveInt = 32
    """Numbers in a code."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "gaussian"
    """What p(x | z) is: binary pixels, or a Gaussian or discretised logistic with a learned noise level."""
    centre: Literal["gray", "mean"] = "gray"
    """What a decoder that says nothing draws: middle gray, or the mean training image, which then needs no learning."""
    binarise: Literal["none", "dynamic", "threshold"] = "none"
    """Black and white images for the Bernoulli likelihood: white with a pixel's gray value as probability, drawn anew
    each time, or white from the middle gray on."""
    prior: Literal["normal", "gaussians"] = "normal"
    """What p(z) is: N(0, 1), or a mixture of Gaussians that are learned with everything else."""
    prior_components: PositiveInt = 100
    """Gaussians of the prior "gaussians" (of each class)."""
    beta: NonNegativeFloat = 1.0
    """Weight of the KL term; 1 is the ELBO, more gives smoother and simpler codes (Higgins et al. 2017)."""
    free_bits: NonNegativeFloat | None = None
    """Nats that each code dimension may cost for nothing, against unused dimensions (Kingma et al. 2016; default: 0 of
    images, 0.25 of sequences)."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Codes per image in the training bound: 1 is the ELBO, more is the importance-weighted bound."""
    gradient: Literal["full", "path"] = "full"
    """How the encoder learns: by the whole gradient, or only through its codes: less noise (Tucker et al. 2019)."""
    components: PositiveInt = 20
    """Gaussians in the mixture fitted to the codes that samples are drawn from (of each class), at most."""
    sampling: VAESampling = VAESampling()
    """How samples are drawn."""
    network: CodesOrAuto = Auto()
    """Encoder and decoder."""

    def __post_init__(self) -> None:
        if self.bounded and (self.beta != 1 or self.free_bits):
            raise ValueError(
                "the importance-weighted bound (samples > 1, or gradient='path') has no KL term for beta or free_bits "
                "to weigh"
            )
        if self.free_bits and self.prior != "normal":
            raise ValueError(f"the KL to the prior {self.prior!r} is no sum over dimensions; free_bits must be 0")
        if self.binarise != "none" and self.likelihood != "bernoulli":
            raise ValueError(f"binary images (binarise={self.binarise!r}) need likelihood='bernoulli'")

    @property
    def bounded(self) -> bool:
        """Whether training is on the importance-weighted bound as a whole, not on its two terms."""
        return self.samples > 1 or self.gradient == "path"


def burda(k: int, epochs: int, lr: float = 1e-3) -> Preset:
    """The one-layer model of Burda et al. 2016, section 5, trained with k codes: 784-200-200-50 on binarised MNIST.

    The paper takes 3,280 epochs of batches of 20, with a learning rate that falls from 1e-3 in eight stages; this is a
    tenth of them at most, in larger batches.
    """
    return Preset(
        VAEConfig(
            latent_dim=50,
            likelihood="bernoulli",
            centre="mean",
            binarise="dynamic",
            samples=k,
            gradient="path",
            components=1,
            network=MLP(hidden=(200, 200), activation="tanh"),
            sampling=VAESampling(codes="prior"),
        ),
        Training(epochs=epochs, steps=None, batch_size=50, lr=lr, validation=0),
    )


class VAE(HasPosterior, ImportanceWeighted, Conditional, family="vae"):
    """Variational autoencoder (Kingma, Welling 2014, https://arxiv.org/abs/1312.6114)."""

    Config = VAEConfig
    takes = (ImageShape, SequenceShape)
    units = {
        "loss": "nats per image",
        "reconstruction": "nats per image",
        "kl": "nats per image",
        "active_units": "dimensions",
    }
    presets = {
        "default": Preset(VAEConfig(), Training(epochs=200)),  # few images: stop before they are memorised
        "conv": Preset(
            VAEConfig(latent_dim=40, prior="gaussians", network=CONV),
            Training(epochs=200, steps=10_000, batch_size=64, lr=2e-3),
        ),
        "tutorial": Preset(
            VAEConfig(
                latent_dim=64,
                free_bits=0.0,
                likelihood="bernoulli",
                components=1,
                network=MLP(hidden=(128,), activation="relu"),
                sampling=VAESampling(codes="prior"),
            ),
            Training(
                epochs=10, steps=None, batch_size=128, lr=1e-3, schedule="constant", warmup=0, ema=0, validation=0
            ),
        ),
        "iwae-k1": burda(1, epochs=328),
        "iwae-k5": burda(5, epochs=200),
        "iwae-k50": burda(50, epochs=25, lr=2e-3),  # a higher rate is better in short trainings only
    }

    networks = {"mlp": MLP(), "conv": CONV}

    config: VAEConfig
    sampling: VAESampling
    mean_image: Tensor | None
    rate_name = "KL"

    def __init__(self, config: VAEConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        told: Any = shape_of(shape)
        sequences = isinstance(told, SequenceShape)
        network: Any = network_for(config.network, told, self.networks) if not sequences else config.network
        if sequences != isinstance(network, GRU) and not isinstance(network, Auto):
            raise ConfigError(f"the {network.kind} network is not of {told.medium}; leave out --network {network.kind}")
        network = GRU() if isinstance(network, Auto) else network
        free = config.free_bits if config.free_bits is not None else FREE * sequences
        super().__init__(override(config, {"network": network, "free_bits": free}), shape, classes)
        if isinstance(network, Conv):
            # Half of that rate needs twice the steps, Adam five times as many; fully connected ones are left to it.
            self.usual_lr, self.usual_optimizer = 2e-3, "muon"
        self.encoder = network.encoder(self.shape, 2 * config.latent_dim, len(classes))  # mean and log-variance
        self.decoder = network.decoder(config.latent_dim, self.shape, len(classes))
        self.register_buffer("mean_image", torch.zeros(self.shape) if config.centre == "mean" else None)  # in logits
        self.likelihood = Categorical() if sequences else LIKELIHOODS[config.likelihood]()
        self.p_z = PRIORS[config.prior](config.latent_dim, config.prior_components, len(classes))
        self.mixture = Mixture(config.latent_dim, config.components, max(len(classes), 1))

    @property
    def binarise(self) -> Callable[[Tensor], Tensor]:
        """What images are made of black and white by; looked up: functions without a name cannot be pickled."""
        return BINARISATIONS[self.config.binarise]

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def init_from_data(self, images: BatchSource) -> None:
        if self.mean_image is not None:
            parts = torch.split(some_of(images, MOST_AVERAGED, "begin"), self.shape.together(MOST_AVERAGED))
            sums = [unit(images.batch(part).x).sum(0) for part in parts]
            mean = torch.stack(sums).sum(0) / sum(map(len, parts))
            self.mean_image.copy_(torch.logit(mean, eps=1e-3))

    def raw(self, z: Tensor, y: Tensor | None, x: Tensor | None = None) -> Tensor:
        """What the likelihood is given of codes (B, Z): (B, C, H, W), or (B, T, K) of sequences x or its own."""
        if isinstance(self.likelihood, Categorical):
            return self.decoder(z, y, x)
        return self.decoder(z, y) if self.mean_image is None else self.decoder(z, y) + self.mean_image

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """q(z | x): mean and log-variance, each (B, Z)."""
        mean, logvar = self.encoder(unit(batch.x), batch.y).chunk(2, dim=1)
        return mean, logvar

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus the bound, in nats per image, with its two terms and the count of active code dimensions."""
        if self.config.bounded:
            return {"loss": -self.bound(batch, self.config.samples, self.config.gradient).mean()}
        log_p_x, kl, mean = self.terms(batch)
        reconstruction, kl = -log_p_x.mean(), kl.mean(0)
        # Without free bits nothing is clamped: an estimated KL may be below 0, and must be, to be right on average.
        rate = kl.clamp_min(self.config.free_bits).sum() if self.config.free_bits else kl.sum()
        loss = reconstruction + self.config.beta * rate
        active_units = active_dimensions(mean).sum()
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl.sum(), "active_units": active_units}

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x | z) at one code of each image (B,), the KL of each dimension, and the posterior's means (B, Z).

        The KL is (B, Z), or (B, 1) under a prior whose dimensions do not add up.
        """
        x, y = Batch(self.binarise(batch.x), batch.y)
        mean, logvar = self.posterior(Batch(x, y))
        z = mean + torch.exp(logvar / 2) * torch.randn_like(mean)  # (B, Z)
        log_p_x = self.likelihood.log_prob(x, self.raw(z, y, x))
        kl = self.p_z.kl(z, mean, logvar, y)
        return log_p_x, kl, mean

    def bound(self, batch: Batch, k: int, gradient: Literal["full", "path"] = "full") -> Tensor:
        """The importance-weighted lower bound of log p(x) with k codes per image, in nats: (B,)."""
        x, y = Batch(self.binarise(batch.x), batch.y)
        mean, logvar = self.posterior(Batch(x, y))

        def log_joint(z: Tensor, k: int) -> Tensor:
            repeated = None if y is None else y.repeat(k)
            each = x.repeat(k, *[1] * (x.ndim - 1))
            log_p_x = self.likelihood.log_prob(each, self.raw(z, repeated, each))
            return log_p_x + self.p_z.log_prob(z, repeated)

        return (path_bound if gradient == "path" else bound)(log_joint, mean, logvar, k)

    def fit_latents(self, images: BatchSource) -> None:
        """Fit the mixture to codes drawn from q(z | x): to its means alone, it would miss what the noise fills."""
        posteriors, y = encoded(self, images, lambda batch: torch.cat(self.posterior(batch), dim=1))
        mean, logvar = posteriors.chunk(2, dim=1)
        eps = torch.randn(mean.shape, generator=generator_at("settle")).to(mean)
        self.mixture.fit(mean + torch.exp(logvar / 2) * eps, y)

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        if self.sampling.codes == "mixture":
            return self.mixture.draw(n, y, generator)
        return self.p_z.draw(n, y, generator)

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        drawn_from = self.mixture if self.sampling.codes == "mixture" else self.p_z
        return drawn_from.from_noise(noise, choice, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.raw(z, y))

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        if terms.get("active_units", 1) > 0 or not isinstance(self.likelihood, Categorical):
            return []
        return ["no code dimension is in use: the posterior has collapsed; more free_bits or word_dropout may help"]

    @property
    def measure(self) -> Literal[Measure, "dynamic", "threshold"]:
        return self.likelihood.measure if self.config.binarise == "none" else self.config.binarise

    @torch.no_grad()
    def evidence(self, x: Tensor, y: Labels = None, *, seed: int = 0) -> Evidence:
        """The ELBO's terms at one code of each image; where images are binarised, they are as for the score's seed."""
        with evaluating(self), seeded(seed, "score", device=self.device):
            log_p_x, kl, _ = self.terms(self.given(x, y))
            return Evidence(log_p_x, kl.sum(1))

    @torch.no_grad()
    def score(self, x: Tensor, y: Labels = None, *, k: int = 16, seed: int = 0) -> Tensor:
        """The importance-weighted lower bound of log p(x) with k codes per image, in nats."""
        with evaluating(self), seeded(seed, "score", device=self.device):
            return self.bound(self.given(x, y), k)
