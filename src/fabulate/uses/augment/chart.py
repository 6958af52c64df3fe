"""Charts of a proof, drawn without a window: the ways to train side by side, and each class's recall in two of them."""

from collections.abc import Sequence
from io import BytesIO
from textwrap import shorten
from typing import Any

from PIL import Image

from fabulate.metrics.intervals import Estimate
from fabulate.uses.augment.proof import BASELINES, Proof

WITHOUT, WITH = "#8a93a3", "#2c66a8"


def chart(proof: Proof) -> Image.Image:
    """On the left balanced accuracy of each, on the right recall by class without and with synthetic images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    names = [*BASELINES][::-1]
    for place, name in enumerate(names):
        colour = WITH if BASELINES[name].images is BASELINES["both"].images else WITHOUT
        bar(left, place, proof.accuracy(name), colour)
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.set_xlabel("balanced accuracy, % of test images", fontsize=9)
    left.grid(axis="x", alpha=0.25)
    parts = (("classic", WITHOUT, -0.17), ("both", WITH, 0.17))
    for name, colour, aside in parts:
        recalls = proof.recalls(name)
        upright(right, [k + aside for k in range(len(recalls))], recalls, colour, name)
    labels = [shorten(name, 14, placeholder="…") for name in proof.classes]
    right.set_xticks(
        range(len(labels)), labels, fontsize=9, parse_math=False, rotation=35 if max(map(len, labels)) > 4 else 0
    )
    right.set_ylabel("recall, %", fontsize=9)
    right.grid(axis="y", alpha=0.25)
    right.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with Image.open(buffer) as image:
        return image.convert("RGB")


def reach(value: Estimate) -> list[list[float]]:
    """How far an interval goes down and up from its value, in percent."""
    return [[100 * max(0.0, value.value - value.low)], [100 * max(0.0, value.high - value.value)]]


def bar(axes: Any, place: float, value: Estimate, colour: str) -> None:
    """A point with its interval, lying."""
    axes.errorbar(100 * value.value, place, xerr=reach(value), fmt="o", color=colour, capsize=3, markersize=6)


def upright(axes: Any, places: Sequence[float], values: Sequence[Estimate], colour: str, name: str) -> None:
    """Points with their intervals, standing."""
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        label = name if i == 0 else None
        axes.errorbar(place, 100 * value.value, yerr=reach(value), fmt="o", color=colour, capsize=2, ms=4, label=label)
