"""`fabulate models`: a table of families; `fabulate check FILE`: what every family keeps, asked of one of one's own."""

import tyro
from rich.console import Console
from rich.table import Table

from fabulate.cli.parsing import parse
from fabulate.config import spec
from fabulate.models.capabilities import CAPABILITIES
from fabulate.models.contract import examine
from fabulate.models.families import families, import_families


@spec
class Models:
    """List the families, what each can do, and their presets."""


def models(argv: list[str]) -> None:
    parse(Models, argv, "fabulate models")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("family", "name", "can", "presets"):
        table.add_column(column)
    for name, cls in families().items():
        able = ", ".join(
            ["sample", *(word for word, capability in CAPABILITIES.items() if issubclass(cls, capability))]
        )
        table.add_row(f"[bold]{name}", (cls.__doc__ or "").split("(")[0].strip(), able, ", ".join(cls.presets))
    console = Console()
    console.print(table)
    console.print("\nfabulate train FAMILY --help lists a family's hyperparameters.", highlight=False)


@spec
class Check:
    """Ask of a family of your own what every family keeps (a minute or two), and tell what to mend."""

    file: tyro.conf.Positional[str]
    """A Python file, or an installed module, that defines families."""


def check(argv: list[str]) -> None:
    flags = parse(Check, argv, "fabulate check")
    broken = 0
    for name in import_families(flags.file):
        print(f"{name}:")
        for law, problems in examine(name):
            broken += bool(problems)
            print(f"  {'mend' if problems else 'ok  '}  {law.says}", flush=True)
            for sentence in problems:
                print(f"        {sentence}")
    if broken:
        raise SystemExit(1)
