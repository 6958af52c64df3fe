"""Two processes do what one does with two micro-batches; one that dies ends both; another number of them continues."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.config import Training
from fabulate.errors import ConfigError
from fabulate.files import read_json
from fabulate.models import family
from fabulate.nets import MLP
from fabulate.processes import Processes
from fabulate.training.loop import Learner
from tiny import SMALL, in_two, pictures

# What is trained in both ways, and its steps: one player, two, and a flow whose scales the first batch sets.
CASES = {"vae": 200, "gan": 200, "nf": 3}
NARROW = {name: {"network": MLP(hidden=(32,))} for name in ("vae", "gan")}
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


def train(name, kind, out, accumulate):
    torch.set_default_dtype(kind)
    try:
        options = {"steps": CASES[name], "batch_size": 16, "accumulate": accumulate, **NARROW.get(name, {})}
        return fabulate.train(name, "digits", out=out, quiet=True, **options)
    finally:
        torch.set_default_dtype(torch.float32)


def all_cases(folder, processes):
    """The weights of every case, as this process has them at the end."""
    for name in CASES:
        for kind in (torch.float32, torch.float64):
            model = train(name, kind, f"{folder}/{name}-{kind}", accumulate=1)
            torch.save(model.state_dict(), f"{folder}/{name}-{kind}-{processes.rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the weights that each of two processes ended with."""
    folder = tmp_path_factory.mktemp("two")
    in_two(all_cases, folder)
    return folder


@pytest.mark.parametrize(("kind", "most"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one_with_two_micro_batches(two, tmp_path, name, kind, most):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two has
    try:
        one = train(name, kind, tmp_path / "one", accumulate=2).state_dict()
    finally:
        torch.set_num_threads(threads)
    first = torch.load(two / f"{name}-{kind}-0.pt")
    second = torch.load(two / f"{name}-{kind}-1.pt")
    settled = [key for key in one if key.startswith("mixture")]  # fitted after the training, by the first alone
    assert one.keys() == first.keys() and len(settled) < len(one)
    for key in one.keys() - settled:
        assert torch.equal(first[key], second[key]), key
        assert (first[key].double() - one[key].double()).abs().max() < most, key


def test_each_process_takes_its_own_part_of_every_batch():
    images, training = pictures(SMALL, 48), Training(steps=3, batch_size=12, accumulate=2)
    model = family("ae")(family("ae").presets["default"].model, SMALL)
    whole = Learner(model, training, images).micro_batches()
    parts = [Learner(model, training, images, Processes(rank, 3)).micro_batches() for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    together = torch.cat([batch.x for part in parts for batch in part])
    assert torch.equal(together, torch.cat([batch.x for batch in whole]))


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    model = family("ae")(family("ae").presets["default"].model, SMALL)
    with pytest.raises(ConfigError, match=r"batch_size 16 must be a multiple of accumulate x processes: 2 x 3"):
        Learner(model, Training(steps=1, batch_size=16, accumulate=2), pictures(SMALL, 32), Processes(0, 3))


def start(out, *flags):
    command = [sys.executable, "-m", "fabulate", "train", "vae", "--out", str(out), "--save-every", "20", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def worker(parent, rank):
    """The process id of a rank among a process's children."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            stat, words = (environ.parent / "stat").read_text(), environ.read_bytes().split(b"\0")
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        if stat.rsplit(")", 1)[1].split()[1] == str(parent) and f"RANK={rank}".encode() in words:
            return int(environ.parent.name)
    raise AssertionError(f"no child of {parent} has rank {rank}")


def newest(out):
    """The step of the newest checkpoint, 0 when there is none."""
    latest = out / "checkpoints" / "latest.json"
    return read_json(latest)["step"] if latest.exists() else 0


def wait(process, until):
    deadline = time.monotonic() + 120
    while not until():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)


@needs_proc
def test_a_process_that_dies_ends_the_others_and_one_process_continues(tmp_path):
    out = tmp_path / "run"
    training = start(out, "--processes", "2", "--steps", "100000", "--compile", "off")
    try:
        wait(training, lambda: newest(out) > 0)
        os.kill(worker(training.pid, 1), signal.SIGKILL)
        errors = training.communicate(timeout=90)[1]
    finally:
        training.kill()
    assert training.returncode != 0
    assert "another process of this training is gone" in errors and "the same command continues" in errors
    reached = newest(out)
    training = start(out, "--steps", "100000", "--compile", "off")
    try:
        wait(training, lambda: newest(out) > reached)
        training.send_signal(signal.SIGTERM)
        words = training.communicate(timeout=90)[0]
    finally:
        training.kill()
    assert training.returncode == 128 + signal.SIGTERM
    assert f"Continuing {out} from step" in words
