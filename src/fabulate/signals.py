"""Signals: what asks a process to leave, and how it leaves in order, with the exit code that the shell expects.

Ctrl-C, SIGTERM, a terminal that closes (SIGHUP), and what batch schedulers send before the time is up (SIGUSR1,
SIGUSR2, SIGXCPU). A training takes note, finishes its step, saves and leaves (`Stop`); all else unwinds at once, so
that temporary files are removed on the way (`Leave`). A signal that is ignored (SIGHUP under nohup) stays ignored, and
one that somebody else handles is theirs.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

S = TypeVar("S", bound="Stop")

BY_PEOPLE = (signal.SIGINT, signal.SIGTERM)  # pressed or sent again when the first one takes too long
BY_MACHINES = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)
BROKEN_PIPE = 13  # SIGPIPE, which Windows lacks: nobody reads our output any more
ECHO = 1.0  # seconds in which a second signal is the first one again: a terminal and a launcher both pass it on
WATCH = 1.0  # seconds between looks for the parent


class Interrupted(KeyboardInterrupt):
    """The work was stopped by a signal; `code` is the exit code that tells of it, 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


class InterruptedTraining(Interrupted):
    """Training was stopped by a signal, or by the end of its output, after it saved a checkpoint."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, f"its output is closed. {message}" if number == BROKEN_PIPE else message)


class Stop:
    """Takes note of the first signal; where people send another one later, that acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self.since = number, time.monotonic()
        elif number in BY_PEOPLE and time.monotonic() - self.since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class Leave(Stop):
    """Ends the work by an exception at the first signal."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        super().__call__(number, frame)
        if first:
            raise Interrupted(number, f"interrupted by {signal.Signals(number).name}")


@contextmanager
def catching(stop: S) -> Iterator[S]:
    """Within the block `stop` handles the signals that ask to leave (in the main thread: others may not)."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (*BY_PEOPLE, *BY_MACHINES):
            handler = signal.getsignal(number)
            if number in BY_PEOPLE or handler is signal.SIG_DFL or isinstance(handler, Stop):
                before[number] = signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_without_parent(parent: int) -> None:
    """From now on this process sends itself SIGTERM when its parent (a process id) is no more, within a second.

    Nobody else would end it: a launcher that is killed with SIGKILL can pass nothing on.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="fabulate-parent", daemon=True).start()
