"""The queue of jobs: each is the command line in a child process, with a group of its own, that outlives the server.

A job is a folder in ROOT/.studio/jobs, and what is known of it is what lies there:

    job.json   the words, and what they are about      output     what it prints
    pid        of its process group, once begun        code       how it ended, written by the shell that runs it
    stopped    somebody pressed stop

A running job holds a lock on `output`, which its processes inherit: so a server that comes back sees what still runs,
and a number that the system has given to another process since is never taken for a job. One job runs at a time, in
the order they were asked for. Of two servers on one folder, one at a time looks after the queue.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import Literal

from filelock import FileLock
from typing_extensions import TypedDict

from fabulate.errors import FabulateError, RunError
from fabulate.files import read_json, write_file, write_json

WAITING, KEPT = 16, 40  # jobs that may wait; jobs that are over and still told of
TAIL = 16_000  # bytes of its output that are told
# The shell outlives a signal, which is meant for the command, to say how that ended.
SHELL = 'trap : INT TERM HUP; "$@"; code=$?; echo $code >"$0.new" && mv "$0.new" "$0"'

State = Literal["waiting", "running", "done", "stopped", "failed", "lost"]


class FullError(FabulateError):
    """As many jobs wait as may."""


class Record(TypedDict):
    """job.json."""

    words: list[str]
    about: str
    path: str
    asked: float
    here: str
    """Where its words are meant to be run: other studios on the folder may have been started elsewhere."""


@dataclass(frozen=True)
class Job:
    """A job as its folder tells."""

    name: str
    words: tuple[str, ...]
    """Of the command line, without `fabulate`."""
    about: str
    """What it makes, for people."""
    path: str
    """The folder that it writes."""
    here: Path
    """Where it is run."""
    asked: float
    """When, in seconds since 1970."""
    state: State
    code: int | None
    output: str
    """The end of what it has printed."""


class Jobs:
    """The queue in a folder."""

    def __init__(self, root: Path, here: Path, program: Sequence[str] = (sys.executable, "-m", "fabulate")) -> None:
        """`here`: where commands are run. `program`: what their words are given to."""
        self.folder, self.here, self.program = root / ".studio" / "jobs", here, program
        self.snapshot: list[Job] = []
        """All jobs, as of the last look: the pages that follow a run need not look themselves."""

    def submit(self, words: Sequence[str], about: str, path: str) -> Job:
        """Put a command line at the end of the queue. Errors: `FullError`."""
        with self.alone():
            if sum(job.state == "waiting" for job in self.all()) >= WAITING:
                raise FullError(f"{WAITING} jobs wait already: stop one, or wait until one is over")
            folder = self.folder / f"{time.time_ns():020d}-{token_hex(4)}"
            folder.mkdir()
            (folder / "output").touch()
            record: Record = {
                "words": [*words],
                "about": about,
                "path": path,
                "asked": time.time(),
                "here": str(self.here),
            }
            try:
                write_json(folder / "job.json", record)  # last: a folder without it is no job
            except OSError:  # a disk that is full
                rmtree(folder, ignore_errors=True)
                raise
            self._advance()
        self.snapshot = self.all()
        return self.get(folder.name)

    def get(self, name: str) -> Job:
        """The job of a name. Errors: `FileNotFoundError`."""
        folder = self.folder / name
        if name not in self.names():
            raise FileNotFoundError(2, "there is no such job", name)
        record: Record = read_json(folder / "job.json", Record)
        code, output = written(folder / "code"), tail(folder / "output")
        words, here = tuple(record["words"]), Path(record["here"])
        path = record["path"] if here == self.here else str(here / record["path"])  # as it is seen from here
        return Job(name, words, record["about"], path, here, record["asked"], state(folder), code, output)

    def names(self) -> list[str]:
        """Of all jobs, the first asked for first."""
        try:
            return sorted(path.parent.name for path in self.folder.glob("*/job.json"))
        except OSError:
            return []

    def all(self) -> list[Job]:
        """All jobs that are known, the first asked for first."""
        found = []
        for name in self.names():
            with suppress(FileNotFoundError, RunError):  # removed meanwhile, or damaged
                found.append(self.get(name))
        return found

    def stop(self, name: str) -> Job:
        """Let a job save and leave, as at Ctrl-C; one that waits is not begun.

        By SIGTERM: a studio that a script began in the background ignores interrupts, and so do its children.
        """
        self.get(name)
        with self.alone():
            job = self.get(name)
            if job.state in ("waiting", "running"):
                write_file(self.folder / name / "stopped", lambda file: file.write(b""))
                if job.state == "running":
                    self._signal(name, signal.SIGTERM)
        return self.get(name)

    def advance(self) -> None:
        """Begin the next job where none runs."""
        if self.folder.is_dir():
            with self.alone():
                self._advance()
            self.snapshot = self.all()

    def _advance(self) -> None:
        jobs = self.all()
        for job in jobs:
            if job.code is not None and held(self.folder / job.name / "output"):  # what it began and left behind
                self._signal(job.name, signal.SIGKILL)
        if not any(job.state == "running" for job in jobs):
            for job in jobs:
                if job.state == "waiting":
                    self._begin(job)
                    break
        over = [job for job in jobs if job.state not in ("waiting", "running")]
        for job in over[:-KEPT]:
            rmtree(self.folder / job.name, ignore_errors=True)

    def _begin(self, job: Job) -> None:
        folder = self.folder / job.name
        with (folder / "output").open("ab") as output:
            fcntl.flock(output, fcntl.LOCK_EX)
            try:
                child = subprocess.Popen(
                    ["sh", "-c", SHELL, folder / "code", *self.program, *job.words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=job.here,
                    env={**os.environ, "COLUMNS": "110"},
                    start_new_session=True,
                )
            except OSError as error:  # where it was to be run is gone, say: those behind it need not wait for it
                output.write(f"{error.filename or 'sh'}: {error.strerror or error}\n".encode())
                (folder / "code").write_text("127")
                return
        try:
            write_file(folder / "pid", lambda file: file.write(str(child.pid).encode()))
        except OSError:  # a disk that is full: nobody could stop it
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            threading.Thread(target=child.wait, daemon=True).start()  # else it would stay as a zombie

    def _signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a job that holds its lock: so its number is still its own."""
        pid = written(self.folder / name / "pid")
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block no other server changes the queue."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.parent / "lock"):
            yield


def state(folder: Path) -> State:
    """How far a job is, by what lies in its folder."""
    code, stopped = written(folder / "code"), (folder / "stopped").exists()
    if code is not None:
        return "done" if code == 0 else "stopped" if stopped or code > 128 else "failed"
    if held(folder / "output"):
        return "running"
    if written(folder / "pid") is not None:  # it may have ended between these two looks
        return "lost" if written(folder / "code") is None else state(folder)
    return "stopped" if stopped else "waiting"


def held(file: Path) -> bool:
    """Whether a process that runs has locked a file."""
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def written(file: Path) -> int | None:
    """The number that stands in a file, if there is one."""
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def tail(file: Path) -> str:
    """The end of a text, from the beginning of a line on."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - TAIL))
            text = opened.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return text if size <= TAIL else text.partition("\n")[2]


def told(job: Job) -> dict[str, object]:
    """A job as JSON."""
    return {**vars(job), "here": str(job.here)}
