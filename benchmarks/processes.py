"""Images/s of training with one process and with two: python benchmarks/processes.py [--quick] [--repeats 3]

`fabulate train ... --processes 2` shares each step's images between processes on this machine, which average their
gradients. One process uses all cores by threads, two have half of them each; so on one machine the question is which of
two ways to use the same cores is the faster, and a CPU with two cores has little to gain. On several machines, or GPUs,
processes are the only way.

The same steps by the same commands, in turns. The speed is that of the steps after the first report, by the run's own
log: without start-up, pictures and tests. The ratio tells how many times faster two are, as the median over repeats
with the smallest and the largest.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from report import told

from fabulate.training import read_log

RUNS = {  # what is trained, and for how many steps
    "tutorial VAE": ("vae --preset tutorial", 2000),
    "conv VAE": ("vae --preset conv", 200),
    "flow": ("flow", 60),
}
QUICK = 3  # times fewer steps


def speed(words: str, steps: int, processes: int) -> float:
    """Images/s of a training with so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "fabulate", "train", *words.split(), "--data", "mnist", "--steps", str(steps)]
        subprocess.run(
            [*command, "--processes", str(processes), "--out", str(out)], check=True, stdout=subprocess.DEVNULL
        )
        rows = [row for row in read_log(out) if "train" in row]
    images = (rows[-1]["epoch"] - rows[0]["epoch"]) * 60_000
    return images / (rows[-1]["seconds"] - rows[0]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a third of the steps, and two repeats at most")
    flags = parser.parse_args()
    repeats = min(flags.repeats, 2) if flags.quick else flags.repeats
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"torch {torch.__version__}, {cores} cores; one process uses {torch.get_num_threads()} threads\n")
    print("| MNIST | steps | 1 process, images/s | 2 processes, images/s | ratio |")
    print("|---|---|---|---|---|")
    for name, (words, steps) in RUNS.items():
        steps = steps // QUICK if flags.quick else steps
        pairs = [[speed(words, steps, processes) for processes in (1, 2)] for _ in range(repeats)]
        one, two = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        ratios = [pair[1] / pair[0] for pair in pairs]
        print(f"| {name} | {steps:,} | {one:,.0f} | {two:,.0f} | {told(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
