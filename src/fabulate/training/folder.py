"""The run folder: everything needed to continue training and to use the model, written so that a crash loses nothing.

    config.json    what is trained, on what      log.jsonl       one line per report
    checkpoints/   step-*.ckpt and latest.json   samples/        pictures as it trains
    model/         for users: config, weights, card              curves.png, samples.png, reconstructions.png
    best/          the same of the step with the best samples, where somebody looked (--evaluate-every)

A checkpoint is a temporary file, flushed, moved into place, and only then named (with its hash) by latest.json; older
ones are deleted last. Reading checks the hash and walks back to the newest good one.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from fabulate.config import nearest
from fabulate.errors import RunError
from fabulate.files import read_json, write_file, write_json
from fabulate.models import GenerativeModel
from fabulate.training.devices import pick_device

FORMAT = 1  # of the run folder; raised when a newer fabulate could misread an older folder
KEPT = 2  # checkpoints kept: the newest, and one to walk back to


class RunFolder:
    """A run folder that this process alone writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.model = path / "model"
        self.best = path / "best"
        self.log = path / "log.jsonl"
        with self.writing():
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(path / ".lock")
            try:
                self.lock.acquire(blocking=False)
            except Timeout as error:
                raise RunError(f"another process is training in {path}; wait for it, or give another --out") from error
            for leftover in [*path.glob("*.tmp"), *path.glob("*/*.tmp")]:  # of a write that was cut off
                leftover.unlink()

    def close(self) -> None:
        """Let other processes write here."""
        self.lock.release()

    def claim(self, config: dict[str, Any]) -> None:
        """Write down what is trained here, or check that it is the same as before.

        Errors: `RunError` naming every hyperparameter that changed, with both values.
        """
        path = self.path / "config.json"
        if not path.exists():
            with self.writing():
                write_json(path, {"format": FORMAT, **config})
            return
        before = read_config(self.path)
        changes = [
            f"{name} was {json.dumps(old)}, now {json.dumps(new)}"
            for name, old, new in differences(before, config)
            if name.split(".")[0] in ("family", "model", "training", "shape", "classes") or name == "data.fingerprint"
        ]
        if changes:
            hint = " (the images themselves changed)" if any("fingerprint" in change for change in changes) else ""
            raise RunError(
                f"{self.path} holds another run: {'; '.join(changes)}{hint}. "
                f"Give another --out, or the old values to continue it"
            )

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, then name it in latest.json, then delete what is older than the kept ones."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getbuffer()
        entry = {"name": f"step-{state['step']:08d}.ckpt", "step": state["step"], "sha256": sha256(data).hexdigest()}
        kept = [entry, *(old for old in self._named() if old["name"] != entry["name"])][:KEPT]
        with self.writing():
            write_file(self.checkpoints / entry["name"], lambda file: file.write(data))
            write_json(self.checkpoints / "latest.json", {**entry, "earlier": kept[1:]})
            for old in self.checkpoints.glob("step-*.ckpt"):
                if old.name not in {one["name"] for one in kept}:
                    old.unlink()

    def restore(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest good checkpoint, or None, and a sentence about each that was passed over."""
        passed = []
        for entry in self._named():
            path = self.checkpoints / entry["name"]
            if not path.exists():
                passed.append(f"checkpoint {path} is missing")
                continue
            data = path.read_bytes()
            if sha256(data).hexdigest() == entry["sha256"]:
                return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu"), passed
            passed.append(f"checkpoint {path} is damaged (its hash is wrong)")
        return None, passed

    def _named(self) -> list[dict[str, Any]]:
        try:
            latest = read_json(self.checkpoints / "latest.json")
        except FileNotFoundError:
            return []
        return [latest, *latest["earlier"]]

    def report(self, row: dict[str, Any]) -> None:
        """Append one line to the log."""
        with self.writing(), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what the log says of steps after this one: they will be taken again."""
        if self.log.exists():
            text = "".join(json.dumps(row) + "\n" for row in read_log(self.path) if row["step"] <= step)
            with self.writing():
                write_file(self.log, lambda file: file.write(text.encode()))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of the disk into words: what could not be written, why, and what is still safe."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise RunError(
                f"cannot write {error.filename or self.path}: {reason}. Checkpoints written before are intact; make "
                f"room or mend the folder and give the same command again to continue, or give another --out"
            ) from error


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.json.

    Errors: `RunError` when the folder holds no run, or one of another format.
    """
    try:
        config = read_json(run / "config.json")
    except FileNotFoundError as error:
        raise RunError(f"{run} is not a run folder: it has no config.json; `fabulate train` makes one") from error
    except json.JSONDecodeError as error:
        raise RunError(f"{run / 'config.json'} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or "training" not in config:
        raise RunError(f"{run} is not a run folder that this version of fabulate reads")
    return config


def read_log(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; a last line cut off by a crash is passed over."""
    path = run / "log.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """The leaves in which two JSON values differ, as (dotted name, old, new).

    >>> differences({"a": {"lr": 1, "b": 2}}, {"a": {"lr": 3, "b": 2}})
    [('a.lr', 1, 3)]
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, old, new)]


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """The model of a run folder, of a model folder or of a hub id, ready to sample.

    Errors: `RunError` when there is no model, saying what was looked for.
    """
    run = Path(path)
    if (run / "checkpoints").is_dir():
        read_config(run)
        if not (run / "model" / "config.json").exists():
            raise RunError(f"{run} has no model yet; give the training command again to continue it")
        run = run / "model"
    elif not run.exists() and (len(run.parts) != 2 or run.parent.is_dir()):  # not OWNER/NAME on the hub
        beside = [str(other) for other in run.parent.iterdir()] if run.parent.is_dir() else []
        raise RunError(f"there is no run or model folder {path}{nearest(str(run), beside)}")
    model: GenerativeModel = GenerativeModel.from_pretrained(str(run))
    return model.to(pick_device(device))
