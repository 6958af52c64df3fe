"""`fabulate demo`: in a fresh folder, a second time, and with a browser there."""

import shlex
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fabulate.cli import demo
from fabulate.training import read_log
from test_docs import understand
from tiny import ends

TINY = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "4", "--steps", "20", "--batch-size", "16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder, in which the demo trains something small."""
    said = demo.said
    monkeypatch.setattr(demo, "said", lambda verb, *words: said(verb, *words, *(TINY if verb == "train" else [])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[Path, Any]:
    """What lies in a folder; of the log, its rows."""
    found = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    return found | {path: read_log(path.parent) for path in found if path.name == "log.jsonl"}


def test_it_ends_without_a_terminal_and_a_second_call_loses_nothing(folder, capsys, monkeypatch):
    assert ends("demo") == 0
    told = capsys.readouterr().out
    pictures = [line.split()[-1] for line in told.splitlines() if line.endswith((".png", ".gif"))]
    assert {"samples.png", "interpolation-0-1.gif"} <= {Path(name).name for name in pictures}
    assert not [name for name in pictures if not (folder / name).is_file()]
    steps = [line.removeprefix("$ fabulate ") for line in told.splitlines() if line.startswith("$ fabulate ")]
    assert len(steps) == 3 and len(demo.NEXT) == 3
    for command in (*steps, *(command.removeprefix("fabulate ") for command in demo.NEXT)):
        understand(shlex.split(command), monkeypatch, {"runs/demo": "vae"})
        assert command in told
    before = files(folder)
    assert ends("demo") == 0
    assert files(folder) == before and len(before) > 70


@pytest.mark.parametrize(("out", "page"), [("runs/demo", "runs%2Fdemo"), ("../else where/demo", None)])
def test_where_there_is_a_browser_the_page_opens_on_the_run(folder, capsys, monkeypatch, out, page):
    uvicorn = pytest.importorskip("uvicorn", reason="the studio's packages are not here")
    opened: list[str] = []
    monkeypatch.setattr(demo, "window", lambda: True)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append(self.config.app))
    served: list[Any] = []
    assert ends("demo", "--out", out) == 0
    (address,) = opened
    path = page or quote(str(folder.parent / "else where" / "demo"), safe="")
    assert address.endswith(f"#/run?path={path}") and address in capsys.readouterr().out
    assert len(served) == 1


@pytest.mark.parametrize(
    ("terminal", "display", "browser", "expected"),
    [(True, ":0", True, True), (False, ":0", True, False), (True, "", True, False), (True, ":0", False, False)],
)
def test_a_window_needs_a_terminal_a_desktop_and_a_browser(monkeypatch, terminal, display, browser, expected):
    def get() -> Any:
        if not browser:
            raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", get)
    monkeypatch.setattr(demo.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(demo.sys, stream, type("Stream", (), {"isatty": lambda self: terminal})())
    assert demo.window() is expected
