"""Diffusion here and in diffusers; `python benchmarks/peers.py` runs this where diffusers is installed.

Training: a whole step. Ours is the one of `fabulate train flow` (default preset). Theirs is the loop of diffusers' own
example, examples/unconditional_image_generation/train_unconditional.py: DDPMScheduler.add_noise, mse_loss, gradients
clipped, AdamW, a cosine schedule and its EMAModel, as the example's README calls it. What the example does besides,
turning images into tensors in a DataLoader and handing things to accelerate, is left out: their batches are slices of
one tensor, as ours are.

Sampling: as many evaluations of the network for each image; ours by the default solver, theirs by DDIM.

Two networks of theirs. "same": our default U-Net itself with its weights, exported to diffusers. It works on patches of
2x2 pixels folded into channels, which theirs does not know, so it is given folded images. "on pixels": UNet2DModel
with the same features on each grid and nothing folded: nearly as many parameters, four times the places.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fabulate.config import BUDGETS, override
from fabulate.data import Images
from fabulate.models import family
from fabulate.models.families.flow import Flow, FlowConfig
from fabulate.nets import UNet
from fabulate.seeds import seeded
from fabulate.share.diffusers import to_diffusers
from fabulate.training.loop import Learner
from fabulate.types import ImageShape, to_float

SHAPES = [ImageShape(1, 28, 28), ImageShape(3, 32, 32)]
EVALUATIONS = 20
SAMPLES = 64  # drawn at a time
Fold = Callable[[Tensor], Tensor]


class Theirs:
    """diffusers' training example and its DDIM pipeline around a network, without accelerate, PIL and progress bars."""

    def __init__(self, unet: Any, fold: Fold, x: Tensor, batch: int) -> None:
        self.unet, self.fold, self.x, self.batch = unet, fold, x, batch
        self.noise_scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        self.lr_scheduler = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=20_000)
        self.ema = EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)

    def step(self) -> None:
        self.unet.train()
        clean = self.fold(to_float(self.x[torch.randint(len(self.x), (self.batch,))]))
        noise = torch.randn(clean.shape)
        timesteps = torch.randint(0, 1000, (len(clean),))
        noisy = self.noise_scheduler.add_noise(clean, noise, timesteps)
        loss = F.mse_loss(self.unet(noisy, timesteps).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        loss.detach().item()

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        self.unet.eval()
        scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        scheduler.set_timesteps(EVALUATIONS)
        config = self.unet.config
        sides = config.sample_size if isinstance(config.sample_size, list) else [config.sample_size] * 2
        image = torch.randn(n, config.in_channels, *sides)
        for t in scheduler.timesteps:
            image = scheduler.step(self.unet(image, t).sample, t, image).prev_sample
        return image.clamp(-1, 1)


def same(model: Flow) -> Any:
    """The network of our model in diffusers, through our own export: it takes folded images."""
    network, patch = model.network, model.network.patch
    folded = ImageShape(model.shape.channels * patch**2, model.shape.height // patch, model.shape.width // patch)
    config = FlowConfig(path="cosine", target="v", network=UNet(width=network.conv_in.out_channels, patch=1))
    exported = Flow(config, folded)
    exported.network.load_state_dict(network.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        unet = diffusers.UNet2DModel.from_pretrained(
            to_diffusers(exported, Path(folder) / "out") / "unet",
            low_cpu_mem_usage=False,  # which needs accelerate
        )
    x, t = torch.randn(4, *model.shape), torch.tensor([0, 300, 600, 999])
    with torch.no_grad():
        apart = F.pixel_shuffle(unet(F.pixel_unshuffle(x, patch), t).sample, patch) - network(x, (t + 1) / 1001)
    assert apart.abs().max() < 1e-5, "the exported network computes something else"
    return unet


def on_pixels(model: Flow) -> Any:
    """UNet2DModel on pixels, of as many parameters to within 2 %, with attention on its smallest grid as ours has."""
    unet = diffusers.UNet2DModel(
        sample_size=[model.shape.height, model.shape.width],
        in_channels=model.shape.channels,
        out_channels=model.shape.channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(model.config.network.widths(model.shape)),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    assert abs(size(unet) / size(model.network) - 1) < 0.02
    return unet


def size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def multiply_adds(call: Callable[[], Any]) -> float:
    """Millions, in the matrix products and convolutions of a call."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2e6


def in_turns(
    images: int, ours: Callable[[], Any], theirs: Callable[[], Any], calls: int, repeats: int
) -> dict[str, list[float]]:
    """Images/s of both, each repeat's; turns are short, one call, and the first repeat warms up and is not counted."""
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(repeats + 1):
        seconds = {"ours": 0.0, "theirs": 0.0}
        for _ in range(calls if repeat else 1):
            for side, call in (("theirs", theirs), ("ours", ours)):
                began = time.perf_counter()
                call()
                seconds[side] += time.perf_counter() - began
        if repeat:
            for side, spent in seconds.items():
                speeds[side].append(calls * images / spent)
    return speeds


def compare(shape: ImageShape, name: str, calls: int, repeats: int) -> tuple[list[dict[str, Any]], str]:
    """The rows of training and of sampling for images of a shape and one of their networks, and a note on its size."""
    config, training = family("flow").presets["default"]
    training = override(training, dict.fromkeys(BUDGETS) | {"steps": 10**6})
    x = np.random.default_rng(0).integers(0, 256, (4096, *shape), np.uint8)
    with seeded(0, "weights"):
        model = Flow(config, shape)
    make, fold = NETWORKS[name]
    theirs = Theirs(make(model), partial(fold, model.network.patch), torch.from_numpy(x), training.batch_size)
    image, time_of_it = torch.zeros(1, *shape), torch.zeros(1)
    ours_work = multiply_adds(lambda: model.network(image, time_of_it))
    theirs_work = multiply_adds(lambda: theirs.unet(theirs.fold(image), time_of_it))
    note = (
        f"{shape}, {name}: {size(model.network):,} parameters, theirs {size(theirs.unet):,}; "
        f"{ours_work:.1f} million multiply-adds for an image, theirs {theirs_work:.1f}."
    )
    learner = Learner(model, training, Images(x)).steps()
    train = in_turns(training.batch_size, lambda: next(learner), theirs.step, calls, repeats)
    model.eval()
    draw = partial(model.sample, SAMPLES, evaluations=EVALUATIONS)
    sample = in_turns(SAMPLES, draw, lambda: theirs.sample(SAMPLES), calls, repeats)
    return [
        {"what": f"train flow, {shape}, {name}", **train},
        {"what": f"sample flow, {shape}, {name}", **sample},
    ], note


NETWORKS: dict[str, tuple[Callable[[Flow], Any], Callable[[int, Tensor], Tensor]]] = {
    "same": (same, lambda patch, images: F.pixel_unshuffle(images, patch)),
    "on pixels": (on_pixels, lambda patch, images: images),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    rows, notes = (
        [],
        [f"Training in batches of 64; samples in batches of {SAMPLES}, by {EVALUATIONS} evaluations each."],
    )
    for shape in SHAPES:
        for name in NETWORKS:
            more, told = compare(shape, name, *((2, 3) if flags.quick else (5, 9)))
            rows, notes = [*rows, *more], [*notes, told]
    flags.out.write_text(json.dumps({"peer": f"diffusers {diffusers.__version__}", "rows": rows, "notes": notes}))


if __name__ == "__main__":
    main()
