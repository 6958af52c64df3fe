"""`fabulate cache` and `fabulate cache clear`: what is kept to be quick the next time, how large it is, and its end."""

import time
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from fabulate.cli.parsing import parse
from fabulate.cli.shared import say
from fabulate.config import nearest, spec
from fabulate.data import cache as store
from fabulate.errors import ConfigError

KINDS = {
    "data": "decoded images",
    "ranges": "ranges of --range auto",
    "features": "networks and statistics",
    "compiled": "machine code",
    "hub": "data sets from the hub",
}
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


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


def cache(argv: list[str]) -> None:
    if argv[:1] == ["clear"]:
        clear(parse(Clear, argv[1:], "fabulate cache clear"))
    elif argv and not argv[0].startswith("-"):
        raise ConfigError(f"cache takes clear or nothing, and not {argv[0]!r}{nearest(argv[0], ['clear'])}")
    else:
        parse(Show, argv, "fabulate cache [clear]")
        show()


def show() -> None:
    """A table of what there is, by kind."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "what", "items", "size", "last used", "longest unused"):
        table.add_column(name, justify="right" if name in ("items", "size") else "left")
    items, now = store.items(), time.time()
    for kind, what in KINDS.items():
        own = [item for item in items if item.kind == kind]
        used = [ago(now - end(item.used for item in own)) for end in (max, min)] if own else ["", ""]
        table.add_row(kind, what, f"{len(own):,}", size(own), *used)
    table.add_row("all", "", f"{len(items):,}", size(items), style="bold")
    Console().print(table)
    say(f"in {store.root()}, at most {decimal(store.limit())} ($FABULATE_CACHE_LIMIT)")


def clear(flags: Clear) -> None:
    """Remove what was asked for, and say what went and what stayed."""
    chosen = store.items(flags.kind or KINDS)
    if flags.limit is not None:
        chosen = store.surplus(chosen, store.nbytes(flags.limit))
    removed, left = store.clear(chosen)
    print(f"{len(removed):,} items removed, {size(removed)}")
    if left:
        print(f"{len(left):,} are in use, or cannot be removed, and stay: {size(left)}")


def size(items: list[store.Item]) -> str:
    return decimal(sum(item.nbytes for item in items))


def ago(seconds: float) -> str:
    """How long ago something was.

    >>> ago(30), ago(7200), ago(200_000)
    ('now', '2 h ago', '2 d ago')
    """
    return next((f"{int(seconds // step)} {unit} ago" for step, unit in UNITS if seconds >= step), "now")
