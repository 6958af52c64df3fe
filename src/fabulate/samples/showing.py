"""What people look at first in a folder of samples: a picture of some, and where they sound a page that plays them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabulate.data.media import Medium
from fabulate.pictures import save_png
from fabulate.report import Figure, Figures, Page, Section, Sound, Sounds, write_page
from fabulate.samples.order import PICTURE, Head


def show(
    folder: Path,
    head: Head,
    its: Medium,
    names: Sequence[str],
    items: Sequence[Any],
    y: np.ndarray | None,
    about: str,
) -> None:
    """Write grid.png, which shows the first samples and their classes y (N,), and index.html, which plays them.

    `names`: of their files in the folder. The page needs no network, and is written only where samples sound.
    """
    legend = f"{len(items):,} of {head['n']:,} samples, seed {head['seed']}"
    picture = its.sheet(items, f"{about}: samples", legend, y, head["classes"])
    save_png(picture, folder / PICTURE)
    heard = [found for item, name in zip(items, names, strict=True) if (found := its.heard(item, name))]
    if not heard:
        return
    shown = Figures([Figure(picture, "Time to the right, pitch upwards, a line at each bar.")])
    sections = [Section("All of them", [shown]), Section("To listen to", [Sounds([Sound(*one) for one in heard])])]
    page = Page(kind="fabulate sample", title=about, about=f"{about}: samples", sections=sections)
    write_page(folder / "index.html", page)
