"""`fabulate studio [FOLDER ...]`: a page in the browser on runs and images, served from this machine."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from fabulate.cli.parsing import parse
from fabulate.config import spec
from fabulate.errors import ConfigError


@spec
class Arguments:
    """Open a page in which models can be trained, explored and compared. It prints the address: open that."""

    folders: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[FOLDER ...]", help_behavior_hint="")
    ] = ()
    """Folders that the page may see, with all below them: your images and runs (default: this one)."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8008
    """Where it listens; 0 takes a port that is free."""
    host: str = "127.0.0.1"
    """Who may reach it: by default this machine alone. 0.0.0.0 lets all others in, unencrypted, and needs --token."""
    token: str | None = None
    """The secret at the end of the address, 16 letters and digits or more (default: a new one each time)."""
    open: bool = False
    """Open the page in the browser."""


def studio(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate studio")
    try:
        from fabulate.studio.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the studio needs a package that is not here ({error.name}): pip install 'fabulate[studio]'"
        ) from error
    serve(
        [*flags.folders],
        host=flags.host,
        port=flags.port,
        token=flags.token,
        browser=flags.open,
        say=lambda words: print(words, flush=True),
    )
