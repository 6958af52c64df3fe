"""`fabulate demo`: a first model in a minute, by the commands that anybody would type, and the page on it."""

import os
import shlex
import sys
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from fabulate.cli import function
from fabulate.cli.parsing import parse
from fabulate.cli.shared import say, where
from fabulate.config import spec

NEXT = {
    "fabulate studio": "explore this model in the browser, train others, compare them",
    "fabulate train gan --conditional": "another family on the same digits",
    "fabulate data path/to/your/images --size 32": "your own images: what is there, what is broken",
}


@spec
class Arguments:
    """Train a VAE on 1,797 handwritten digits that come along, draw from it, and open the studio's page on it.

    Again, it goes on where it ended. Where there is no browser, it says where the pictures are, and ends.
    """

    out: Path = Path("runs/demo")
    """The run folder."""


def demo(argv: list[str]) -> None:
    run = parse(Arguments, argv, "fabulate demo").out
    said("train", "vae", "--data", "digits", "--conditional", "--out", str(run))
    said("sample", str(run), "--seed", "1")
    walk = run / "drawn" / "interpolation-0-1.gif"
    if not walk.exists():
        said("interpolate", str(run))
    print()
    where("look at", run / "samples.png", run / "reconstructions.png", walk)
    say("\nNext:", *(f"  {command:45} {meaning}" for command, meaning in NEXT.items()))
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        say("\nThe studio needs two packages more: pip install 'fabulate[studio]'")
    elif window():
        from fabulate.studio.server import serve

        here = run.resolve().is_relative_to(Path.cwd())
        page = f"/run?path={quote(str(run if here else run.resolve()), safe='')}"
        print()
        serve([Path() if here else run.parent], page=page, browser=True, say=lambda words: print(words, flush=True))


def said(verb: str, *words: str) -> None:
    """Say a command as it is typed, and do what it does."""
    say(f"\n$ fabulate {verb} {shlex.join(words)}")
    function(verb)([*words])


def window() -> bool:
    """Whether somebody is there to look at a page: at a terminal, on a desktop with a browser."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
