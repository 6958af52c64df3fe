"""What is drawn of a model of points: points it makes, arrows, and a field behind them. A view for each family.

           points                       arrows                                               field
    ae     reconstructions d(e(x))      x -> d(e(x))
    vae    decoded codes of p(z)        x -> the reconstruction of the posterior's mean
    gan    G(z)                         -dL_G / dG(z): where the generator's loss pulls      critic
    flow   codes that it carries        -E[dx_t/dt | x_t], towards the data, at a time t     p(x)
    nf     f^-1(z)                      d log p(x) / dx, the score                           p(x)

Codes z are the same in every picture, so that points move as the model learns. All is of the weights as they are now.

Legend: N points, M arrows, G fields of a side.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from fabulate.models.families.ae import AE
from fabulate.models.families.flow import Flow
from fabulate.models.families.gan import GAN
from fabulate.models.families.nf import NF
from fabulate.models.families.vae import VAE
from fabulate.samplers import exact_divergence, grid, log_density
from fabulate.seeds import generator
from fabulate.studio.learn.toys import as_images
from fabulate.types import Batch

SHOWN = 400  # points
ARROWS = 60  # from points
SIDE = 13  # arrows along a side of the plane, of a field
LEVELS = [*reversed(grid(9)[:-1])]  # from a point to its noise, for a field that need not be precise

Arrows = tuple[Tensor, Tensor]
"""Where they begin and how far they reach, (M, 2) each."""


def lattice(side: int) -> Tensor:
    """Points (side^2, 2) at the middles of the fields of a chequerboard on [-1, 1]^2, from the top left, row by row.

    >>> lattice(2)
    tensor([[-0.5000,  0.5000],
            [ 0.5000,  0.5000],
            [-0.5000, -0.5000],
            [ 0.5000, -0.5000]])
    """
    middles = (torch.arange(side) + 0.5) * 2 / side - 1
    down, across = torch.meshgrid(-middles, middles, indexing="ij")
    return torch.stack([across, down], 2).view(-1, 2)


class View(ABC):
    """What is drawn of a model: `points`, `arrows` and, where there is one, a `field`."""

    arrows_are: ClassVar[str]
    """What the arrows are, in words."""
    exact: ClassVar[bool] = False
    """Whether an arrow ends where it points to; else its length is relative to the others'."""
    field_is: ClassVar[str] = ""
    """What the field is; none where it is empty."""
    side: ClassVar[int] = 0
    """Places along a side of the field."""
    every: ClassVar[int] = 1
    """A new field comes with every n-th picture."""
    logarithmic: ClassVar[bool] = True
    """Whether the field holds log p(x), which is drawn as p(x)."""

    def __init__(self, model: Any, data: Tensor) -> None:
        self.model, self.data = model, as_images(data[:SHOWN])
        self.some = as_images(data[:: max(1, len(data) // ARROWS)][:ARROWS])

    def codes(self, n: int) -> Tensor:
        """Codes (N, Z), always the same."""
        return self.model.prior(n, None, generator("learn", "codes"))

    @torch.no_grad()
    def points(self) -> Tensor:
        """What the model makes, (N, 2)."""
        return self.model.decode(self.codes(SHOWN)).view(-1, 2)

    @abstractmethod
    def arrows(self) -> Arrows:
        """Where arrows begin and how far they reach."""

    def field(self) -> Tensor:
        """Values (G^2,) at the places of `lattice(side)`."""
        raise NotImplementedError

    def residuals(self) -> Arrows:
        """From points to their reconstructions."""
        with torch.no_grad():
            ends = self.model.decode(self.model.codes(Batch(self.some)))
        return self.some.view(-1, 2), (ends - self.some).view(-1, 2)


class AEView(View):
    """See the table above."""

    arrows_are, exact = "from points to their reconstructions", True

    @torch.no_grad()
    def points(self) -> Tensor:
        return self.model.decode(self.model.codes(Batch(self.data))).view(-1, 2)

    def arrows(self) -> Arrows:
        return self.residuals()


class VAEView(View):
    """See the table above."""

    arrows_are, exact = "from points to the reconstructions of their mean codes", True

    def codes(self, n: int) -> Tensor:
        return self.model.p_z.draw(n, None, generator("learn", "codes"))

    def arrows(self) -> Arrows:
        return self.residuals()


class GANView(View):
    """See the table above."""

    arrows_are = "minus the gradient of the generator's loss at its points"
    field_is, side, every, logarithmic = "the critic's score", 40, 2, False

    def arrows(self) -> Arrows:
        with torch.no_grad():
            fakes = self.model.decode(self.codes(len(self.some)))
        fakes.requires_grad_()
        with torch.enable_grad():  # the loss is a mean: N times its gradient is that of each point's own share
            loss = self.model.loss_of_fakes(fakes, Batch(self.some))
            (gradient,) = torch.autograd.grad(loss * len(fakes), fakes)
        return fakes.detach().view(-1, 2), -gradient.view(-1, 2)

    @torch.no_grad()
    def field(self) -> Tensor:
        return self.model.scores(as_images(lattice(self.side)), None)


class FlowView(View):
    """See the table above."""

    arrows_are = "minus the velocity that the network sees at this time: the way to the data"
    field_is, side, every = "the density p(x)", 24, 30
    time = 0.5
    """The time whose velocity is drawn: 0 data, 1 noise."""

    @torch.no_grad()
    def arrows(self) -> Arrows:
        x_t = as_images(lattice(SIDE))
        level = self.model.path.level(torch.tensor(self.time, dtype=torch.float64))
        s, u = level.sigma / level.alpha, x_t / float(level.alpha)
        x = self.model.denoiser(None)(u, s)
        eps = (u - x) / s
        velocity = level.d_alpha * x + level.d_sigma * eps
        return x_t.view(-1, 2), -velocity.to(x_t).view(-1, 2)

    def field(self) -> Tensor:
        denoise = self.model.denoiser(None)
        return log_density(denoise, as_images(lattice(self.side)), LEVELS, exact_divergence).detach()


class NFView(View):
    """See the table above."""

    arrows_are = "the score, the gradient of log p(x)"
    field_is, side, every = "the density p(x)", 32, 6

    def arrows(self) -> Arrows:
        x = as_images(lattice(SIDE)).requires_grad_()
        with torch.enable_grad():
            (score,) = torch.autograd.grad(self.model.code_and_log_prob(x, None)[1].sum(), x)
        return x.detach().view(-1, 2), score.view(-1, 2)

    @torch.no_grad()
    def field(self) -> Tensor:
        return self.model.code_and_log_prob(as_images(lattice(self.side)), None)[1]


VIEWS: dict[str, type[View]] = {
    AE.family: AEView, VAE.family: VAEView, GAN.family: GANView, Flow.family: FlowView, NF.family: NFView
}  # fmt: skip
