"""Diffusion and flow matching, which are one: learn to take noise off images, then turn noise into an image by steps.

An image x and noise eps ~ N(0, 1) are mixed at a random time t, and a network is asked for a fixed mixture of both:

    x_t = alpha(t) x + sigma(t) eps,      target = a(t) x + b(t) eps,      L = E (net(x_t, t) - target)^2.

The best answer is the mean E[target | x_t], hence that of x and of eps (`paths.py`), and with it the field du/ds that
carries noise to images (`samplers.py`). A path and a target are names: linear with velocity is flow matching (Lipman et
al. 2023, https://arxiv.org/abs/2210.02747), ddpm with eps is DDPM (Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239).

Images have codes, the noise that the field carries to them, and a likelihood (Chen et al. 2018,
https://arxiv.org/abs/1806.07366): along the field the log density changes by minus its divergence,

    log p(x) = log N(u(S); 0, S^2) + integral over s of div(du/ds), from 0 to the highest level S,

with the divergence estimated by e' J e, e = +-1 (Hutchinson; Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367).

All of this can be done in another space than pixels (`spaces.py`); x then stands for what an image is there.

With classes, a tenth of the images is trained without theirs, and the two answers are mixed at sampling time:
D = D(u) + guidance (D(u | y) - D(u)) (Ho, Salimans 2022, https://arxiv.org/abs/2207.12598).

Legend: B batch, N images, C H W image, Z numbers in an image of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fabulate.config import NonNegativeFloat, PositiveInt, Preset, Training, spec
from fabulate.models.base import Labels, evaluating
from fabulate.models.capabilities import Encodes, Fills, HasLikelihood
from fabulate.models.denoising import Denoising
from fabulate.models.filling import STEPS, inpainted
from fabulate.models.spaces import Pixels, SpaceOrAuto
from fabulate.nets import Auto, Backbone, UNet
from fabulate.paths import FIRST, LAST, TIMES, velocity_weight
from fabulate.samplers import (
    HIGHEST,
    LOWEST,
    SOLVERS,
    Noise,
    estimated_divergence,
    exact_divergence,
    grid,
    log_density,
    steps_within,
    transport,
)
from fabulate.seeds import generator
from fabulate.types import Batch, ImageShape

NUMERICAL = 0.01  # error of a pixel by the steps from an image to its code and back
REVERSE = [*reversed(grid(24)[:-1])]  # levels from an image to its noise; each step takes two evaluations


@spec
class FlowSampling:
    """How samples are drawn."""

    solver: Literal["euler", "ancestral", "heun", "dpm2", "dpm3", "ipndm", "sde"] = "sde"
    """How the field is followed; euler is DDIM, ancestral is DDPM's own way, which draws noise at each step as sde
    does."""
    evaluations: PositiveInt = 20
    """Of the network for each image (guidance takes two at once)."""
    guidance: NonNegativeFloat = 1.0
    """How much the class counts: 0 ignores it, 1 is p(x | class), more exaggerates it."""
    sigma_min: Annotated[float, Field(gt=0, le=1)] = LOWEST
    """Noise level from which a random solver goes straight to the image: a higher one (0.1) leaves less grain after a
    short training, and fewer fine details after a long one."""


@spec
class FlowConfig:
    """A diffusion or flow-matching model."""

    path: Literal["linear", "cosine", "ddpm"] = "linear"
    """How an image turns into noise."""
    target: Literal["x", "x_skip", "eps", "v", "velocity", "edm"] = "x_skip"
    """What the network predicts: image, noise, or a mixture of them."""
    error: Literal["target", "velocity"] = "velocity"
    """What the loss measures the error of: the target, or the velocity that follows from it."""
    times: Literal["uniform", "logit_normal"] = "logit_normal"
    """How the times of training are spread: evenly, or more of them in the middle."""
    pairing: Literal["independent", "optimal"] = "independent"
    """Which noise goes with which image of a batch: any, or the one that makes paths shortest (Tong et al. 2023)."""
    drop_class: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of images trained without their class, which guidance needs."""
    space: SpaceOrAuto = Auto()
    """What images are while noise is taken off them."""
    network: Backbone = UNet()
    """The denoiser."""
    sampling: FlowSampling = FlowSampling()
    """How samples are drawn unless asked otherwise."""


class Flow(Denoising, Encodes, HasLikelihood, Fills, family="flow"):
    """Diffusion or flow matching (Ho et al. 2020, https://arxiv.org/abs/2006.11239; Lipman et al. 2023)."""

    Config = FlowConfig
    slow = True
    units = {"loss": "mean squared error"}
    presets = {
        "default": Preset(FlowConfig(), Training(steps=20_000, batch_size=32, warmup=500, optimizer="muon", lr=2e-3)),
        "gpu": Preset(  # finer grids and more features than minutes of a CPU can train; not measured on a GPU
            FlowConfig(space=Pixels(), network=UNet(width=128, blocks=2, patch=2)),
            Training(steps=50_000, batch_size=256, warmup=500, optimizer="muon", lr=2e-3, ema=0.9995),
        ),
        "flow-matching": Preset(
            FlowConfig(target="velocity", error="target", space=Pixels(), sampling=FlowSampling(solver="ipndm")),
            Training(steps=20_000, batch_size=64, warmup=500),
        ),
        "diffusers": Preset(  # what `fabulate export` can write
            FlowConfig(
                path="cosine",
                target="v",
                error="target",
                space=Pixels(),
                network=UNet(patch=1),
                sampling=FlowSampling(solver="ipndm"),
            ),
            Training(steps=20_000, batch_size=64, warmup=500),
        ),
        "tutorial": Preset(
            FlowConfig(
                path="ddpm",
                target="eps",
                error="target",
                times="uniform",
                space=Pixels(),
                sampling=FlowSampling(solver="ancestral", evaluations=250),
            ),
            Training(
                epochs=10, steps=None, batch_size=128, lr=2e-4, schedule="constant", ema=0.9999, clip=1.0, validation=0
            ),
        ),
    }

    config: FlowConfig
    sampling: FlowSampling
    passes = 2 * (len(REVERSE) - 1)

    method = f"by following the ODE in {len(REVERSE) - 1} Heun steps, its divergence estimated with one random probe"

    def __init__(self, config: FlowConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, shape, classes)
        if self.space.method:
            self.method = f"{self.method}; {self.space.method}"

    @classmethod
    def current(cls, saved: Mapping[str, Any], shape: ImageShape | None = None) -> dict[str, Any]:
        saved = super().current(saved)
        network = saved.get("network")
        if shape is None or network is None:
            return saved
        saved = {"space": {"kind": "pixels"}, **saved}
        if "error" in saved:
            return saved
        # Before there was a choice of `error`, a U-Net of which nothing was said had other sizes.
        if network["kind"] == "unet":
            long = max(shape.height, shape.width)
            sizes = {"width": 32 if long <= 32 else 64, "patch": 1 if long <= 16 else 2 if long <= 32 else 4}
            network = {**network, **{name: network[name] or size for name, size in sizes.items()}}
        return {**saved, "error": "target", "network": network}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean squared error of the predicted target, or of the velocity that follows from it."""
        x, y = batch = Batch(self.space.encode(batch.x), batch.y)
        eps = self.noise(batch)
        # One time in each of B equal shares: less chance in the loss (Kingma et al. 2021, https://arxiv.org/abs/2107.00630).
        u = (torch.arange(len(x), device=x.device) + torch.rand(len(x), device=x.device)) / len(x)
        t = TIMES[self.config.times](u).clamp(FIRST, LAST)
        alpha, sigma, *_ = level = self.path.level(t[:, None, None, None])
        a, b, scale = row = self.row(level)
        y = self.dropped(y)
        prediction = self.answer(scale * (alpha * x + sigma * eps), t, y)
        target = a * x + b * eps
        if self.config.error == "velocity":
            weight = velocity_weight(level, row)
            prediction, target = weight * prediction, weight * target
        return {"loss": F.mse_loss(prediction, target)}

    def test_terms(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(batch)

    def noise(self, batch: Batch) -> Tensor:
        """Noise for each image of the batch; under optimal pairing in the order that makes all paths shortest.

        Tong et al., "Improving and generalizing flow-based generative models with minibatch optimal transport", 2023,
        https://arxiv.org/abs/2302.00482. With classes, noise changes places only among images of one class: else where
        an image begins would tell its class.
        """
        eps = torch.randn_like(batch.x)
        if self.config.pairing == "independent":
            return eps
        from scipy.optimize import linear_sum_assignment  # late: few use it, and it takes a third of a second to import

        cost = torch.cdist(batch.x.flatten(1), eps.flatten(1)).square()  # (B, B)
        if batch.y is not None:
            cost = cost + cost.sum() * (batch.y[:, None] != batch.y)
        _, order = linear_sum_assignment(cost.cpu().numpy())
        return eps[torch.from_numpy(order).to(eps.device)]

    @property
    def code_error(self) -> float:  # type: ignore[override]
        return NUMERICAL if SOLVERS[self.sampling.solver].random else super().code_error

    def code(self, seed: int, y: Labels = None) -> Tensor:
        """The code (1, Z) of the first sample of a seed; found by the ODE where a random solver draws it."""
        if not SOLVERS[self.sampling.solver].random:
            return super().code(seed, y)
        labels = self.labels(y, 1)
        return self.encode(self.sample(1, labels, seed=seed), labels)

    def draw(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        z = self.priors(tiles, y)
        return self.walk(z, y, lambda: self.images(self.priors(tiles, y)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The images that the field carries codes to, by the solver of samples; precisely where it is random."""
        if SOLVERS[self.sampling.solver].random:
            return self.carried(z, y)
        return self.walk(z, y, lambda: self.images(z))

    def carried(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The images of codes (N, Z), by as many and as precise steps as codes are found by."""
        denoise = self.denoiser(y, self.sampling.guidance)
        return self.space.decode(transport(denoise, self.images(z) * HIGHEST, REVERSE[::-1])).clamp(-1, 1)

    def walk(self, z: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """From codes (N, Z) to images in [-1, 1] by the solver of samples."""
        solver = SOLVERS[self.sampling.solver]
        lowest = self.sampling.sigma_min if solver.random else LOWEST
        levels = list(grid(steps_within(solver, self.sampling.evaluations), lowest, rho=solver.rho))
        u = solver.walk(self.denoiser(y, self.sampling.guidance), self.images(z) * HIGHEST, levels, noise)
        return self.space.decode(u).clamp(-1, 1)

    @torch.no_grad()
    def fill(self, x: Tensor, known: Tensor, y: Labels = None, *, n: int = 4, seed: int = 0, **sampling: Any) -> Tensor:
        """n completions of an image x (1, C, H, W), of which `known` (C, H, W) is given (`models/filling.py`)."""
        batch = self.given(x, y)
        tiles = [generator(seed, "fill", i) for i in range(n)]
        labels = None if batch.y is None else batch.y.expand(n)

        def noise() -> Tensor:
            each = [torch.randn(self.space.shape, generator=tile) for tile in tiles]
            return torch.stack(each).to(batch.x)

        def pasted(u: Tensor) -> Tensor:
            return self.space.encode(torch.where(known, batch.x, self.space.decode(u)))

        with evaluating(self), self.drawing(sampling):
            denoise = self.denoiser(labels, self.sampling.guidance)
            u = inpainted(denoise, noise() * HIGHEST, list(grid(STEPS)), noise, pasted)
            return torch.where(known, batch.x, self.space.decode(u).clamp(-1, 1))

    def codes(self, batch: Batch) -> Tensor:
        """The noise (B, Z) that the field carries to each image."""
        denoise = self.denoiser(batch.y, self.sampling.guidance)
        return transport(denoise, self.space.encode(batch.x), REVERSE).flatten(1) / HIGHEST

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Labels = None) -> Tensor:
        """Each image from its own noise: what is lost is the error of the steps."""
        batch = self.given(x, y)
        with evaluating(self):
            return self.carried(self.codes(batch), batch.y)

    def log_prob(
        self, x: Tensor, y: Labels = None, *, trace: Literal["estimated", "exact"] = "estimated", seed: int = 0
    ) -> Tensor:
        """log p(x) in nats (N,): a density over floats in [-1, 1]; the exact trace costs Z times the estimated one.

        A lower bound where the space is that of an autoencoder (`spaces.py`).
        """
        batch = self.given(x, y)
        with evaluating(self):
            u, rest = self.space.evidence(batch.x, generator(seed, "space"))
            probe = 2 * torch.randint(2, u.shape, generator=generator(seed, "trace")).to(u) - 1
            divergence = exact_divergence if trace == "exact" else estimated_divergence(probe)
            return log_density(self.denoiser(batch.y), u, REVERSE, divergence) + rest
