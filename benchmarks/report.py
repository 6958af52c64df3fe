"""What the benchmarks share: how a ratio is told, and a picture of some."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, GRAY = "#5b8cc8", "#555555"


def told(ratios: Sequence[float]) -> str:
    """The median over repeats, with the smallest and the largest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def bars(rows: Mapping[str, Sequence[float]], meaning: str, path: Path) -> None:
    """A bar for each row, whose length is the ratio, and what it varied between."""
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rows)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, ratios in enumerate(rows.values()):
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        axes.barh(place, middle, 0.7, color=BLUE)
        axes.plot([least, most], [place, place], color=GRAY, linewidth=1.2)
        axes.annotate(
            f"{middle:.2f}",
            (most, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            backgroundcolor="white",
        )
    axes.axvline(1, color=GRAY, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(rows)), [*rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(meaning, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.savefig(path)
