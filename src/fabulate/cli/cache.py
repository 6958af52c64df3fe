"""`fabulate cache` and `fabulate cache clear`: what is kept to be quick the next time, how large it is, and its end."""

import time
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from fabulate.cli.shared import parse
from fabulate.config import nearest, spec
from fabulate.data import cache
from fabulate.data.cache import Item
from fabulate.errors import ConfigError

WORDS = {
    "data": "decoded images",
    "ranges": "ranges of --range auto",
    "features": "networks and statistics",
    "compiled": "machine code",
    "hub": "data sets from the hub",
}
STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


@spec
class Show:
    """Tell what is in the cache: all of it can be made again. `fabulate cache clear` empties it."""


@spec
class Clear:
    """Remove what is in the cache, but never what a running process uses, and never a file that is not its own."""

    kind: Annotated[
        tuple[Literal["data", "ranges", "features", "compiled", "hub"], ...], tyro.conf.arg(metavar="KIND")
    ] = ()
    """Only these kinds: data, ranges, features, compiled, hub (default: all)."""
    limit: str | None = None
    """Only until the rest fits this size, such as 5GB: what was not used for the longest time goes first."""


def main(argv: list[str]) -> None:
    if argv[:1] == ["clear"]:
        clear(parse(Clear, argv[1:], "fabulate cache clear"))
    elif argv and not argv[0].startswith("-"):
        raise ConfigError(f"cache takes clear or nothing, and not {argv[0]!r}{nearest(argv[0], ['clear'])}")
    else:
        parse(Show, argv, "fabulate cache [clear]")
        show(cache.items())


def show(items: Sequence[Item]) -> None:
    """A table of what there is, by kind."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "what", "items", "size", "last used", "longest unused"):
        table.add_column(name, justify="right" if name in ("items", "size") else "left")
    now = time.time()
    for kind, what in WORDS.items():
        own = [item for item in items if item.kind == kind]
        ages = [ago(now - used(item.used for item in own)) for used in (max, min)] if own else ["", ""]
        table.add_row(kind, what, f"{len(own):,}", size(sum(item.nbytes for item in own)), *ages)
    table.add_row("all", "", f"{len(items):,}", size(sum(item.nbytes for item in items)), style="bold")
    console = Console()
    console.print(table)
    told = f"in {cache.root()}, at most {size(cache.limit())} ($FABULATE_CACHE_LIMIT)"
    console.print(told, highlight=False, markup=False, soft_wrap=True)


def clear(flags: Clear) -> None:
    """Remove what was asked for, and say what went and what stayed."""
    chosen = cache.items(flags.kind or WORDS)
    if flags.limit is not None:
        chosen = cache.surplus(chosen, cache.nbytes(flags.limit))
    removed, left = cache.clear(chosen)
    print(f"{len(removed):,} items removed, {size(sum(item.nbytes for item in removed))}")
    if left:
        print(f"{len(left):,} are in use, or cannot be removed, and stay: {size(sum(item.nbytes for item in left))}")


def size(nbytes: int) -> str:
    """A number of bytes as people say it.

    >>> size(999), size(1_500_000), size(20_000_000_000)
    ('999 B', '1.5 MB', '20 GB')
    """
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def ago(seconds: float) -> str:
    """How long ago something was.

    >>> ago(30), ago(7200), ago(200_000)
    ('now', '2 h ago', '2 d ago')
    """
    return next((f"{int(seconds // step)} {unit} ago" for step, unit in STEPS if seconds >= step), "now")
