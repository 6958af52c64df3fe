"""`fabulate check FILE`: what every family keeps, asked of a family of one's own."""

import tyro

from fabulate.cli.parsing import parse
from fabulate.config import spec
from fabulate.models.contract import examine
from fabulate.models.families import import_families


@spec
class Arguments:
    """Ask of a family of your own what every family keeps (a minute or two), and tell what to mend."""

    file: tyro.conf.Positional[str]
    """A Python file, or an installed module, that defines families."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate check")
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
