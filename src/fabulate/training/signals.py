"""Ctrl-C and SIGTERM in training: finish the step, save, and leave with the code the shell expects."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class InterruptedTraining(KeyboardInterrupt):
    """Training was stopped by a signal after it saved a checkpoint; `code` is 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


class Stop:
    """Remembers the first signal; the second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def catching_signals() -> Iterator[Stop]:
    """Within the block the first SIGINT or SIGTERM only sets `number` (in the main thread: others may not)."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
