"""What people see while training runs: a live line in a terminal, plain lines elsewhere.

When nobody reads any more (`fabulate train ... | head -1`, a terminal that is gone) or the disk under the output is
full, nothing is lost: that counts as a signal to save and leave.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from fabulate.errors import ConfigError
from fabulate.signals import BROKEN_PIPE, Stop

PLAIN_SECONDS = 5.0  # between plain lines


class Display:
    """Progress, speed, losses and time left."""

    def __init__(self, console: Console, title: str, stop: Stop | None = None, items: str = "images") -> None:
        """`stop` is told when the output is closed; `items` is what is learnt."""
        self.console, self.stop, self.items = console, stop or Stop(), items
        self.last = time.monotonic()
        self.first = 0.0
        self.marks: deque[tuple[float, float]] = deque()  # moments and shares of the budget spent then
        self.live = console.is_terminal
        # The losses have a line of their own: beside the bar they would squeeze it out of a narrow terminal.
        self.losses = Text(style="dim")
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self.task = self.bar.add_task(title, total=1.0, speed="", left="")
        self.view = Live(Group(self.bar, self.losses), console=console)

    def __enter__(self) -> "Display":
        if self.live:
            self.view.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.surviving():
            if self.live:
                self.view.stop()

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """Within the block an output that takes no words ends them, and lets the training save and leave."""
        try:
            yield
        except OSError:
            self.console.quiet = True
            self.stop.number = self.stop.number or BROKEN_PIPE

    def say(self, text: str) -> None:
        """A line that stays."""
        with self.surviving():
            if self.live:
                self.console.print(text, highlight=False, markup=False, soft_wrap=True)
            elif not self.console.quiet:  # without rich, which would end the process where a pipe is closed
                print(text, file=self.console.file, flush=True)

    def begin(self, share: float) -> None:
        """The first step begins, with a share (0..1) of the budget spent by sessions before."""
        self.first = share
        self.marks.append((time.monotonic(), share))

    def update(self, share: float, step: int, speed: float, terms: Mapping[str, float]) -> None:
        """Show the share of the budget spent (0..1), the step, items per second and the latest losses."""
        now = time.monotonic()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        text, left, pace = f"step {step:,}  {shown}", self.left(now, share), f"{speed:,.0f} {self.items}/s"
        if self.live:
            self.bar.update(self.task, completed=share, speed=pace, left=left)
            self.losses.plain = text
        elif now - self.last >= PLAIN_SECONDS or share >= 1:
            self.last = now
            self.say(f"{share:4.0%}  {text}  {pace}  {left}")

    def left(self, now: float, share: float) -> str:
        """The time left, by the pace of the later half of what was done: the first steps may have been compiled."""
        self.marks.append((now, share))
        while len(self.marks) > 2 and self.marks[1][1] <= (self.first + share) / 2:
            self.marks.popleft()
        then, spent = self.marks[0]
        if (done := share - spent) <= 0:
            return ""
        return f"{lasting((now - then) * (1 - share) / done)} left"


def scalars(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log by name, as trackers want them.

    >>> scalars({"step": 5, "epoch": 0.1, "seconds": 2.0, "train": {"loss": 3.0}})
    {'train/loss': 3.0}
    """
    parts = [part for part in ("train", "validation", "test", "samples") if part in report]
    return {f"{part}/{name}": value for part in parts for name, value in report[part].items() if value is not None}


def summary_writer() -> type[Any]:
    """TensorBoard's `SummaryWriter`. Errors: `ConfigError` where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"--log tensorboard needs a package that is not here ({error}): pip install tensorboard"
        ) from error
    return SummaryWriter


def lasting(seconds: float) -> str:
    """A time as people say it.

    >>> lasting(48.2), lasting(200), lasting(7000)
    ('48 s', '3 min 20 s', '1 h 56 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
