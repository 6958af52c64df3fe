"""Real kills: SIGKILL at random steps and inside every write, then the same call again, equal to the last bit.

Children are forked rather than started, so that dozens of kills fit in seconds; the command line itself is killed once
per family, and stopped by both signals.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import fabulate
from fabulate.data import Data
from fabulate.models import names
from fabulate.nets import MLP
from fabulate.training import read_log
from fabulate.training.loop import Learner
from tiny import small

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

OPTIONS = {"batch_size": 16, "save_every": 5, "steps": 40}


def train(name: str, out: Path, data: Data) -> None:
    fabulate.train(name, data, out=out, quiet=True, **small(name), **OPTIONS)


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


@pytest.mark.parametrize("name", names())
def test_killed_at_random_steps(name: str, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabulate.training.session.PICTURES", 2)  # to be quick; the children inherit it
    train(name, tmp_path / "whole", digits)
    chance = random.Random(name)
    kills = 0
    for _ in range(4):
        left = chance.randrange(1, 15)  # steps until death

        def work(left: int = left) -> None:
            advance, calls = Learner.advance, iter(range(10_000))

            def mortal(self: Learner) -> object:
                if next(calls) == left:
                    kill_me()
                return advance(self)

            Learner.advance = mortal  # only in the child
            train(name, tmp_path / "run", digits)

        kills += killed(work)
    assert kills >= 2, "the children finished before they were killed"
    train(name, tmp_path / "run", digits)
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    assert [row["step"] for row in read_log(tmp_path / "run")] == [row["step"] for row in read_log(tmp_path / "whole")]


@pytest.mark.parametrize("moment", ["fsync", "replace", "unlink"])
def test_killed_inside_every_write(moment: str, digits: Data, tmp_path: Path) -> None:
    """Just before the data reach the disk, before a file is moved into place, and before an old one is deleted."""
    train("vae", tmp_path / "whole", digits)
    kills = 0
    for turn in range(1, 40, 1 if moment == "unlink" else 3):

        def work(turn: int = turn) -> None:
            calls = iter(range(1, 10_000))
            owner = os if moment == "fsync" else Path
            honest = getattr(owner, moment)
            setattr(owner, moment, lambda *a, **k: kill_me() if next(calls) == turn else honest(*a, **k))
            train("vae", tmp_path / "run", digits)

        kills += killed(work)
    assert kills >= 3, "the children finished before they were killed"
    train("vae", tmp_path / "run", digits)
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
    words += ["--steps", "1000", "--save-every", "20"] if fast else ["--steps", "100", "--save-every", "5"]
    return [sys.executable, "-m", "fabulate", *words]


def started(name: str, out: Path) -> subprocess.Popen[str]:
    """The command, running and past its first checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(name, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "latest.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("name", names())
def test_the_command_killed_and_given_again(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = started(name, tmp_path / "run")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for out in (tmp_path / "run", tmp_path / "whole"):
        done = subprocess.run(command(name, out), capture_output=True, text=True, env=environment, check=True)
        assert ("Continuing" in done.stdout) == (out.name == "run")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_tells(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = started("vae", tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "The same command continues" in errors
    assert "Traceback" not in errors
    step = int(errors.split("Stopped at step ")[1].split(",")[0].split()[0])
    assert (tmp_path / "checkpoints" / f"step-{step:08d}.ckpt").exists()
    assert fabulate.load(tmp_path).record["steps"] == step
