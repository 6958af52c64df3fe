"""What people see while training runs, in a narrow terminal and without one."""

import re
from io import StringIO

import pytest
from rich.console import Console

from fabulate.training.progress import Display

TERMS = dict.fromkeys(("critic.loss", "critic.real", "critic.fake", "critic.penalty", "generator.loss"), 0.123456)


def test_a_narrow_terminal_shows_share_speed_time_and_every_loss():
    shown = StringIO()
    with Display(Console(file=shown, force_terminal=True, width=80, color_system=None), "gan") as display:
        display.update(0.25, 1000, 12345.6, TERMS)
        display.update(0.5, 2000, 12345.6, TERMS)
    text = shown.getvalue()
    assert all(words in text for words in ("50%", "12,346 images/s", "left", "step 2,000", *TERMS))
    assert "…" not in text


def test_without_a_terminal_plain_lines_end_with_the_last_step():
    shown = StringIO()
    with Display(Console(file=shown, force_terminal=False, width=80), "gan") as display:
        for step in range(1, 11):
            display.update(step / 10, step, 12345.6, TERMS)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 1, "at most one line in five seconds, and one at the end"
    assert lines[0].startswith("100%  step 10")
    assert "12,346 images/s  0 s left" in lines[0]


def test_the_time_left_is_right_after_a_slow_start(monkeypatch):
    """The first step takes 30 s, all others 0.1 s each, of 1,000."""
    clock = iter([0.0, 0.0, *(30 + 0.1 * step for step in range(0, 1000, 10))])
    monkeypatch.setattr("fabulate.training.progress.time.monotonic", lambda: next(clock))
    shown = StringIO()
    with Display(Console(file=shown, force_terminal=False, width=200), "vae") as display:
        display.begin(0.0)
        for step in range(0, 1000, 10):
            display.update((step + 1) / 1000, step + 1, 1.0, {"loss": 1.0})
    lines = shown.getvalue().splitlines()
    assert lines
    for line in lines:
        share = float(re.match(r" *(\d+)%", line)[1]) / 100  # type: ignore[index]
        assert not line.endswith("  0 s left") or share > 0.98
        if share >= 0.1:
            left = re.search(r"(?:(\d+) min )?(\d+) s left", line)
            assert left, line
            seconds = 60 * int(left[1] or 0) + int(left[2])
            assert seconds == pytest.approx(100 * (1 - share), rel=0.15, abs=2)
