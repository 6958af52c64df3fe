"""How training speed and memory grow with the data: python benchmarks/growth.py [--counts 10000 100000 1000000]

Synthetic colour images, uint8, in a file that is memory-mapped, and the default VAE with its convolutional network or
the fully connected one. Each size is a process of its own, so that its peak memory is its own: `resident` is all that
the process had in memory at most, pages of mapped files among them; `anonymous` is without these, at the end. Images/s
is the median of ten parts of the run. The ratio of the images/s of the two largest counts is measured by `--rounds` of
steps in turn: runs one after the other would mostly tell what else the machine was doing.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PART = 1000  # images written at a time
BATCH = 128


def write(path: Path, count: int, side: int) -> None:
    """A file of `count` colour images of noise."""
    chance = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, side, side))
    for first in range(0, count, PART):
        images[first : first + PART] = chance.integers(0, 256, (min(PART, count - first), 3, side, side), np.uint8)
    images.flush()


def training(path: Path) -> Iterator[Any]:
    """The steps of a training on the images in a file, ten of them taken."""
    from fabulate.config import BUDGETS, override
    from fabulate.data import Images
    from fabulate.models import family
    from fabulate.training.loop import Learner

    images = Images(np.load(path, mmap_mode="r"))
    config, schedule = family("vae").presets["default"]
    schedule = override(schedule, dict.fromkeys(BUDGETS) | {"steps": 10**9, "batch_size": BATCH})
    running = Learner(family("vae")(config, images.shape), schedule, images).steps()
    timed(running, 10)
    return running


def timed(running: Iterator[Any], steps: int) -> float:
    """Seconds that so many steps take."""
    began = time.perf_counter()
    for _ in range(steps):
        next(running)
    return time.perf_counter() - began


def measure(path: Path, steps: int) -> dict[str, float]:
    """Train on the images in a file and tell images/s and megabytes at most."""
    running, part = training(path), max(1, steps // 10)
    speeds = [part * BATCH / timed(running, part) for _ in range(10)]
    status = Path("/proc/self/status").read_text()
    kilobytes = {name: int(value) for name, value in re.findall(r"(\w+):\s+(\d+) kB", status)}
    return {
        "speed": statistics.median(speeds),
        "resident": kilobytes["VmHWM"] / 1024,
        "anonymous": kilobytes["RssAnon"] / 1024,
    }


def row(count: int, side: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        write(path, count, side)
        command = [sys.executable, __file__, "--measure", str(path), "--steps", str(steps)]
        out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = count * 3 * side**2 / 2**20
    cells = [
        f"{count:,}",
        f"{side}",
        f"{size:,.0f}",
        *(f"{out[key]:,.0f}" for key in ("speed", "resident", "anonymous")),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def ratio(counts: list[int], rounds: int) -> None:
    """Images/s of the larger of two counts over the smaller: two trainings in one process, ten steps each in turn."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{count}.npy" for count in counts]
        for path, count in zip(paths, counts, strict=True):
            write(path, count, 32)
        trainings = [training(path) for path in paths]
        seconds = np.array([[timed(running, 10) for running in trainings] for _ in range(rounds)])
    ratios = seconds[:, 0] / seconds[:, 1]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(
        f"\nimages/s of {counts[1]:,} images over those of {counts[0]:,}, ten steps each in turn: median {middle:.3f}, "
        f"half of {rounds} between {low:.3f} and {high:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(flags.measure, flags.steps)))
        return
    print("| images | side | MB of images | images/s | MB resident | MB anonymous |\n|---|---|---|---|---|---|")
    for count in flags.counts:
        row(count, 32, flags.steps)
    for side in flags.sides:
        row(10_000, side, flags.steps)
    if len(flags.counts) > 1 and flags.rounds:
        ratio(sorted(flags.counts)[-2:], flags.rounds)


if __name__ == "__main__":
    main()
