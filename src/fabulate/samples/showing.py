"""What people look at first in a folder of samples: a picture of some, and where they sound a page that plays them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabulate.data.media import Medium
from fabulate.pictures import save_png
from fabulate.report import Figure, Figures, Page, Section, Sound, Sounds, write_page
from fabulate.samples.order import PICTURE


def show(
    folder: Path,
    about: str,
    legend: str,
    its: Medium,
    names: Sequence[str],
    items: Sequence[Any],
    y: np.ndarray | None = None,
    classes: Sequence[str] = (),
    kind: str = "fabulate sample",
) -> None:
    """Write grid.png, which shows items and their classes y (N,), and index.html, which plays them.

    `names`: of their files in the folder. The page needs no network, and is written only where items sound.
    """
    picture = its.sheet(items, about, legend, y, classes)
    save_png(picture, folder / PICTURE)
    heard = [found for item, name in zip(items, names, strict=True) if (found := its.heard(item, name))]
    if not heard:
        return
    shown = Figures([Figure(picture, "Time to the right, pitch upwards.")])
    sections = [Section("All of them", [shown]), Section("To listen to", [Sounds([Sound(*one) for one in heard])])]
    write_page(folder / "index.html", Page(kind=kind, title=about, about=about, sections=sections))
