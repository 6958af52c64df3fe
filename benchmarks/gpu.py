"""Training on a GPU against the clock and against its own network: python benchmarks/gpu.py [--device cuda]

    --epochs 10     of MNIST, for the tutorial's VAE and GAN
    --steps 300     of the default flow
    --samples 1024  that it draws

1. Seconds that the tutorial's VAE and GAN take after a warm-up (of compiling, above all), and their loss.
2. Images/s of the default flow, and of its network alone: the compiled forward and backward pass on noise of the same
   shape; and which share of the chip's arithmetic the network uses. The chip's ceiling is measured, not looked up: the
   product of two large matrices in the precision that training uses.
3. Images/s that the default flow draws, by how many tiles of 32 are computed together, and with its network compiled.

Times are of CUDA events on a GPU. `--device cpu` with few steps shows that the script runs.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import fabulate
from fabulate.config import BUDGETS, override
from fabulate.data import resident
from fabulate.models import base, family
from fabulate.samples import faster
from fabulate.seeds import seeded
from fabulate.training.devices import flushed
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


def ceiling(device: torch.device, size: int) -> float:
    """Floating-point operations a second in a large product of float32 matrices, as training multiplies them."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    for _ in range(3):
        a @ b
    repeats = 10
    taken = seconds(lambda: [a @ b for _ in range(repeats)], device)
    return 2 * size**3 * repeats / taken


def flow(data: fabulate.Data, device: torch.device, steps: int) -> None:
    """Training against the network's forward and backward pass alone, in turns."""
    lesson = learner("flow", "default", data, device, 10**9)
    running, size = lesson.steps(), lesson.training.batch_size
    network: Any = lesson.model.network
    x, t = torch.randn(size, *data.shape, device=device), torch.rand(size, device=device)
    parameters = [p for p in network.parameters() if p.requires_grad]
    run = torch.compile(network) if device.type == "cuda" else network

    def alone() -> None:
        torch.autograd.grad(run(x, t).square().mean(), parameters, allow_unused=True)

    with FlopCounterMode(display=False) as counted:
        torch.autograd.grad(network(x, t).square().mean(), parameters, allow_unused=True)
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
    speed, limit = done * size / trained, done * size / bare
    share = counted.get_total_flops() * done / bare / ceiling(device, 8192 if device.type == "cuda" else 1024)
    print(
        f"\nflow: {speed:,.0f} images/s in training, {limit:,.0f} its network alone: {speed / limit:.0%}; the network"
    )
    print(f"alone does {share:.0%} of the arithmetic that large products of matrices reach here.")


def drawing(data: fabulate.Data, device: torch.device, n: int) -> None:
    """Images/s of a flow as it begins: what its weights are changes no time."""
    model = family("flow")(family("flow").presets["default"].model, data.shape).to(device)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--samples", type=int, default=1024)
    flags = parser.parse_args()
    device = torch.device(flags.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --device cpu --epochs 0.1 --steps 5 --samples 64 shows that the script runs")
    data = fabulate.load_data("mnist")
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{what}, torch {torch.__version__}\n\n| | steps | seconds | images/s | loss |\n|---|---|---|---|---|")
    with flushed():
        for name in ("vae", "gan"):
            tutorial(name, data, device, flags.epochs)
        flow(data, device, flags.steps)
    drawing(data, device, flags.samples)


if __name__ == "__main__":
    main()
