"""Pictures people look at: grids, strips, animations and curves. uint8 arrays in, files out.

Legend: N images, C H W image.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fabulate.files import write_file

Pixels = npt.NDArray[np.uint8]

_TILE = 64  # a tile of a grid is enlarged to about this many pixels: 8x8 digits are invisible otherwise
_GAP = 2
PARTS = {
    "train": ("-", "#3b6ea8"),
    "validation": ("--", "#e0912f"),
    "test": ("o", "#d1495b"),
    "samples": ("o", "#3f8f5f"),
}  # of a log's rows
_MARGIN, _BAR = 14, 60  # around a table, and the longest bar of a share


def to_image(pixels: Pixels) -> Image.Image:
    """One uint8 image (C, H, W), C 1 or 3, as a Pillow image (mode L or RGB)."""
    return Image.fromarray(pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0))


def grid(images: Pixels, columns: int | None = None) -> Image.Image:
    """Lay uint8 images (N, C, H, W) out in rows on white, small ones enlarged by a whole factor without smoothing.

    >>> grid(np.zeros((10, 1, 8, 8), np.uint8), columns=5).size
    (330, 132)
    """
    n, channels, height, width = images.shape
    columns = columns or ceil(sqrt(n))
    rows = ceil(n / columns)
    scale = max(1, _TILE // max(height, width))
    high, wide = height * scale + _GAP, width * scale + _GAP
    canvas = np.full((channels, rows * high, columns * wide), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * high + _GAP // 2, (i % columns) * wide + _GAP // 2
        enlarged = image.repeat(scale, axis=1).repeat(scale, axis=2)
        canvas[:, top : top + height * scale, left : left + width * scale] = enlarged
    return to_image(canvas)


def paired_rows(first: Pixels, second: Pixels, columns: int) -> Pixels:
    """Interleave two sets (N, C, H, W) row by row, so that a grid shows each image above its partner."""
    rows = [half[i : i + columns] for i in range(0, len(first), columns) for half in (first, second)]
    return np.concatenate(rows)


def table(
    images: Pixels,
    columns: Sequence[str],
    title: str,
    legend: str,
    rows: Sequence[str] = (),
    shares: Sequence[float] = (),
) -> Image.Image:
    """Images (R, K, C, H, W) as a grid, its columns named above it, its rows on the left, each with its share as a bar.

    The largest share has the longest bar. The legend, a line below the title, says what columns and bars are.
    """
    picture = grid(images.reshape(-1, *images.shape[2:]), columns=len(columns)).convert("RGB")
    large, middle, small = _font(15), _font(12), _font(11)
    names = max([_BAR if shares else 0, *(int(middle.getlength(name)) for name in rows)])
    left, top = names + _MARGIN + (_MARGIN if names else 0), 76
    words = max(large.getlength(title), small.getlength(legend))
    width = max(left + picture.width, _MARGIN + int(words)) + _MARGIN
    canvas = Image.new("RGB", (width, top + picture.height + _MARGIN), "white")
    canvas.paste(picture, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 28), title, "#222222", large, anchor="ls")
    draw.text((_MARGIN, 46), legend, "#777777", small, anchor="ls")
    for i, name in enumerate(columns):
        draw.text((left + (i + 0.5) * picture.width / len(columns), top - 6), name, "#555555", small, anchor="ms")
    right = left - _MARGIN
    for i, name in enumerate(rows):
        y = top + int((i + 0.5) * picture.height / len(rows))
        draw.text((right, y), name, "#222222", middle, anchor="rs" if shares else "rm")
        if shares:
            draw.text((right, y + 15), f"{100 * shares[i]:.1f} %", "#777777", small, anchor="rs")
            draw.rectangle((right - _BAR, y + 20, right, y + 22), "#e6ebf1")
            draw.rectangle(
                (right - round(_BAR * shares[i] / max(max(shares), 1e-12)), y + 20, right, y + 22), "#3b6ea8"
            )
    return canvas


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes along with matplotlib, so that words look the same everywhere."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    write_file(path, lambda file: image.save(file, format="PNG"))


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int = 80) -> None:
    """Write an endless animation that runs forth and back."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    write_file(
        path,
        lambda file: there_and_back[0].save(
            file, format="GIF", save_all=True, append_images=there_and_back[1:], duration=milliseconds, loop=0
        ),
    )


def save_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw every quantity of a `log.jsonl` against the step: training as a line, test images and samples as dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for part in PARTS for name in row.get(part, {})))
    if not names:
        return
    columns = 2 if len(names) == 4 else min(3, len(names))
    rank = ceil(len(names) / columns)
    # In inches, and by hand: matplotlib's layouts take as long as the drawing.
    width, height = 4.2 * columns, 2.9 * rank
    across, down = (width - 0.15) / columns - 0.7, (height - 0.35) / rank - 0.8  # one panel
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.suptitle(title, y=1 - 0.1 / height, va="top")
    figure.subplots_adjust(0.65 / width, 0.5 / height, 1 - 0.2 / width, 1 - 0.65 / height, 0.7 / across, 0.8 / down)
    for i, name in enumerate(names):
        axes = figure.add_subplot(rank, columns, i + 1)
        for part, (style, colour) in PARTS.items():
            points = [(row["step"], row[part][name]) for row in rows if name in row.get(part, {})]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4, linewidth=1.4, label=part)
        # The first steps fall from far above: the scale is that of the rest.
        late = [row[part][name] for row in rows[len(rows) // 20 :] for part in PARTS if name in row.get(part, {})]
        if late:
            margin = max(0.05 * (max(late) - min(late)), 0.01 * abs(max(late)), 1e-9)
            axes.set_ylim(min(late) - margin, max(late) + margin)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.ticklabel_format(useOffset=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_file(path, lambda file: file.write(buffer.getvalue()))
