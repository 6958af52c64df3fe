"""The command line: a function for each verb, which parses its words, calls a room and prints what came of it.

A verb lies in the file called as it is, or with others of its kind (`FILES`). This file knows their names only, so that
`fabulate --help` answers at once: a verb's file, and with it torch, is imported when the verb is used.

Where the terminal, a pipe or the locale has no UTF-8, the same words are said in plain characters. What we write with
signs (arrows, lines, dashes) has plain ones instead; letters that cannot be shown, of a class's name say, are shown as
Python escapes them, so that two names never look alike. Files are UTF-8 whatever the locale.
"""

import atexit
import codecs
import ctypes
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import TextIOWrapper
from typing import IO, NoReturn

from fabulate.signals import BROKEN_PIPE, Leave, catching, end_without_parent

VERBS = {
    "demo": "begin here: a first model in a minute, and the page on it",
    "studio": "open a page in the browser: train, watch, explore, sort out, compare",
    "data": "look at images before training: counts, sizes, broken files, duplicates",
    "cache": "tell what is kept to be quick the next time, and clear it",
    "models": "list the families, what each can do, and their presets",
    "check": "ask of a family of your own what every family keeps, and tell what to mend",
    "plan": "tell which family to train on images within some minutes, and what to expect",
    "train": "train a family on images; the same command again continues",
    "distil": "train a flow on until it draws in four evaluations, or two, or one",
    "info": "tell what a run is, how far it came and how good it is",
    "sample": "draw new images from a run",
    "join": "put together samples that were drawn in parts",
    "reconstruct": "pass real images through a run's model, side by side",
    "interpolate": "walk between two images or two noise seeds, as a strip and a GIF",
    "traverse": "walk along one direction of the code at a time, to see what it does",
    "morph": "turn real images of one class towards another",
    "fill": "complete what is missing: a part of an image, the rest of a tune, voices under a given one",
    "evaluate": "measure a run's samples: good, varied, copied? A page with intervals and anchors",
    "compare": "say which of several runs is better, and whether it is more than chance",
    "augment": "make more images of rare classes, real and synthetic ones apart",
    "prove": "say whether synthetic images help a classifier, on images nothing was learnt from",
    "debias": "find images that are rare in their class, weigh or recolour them, and test what that changes",
    "outliers": "learn what is normal, then rank images by how strange they are, with heat maps",
    "audit": "say whether samples may be handed out: near copies, and whom the model learnt from",
    "rare": "draw images from the tail of a run's model, and tell how rare they are",
    "export": "write a model for other programs: an ONNX file, a page, a folder for diffusers",
}

FILES = {
    **dict.fromkeys(("reconstruct", "interpolate", "traverse", "morph"), "gallery"),
    **{"models": "families", "check": "families"},
    **{"join": "sample", "compare": "evaluate", "prove": "augment"},
}

IMPORTED = "FABULATE_IMPORTED"  # the files of --import, for the processes that this one starts
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

HELP = f"""\
usage: fabulate VERB [options]

Deep generative models for your own images.

{chr(10).join(f"  {verb:12} {meaning}" for verb, meaning in VERBS.items())}

`fabulate VERB --help`, or `fabulate help VERB`, tells a verb's options. To begin:

  fabulate demo                          a first model, on 1,797 handwritten digits that come along
  fabulate sample runs/demo              new images from it
  fabulate data path/to/your/images      then look at your own

Any verb takes --import FILE: a Python file with a family of your own.
"""


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `fabulate`: errors of the user's end as one line and a code that is not 0."""
    argv = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        utf8_names()
    speak_plainly()
    tune()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        end_without_parent(int(os.environ.get("FABULATE_LAUNCHER", os.getppid())))
    if not first():
        sys.stdout = io.StringIO()
    try:
        with catching(Leave()), telling_errors():
            verb, words = chosen(argv)
            with importing(words) as words:
                function(verb)(words)
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt as error:  # in training its words say what was saved
        if not first():  # the first has said it
            raise SystemExit(getattr(error, "code", 130)) from None
        fail(str(error) or "interrupted", code=getattr(error, "code", 130))
    except BrokenPipeError:  # the reader of our output has gone
        raise SystemExit(128 + BROKEN_PIPE) from None
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich's console ends with 1 at it
            raise SystemExit(128 + BROKEN_PIPE) from None
        raise
    except OSError as error:  # a disk that is full, a folder that may not be written
        fail(f"{error.filename or (argv or ['output'])[0]}: {error.strerror or error}", code=1)
    finally:
        for stream in (sys.stdout, sys.stderr):
            settle(stream)


def function(verb: str) -> Callable[[list[str]], None]:
    """What does a verb's work, given its words."""
    work: Callable[[list[str]], None] = getattr(import_module(f"fabulate.cli.{FILES.get(verb, verb)}"), verb)
    return work


def first() -> bool:
    """Whether this process speaks: of many processes the first one does; what goes wrong all tell."""
    return os.environ.get("RANK", "0") == "0"


def settle(stream: IO[str] | None) -> None:
    """Write what a stream holds, or drop it: at its end Python would complain, and change the exit code."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):  # gone, full, closed
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def chosen(argv: list[str]) -> tuple[str, list[str]]:
    """The verb, and the words for it."""
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        print(HELP, end="")
        raise SystemExit(0 if argv else 2)
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"fabulate {version('fabulate')}")
        raise SystemExit(0)
    if argv[0] == "help":  # `fabulate help train vae` is `fabulate train vae --help`
        argv = [*argv[1:], "--help"]
    if argv[0] not in VERBS:
        from fabulate.config import nearest

        fail(f"there is no verb {argv[0]!r}{nearest(argv[0], [*VERBS, 'help'])} (verbs: {', '.join(VERBS)})")
    return argv[0], argv[1:]


@contextmanager
def telling_errors() -> Iterator[None]:
    """Within the block what a user can mend ends in one line; everything else keeps its traceback."""
    from fabulate.errors import DivergedError, FabulateError

    try:
        yield
    except FabulateError as error:
        fail(str(error), code=1 if isinstance(error, DivergedError) else 2)
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        from fabulate.config import explain

        fail(explain(error))


def tune() -> None:
    """Set what belongs to the whole process, which is ours here, and is not when fabulate is imported."""
    # Threads that spin long while they wait stop the whole step when another program holds a core: 50 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # Python looks for garbage among all objects every 70,000 new ones, and at the end. Of torch there are more than a
    # million, and no garbage: half a second of every start, and as much of every end.
    gc.set_threshold(2000, 20, 100)
    atexit.register(gc.freeze)
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        # A step frees all the memory it took. The C library gives large pieces back to the system and gets them again
        # page by page: 3 to 10 % of the step of a convolutional network.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others do without
        if mallopt is not None:
            for setting, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, -1)):
                mallopt(setting, value)


@contextmanager
def importing(argv: list[str]) -> Iterator[list[str]]:
    """Within the block the families of the files that `--import` names are known, in processes started there too.

    Gives the other words.
    """
    from fabulate.errors import ConfigError

    before = os.environ.get(IMPORTED, "")
    words, files, rest = [], [file for file in before.split(os.pathsep) if file], iter(argv)
    for word in rest:
        if word == "--import" or word.startswith("--import="):
            file = word.removeprefix("--import=") if "=" in word else next(rest, "")
            if not file:
                raise ConfigError("--import needs a Python file with a family of your own: --import my_family.py")
            files.append(file)
        else:
            words.append(word)
    if files:
        from fabulate.models.families import import_families

        for file in files:
            import_families(file)
    os.environ[IMPORTED] = os.pathsep.join(files)
    try:
        yield words
    finally:
        os.environ[IMPORTED] = before


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one line on standard error (more only where the message is a list)."""
    with suppress(OSError):  # nobody reads that either
        print(f"fabulate: {message}", file=sys.stderr)
    raise SystemExit(code)


# Characters

PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━╺╸–—−", "-"),  # these are what is meant
        **dict.fromkeys("│┃▏", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯", "+"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("‘’", "'"),
        **{"•": "*", "·": ".", "…": "...", "×": "x", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "±": "+-", "█": "#"},
    }
)
OWN = {"Fréchet": "Frechet", "Serrà": "Serra"}  # letters in words of ours


def plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: characters that have a plain form in it, others as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    for word, ascii_word in OWN.items():
        for place in range(len(word)):
            begin = error.start - place
            if word[place] == error.object[error.start] and error.object[max(begin, 0) : begin + len(word)] == word:
                return ascii_word[place], error.start + 1
    letters = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if ord(c) < 128 else ascii(c)[1:-1] for c in letters), error.end


def speak_plainly() -> None:
    """Let standard output and error take every character: what they cannot encode has a plain form."""
    codecs.register_error("fabulate.plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="fabulate.plain")


def utf8_names() -> None:
    """Begin again in Python's UTF-8 mode where names of files would not be UTF-8; what is printed stays as it was.

    Python itself does so in the locale C unless told otherwise. Without it a class `dög` could have no folder.
    """
    if os.name == "nt" or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", "ascii"))
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
