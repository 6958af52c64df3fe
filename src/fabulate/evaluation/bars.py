"""A chart of shares: one bar a class with its interval, and a line where the real share is."""

from collections.abc import Sequence
from io import BytesIO
from textwrap import shorten

from PIL import Image

from fabulate.metrics.intervals import Estimate

BAR, LINE, INK = "#8fb4dc", "#c03a32", "#1c2330"


def bars(names: Sequence[str], shares: Sequence[Estimate], real: Sequence[float]) -> Image.Image:
    """The shares of classes among samples beside those among real images.

    >>> bars(["cat", "dog"], [Estimate(0.4, 0.3, 0.5), Estimate(0.6, 0.5, 0.7)], [0.5, 0.5]).mode
    'RGB'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(9.0, 2.2 + 0.62 * len(names)), 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(names))
    percent = [100 * share.value for share in shares]
    reach = [[100 * (s.value - s.low) for s in shares], [100 * (s.high - s.value) for s in shares]]
    error = {"ecolor": INK, "elinewidth": 1.1}
    axes.bar(places, percent, 0.66, color=BAR, yerr=reach, capsize=3, error_kw=error, label="samples, 95 % intervals")
    left, right = ([k + aside for k in places] for aside in (-0.42, 0.42))
    axes.hlines([100 * share for share in real], left, right, LINE, lw=2, label="real images")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=2)
    words = [shorten(name, 14, placeholder="…") for name in names]
    axes.set_xticks(list(places), words, fontsize=9, parse_math=False)
    if max(map(len, names)) > 4:
        axes.tick_params("x", rotation=35)
    axes.set_ylabel("% of images", fontsize=9)
    axes.tick_params("y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with Image.open(buffer) as image:
        return image.convert("RGB")
