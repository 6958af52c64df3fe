"""A VAE whose code has two parts that mean different things: what is shown, and in which colours.

A gray picture m, drawn by a decoder from the structure code s, is coloured by two colours, those of its dark and of
its bright end, which the palette code t decides:

    x = (1 - m(s)) dark(t) + m(s) bright(t) + noise,        s, t ~ N(0, 1)

The two parts multiply, as style and content do in the bilinear models of Tenenbaum, Freeman ("Separating style and
content with bilinear models", 2000, https://doi.org/10.1162/089976600300015349); the rest is a VAE (Kingma, Welling
2014, https://arxiv.org/abs/1312.6114) with a learned noise level. A gray picture has no room for a colour. So colour,
brightness, contrast and tint go into t because nothing else can say them, and no label of them is needed.

What has a code of its own can be exchanged. On the line from dark to bright a pixel lies at

    u = <x - dark(t), bright(t) - dark(t)> / |bright(t) - dark(t)|^2

and x' = dark(t') + u (bright(t') - dark(t')) is the image in the colours t', with all its detail along that line: a
counterfactual. What lies beside the line is dropped, because it would betray the old colours.

Legend: B batch, C H W image, S structure, T palette, Z = S + T latent.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.config import PositiveFloat, PositiveInt, Preset, Training, spec
from fabulate.models.base import Player
from fabulate.models.capabilities import HasPosterior
from fabulate.nets import MLP, Network
from fabulate.prob import Gaussian, kl_to_standard_normal, log_normal
from fabulate.types import Batch, BatchSource, ImageShape

PORTION = 1000  # images encoded at a time
LARGEST = 64  # pixels of the longer side of what the model looks at: a bias that is seen only above them is not found
FLATTEST = 0.04  # squared length below which dark and bright are one colour: a fifth of a channel's range


@spec
class DuotoneConfig:
    """A VAE with a structure and a palette."""

    structure: PositiveInt = 16
    """Latent dimension of the structure."""
    palette: PositiveInt = 4
    """Latent dimension of the palette."""
    network: Network = MLP(hidden=(256, 128))
    """Encoder, and decoder of the gray picture."""
    colours: PositiveInt = 64
    """Hidden units of the network that turns a palette code into two colours."""
    beta: PositiveFloat = 1.0
    """Weight of the KL term."""


class Palette(NamedTuple):
    """The two ends of images' colours, in [-1, 1]."""

    dark: Tensor
    """(B, C)"""
    bright: Tensor
    """(B, C)"""


class Duotone(HasPosterior):
    """Gray pictures coloured by two colours.

    >>> model = Duotone(DuotoneConfig(structure=3, palette=2), ImageShape(3, 8, 8))
    >>> z = model.encode(torch.zeros(5, 3, 8, 8))
    >>> z.shape, model.decode(z).shape
    (torch.Size([5, 5]), torch.Size([5, 3, 8, 8]))
    """

    family = "duotone"  # not registered: it serves this use, and as a model of images there are better ones
    Config = DuotoneConfig
    presets = {"default": Preset(DuotoneConfig(), Training(steps=2000, lr=2e-3))}
    config: DuotoneConfig

    def __init__(self, config: DuotoneConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, shape, classes)
        c, h, w = self.shape
        self.encoder = config.network.encoder(self.shape, 2 * (config.structure + config.palette))
        self.decoder = config.network.decoder(config.structure, ImageShape(1, h, w))
        last = nn.Linear(config.colours, 2 * c)
        with torch.no_grad():  # dark below bright at first, so that m means the same in every image
            last.bias.copy_(torch.tensor([-1.0, 1.0]).repeat_interleave(c))
        self.colours = nn.Sequential(nn.Linear(config.palette, config.colours), nn.SiLU(), last)
        self.likelihood = Gaussian()

    def players(self) -> dict[str, Player]:
        return {"model": Player(self, self.loss)}

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder(batch.x).chunk(2, dim=1)
        return mean, logvar

    def gray(self, s: Tensor) -> Tensor:
        """The picture m in [0, 1] of structure codes (B, S): (B, 1, H, W)."""
        return torch.sigmoid(self.decoder(s))

    def ends(self, t: Tensor) -> Palette:
        """The two colours of palette codes (B, T)."""
        return Palette(*torch.tanh(self.colours(t)).chunk(2, dim=1))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        s, t = self.parts(z)
        return paint(self.gray(s), self.ends(t))

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The structure (B, S) and the palette (B, T) of codes (B, Z)."""
        return z[:, : self.config.structure], z[:, self.config.structure :]

    def prior(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.config.structure + self.config.palette, generator=generator).to(self.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus the ELBO, in nats per image."""
        mean, logvar = self.posterior(batch)
        z = mean + torch.exp(logvar / 2) * torch.randn_like(mean)  # (B, Z)
        # The noise level is one learned number; `decode` has squashed the image already.
        log_p_x = log_normal(batch.x, self.decode(z), self.likelihood.logvar).sum((1, 2, 3))
        kl = kl_to_standard_normal(mean, logvar).sum(1)
        reconstruction, kl = -log_p_x.mean(), kl.mean()
        return {"loss": reconstruction + self.config.beta * kl, "reconstruction": reconstruction, "kl": kl}

    def codes(self, batch: Batch) -> Tensor:
        return torch.cat([self.posterior(Batch(part))[0] for part in torch.split(batch.x, PORTION)])


def paint(gray: Tensor, palette: Palette) -> Tensor:
    """A picture (B, 1, H, W), 0 dark and 1 bright, in two colours: (B, C, H, W)."""
    dark, bright = (colour[:, :, None, None] for colour in palette)
    return dark + gray * (bright - dark)


def unpaint(x: Tensor, palette: Palette) -> Tensor:
    """Where the pixels of images (B, C, H, W) lie between their two colours, 0 dark and 1 bright: (B, 1, H, W)."""
    dark, bright = (colour[:, :, None, None] for colour in palette)
    line = bright - dark
    return ((x - dark) * line).sum(1, keepdim=True) / line.square().sum(1, keepdim=True).clamp_min(FLATTEST)


def looked_at(shape: ImageShape) -> ImageShape:
    """The shape that images of a shape are shrunk to for the model.

    >>> looked_at(ImageShape(3, 32, 28)), looked_at(ImageShape(4, 96, 128)).dims
    (ImageShape(channels=3, height=32, width=28), (4, 48, 64))
    """
    part = max(1, max(shape.height, shape.width) / LARGEST)
    return ImageShape(shape.channels, round(shape.height / part), round(shape.width / part))


def shrunk(x: Tensor, shape: ImageShape) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] at the size of a shape, each pixel the mean of those in its place."""
    return x if x.shape[2:] == shape[1:] else F.interpolate(x, shape[1:], mode="area")


class Shrunk(BatchSource):
    """Images of a source at the size of a shape."""

    def __init__(self, images: BatchSource, shape: ImageShape) -> None:
        self.images, self.shape = images, shape

    def __len__(self) -> int:
        return len(self.images)

    def stored(self, indices: Tensor) -> Batch:
        x, y = self.images.batch(indices)
        return Batch(shrunk(x, self.shape), y)


def counterfactual(model: Duotone, x: Tensor, donors: Tensor, place: tuple[int, ...]) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] with the numbers `place` of their codes taken from other codes (B, Z).

    What the model cannot draw stays as it is: each pixel keeps its place between dark and bright, or moves from there
    as far as the picture of the new structure does from the old one. Images may be larger than what the model looks at.
    """
    z = model.encode(shrunk(x, model.shape))
    new = z.clone()
    new[:, place] = donors.to(z)[:, place]
    (s, t), (s_new, t_new) = model.parts(z), model.parts(new)
    u = unpaint(x.to(z), model.ends(t))
    if not torch.equal(s, s_new):
        moved = model.gray(s_new) - model.gray(s)
        u = u + (moved if moved.shape[2:] == u.shape[2:] else F.interpolate(moved, u.shape[2:], mode="bilinear"))
    return paint(u, model.ends(t_new)).clamp(-1, 1).to(x)
