"""What people see while a verb works: a bar on a terminal, and elsewhere a line every few seconds.

A stage that tells how far it is, and one that does not, both say that they are at work: lines come by the clock, from a
thread of their own. What is quick says nothing.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fabulate.types import Progress, Stages

FIRST, BETWEEN = 2.0, 5.0  # seconds until the first line of a stage, and between lines


class Lines:
    """Lines about the stages of some work, by the clock."""

    def __init__(self, first: float = FIRST, between: float = BETWEEN) -> None:
        self.first, self.between = first, between
        self.what, self.done, self.total = "", 0, 0
        self.began = time.monotonic()
        self.next = self.began + first
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.clock.join()
        self._end()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        with self.lock:
            if what != self.what:
                self._end()
                self.what, self.began = what, time.monotonic()
                self.next = self.began + self.first
            self.done, self.total = done, total

    def _tick(self) -> None:
        while not self.over.wait(self.first / 10):
            with self.lock:
                if self.what and time.monotonic() >= self.next:
                    self.next = time.monotonic() + self.between
                    far = f"{self.done:,} of {self.total:,}, " if self.total > 1 else ""
                    self._say(f"{self.what}: {far}{self._seconds:.0f} s")

    def _end(self) -> None:
        """Say how long a stage took that was long enough to be told of."""
        if self.what and self._seconds >= self.first:
            self._say(f"{self.what}: done in {self._seconds:.0f} s")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def stages() -> Iterator[Stages]:
    """Within the block people see what is done now: told (what, done, total), a bar moves or lines are written."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with Lines() as lines:
            yield lines
        return
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:  # a bar of its own, so that its clock begins anew
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield told


@contextmanager
def counting(what: str) -> Iterator[Progress]:
    """As `stages`, of work that has one stage: told (done, total)."""
    with stages() as told:
        told(what, 0, 0)
        yield lambda done, total: told(what, done, total)
