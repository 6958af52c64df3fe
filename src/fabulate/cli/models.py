"""`fabulate models`: a table of families, what each can do, and their presets."""

from rich.console import Console
from rich.table import Table

from fabulate.cli.parsing import parse
from fabulate.config import spec
from fabulate.models.capabilities import CAPABILITIES
from fabulate.models.families import families


@spec
class Arguments:
    """List the families, what each can do, and their presets."""


def main(argv: list[str]) -> None:
    parse(Arguments, argv, "fabulate models")
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
