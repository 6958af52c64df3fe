"""Plots of pages, drawn without a window: dark on white, in one style. matplotlib is imported late: it takes a while.

`axes` gives empty axes in the style and `image` the finished picture; what several pages draw stands here too.
Legend: N bars or values.
"""

from collections.abc import Sequence
from io import BytesIO
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fabulate.metrics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, PALE, RED, GREEN, INK, GRAY = "#3b6ea8", "#8fb4dc", "#c03a32", "#3f8f5f", "#1c2330", "#8a93a3"
DPI = 120


def axes(width: float, height: float, across: str = "", up: str = "") -> "Axes":
    """Empty axes of a size in inches; the words are those of the axes."""
    (axes,) = several(width, height, (1,))
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    return axes


def several(width: float, height: float, ratios: Sequence[float]) -> "list[Axes]":
    """Empty axes beside each other in one picture of a size in inches, their widths in these ratios."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    found = list(figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0])
    for axes in found:
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return found


def image(axes: "Axes") -> Image.Image:
    """The picture of axes that `axes` gave."""
    buffer, figure = BytesIO(), axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as picture:
        return picture.convert("RGB")


def bars(values: Sequence[float], across: str, up: str) -> Image.Image:
    """Numbers (N,) as bars from left to right, in the order given."""
    shown = axes(6.4, 2.6, across, up)
    shown.bar(range(1, len(values) + 1), values, width=0.85, color=BLUE)
    return image(shown)


def shares(names: Sequence[str], found: Sequence[Estimate], real: Sequence[float]) -> Image.Image:
    """The shares of N classes among samples as bars with their intervals, a line where the real share is.

    >>> shares(["cat", "dog"], [Estimate(0.4, 0.3, 0.5), Estimate(0.6, 0.5, 0.7)], [0.5, 0.5]).mode
    'RGB'
    """
    shown = axes(min(9.0, 2.2 + 0.62 * len(names)), 2.9, up="% of images")
    places = np.arange(len(names))
    value, low, high = 100 * np.array(found).T
    error = {"ecolor": INK, "elinewidth": 1.1}
    label = "samples, 95 % intervals"
    shown.bar(places, value, 0.66, color=PALE, yerr=[value - low, high - value], capsize=3, error_kw=error, label=label)
    shown.hlines([100 * share for share in real], places - 0.42, places + 0.42, RED, lw=2, label="real images")
    shown.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=2)
    label_classes(shown, names)
    return image(shown)


def label_classes(shown: "Axes", names: Sequence[str]) -> None:
    """The names of classes below the places 0, 1, ... of axes, aslant where they are long."""
    words = [shorten(name, 14, placeholder="…") for name in names]
    slant = 35 if max(map(len, words)) > 4 else 0
    shown.set_xticks(range(len(words)), words, fontsize=9, parse_math=False, rotation=slant)


def histogram(
    sets: dict[str, np.ndarray], threshold: float, across: str, limits: tuple[float, float], bins: int = 48
) -> Image.Image:
    """How the values (N,) of several sets are spread: the share of each set in each bin, and a line at a threshold.

    `limits`: what lies beyond them is counted at them.
    """
    shown = axes(9.0, 2.6, across, "% of images")
    edges = np.linspace(*limits, bins + 1)
    for (name, values), colour in zip(sets.items(), (BLUE, GREEN, INK), strict=False):
        part = 100 * np.histogram(np.clip(values, *limits), edges)[0] / len(values)
        shown.bar(edges[:-1], part, np.diff(edges), align="edge", color=colour, alpha=0.5, label=name)
    shown.axvline(threshold, color=RED, lw=1.5, label=f"threshold {threshold:.4g}")
    shown.legend(fontsize=8, frameon=False)
    return image(shown)
