"""Generative adversarial networks: a game instead of a likelihood.

A generator G turns noise z ~ N(0, 1) into images; a critic D gives each image a score, high for real ones. They play

    min_G max_D  E log sigmoid(D(x)) + E log(1 - sigmoid(D(G(z))))

(Goodfellow et al., "Generative adversarial nets", 2014, https://arxiv.org/abs/1406.2661). Played to the letter it often
ends in mode collapse: G finds the one image D likes best now, D learns to reject it, G moves on; nothing ever asks G
to cover the data. The default game asks: D scores each real image *relative to* a fake, so every real image matters
always (Jolicoeur-Martineau 2018, https://arxiv.org/abs/1807.00734), and zero-centred penalties on D's gradient at real
and at fake images make the game converge locally (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406); together:
Huang et al., "The GAN is dead; long live the GAN! (R3GAN)", 2024, https://arxiv.org/abs/2501.05441.

A game is a row of a table: what D minimises, what G minimises, and the penalty on D's gradient.

Legend: B batch, C H W image, Z latent.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, Preset, Training, override, spec
from fabulate.models.base import Conditional, Player
from fabulate.models.search import EncodesBySearch
from fabulate.nets import DCGAN, MLP, Auto, Conv, GameOrAuto, Projected, network_for
from fabulate.nets.lite0 import frozen
from fabulate.nets.transforms import Change, augment
from fabulate.types import Batch, BatchSource, ImageShape

COLLAPSED = 0.4  # diversity below which a generator has lost most of the data

Critic = Callable[[Tensor], Tensor]


class Judged(NamedTuple):
    """Images (B, C, H, W) and the critic's scores of them, whose gradient can be asked for."""

    x: Tensor
    score: Tensor


class Game(NamedTuple):
    """Losses as functions of the critic's scores of real and fake images: (B,), or (B, J) of J judges."""

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    penalty: Callable[[Critic, Judged, Judged], Tensor] | None = None
    paired: bool = False
    """Whether the generator's loss looks at real images too; else it is given its fakes' scores for both."""


def spread(x: Tensor) -> Tensor:
    """The distance of two images of a batch (root mean square over all pairs)."""
    x = x.flatten(1)
    return (2 * (x - x.mean(0)).square().sum() / len(x)).sqrt()  # the columns' variances; `var` is ten times slower


def judge(critic: Critic, x: Tensor) -> Judged:
    """The critic's scores of images, as functions of the images."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return Judged(x, critic(x))


def gradient_norms(judged: Judged) -> Tensor:
    """The squared length of the critic's gradient at each image (B,), itself differentiable."""
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(judged.score.sum(), judged.x, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def zero_centred(critic: Critic, real: Judged, fake: Judged) -> Tensor:
    """R1 + R2: half the mean squared gradient at real images plus the same at fakes (Mescheder et al. 2018)."""
    return (gradient_norms(real).mean() + gradient_norms(fake).mean()) / 2


def one_centred(critic: Critic, real: Judged, fake: Judged) -> Tensor:
    """(|gradient| - 1)^2 at points between real and fake (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028)."""
    t = torch.rand(len(real.x), 1, 1, 1, device=real.x.device)
    norms = gradient_norms(judge(critic, t * real.x + (1 - t) * fake.x))
    return ((norms + 1e-12).sqrt() - 1).square().mean()  # the square root's slope at 0 is infinite


GAMES: dict[str, Game] = {
    # Goodfellow et al. 2014, with the non-saturating generator loss of its section 3; the textbook's.
    "nonsaturating": Game(
        critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        generator=lambda real, fake: F.softplus(-fake).mean(),
    ),
    # Lim, Ye 2017, https://arxiv.org/abs/1705.02894
    "hinge": Game(
        critic=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        generator=lambda real, fake: -fake.mean(),
    ),
    # Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, with the penalty of Gulrajani et al. 2017
    "wasserstein": Game(
        critic=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda real, fake: -fake.mean(),
        penalty=one_centred,
    ),
    # Huang et al. 2024: each real image against one fake
    "relativistic": Game(
        critic=lambda real, fake: F.softplus(fake - real).mean(),
        generator=lambda real, fake: F.softplus(real - fake).mean(),
        penalty=zero_centred,
        paired=True,  # the generator too looks at real images
    ),
}


NOISES: dict[str, Callable[..., Tensor]] = {
    "normal": torch.randn,
    "uniform": lambda *size, **options: 2 * torch.rand(*size, **options) - 1,
}


@spec
class GANConfig:
    """A generative adversarial network."""

    latent_dim: PositiveInt = 64
    """Numbers in the noise that the generator turns into an image."""
    noise: Literal["normal", "uniform"] = "normal"
    """What the noise is: N(0, 1), or uniform in [-1, 1]."""
    game: Literal["nonsaturating", "hinge", "wasserstein", "relativistic"] = "relativistic"
    """What critic and generator minimise."""
    penalty: NonNegativeFloat = 5.0
    """Weight of the penalty on the critic's gradient, in the games that have one (relativistic, wasserstein)."""
    critic_steps: Annotated[int, Field(ge=1)] = 1
    """Steps of the critic for each of the generator's."""
    augment: tuple[Change, ...] = ()
    """Random changes of all that the critic sees, against memorising few images (Zhao et al. 2020)."""
    network: GameOrAuto = Auto()
    """The critic (an encoder to one number, or to one for each judge) and the generator (a decoder)."""


class GAN(EncodesBySearch, Conditional, family="gan"):
    """Generative adversarial network (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661)."""

    Config = GANConfig
    units = {"real": "mean score", "fake": "mean score", "accuracy": "share of pairs", "diversity": "fake / real"}
    presets = {
        "default": Preset(GANConfig(), Training(lr=2e-3, betas=(0.0, 0.99))),
        "tutorial": Preset(
            GANConfig(game="nonsaturating", network=MLP(hidden=(128,), activation="relu")),
            Training(
                epochs=10, steps=None, batch_size=128, lr=1e-3, schedule="constant", warmup=0, ema=0, validation=0
            ),
        ),
        # Radford et al. 2016, to the letter. Made for a GPU.
        "dcgan": Preset(
            GANConfig(latent_dim=100, noise="uniform", game="nonsaturating", network=DCGAN()),
            Training(epochs=25, steps=None, lr=2e-4, betas=(0.5, 0.999), schedule="constant", warmup=0, ema=0),
        ),
        # Sauer et al. 2021; the changes are those of Zhao et al. 2020.
        "projected": Preset(
            GANConfig(latent_dim=100, game="hinge", augment=("colour", "shift", "cutout"), network=Projected()),
            Training(lr=2e-3, betas=(0.0, 0.99), batch_size=32),
        ),
    }

    networks = {"mlp": MLP(activation="leaky_relu"), "conv": Conv()}

    config: GANConfig

    def __init__(self, config: GANConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        network = network_for(config.network, shape, self.networks)
        super().__init__(override(config, {"network": network}), shape, classes)
        self.critic = network.encoder(self.shape, 1, len(classes))
        self.generator = network.decoder(config.latent_dim, self.shape, len(classes))

    @property
    def game(self) -> Game:
        """What both minimise; looked up, not kept, since functions without a name cannot be pickled."""
        return GAMES[self.config.game]

    def init_from_data(self, images: BatchSource) -> None:
        """Errors: `ConfigError` where the critic needs features that are not installed, before anything is written."""
        if isinstance(self.config.network, Projected):
            frozen(self.device, torch.get_default_dtype())

    def players(self) -> dict[str, Player]:
        return {
            "critic": Player(self.critic, self.critic_loss),
            "generator": Player(self.generator, self.generator_loss, every=self.config.critic_steps),
        }

    def critic_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the critic minimises, and terms that tell how the game stands.

        The mean scores of real and fake; the share of pairs in which the real image has the higher score (accuracy: 1/2
        when the critic cannot tell); the distance of two fakes over that of two real images (diversity: near 1, or much
        less when the generator collapses); the penalty on the critic's gradient.
        """

        def critic(x: Tensor) -> Tensor:
            return self.scores(x, batch.y)

        with torch.no_grad():
            fakes = self.fakes(batch)
            shown = [augment(x, self.config.augment) for x in (batch.x, fakes)]
        real, fake = (judge(critic, x) for x in shown)
        loss = self.game.critic(real.score, fake.score)
        terms = {"real": real.score.mean(), "fake": fake.score.mean()}
        terms["accuracy"] = (real.score > fake.score).float().mean()
        terms["diversity"] = spread(fakes) / spread(batch.x).clamp_min(1e-6)
        if self.game.penalty is not None:
            terms["penalty"] = self.game.penalty(critic, real, fake)
            loss = loss + self.config.penalty * terms["penalty"]
        return {"loss": loss, **terms}

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the generator minimises."""
        return {"loss": self.loss_of_fakes(self.fakes(batch), batch)}

    def loss_of_fakes(self, fakes: Tensor, batch: Batch) -> Tensor:
        """What the generator minimises, as a function of its fakes, one for each image of the batch."""
        fake = real = self.scores(augment(fakes, self.config.augment), batch.y)
        if self.game.paired:
            with torch.no_grad():
                real = self.scores(augment(batch.x, self.config.augment), batch.y)
        return self.game.generator(real, fake)

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        if terms["critic.diversity"] >= COLLAPSED:
            return []
        return [
            f"the generator is collapsing: its images differ from each other less than {COLLAPSED:.0%} as much as real "
            f"ones. Try --game relativistic, a higher --penalty, or a lower --lr"
        ]

    def fakes(self, batch: Batch) -> Tensor:
        """One fake for each image of the batch, of the same class."""
        size = (len(batch.x), self.config.latent_dim)
        return self.decode(NOISES[self.config.noise](*size, device=batch.x.device, dtype=batch.x.dtype), batch.y)

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return NOISES[self.config.noise](n, self.config.latent_dim, generator=generator).to(next(self.parameters()))

    def from_noise(self, noise: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        return noise if self.config.noise == "normal" else torch.erf(noise / 2**0.5)  # 2 Phi(noise) - 1

    def scores(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The critic's scores (B,): the logit of the textbook's D, whose sigmoid its loss contains.

        Or (B, J), of several judges.
        """
        return self.critic(x, y).squeeze(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tanh(self.generator(z, y))
