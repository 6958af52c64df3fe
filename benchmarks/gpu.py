"""Training on a GPU against the clock and against the chip: python benchmarks/gpu.py [--device cuda]

    --epochs 10      of MNIST, for the tutorial's VAE and GAN
    --steps 100      of the flow at each size
    --samples 1024   that it draws
    --minutes 5      of training a conditional flow of CIFAR-10, and 10,000 samples judged; 0 leaves it out
    --out gpu.png    its samples

1. Seconds that the tutorial's VAE and GAN take after a warm-up (of compiling, above all), and their loss.
2. Images/s of the flow of the preset `gpu` on noise of 32 and of 128 pixels, and of its network alone: the compiled
   forward and backward pass; and which share of the chip's arithmetic the network uses. The chip's ceiling is measured,
   not looked up: the product of two large matrices in the precision that training uses.
3. Images/s that it draws, by how many tiles of 32 are computed together, and with its network compiled.
4. What a classifier learns from samples alone after minutes of CIFAR-10 (classification accuracy score), with a grid.

About ten minutes on one card. Times are of CUDA events on a GPU. `--device cpu` with few steps shows that it runs.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import fabulate
from fabulate.config import BUDGETS, override
from fabulate.data import resident
from fabulate.evaluation.classes import SCORE
from fabulate.models import base, family
from fabulate.samples import faster
from fabulate.seeds import seeded
from fabulate.training.devices import flushed, multiplying
from fabulate.training.loop import Learner

WARM = 20  # steps before the clock starts


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long some work takes on the device."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def learner(name: str, preset: str, data: fabulate.Data, device: torch.device, steps: int) -> Learner:
    config, training = family(name).presets[preset]
    training = override(
        training, dict.fromkeys(BUDGETS) | {"steps": steps, "compile": "on" if device.type == "cuda" else "off"}
    )
    with seeded(0, "weights"):
        model = family(name)(config, data.shape).to(device)
    return Learner(model, training, resident(data.train, device))


def tutorial(name: str, data: fabulate.Data, device: torch.device, epochs: float) -> None:
    """Seconds of so many epochs after a warm-up, and the mean loss of their last tenth."""
    steps = int(epochs * len(data.train) / family(name).presets["tutorial"].training.batch_size)
    lesson = learner(name, "tutorial", data, device, steps + WARM)
    running = lesson.steps()
    for _ in range(WARM):
        next(running)
    losses: list[torch.Tensor] = []
    term = "loss" if len(lesson.players) == 1 else "critic.loss"
    taken = seconds(lambda: losses.extend(terms[term] for terms in running), device)
    lesson.guard.check()
    loss = torch.stack(losses[-max(1, steps // 10) :]).mean()
    print(f"| `{name}` | {steps:,} | {taken:.2f} | {steps * lesson.training.batch_size / taken:,.0f} | {loss:.4g} |")


def ceiling(device: torch.device, size: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second in a large product of matrices of these numbers."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    repeats = 10
    taken = seconds(lambda: [a @ b for _ in range(repeats)], device)
    return 2 * size**3 * repeats / taken


def noise(side: int) -> fabulate.Data:
    """Colour images of which nothing matters but their size."""
    return fabulate.load_data(np.random.default_rng(0).integers(0, 256, (512, 3, side, side), np.uint8))


def flow(side: int, device: torch.device, steps: int) -> None:
    """Training against the network's forward and backward pass alone, in turns."""
    data = noise(side)
    lesson = learner("flow", "gpu", data, device, 10**9)
    running, size = lesson.steps(), lesson.training.batch_size
    model: Any = lesson.model
    x, t = torch.randn(size, *model.space.shape, device=device), torch.rand(size, device=device)
    parameters = [p for p in model.network.parameters() if p.requires_grad]

    with FlopCounterMode(display=False) as counted:
        torch.autograd.grad(model.answer(x, t, None).square().mean(), parameters, allow_unused=True)
    answer = torch.compile(model.answer) if device.type == "cuda" else model.answer

    def alone() -> None:
        with multiplying(model, lesson.precision):
            torch.autograd.grad(answer(x, t, None).square().mean(), parameters, allow_unused=True)

    for _ in range(min(WARM, steps)):
        next(running)
        alone()
    part = max(1, steps // 5)
    trained = bare = 0.0
    for _ in range(5):
        trained += seconds(lambda: [next(running) for _ in range(part)], device)
        bare += seconds(lambda: [alone() for _ in range(part)], device)
    lesson.guard.check()
    done = 5 * part
    limit = ceiling(device, 8192 if device.type == "cuda" else 1024, getattr(torch, lesson.precision))
    share, steps_share = (counted.get_total_flops() * done / taken / limit for taken in (bare, trained))
    print(
        f"| {side} | {size} | {lesson.precision} | {done * size / trained:,.0f} | {done * size / bare:,.0f} | "
        f"{limit / 1e12:,.1f} | {steps_share:.0%} | {share:.0%} |"
    )


def drawing(device: torch.device, n: int) -> None:
    """Images/s of a flow as it begins: what its weights are changes no time."""
    model = family("flow")(family("flow").presets["gpu"].model, noise(32).shape).to(device)
    limits = "TOGETHER_ON_CPU" if device.type == "cpu" else "TOGETHER"
    usual, numbers = getattr(base, limits)
    print("\n| tiles together | images/s |\n|---|---|")
    for tiles, choice in [*((tiles, "off") for tiles in (1, 2, 4, 8, 16)), (usual, "on")]:
        setattr(base, limits, (tiles, numbers * tiles))
        with faster(model, n, choice, lambda sentence: None):
            model.sample(1)  # warms up, and compiles
            taken = seconds(partial(model.sample, max(n, model.rows)), device)
        print(f"| {tiles}{', compiled' * (choice == 'on')} | {max(n, model.rows) / taken:,.0f} |")
    setattr(base, limits, (usual, numbers))


def quality(device: torch.device, minutes: float, n: int, out: Path) -> None:
    """What a classifier learns from samples of a conditional flow that was trained so long on CIFAR-10."""
    with TemporaryDirectory() as folder:
        options = {"preset": "gpu", "conditional": True, "minutes": minutes, "device": device.type, "quiet": True}
        model = fabulate.train("flow", "cifar10", out=Path(folder) / "run", **options)
        model.show(title=f"CIFAR-10 (as it lies here), {minutes:g} minutes").save(out)
        report = fabulate.evaluate(Path(folder) / "run", n=n, device=device.type)
    score = report.rows[SCORE]
    print(f"\nCIFAR-10, {minutes:g} minutes, {model.record['steps']:,} steps: {out}")
    print(f"{SCORE}: {score.value}; of as many real images: {score.floor:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--judged", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("gpu.png"))
    flags = parser.parse_args()
    device = torch.device(flags.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no GPU here; --device cpu --epochs 0.1 --steps 1 --samples 64 --minutes 0 shows that the script runs"
        )
    data = fabulate.load_data("mnist")
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{what}, torch {torch.__version__}\n\n| | steps | seconds | images/s | loss |\n|---|---|---|---|---|")
    with flushed():
        for name in ("vae", "gan"):
            tutorial(name, data, device, flags.epochs)
        print("\n| side | batch | products | images/s | network alone | TFLOP/s of matrices | of that | alone |")
        print("|---|---|---|---|---|---|---|---|")
        for side in (32, 128):
            flow(side, device, flags.steps)
    drawing(device, flags.samples)
    if flags.minutes:
        quality(device, flags.minutes, flags.judged, flags.out)


if __name__ == "__main__":
    main()
