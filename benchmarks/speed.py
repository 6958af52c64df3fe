"""The tutorial's scripts against fabulate, and fabulate against its matrix products: python benchmarks/speed.py

    --epochs 10 --repeats 3 --families ae vae gan     the two programs take turns, whole processes and all
    --floor                                           only the matrix products' part
    --out PICTURE                                     where the bar chart goes (default: benchmarks/speed.png)

MNIST, equal epochs, equal models, as many threads as PyTorch takes by itself, ours with `--compile on`. For each repeat
the textbook runs first and then fabulate; a row tells the ratio of training speeds (compiling and all), of the steps
after the first report, and of whole processes, start-up and all, as the median over repeats with the smallest and the
largest. Machines drift; two runs side by side drift alike.

The floor: the matrix products of one step of the tutorial VAE (forward, backward for the weights, and for the inputs of
all layers but the first), alone, in the same process and in turns with whole steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import bars, told

import fabulate
from fabulate.config import BUDGETS, override
from fabulate.models import family
from fabulate.seeds import seeded
from fabulate.training import read_log
from fabulate.training.devices import flushed, threads
from fabulate.training.loop import Learner

HERE = Path(__file__).parent


def textbook(name: str, images: Path, epochs: int) -> dict[str, float]:
    """The tutorial's script: images/s and seconds of training, loss, and seconds of the whole process."""
    began = time.perf_counter()
    command = [sys.executable, str(HERE / "textbook.py"), name, str(images), str(epochs)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**json.loads(out), "whole": time.perf_counter() - began}


def ours(name: str, run: Path, epochs: int) -> dict[str, float]:
    """The same by `fabulate train`."""
    began = time.perf_counter()
    words = ["train", name, "--preset", "tutorial", "--data", "mnist", "--compile", "on"]
    command = [sys.executable, "-m", "fabulate", *words, "--epochs", str(epochs), "--out", str(run)]
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - began
    log = read_log(run)
    seconds = log[-1]["seconds"]
    last = [row["train"] for row in log if "train" in row and row["epoch"] > epochs - 1]  # of the last epoch
    term = "critic.loss" if name == "gan" else "loss"
    loss = statistics.fmean(row[term] for row in last)
    begun = next(row for row in log if "train" in row)  # the first report, after compiling
    later = (epochs - begun["epoch"]) * 60_000 / (seconds - begun["seconds"])
    return {"images_per_second": epochs * 60_000 / seconds, "later": later, "loss": loss, "whole": whole}


def against_textbook(names: list[str], epochs: int, repeats: int, picture: Path) -> None:
    print(f"| {epochs} epochs of MNIST | textbook, images/s | fabulate | training | steps | whole process | loss |")
    print("|---|---|---|---|---|---|---|")
    rows: dict[str, list[float]] = {}
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "mnist.npz"
        train = fabulate.load_data("mnist").train
        np.savez(images, x=train.x[:, 0], y=train.y)
        for name in names:
            first = ours(name, Path(folder) / f"{name}-first", epochs)  # may compile what later runs find in the cache
            pairs = [
                (textbook(name, images, epochs), ours(name, Path(folder) / f"{name}-{repeat}", epochs))
                for repeat in range(repeats)
            ]
            speed = [b["images_per_second"] / a["images_per_second"] for a, b in pairs]
            steps = [b["later"] / a["images_per_second"] for a, b in pairs]
            whole = [a["whole"] / b["whole"] for a, b in pairs]
            theirs, mine = (statistics.median(pair[i]["images_per_second"] for pair in pairs) for i in (0, 1))
            losses = " / ".join(f"{statistics.median(pair[i]['loss'] for pair in pairs):.4g}" for i in (0, 1))
            ratios = " | ".join(told(each) for each in (speed, steps, whole))
            print(f"| `{name}` | {theirs:,.0f} | {mine:,.0f} | {ratios} | {losses} |", flush=True)
            rows |= {f"{name}, training": speed, f"{name}, whole process": whole}
            seconds = statistics.median(b["whole"] for _, b in pairs)
            notes.append(f"`{name}` {first['whole']:.1f} and {seconds:.1f} s")
    print(f"\nThe whole process the first time, and with what it compiled in the cache: {', '.join(notes)}.")
    bars(rows, "times as fast as the textbook's script", picture)


def products(model: Any, size: int) -> Callable[[], None]:
    """The matrix products of one step of a fully connected model, into memory that is there already."""
    weights = [layer.weight.detach() for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    rows = [(torch.randn(size, w.shape[1]), torch.randn(size, w.shape[0])) for w in weights]
    room = [(torch.empty(size, w.shape[0]), torch.empty_like(w), torch.empty(size, w.shape[1])) for w in weights]

    def step() -> None:
        for i, (w, (x, g), (out, dw, dx)) in enumerate(zip(weights, rows, room, strict=True)):
            torch.mm(x, w.t(), out=out)
            torch.mm(g.t(), x, out=dw)
            if i:
                torch.mm(g, w, out=dx)

    return step


def tutorial(compile: str) -> Learner:
    """The tutorial VAE on MNIST, with no end."""
    config, training = family("vae").presets["tutorial"]
    training = override(training, dict.fromkeys(BUDGETS) | {"steps": 10**9, "compile": compile})
    data = fabulate.load_data("mnist")
    with seeded(0, "weights"):
        return Learner(family("vae")(config, data.shape), training, data.train)


def against_floor(repeats: int, steps: int = 200) -> None:
    with flushed():  # before torch starts its threads
        lessons = {word: tutorial(word) for word in ("on", "off")}
        size, shape = lessons["on"].training.batch_size, lessons["on"].model.shape
        floor, running = products(lessons["on"].model, size), {word: lesson.steps() for word, lesson in lessons.items()}
        work = {word: partial(next, steps) for word, steps in running.items()} | {"floor": floor}
        taken: dict[str, list[float]] = {name: [] for name in work}
        with threads(size * shape.size):
            for _ in range(repeats + 1):  # the first warms up, and compiles
                for name, step in work.items():
                    began = time.perf_counter()
                    for _ in range(steps):
                        step()
                    taken[name].append((time.perf_counter() - began) / steps * 1e3)
            used = torch.get_num_threads()
    print(f"\n| step of the tutorial VAE, {used} threads | ms | times its matrix products |\n|---|---|---|")
    for name, what in (("on", "compiled"), ("off", "as it is written"), ("floor", "its matrix products alone")):
        ratios = [ours / alone for ours, alone in zip(taken[name][1:], taken["floor"][1:], strict=True)]
        print(f"| {what} | {statistics.median(taken[name][1:]):.2f} | {told(ratios)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=["ae", "vae", "gan"], choices=["ae", "vae", "gan"])
    parser.add_argument("--floor", action="store_true", help="only the matrix products' part")
    parser.add_argument("--out", type=Path, default=HERE / "speed.png")
    flags = parser.parse_args()
    if not flags.floor:
        against_textbook(flags.families, flags.epochs, flags.repeats, flags.out)
    against_floor(max(10, flags.repeats))


if __name__ == "__main__":
    main()
