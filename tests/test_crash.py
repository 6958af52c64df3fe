"""Real kills: SIGKILL at random steps and inside every write, then the same call again, equal to the last bit.

Children are forked rather than started, so that dozens of kills fit in seconds; the command line itself is killed once,
and stopped by signals. One family is tried by default; with the slow tests all are.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

import fabulate
from fabulate.data import Data
from fabulate.models import GenerativeModel, names
from fabulate.nets import MLP
from fabulate.signals import Stop, catching
from fabulate.training import InterruptedTraining, configure, finish, read_log, run
from fabulate.training.loop import Learner
from tiny import ends, small

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

OPTIONS = {"batch_size": 16, "save_every": 5, "steps": 40}
FAMILIES = [pytest.param(name, marks=() if name == "vae" else pytest.mark.slow) for name in names()]


def train(name: str, out: Path, data: Data, **options: int) -> None:
    fabulate.train(name, data, out=out, quiet=True, **small(name), **{**OPTIONS, **options})


def result(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def killed(work: Callable[[], None]) -> bool:
    """Run `work` in a forked child; whether it ended by SIGKILL (False: it finished)."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def kill_me(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", FAMILIES)
def test_killed_at_random_steps(name, digits, tmp_path):
    train(name, tmp_path / "whole", digits)
    generator = random.Random(name)
    kills = 0
    for _ in range(4):
        left = generator.randrange(1, 15)  # steps until death

        def work(left: int = left) -> None:
            micro_batches, calls = Learner.micro_batches, iter(range(10_000))

            def mortal(self: Learner) -> object:
                if next(calls) == left:
                    kill_me()
                return micro_batches(self)

            Learner.micro_batches = mortal  # only in the child
            train(name, tmp_path / "run", digits)

        kills += killed(work)
    assert kills >= 2, "the children finished before they were killed"
    train(name, tmp_path / "run", digits)
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    assert [row["step"] for row in read_log(tmp_path / "run")] == [row["step"] for row in read_log(tmp_path / "whole")]


@pytest.mark.parametrize(
    "moment", ["replace", pytest.param("fsync", marks=pytest.mark.slow), pytest.param("unlink", marks=pytest.mark.slow)]
)
def test_killed_inside_every_write(moment, digits, tmp_path):
    """Just before the data reach the disk, before a file is moved into place, and before an old one is deleted."""
    steps, stride = (40, 2) if moment == "unlink" else (20, 3)
    train("vae", tmp_path / "whole", digits, steps=steps)
    kills = 0
    for call in range(1, 40, stride):

        def work(call: int = call) -> None:
            calls = iter(range(1, 10_000))
            owner = os if moment == "fsync" else Path
            honest = getattr(owner, moment)
            setattr(owner, moment, lambda *a, **k: kill_me() if next(calls) == call else honest(*a, **k))
            train("vae", tmp_path / "run", digits, steps=steps)

        if not killed(work):
            break
        kills += 1
    assert kills >= 3, "the children finished before they were killed"
    train("vae", tmp_path / "run", digits, steps=steps)
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def flags(option: str, value: Any) -> list[str]:
    """The words that give a hyperparameter, or all of a network's or of the sampling's."""
    if is_dataclass(value):
        given = {field.name: getattr(value, field.name) for field in fields(value)}
        kind = [option, given.pop("kind")] if "kind" in given else []
        return kind + [word for name, each in given.items() for word in flags(f"{option}.{name}", each)]
    values = value if isinstance(value, tuple) else [value]
    return [] if value is None else [option.replace("_", "-"), *map(str, values)]


def command(name: str, out: Path) -> list[str]:
    words = ["train", name, "--batch-size", "16", "--out", str(out)]
    for option, value in small(name).items():
        words += flags(f"--{option}", value)
    # Long enough to be killed after the first checkpoint: the MLP is the quickest of all.
    fast = isinstance(small(name).get("network"), MLP)
    words += ["--steps", "500", "--save-every", "20"] if fast else ["--steps", "100", "--save-every", "5"]
    return [sys.executable, "-m", "fabulate", *words]


def checkpoints(out: Path) -> list[str]:
    """The names of a run's checkpoints."""
    return sorted(path.name for path in out.glob("checkpoints/step-*.ckpt"))


def started(name: str, out: Path) -> subprocess.Popen[str]:
    """The command, running and past the first checkpoint that it trained for: one is written before the first step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(name, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 300
    while not any(step > "step-00000000.ckpt" for step in checkpoints(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint within five minutes"
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_command_killed_and_given_again(name, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = started(name, tmp_path / "run")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for out in (tmp_path / "run", tmp_path / "whole"):
        done = subprocess.run(command(name, out), capture_output=True, text=True, env=environment, check=True)
        assert ("Continuing" in done.stdout) == (out.name == "run")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_tells(number, code, tmp_path):
    process = started("vae", tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "The same command continues" in errors
    assert "Traceback" not in errors
    step = int(errors.split("Stopped at step ")[1].split(",")[0].split()[0])
    assert (tmp_path / "checkpoints" / f"step-{step:08d}.ckpt").exists()
    assert fabulate.load(tmp_path).record["steps"] == step


def stopped(out: Path, data: Data, monkeypatch: pytest.MonkeyPatch, number: int, step: int = 7) -> int:
    """Train until a signal comes in a step; the exit code that training leaves with."""
    micro_batches = Learner.micro_batches

    def signalled(self: Learner) -> object:
        if self.step == step - 1:
            signal.raise_signal(number)
        return micro_batches(self)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "micro_batches", signalled)
        with pytest.raises(InterruptedTraining, match=f"Stopped at step {step}") as left:
            train("vae", out, data)
    return left.value.code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_what_asks_to_leave_is_heeded_by_a_training_in_memory_too(name, digits, tmp_path, monkeypatch):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    assert stopped(tmp_path, digits, monkeypatch, number) == 128 + number
    assert checkpoints(tmp_path)[-1] == "step-00000007.ckpt"
    assert signal.getsignal(number) is before


def test_under_nohup_and_where_somebody_else_handles_a_signal_it_is_left_alone(digits, tmp_path, monkeypatch):
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda n, _: heard.append(n))
    try:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
                stopped(tmp_path / number.name, digits, monkeypatch, number)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    assert heard == [signal.SIGUSR1]


def test_a_second_signal_acts_at_once_unless_it_is_the_first_one_again():
    def twice(pause: float) -> None:
        with catching(Stop()) as stop:
            signal.raise_signal(signal.SIGTERM)
            stop.since -= pause
            signal.raise_signal(signal.SIGTERM)

    for pause, status in ((0.0, 0), (2.0, signal.SIGTERM)):
        child = os.fork()
        if child == 0:
            try:
                twice(pause)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == status


def test_a_training_whose_output_is_closed_saves_and_leaves(tmp_path, monkeypatch, capsys):
    """`fabulate train ... | head -1`, of which head has read its line."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # noqa: PTH123  # by its number
        monkeypatch.setattr(sys, "stdout", closed)
        assert ends(*command("vae", tmp_path)[3:]) == 128 + signal.SIGPIPE
    errors = capsys.readouterr().err
    assert "its output is closed. Stopped at step" in errors and "The same command continues" in errors
    assert len(errors.splitlines()) == 1
    assert checkpoints(tmp_path)[-1].removesuffix(".ckpt").endswith(errors.split("at step ")[1].split(",")[0])


def test_a_full_disk_under_the_output_ends_no_training_unsaved(digits, tmp_path):
    config, training = configure("vae", "default", {**small("vae"), "steps": 40})
    full = Path("/dev/full").open("w")  # noqa: SIM115  # closing it fails too
    with pytest.raises(InterruptedTraining, match="its output is closed") as left:
        finish(run("vae", config, training, digits, tmp_path, console=Console(file=full)))
    with suppress(OSError):
        full.close()
    assert left.value.code == 128 + signal.SIGPIPE
    assert checkpoints(tmp_path)[-1] > "step-00000000.ckpt"


def test_other_verbs_remove_their_temporary_files(digits, tmp_path, monkeypatch, capsys):
    train("vae", tmp_path / "run", digits)
    seen: list[Path] = []
    out, honest = tmp_path / "out", GenerativeModel.sample

    def sample(*arguments: Any, **options: Any) -> Any:
        seen.extend(out.glob(".*.fabulate-tmp"))
        if seen:
            signal.raise_signal(signal.SIGTERM)
        return honest(*arguments, **options)

    monkeypatch.setattr(GenerativeModel, "sample", sample)
    words = ["sample", tmp_path / "run", "-n", "2000", "--npz", out / "all.npz"]
    assert ends(*words) == 128 + signal.SIGTERM
    assert seen and list(out.iterdir()) == []
    assert capsys.readouterr().err.splitlines()[-1] == "fabulate: interrupted by SIGTERM"


def test_intake_that_is_ended_leaves_no_workspace_in_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FABULATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.new("L", (8, 8), 60 * i).save(tmp_path / "photos" / f"{i}.png")
    seen: list[Path] = []

    def ended(*_: Any) -> None:
        seen.extend((tmp_path / "cache" / "data").iterdir())
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr("fabulate.data.intake.decode", ended)
    assert ends("data", tmp_path / "photos") == 128 + signal.SIGHUP
    assert "interrupted by SIGHUP" in capsys.readouterr().err
    assert seen and list((tmp_path / "cache" / "data").iterdir()) == []
