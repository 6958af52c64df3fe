"""The run folder: everything needed to continue training and to use the model, written so that a crash loses nothing.

    config.json    what is trained, on what      log.jsonl       one line per report
    checkpoints/   step-*.ckpt and latest.json   samples/        pictures as it trains
    model/         for users: config, weights, card              curves.png, samples.png, reconstructions.png
    best/          the same of the step with the best samples, where somebody looked (--evaluate-every)

A folder that holds anything is a run only if it has our config.json; any other is refused before a byte of it changes.
Only files of names that we write are ever replaced or removed, and never through a link.

A checkpoint ends with the SHA-256 of what stands before, so that each can be checked by itself. It is a temporary file,
flushed and moved into place; then latest.json names it, for people and other programs; older ones are deleted last.
Reading takes the newest good one, whatever latest.json says. The first is written before the first step, so that a log
or a model without any good checkpoint means that something was lost, and is refused, never a reason to begin again.
"""

import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NotRequired

import torch
from filelock import FileLock, Timeout
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.config import Channels, DataSpec, PositiveInt, Preset, Training, data_spec, from_json, nearest
from fabulate.errors import ConfigError, RunError
from fabulate.files import (
    append_line,
    is_leftover,
    own_folder,
    parse_json,
    read_bytes,
    read_json,
    remove_leftovers,
    write_file,
    write_json,
)
from fabulate.models import GenerativeModel, family
from fabulate.training.devices import Arithmetic, pick_device

FORMAT = 1  # of the run folder; raised when a newer fabulate could misread an older folder
KEPT = 2  # checkpoints kept: the newest, and one to walk back to
LARGEST_LOG = 1 << 30  # bytes
EARLIER = {
    "validation": 0.0,
    "optimizer": "adam",
    "precision": "auto",
}  # hyperparameters that older runs do not tell, as they were then
HASH_BYTES = 32  # at the end of a checkpoint
TRACES = ("log.jsonl", "model/config.json", "best/config.json")  # that a run was trained
CHECKPOINT = re.compile(r"step-(\d{8,})\.ckpt")


@with_config(ConfigDict(extra="allow"))
class Trained(TypedDict):
    """The images of a run, in its config.json: where they come from and how they were read."""

    source: str
    name: str
    fingerprint: str


@with_config(ConfigDict(extra="allow"))
class Config(TypedDict):
    """A run's config.json."""

    format: Literal[1]
    family: str
    model: dict[str, Any]
    training: dict[str, Any]
    data: Trained
    shape: tuple[Channels, PositiveInt, PositiveInt] | tuple[PositiveInt, list[str], PositiveInt, str]
    classes: list[str]
    versions: dict[str, str]
    arithmetic: NotRequired[Arithmetic]


Measured = dict[str, float | None]


@with_config(ConfigDict(extra="allow"))
class Row(TypedDict):
    """A line of the log."""

    step: int
    epoch: float
    seconds: float
    train: NotRequired[Measured]
    validation: NotRequired[Measured]
    test: NotRequired[Measured]
    samples: NotRequired[Measured]
    finished: NotRequired[bool]
    peak_memory: NotRequired[int]


class Entry(TypedDict):
    """What latest.json says of a checkpoint."""

    name: str
    step: int
    sha256: str


class Latest(Entry):
    """latest.json."""

    earlier: list[Entry]


class RunFolder:
    """A run folder that this process alone writes to.

    Errors: `RunError` where another process trains, and where the folder holds files but no run; nothing has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.model = path / "model"
        self.best = path / "best"
        self.log = path / "log.jsonl"
        self.good: list[Entry] = []  # checkpoints known to be good, the newest first
        refuse_strangers(path)
        with self.writing():
            path.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(path / ".lock")
            try:
                self.lock.acquire(blocking=False)
            except Timeout as error:
                raise RunError(f"another process is training in {path}; wait for it, or give another --out") from error

    def close(self) -> None:
        """Let other processes write here."""
        self.lock.release()

    def claim(self, config: dict[str, Any]) -> None:
        """Write down what is trained here, or check that it is the same as before; then the folder is ours.

        Errors: `RunError` naming every hyperparameter that changed, with both values.
        """
        path = self.path / "config.json"
        if path.exists():
            before: Mapping[str, Any] = read_config(self.path)
            model = family(config["family"]).current(before["model"])
            self.compare({**before, "model": model, "training": EARLIER | before["training"]}, config)
        with self.writing():
            if not path.exists():  # before all else: it says whose the folder is
                write_json(path, {"format": FORMAT, **config})
            for folder in (self.checkpoints, self.samples):
                own_folder(folder)
            for folder in (self.path, self.checkpoints, self.samples, self.model, self.best):
                remove_leftovers(folder)

    def compare(self, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Refuse to continue another run than this one."""
        changes = [
            f"{name} was {json.dumps(old)}, now {json.dumps(new)}"
            for name, old, new in differences(*(json.loads(json.dumps(each)) for each in (before, config)))
            if name.split(".")[0] in ("family", "model", "training", "shape", "classes", "from")
            or name == "data.fingerprint"
        ]
        if changes:
            images = any("fingerprint" in change for change in changes)
            hint = " (the images changed, or this version reads them otherwise)" if images else ""
            raise RunError(
                f"{self.path} holds another run: {'; '.join(changes)}{hint}. "
                f"Give another --out, or the old values to continue it"
            )

    def save(self, state: dict[str, Any]) -> list[str]:
        """Write a checkpoint, name it in latest.json, then delete what is older than the kept ones.

        Returns a sentence about each that could not be deleted.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        digest = sha256(buffer.getbuffer()).digest()
        buffer.write(digest)
        name = f"step-{state['step']:08d}.ckpt"
        entry: Entry = {"name": name, "step": state["step"], "sha256": sha256(buffer.getbuffer()).hexdigest()}
        self.good = [entry, *(old for old in self.good if old["name"] != name)]
        with self.writing():
            write_file(self.checkpoints / name, lambda file: file.write(buffer.getbuffer()))
            write_json(self.checkpoints / "latest.json", {**entry, "earlier": self.good[1:KEPT]})
        sentences, left = [], []
        for old in self.good[KEPT:]:
            path = self.checkpoints / old["name"]
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                sentences.append(f"the old checkpoint {path} cannot be deleted: {error.strerror}")
                left.append(old)
        self.good = self.good[:KEPT] + left
        return sentences

    def restore(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest good checkpoint and a sentence about each that was passed over; None where a run has not begun.

        Errors: `RunError` where checkpoints are there and none is good, and where a log or a model shows that there
        must have been some. Nothing is changed then.
        """
        found, passed, named = self._found(), [], {}
        try:
            latest = read_json(self.checkpoints / "latest.json", Latest, 1 << 20)
            named = {entry["name"]: entry["sha256"] for entry in (latest, *latest["earlier"])}
        except FileNotFoundError:
            pass
        except RunError as error:
            passed.append(str(error))
        lost = named.keys() - {path.name for path in found.values()}
        passed += [f"checkpoint {self.checkpoints / name} is missing" for name in sorted(lost)]
        state: dict[str, Any] | None = None
        for step, path in sorted(found.items(), reverse=True):
            if state is not None:  # older than the one that is good: to walk back to, or to be deleted
                self.good.append({"name": path.name, "step": step, "sha256": named.get(path.name, "")})
                continue
            try:
                data = path.read_bytes()
            except OSError as error:
                passed.append(f"checkpoint {path} cannot be read: {error.strerror}")
                continue
            if (state := payload(data)) is not None:
                self.good = [{"name": path.name, "step": step, "sha256": sha256(data).hexdigest()}]
            else:
                passed.append(f"checkpoint {path} is damaged (its hash is wrong)")
        if state is None:
            self._refuse_to_begin_again(bool(found), passed)
        return state, passed

    def _found(self) -> dict[int, Path]:
        """The checkpoints that lie here, by their steps; links are none."""
        if not self.checkpoints.is_dir():
            return {}
        files = [Path(entry.path) for entry in os.scandir(self.checkpoints) if entry.is_file(follow_symlinks=False)]
        return {int(match[1]): path for path in files if (match := CHECKPOINT.fullmatch(path.name))}

    def _refuse_to_begin_again(self, found: bool, passed: list[str]) -> None:
        """Stop where a log, a model or checkpoints that cannot be used show that there has been a training."""
        traces = [name for name in TRACES if (self.path / name).exists()]
        what = "none of its checkpoints can be used" if found or passed else f"{self.checkpoints} holds no checkpoint"
        if found or passed or traces:
            told = "; ".join(passed)
            raise RunError(
                f"{self.path} has been trained before ({', '.join(traces) or 'it has checkpoints'}), but {what}"
                f"{': ' + told if told else ''}. Nothing was changed: bring them back from a copy to continue, or give "
                f"another --out to train anew"
            )

    def report(self, row: dict[str, Any]) -> None:
        with self.writing():
            append_line(self.log, json.dumps(row))

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


def refuse_strangers(path: Path) -> None:
    """Stop where a folder holds files and is no run: they are a user's. Errors: `RunError` naming some of them."""
    if not path.exists():
        return
    if not path.is_dir():
        raise RunError(f"{path} is a file; a run needs a folder of its own, give another --out")
    if (path / "config.json").exists():
        read_config(path)
        return
    # What a run leaves that was killed before it wrote its config.json.
    names = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock" and not is_leftover(entry.name))
    if names:
        told = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise RunError(
            f"{path} is not empty and no run folder: it has no config.json of fabulate's, but {told}. Nothing was "
            f"changed; give another --out"
        )


def payload(data: bytes) -> dict[str, Any] | None:
    """The state in a checkpoint whose hash is right; None where it is not."""
    content = memoryview(data)[:-HASH_BYTES]
    if sha256(content).digest() != data[-HASH_BYTES:]:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def read_config(run: Path) -> Config:
    """A run's config.json, of its folder or of a file.

    Errors: `RunError` when the folder holds no run, one of another format, or a damaged one.
    """
    try:
        config: Config = read_json(run if run.is_file() else run / "config.json", Config)
    except FileNotFoundError as error:
        raise RunError(f"{run} is not a run folder: it has no config.json; `fabulate train` makes one") from error
    except RunError as error:
        raise RunError(f"{run} is not a run folder that this version of fabulate reads: {error}") from error
    return config


def is_run(path: Path) -> bool:
    """Whether a path is a run folder; else it is a model folder or a name on the hub."""
    return (path / "checkpoints").is_dir()


def own_data(run: Path) -> DataSpec:
    """The images that a run was trained on, and how it read them. Errors: `RunError`, as `read_config`."""
    told: Mapping[str, Any] = read_config(run)["data"]
    try:
        return data_spec(told)
    except ConfigError as error:
        raise RunError(f"{run / 'config.json'} is damaged: data.{error}") from error


def recorded(config: Config) -> tuple[Preset, DataSpec]:
    """The hyperparameters and the images that a config.json tells. Errors: `ConfigError`, as `from_json`."""
    model = from_json(family(config["family"]).Config, config["model"])
    return Preset(model, from_json(Training, EARLIER | config["training"])), data_spec(config["data"])


def read_log(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; a last line cut off by a crash is passed over.

    Errors: `RunError` for a damaged line before others.
    """
    try:
        text = read_bytes(run / "log.jsonl", LARGEST_LOG)
    except FileNotFoundError:
        return []
    lines = text.splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_json(line, Row, f"{run / 'log.jsonl'}, line {number},"))
        except RunError:
            if number < len(lines):
                raise
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


def has_checkpoints(path: Path) -> bool:
    """Whether a run was trained so far that it continues, not begins."""
    return any((path / "checkpoints").glob("step-*.ckpt"))


def load(path: str | Path, device: str = "cpu") -> GenerativeModel:
    """The model of a run folder, of a model folder or of a hub id, ready to sample.

    Errors: `RunError` when there is no model, saying what was looked for.
    """
    run = Path(path)
    if is_run(run):
        read_config(run)
        if not (run / "model" / "config.json").exists():
            raise RunError(f"{run} has no model yet; give the training command again to continue it")
        run = run / "model"
    elif not run.exists() and (len(run.parts) != 2 or run.parent.is_dir()):  # not OWNER/NAME on the hub
        beside = [str(other) for other in run.parent.iterdir()] if run.parent.is_dir() else []
        raise RunError(f"there is no run or model folder {path}{nearest(str(run), beside)}")
    model: GenerativeModel = GenerativeModel.from_pretrained(str(run))
    return model.to(pick_device(device))
