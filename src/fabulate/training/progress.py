"""What people see while training runs: a live line in a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_SECONDS = 5.0  # between plain lines


class Display:
    """Progress, images/s, losses and time left."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.began = self.last = time.monotonic()
        self.start: float | None = None
        self.live = console.is_terminal
        # The losses have a line of their own: beside the bar they would squeeze it out of a narrow terminal.
        self.losses = Text(style="dim")
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self.task = self.bar.add_task(title, total=1.0, speed="")
        self.view = Live(Group(self.bar, self.losses), console=console)

    def __enter__(self) -> "Display":
        if self.live:
            self.view.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.view.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, share: float, step: int, speed: float, terms: Mapping[str, float]) -> None:
        """Show the share of the budget spent (0..1), the step, images per second and the latest losses."""
        now = time.monotonic()
        if self.start is None:
            self.start, self.began = share, now
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        text = f"step {step:,}  {shown}"
        if self.live:
            self.bar.update(self.task, completed=share, speed=f"{speed:,.0f} images/s")
            self.losses.plain = text
        elif now - self.last >= PLAIN_SECONDS or share >= 1:
            self.last = now
            done = share - self.start
            left = (now - self.began) * (1 - share) / done if done > 0 else 0.0
            self.say(f"{share:4.0%}  {text}  {speed:,.0f} images/s  {left:.0f} s left")
