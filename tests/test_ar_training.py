"""A training on sequences keeps what every training keeps: killed and shared it ends with the same weights."""

import signal
import subprocess
import sys
import time

import pytest
import torch

import fabulate
from fabulate.training import load, read_log
from fabulate.training.loop import Learner
from fabulate.types import Tensors
from test_ar import WORDS, made
from test_ar import words as symbols
from test_texts import words
from tiny import in_two

OPTIONS = {"transformer": {"width": 16, "layers": 1}, "counts": 3, "batch_size": 16}
FLAGS = ("--transformer.width", "16", "--transformer.layers", "1", "--counts", "3", "--batch-size", "16")
STEPS = 40


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words(120)) + "\n")
    return path


def test_the_average_of_weights_is_drawn_from_and_has_the_counts():
    training = fabulate.config.Training(steps=6, lr=1e-2, batch_size=16, validation=0, ema=0.5, warmup=0)
    learner = Learner(made(WORDS), training, Tensors(symbols(80)))
    averaged = None
    for _ in learner.steps():
        now = learner.model.last.weight.detach().clone()
        averaged = now if averaged is None else averaged
    average = learner.average
    assert not torch.equal(average.last.weight, learner.model.last.weight)
    assert torch.equal(average.counts.grams2, learner.model.counts.grams2) and len(average.counts.grams2)
    between = (average.last.weight - averaged).norm() < (learner.model.last.weight - averaged).norm()
    assert between  # it lags behind the weights that move


def test_minutes_are_kept(lines, tmp_path):
    began = time.monotonic()
    model = fabulate.train("ar", lines, out=tmp_path / "run", minutes=0.05, quiet=True, **OPTIONS)
    assert time.monotonic() - began < 60 and model.record["steps"] >= 1
    (last,) = [row["step"] for row in read_log(tmp_path / "run") if "test" in row][-1:]
    assert last >= model.record["steps"]


def both(folder, processes):
    """The weights of two processes, each of them with its own."""
    model = fabulate.train("ar", f"{folder}/words.txt", out=f"{folder}/two", steps=STEPS, quiet=True, **OPTIONS)
    torch.save(model.state_dict(), f"{folder}/two-{processes.rank}.pt")


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one_with_two_micro_batches(lines, tmp_path):
    in_two(both, tmp_path)
    one = fabulate.train("ar", lines, out=tmp_path / "one", steps=STEPS, quiet=True, accumulate=2, **OPTIONS)
    for rank in (0, 1):
        for name, value in torch.load(tmp_path / f"two-{rank}.pt", weights_only=True).items():
            assert torch.allclose(value, one.state_dict()[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.slow
def test_killed_and_given_again_it_ends_with_the_same_weights(lines, tmp_path):
    def command(out):
        budget = ("--steps", str(STEPS), "--save-every", "4", "--device", "cpu")
        return [sys.executable, "-m", "fabulate", "train", "ar", str(lines), "--out", str(out), *budget, *FLAGS]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    kills = 0
    for _ in range(4):
        before = {*(tmp_path / "killed" / "checkpoints").glob("step-*.ckpt")}
        process = subprocess.Popen(command(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not {*(tmp_path / "killed" / "checkpoints").glob("step-*.ckpt")} - before:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run(command(tmp_path / "killed"), check=True, capture_output=True)
    assert kills
    assert load(tmp_path / "killed").weights_hash() == load(tmp_path / "whole").weights_hash()
