"""Charts of a report, drawn without a window. Legend: N bars."""

from io import BytesIO

from PIL import Image
from torch import Tensor


def bars(values: Tensor, across: str, up: str) -> Image.Image:
    """Numbers (N,) as bars from left to right, in the order given; the words are those of the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes half a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar(range(1, len(values) + 1), values.tolist(), width=0.85, color="#3b6ea8")
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer).convert("RGB")
