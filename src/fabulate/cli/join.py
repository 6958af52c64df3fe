"""`fabulate join PART... --out DIR`: samples that were drawn in parts, put together."""

from pathlib import Path
from typing import Annotated

import tyro

from fabulate.cli.parsing import parse
from fabulate.cli.shared import counting, told, where
from fabulate.config import PositiveInt, spec
from fabulate.samples import join


@spec
class Arguments:
    """Put parts together that `fabulate sample --start` drew, on any machines, as if one had drawn all of them.

    No part may be missing, overlap another, or be drawn by another model or seed.
    """

    parts: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of PNGs with their manifests, or .npz files, in any order."""
    out: Path
    """The folder, or the .npz, to write; the parts stay as they are."""
    n: Annotated[PositiveInt | None, tyro.conf.arg(aliases=["-n"])] = None
    """How many samples there must be, so that the last part cannot be missing unseen."""
    overwrite: bool = False
    """Write into a folder that is not empty, or over an existing .npz."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate join")
    with counting("joining") as progress:
        join(flags.parts, flags.out, n=flags.n, overwrite=flags.overwrite, progress=progress, say=told)
    where("samples", flags.out)
