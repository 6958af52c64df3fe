"""From words to flags: a dataclass of annotated fields is filled by tyro, and what is wrong is one line.

Nothing here imports torch, so that a verb that needs none tells its options at once.
"""

from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from itertools import groupby
from typing import TypeVar

import tyro
from pydantic import ValidationError

from fabulate.errors import ConfigError

T = TypeVar("T")

# A network's kind is chosen by --network, not by a sub-command; what is not given is None without being typed so.
STYLE = (tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)


def parse(cls: type[T], argv: list[str], prog: str) -> T:
    """Parse flags into a dataclass; `--help` ends here.

    Errors: `ConfigError` with what tyro would print in a box, as one line.
    """
    box = StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(cls, args=argv, prog=prog, config=STYLE)
    except SystemExit as end:
        if not end.code:
            raise
    problem, meant = explained(box)
    if problem.startswith("Missing value"):  # an option that is not known takes the words behind it along
        box = StringIO()
        with redirect_stderr(box), suppress(SystemExit):
            tyro.cli(cls, args=["word", *argv], prog=prog, config=STYLE)
        second = explained(box)
        problem, meant = second if second[0].startswith("Unrecognized") else (problem, meant)
    raise ConfigError(f"{problem}{meant} ({prog} --help lists the options)")


def explained(box: StringIO) -> tuple[str, str]:
    """What tyro says is wrong in a box, and what was meant."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.getvalue().splitlines()[1:]]
    parts = [[*part] for rule, part in groupby(lines, lambda line: not line.strip("-")) if not rule]
    problem = " ".join(parts[0]).replace("'arguments.", "'") if parts else ""
    options = [line.split()[0] for line in lines if line.startswith("--")]
    return problem, f"; did you mean {options[0]}?" if options and problem.startswith("Unrecognized") else ""


def glance(cls: type[T], argv: list[str]) -> T | None:
    """The flags that decide which other flags there are; others are passed over. None where these are not right.

    What a verb then does goes by what `parse` reads, which tells what is wrong as well.
    """
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            flags, _ = tyro.cli(cls, args=argv, config=STYLE, add_help=False, return_unknown_args=True)
    except (SystemExit, ValidationError):
        return None
    return flags
