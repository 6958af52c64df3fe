"""A run folder as the page shows it, read without torch: cards of the first page, and a training as it goes on."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

from fabulate.errors import RunError
from fabulate.files import read_bytes, read_json
from fabulate.studio.jobs import Job
from fabulate.studio.places import Place, Roots, changed

LARGEST_LOG = 1 << 28  # bytes
LIVELY = 45.0  # seconds after its last sign of life in which a training counts as running: it saves every 30 seconds
LOOK = 0.3  # seconds between looks at a run that the page follows
PICTURE = re.compile(r"step-(\d+)\.png")
Json = dict[str, Any]


@with_config(ConfigDict(extra="ignore"))
class Settings(TypedDict):
    """A run's config.json, as far as a page tells of it."""

    family: str
    model: Json
    training: Json
    data: Json
    shape: list[Any]
    classes: list[str]


@with_config(ConfigDict(extra="ignore"))
class Comparison(TypedDict):
    """A comparison's metrics.json, as far as a page tells of it."""

    overall: str
    reports: Json


class Accuracy(TypedDict):
    """A share with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


@with_config(ConfigDict(extra="ignore"))
class Way(TypedDict):
    """A way to train, in proof.json."""

    words: str
    images: int
    balanced_accuracy: Accuracy


@with_config(ConfigDict(extra="ignore"))
class Proof(TypedDict):
    """proof.json, as far as a page tells of it."""

    helped: str
    sentences: Annotated[list[str], Field(min_length=1)]
    baselines: dict[str, Way]
    differences: list[Json]


def rows_of(text: bytes) -> Iterator[Json]:
    """The lines of a log that are whole."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # being written
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def log(run: Path) -> list[Json]:
    """What a run has written of its training so far."""
    try:
        return [*rows_of(read_bytes(run / "log.jsonl", LARGEST_LOG))]
    except FileNotFoundError:
        return []


def state(run: Path, rows: list[Json], jobs: list[Job], shown: str) -> str:
    """finished, running, waiting or stopped."""
    if rows and rows[-1].get("finished"):
        return "finished"
    mine = [job for job in jobs if job.path == shown and job.words[0] == "train"]
    if mine and mine[-1].state in ("running", "waiting"):
        return mine[-1].state
    ended = bool(mine) and mine[-1].state in ("stopped", "failed", "lost", "done")
    lively = max((changed(path) for path in (run, run / "checkpoints")), default=0) > time.time() - LIVELY
    return "running" if lively and not ended else "stopped"


def pictures(run: Path) -> list[Json]:
    """The pictures that a training has drawn of its samples, by their steps."""
    with suppress(OSError):
        found = [(int(match[1]), path) for path in (run / "samples").iterdir() if (match := PICTURE.match(path.name))]
        return [{"step": step, "name": f"samples/{path.name}"} for step, path in sorted(found)]
    return []


def share(settings: Settings, row: Json) -> float:
    """How much of its budget a training has spent at a line of its log.

    >>> share({"training": {"steps": 100, "epochs": None, "minutes": 1.0}}, {"step": 25, "epoch": 1, "seconds": 30})
    0.5
    """
    spent = {"steps": row["step"], "epochs": row.get("epoch", 0), "minutes": row.get("seconds", 0) / 60}
    budgets = [spent[name] / settings["training"][name] for name in spent if settings["training"].get(name)]
    return min(1.0, max(budgets, default=0.0))


def latest(rows: list[Json], part: str) -> Json:
    """The newest numbers of a part of the log."""
    return next((row[part] for row in reversed(rows) if row.get(part)), {})


def card(place: Place, roots: Roots, jobs: list[Job]) -> Json | None:
    """A folder as a card of the first page; None where it is damaged or gone."""
    path, shown = place.path, roots.shown(place.path)
    found: Json = {"kind": place.kind, "path": shown, "name": path.name, "changed": changed(path)}
    try:
        if place.kind == "run":
            return found | run_card(path, jobs, shown)
        if place.kind == "images":
            return found | {"images": place.images}
        if place.kind == "ranking":
            return read_json(path / "outliers.json", Json) | found
        if place.kind == "detector":
            about = read_json(path / "config.json", Json)
            return found | {"data": about.get("data", {}), "normals": about.get("normals")}
        if place.kind == "proof":
            proof = proved(path)
            return found | {"name": path.parent.name, "helped": proof["helped"], "answer": proof["sentences"][0]}
        return found | compared(path)
    except (OSError, RunError):
        return None


def compared(path: Path) -> Json:
    """A comparison: its verdict in words, and of which runs. Errors: `RunError` for a folder that has none."""
    found: Comparison = read_json(path / "metrics.json", Comparison)
    return {"overall": found["overall"], "runs": [*found["reports"]]}


def proved(path: Path) -> Json:
    """A proof: the verdict's sentences, and the balanced accuracy of each way to train. Errors: `RunError`."""
    found: Proof = read_json(path / "proof.json", Proof)
    with_synthetic = {each.get("first") for each in found["differences"]}
    ways = [
        {"name": name, "words": way["words"], "images": way["images"], "synthetic": name in with_synthetic}
        | way["balanced_accuracy"]
        for name, way in found["baselines"].items()
    ]
    return {"helped": found["helped"], "sentences": found["sentences"], "ways": ways}


def run_card(path: Path, jobs: list[Job], shown: str) -> Json:
    """What a card tells of a run."""
    settings: Settings = read_json(path / "config.json", Settings)
    rows = log(path)
    drawn = pictures(path)
    picture = "samples.png" if (path / "samples.png").exists() else drawn[-1]["name"] if drawn else None
    return {
        "family": settings["family"],
        "data": settings["data"].get("name"),
        "source": settings["data"].get("source"),
        "shape": settings["shape"],
        "state": state(path, rows, jobs, shown),
        "step": rows[-1]["step"] if rows else 0,
        "share": share(settings, rows[-1]) if rows else 0.0,
        "seconds": rows[-1].get("seconds", 0) if rows else 0,
        "test": latest(rows, "test"),
        "picture": picture,
        "model": (path / "model" / "config.json").exists(),
        "report": (path / "report" / "index.html").exists(),
    }


def detail(path: Path, roots: Roots, jobs: list[Job]) -> Json:
    """All that the page of a run begins with."""
    settings: Settings = read_json(path / "config.json", Settings)
    found = {"path": roots.shown(path), "name": path.name, **run_card(path, jobs, roots.shown(path))}
    return {**found, "settings": settings, "pictures": pictures(path)}


class Follower:
    """What is new in a run since the last look."""

    def __init__(self, run: Path, roots: Roots) -> None:
        self.run, self.shown = run, roots.shown(run)
        self.place, self.file, self.rows = 0, 0, list[Json]()
        self.drawn: list[Json] = []
        self.told: Json = {}

    def look(self, jobs: list[Job]) -> Json | None:
        """New rows (`reset`: instead of those told before), pictures, the state and what the job prints; or None."""
        news: Json = {}
        rows, reset = self.new_rows()
        if reset:
            news["reset"] = True
        if rows:
            news["rows"] = rows
        if (drawn := pictures(self.run)) != self.drawn:
            self.drawn = news["pictures"] = drawn
        mine = [job for job in jobs if job.path == self.shown]
        job = mine[-1] if mine else None
        told = {
            "state": state(self.run, self.rows, jobs, self.shown),
            "job": None if job is None else {"name": job.name, "state": job.state, "output": job.output[-3000:]},
            "model": (self.run / "model" / "config.json").exists(),
            "report": (self.run / "report" / "index.html").exists(),
            "reconstructions": (self.run / "reconstructions.png").exists(),
        }
        if told != self.told:
            self.told = told
            news |= told
        return news or None

    def new_rows(self) -> tuple[list[Json], bool]:
        """Rows that were not told yet; whether all before them are to be forgotten (a training that continues)."""
        try:
            with (self.run / "log.jsonl").open("rb") as file:
                about = file.seek(0, 2)
                reset = self.place > 0 and about < self.place
                inode = (self.run / "log.jsonl").stat().st_ino
                reset = reset or (self.file not in (0, inode))
                self.file = inode
                file.seek(0 if reset else self.place)
                whole, end, _ = file.read(LARGEST_LOG).rpartition(b"\n")
        except FileNotFoundError:
            reset, self.rows, self.place, self.file = self.place > 0, [], 0, 0
            return [], reset
        if reset:
            self.place, self.rows = 0, []
        self.place += len(whole) + len(end)
        rows = [*rows_of(whole)]
        self.rows += rows
        return rows, reset


async def events(run: Path, roots: Roots, jobs: Any, closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Server-sent events on a run, until the page goes away, the run is deleted or the server is about to end."""
    follower = Follower(run, roots)
    quiet = 0.0
    while not closing():
        if not run.is_dir():
            yield f"data: {json.dumps({'gone': True})}\n\n"
            return
        news = follower.look(jobs.snapshot)
        quiet = 0.0 if news else quiet + LOOK
        if news:
            yield f"data: {to_json(news, inf_nan_mode='null').decode()}\n\n"  # no browser reads NaN
        elif quiet > 15:  # so that a connection that is gone is noticed
            quiet = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(LOOK)
