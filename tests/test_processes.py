"""Two processes do what one does with two micro-batches; one that dies ends both; another number of them continues."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fabulate
from fabulate.config import Training
from fabulate.errors import ConfigError, RunError
from fabulate.files import read_json
from fabulate.models import family
from fabulate.models.families.vae import VAEConfig
from fabulate.nets import MLP
from fabulate.processes import Processes
from fabulate.training import InterruptedTraining, read_config, session
from fabulate.training.devices import arithmetic, rounding
from fabulate.training.loop import Learner
from fabulate.training.session import PICTURES
from fabulate.training.train import fresh
from fabulate.types import ImageShape
from tiny import SMALL, in_two, pictures

# What is trained in both ways, and its steps: one player, two, and a flow whose scales the first batch sets.
CASES = {"vae": 60, "gan": 60, "nf": 3}
KINDS = {"float32": (torch.float32, 1e-6), "float64": (torch.float64, 1e-12)}
NARROW = {name: {"network": MLP(hidden=(32,))} for name in ("vae", "gan")}
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


def train(name, kind, out, accumulate):
    torch.set_default_dtype(KINDS[kind][0])
    session.PICTURES = 1  # to be quick
    try:
        options = {"steps": CASES[name], "batch_size": 16, "accumulate": accumulate, **NARROW.get(name, {})}
        return fabulate.train(name, "digits", out=out, quiet=True, **options)
    finally:
        session.PICTURES = PICTURES
        torch.set_default_dtype(torch.float32)


def all_cases(folder, processes):
    """The weights of every case, as this process has them at the end."""
    for name in CASES:
        for kind in KINDS:
            model = train(name, kind, f"{folder}/{name}-{kind}", accumulate=1)
            torch.save(model.state_dict(), f"{folder}/{name}-{kind}-{processes.rank}.pt")
    stop_the_second_process(folder, processes)


def stop_the_second_process(folder, processes):
    """A training whose second process is sent SIGTERM in its 30th step."""
    honest = Learner.micro_batches

    def advance(self):
        if processes.rank == 1 and self.step == 29:
            signal.raise_signal(signal.SIGTERM)
        return honest(self)

    Learner.micro_batches = advance
    with pytest.raises(InterruptedTraining) as stopped:
        train("vae", "float32", f"{folder}/stopped", accumulate=1)
    Learner.micro_batches = honest
    assert stopped.value.code == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the weights that each of two processes ended with."""
    folder = tmp_path_factory.mktemp("two")
    in_two(all_cases, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one_with_two_micro_batches(two, tmp_path, name, kind):
    one = train(name, kind, tmp_path / "one", accumulate=2).state_dict()
    first = torch.load(two / f"{name}-{kind}-0.pt")
    second = torch.load(two / f"{name}-{kind}-1.pt")
    settled = [key for key in one if key.startswith("mixture")]  # fitted after the training, by the first alone
    assert one.keys() == first.keys() and len(settled) < len(one)
    for key in one.keys() - settled:
        assert torch.equal(first[key], second[key]), key
        assert (first[key].double() - one[key].double()).abs().max() < KINDS[kind][1], key


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_that_step_and_one_continues_as_two_would(two):
    out = two / "stopped"
    assert newest(out) == 30
    assert read_config(out)["arithmetic"] == {"micro_batches": 2, "threads": 1, "precision": "float32"}
    alone = train("vae", "float32", out, accumulate=1).state_dict()
    unbroken = torch.load(two / "vae-float32-0.pt")
    for key in alone.keys() - [key for key in alone if key.startswith("mixture")]:
        assert (alone[key] - unbroken[key]).abs().max() < 1e-6, key


def test_a_run_keeps_its_micro_batches_and_refuses_processes_that_cannot_share_them():
    training, model = Training(batch_size=24), fresh("vae", VAEConfig(), Training(), ImageShape(1, 8, 8), (), "cpu")
    begun = {"arithmetic": arithmetic(training, model, 4, None)}
    assert [arithmetic(training, model, n, begun)["micro_batches"] for n in (1, 2, 4)] == [4, 4, 4]
    with pytest.raises(
        RunError, match=r"4 micro-batches, which 3 processes cannot share evenly.*--processes 1 or 2 or 4"
    ):
        arithmetic(training, model, 3, begun)
    alone = {"arithmetic": arithmetic(training, model, 1, None)}
    with pytest.raises(RunError, match="1 micro-batch, which 2 processes cannot share"):
        arithmetic(training, model, 2, alone)
    assert (
        arithmetic(training, model, 2, {"family": "vae"})["micro_batches"] == 2
    )  # a run of before it was written down


def test_other_threads_are_announced():
    begun = {"arithmetic": {"micro_batches": 1, "threads": 8}}
    now = arithmetic(Training(), fresh("vae", VAEConfig(), Training(), ImageShape(1, 256, 256), (), "cpu"), 1, begun)
    assert now["threads"] == torch.get_num_threads()
    (sentence,) = rounding(begun, now)
    assert "began with 8 threads" in sentence and "OMP_NUM_THREADS=8" in sentence
    assert rounding({"arithmetic": now}, now) == rounding({"family": "vae"}, now) == rounding(None, now) == []


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
    """The step of the newest checkpoint, 0 when there is none that was trained."""
    latest = out / "checkpoints" / "latest.json"
    return read_json(latest, dict[str, Any])["step"] if latest.exists() else 0


def wait(process, until):
    deadline = time.monotonic() + 300
    while not until():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.1)


@pytest.mark.slow
@needs_proc
def test_a_process_that_dies_ends_the_others_and_so_does_a_launcher_that_is_killed(tmp_path):
    out = tmp_path / "run"
    training = start(out, "--processes", "2", "--steps", "100000", "--compile", "off")
    try:
        wait(training, lambda: newest(out) > 0)
        both = [worker(training.pid, rank) for rank in (0, 1)]
        places = [place for process in [training.pid, *both] for place in listening(process)]
        assert len(places) >= 3, "the store, and gloo in each process"
        assert {address for address, _ in places} == {"0100007F"}  # 127.0.0.1, in the kernel's order
        os.kill(both[1], signal.SIGKILL)
        errors = training.communicate(timeout=90)[1]
    finally:
        training.kill()
    assert training.returncode != 0
    assert "another process of this training is gone" in errors and "the same command continues" in errors
    reached = newest(out)
    training = start(out, "--processes", "2", "--steps", "100000", "--compile", "off")
    try:
        wait(training, lambda: newest(out) > reached)
        both = [worker(training.pid, rank) for rank in (0, 1)]
        training.kill()
        errors = training.communicate(timeout=90)[1]  # the others hold the pipe until they end
    finally:
        training.kill()
    deadline = time.monotonic() + 60  # closing its output comes before the end of a process
    while left := [process for process in both if lives(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert f"Stopped at step {newest(out):,}, saved" in errors and newest(out) > reached


def lives(process):
    """Whether a process still runs; one that has ended may wait for init to ask how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listening(process):
    """Address and port, as /proc has them, of every socket on which a process takes connections."""
    mine = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir() if file.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                yield words[1].split(":")
