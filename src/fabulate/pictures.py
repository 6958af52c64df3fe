"""Pictures people look at: grids, strips, animations and curves, uint8 arrays in, files out; and cards in a notebook.

A notebook's colours are its reader's, light or dark, and unknown here. So words take the colour that is around them,
and pictures, which are dark on white, bring their white along.

Legend: N images, C H W image.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from html import escape
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fabulate.files import place_file, write_file

Pixels = npt.NDArray[np.uint8]

_TILE = 64  # a tile of a grid is enlarged to about this many pixels: 8x8 digits are invisible otherwise
_GAP = 2
_MARGIN, _BAR, _LINE = 14, 60, 16  # around a table, the longest bar of a share, and a line of small words
_LONGEST, _WIDEST = 180, 900  # pixels of a row's name, and of a title: a folder's name may have 250 letters
_ROWS, _COLUMNS = 16, 12  # of a sheet by class, at most
PARTS = {  # of a log's rows: what they are called, and how they are drawn
    "train": ("training images", "-", "#3b6ea8"),
    "validation": ("validation images", "--", "#e0912f"),
    "test": ("test images", "o", "#d1495b"),
    "samples": ("samples", "o", "#3f8f5f"),
}

_NAME = "text-align: left; vertical-align: top; white-space: nowrap; opacity: 0.7; font-weight: normal"
_VALUE = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace"
_WHITE = "background: white; width: fit-content; max-width: 100%; overflow-x: auto"


def to_image(pixels: Pixels) -> Image.Image:
    """One uint8 image (C, H, W), C 1 to 4, as a Pillow image (mode L, LA, RGB or RGBA)."""
    return Image.fromarray(pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def from_image(image: Image.Image) -> Pixels:
    """The pixels (C, H, W) of a Pillow image such as `to_image` makes; its file is closed."""
    with image:
        x = np.asarray(image, np.uint8)
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)


def on_board(images: Pixels) -> Pixels:
    """Images (N, C, H, W) with alpha, C 2 or 4, on a light chequerboard that shows through: (N, C - 1, H, W).

    >>> on_board(np.array([10, 0, 10, 255], np.uint8).reshape(2, 2, 1, 1)).tolist()
    [[[[255]]], [[[10]]]]
    """
    *_, height, width = images.shape
    square = max(2, max(height, width) // 12)
    rows, columns = np.arange(height)[:, None] // square, np.arange(width) // square
    board = np.where((rows + columns) % 2 == 0, 255, 214)
    colour, alpha = images[:, :-1].astype(np.uint16), images[:, -1:].astype(np.uint16)
    return ((colour * alpha + board * (255 - alpha) + 127) // 255).astype(np.uint8)


def in_colour(images: Pixels) -> Pixels:
    """Images (N, C, H, W), C 1 to 4, as they are seen, in three channels: on a chequerboard where they have alpha.

    >>> [in_colour(np.zeros((1, channels, 2, 2), np.uint8)).shape[1] for channels in (1, 2, 3, 4)]
    [3, 3, 3, 3]
    """
    seen = on_board(images) if images.shape[1] in (2, 4) else images
    return seen.repeat(3 // seen.shape[1], axis=1)


def grid(images: Pixels, columns: int | None = None, below: int = 0) -> Image.Image:
    """Lay uint8 images (N, C, H, W) out in rows on white, small ones enlarged by a whole factor without smoothing.

    What is transparent shows a chequerboard.
    `columns`: by default as many as make a square; `below`: white pixels below each row, for words.

    >>> grid(np.zeros((10, 1, 8, 8), np.uint8), columns=5).size
    (330, 132)
    """
    images = on_board(images) if images.shape[1] in (2, 4) else images
    n, channels, height, width = images.shape
    columns = columns or ceil(sqrt(n))
    rows = ceil(n / columns)
    scale = max(1, _TILE // max(height, width))
    high, wide = height * scale + _GAP + below, width * scale + _GAP
    canvas = np.full((channels, rows * high, columns * wide), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * high + _GAP // 2, (i % columns) * wide + _GAP // 2
        enlarged = image.repeat(scale, axis=1).repeat(scale, axis=2)
        canvas[:, top : top + height * scale, left : left + width * scale] = enlarged
    return to_image(canvas)


def whole_rows(images: Pixels, columns: int) -> Pixels:
    """Images (N, C, H, W), and white ones until the last row is full."""
    white = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, white])


def paired_rows(first: Pixels, second: Pixels, columns: int) -> Pixels:
    """Two sets (N, C, H, W) row by row in turn, so that a grid shows each image above its partner."""
    halves = [whole_rows(half, columns) for half in (first, second)]
    rows = np.stack([half.reshape(-1, columns, *half.shape[1:]) for half in halves], axis=1)
    return rows.reshape(-1, *first.shape[1:])


def pairs(
    first: Pixels,
    second: Pixels,
    title: str,
    legend: str = "",
    names: tuple[str, str] = ("real", "reconstruction"),
    columns: int = 8,
) -> Image.Image:
    """Each image of a set (N, C, H, W) above its partner in another, below a title, the rows behind their names."""
    columns = min(columns, len(first))
    images = paired_rows(first, second, columns)
    return table(images, columns, title, legend, [*names] * (len(images) // columns // 2))


def sheet(
    images: Pixels,
    title: str,
    legend: str = "",
    y: npt.NDArray[np.int64] | None = None,
    classes: Sequence[str] = (),
    columns: int | None = None,
) -> Image.Image:
    """Images (N, C, H, W) below a title; those of a class y (N,) in rows of their own, behind its name.

    Of more than 16 classes each image has the name below it. `columns`: at most; by default 12, or as many as make a
    square.
    """
    if y is None or not classes:
        return table(images, columns or ceil(sqrt(len(images))), title, legend)
    shown, counts = np.unique(y, return_counts=True)
    if len(shown) > _ROWS:
        order = np.argsort(y, kind="stable")
        names = [classes[k] for k in y[order]]
        return table(images[order], columns or ceil(sqrt(len(images))), title, legend, names=names)
    columns = min(columns or _COLUMNS, int(counts.max()))
    parts = [whole_rows(images[y == k], columns) for k in shown]
    rows = [
        classes[k] if row == 0 else ""
        for k, part in zip(shown, parts, strict=True)
        for row in range(0, len(part), columns)
    ]
    return table(np.concatenate(parts), columns, title, legend, rows)


def table(
    images: Pixels,
    columns: int | Sequence[str],
    title: str,
    legend: str = "",
    rows: Sequence[str] = (),
    shares: Sequence[float] = (),
    names: Sequence[str] = (),
) -> Image.Image:
    """Images (N, C, H, W), or (R, K, C, H, W), as a grid with words around it, dark on white.

    `columns`: how many, or their names, which stand above them. `rows`: names on the left, each with its share as a
    bar, the largest share having the longest. `names`: a word below each image. The legend, a line below the title,
    says what columns, bars and names are.
    """
    images = images.reshape(-1, *images.shape[-3:])
    above = () if isinstance(columns, int) else columns
    count = columns if isinstance(columns, int) else len(columns)
    large, middle, small = font(15), font(12), font(11)
    picture = grid(images, count, below=_LINE if names else 0)
    rows = [fitting(name, middle, _LONGEST) for name in rows]
    title, legend = (fitting(words, font, _WIDEST) for words, font in ((title, large), (legend, small)))
    wide = max([_BAR if shares else 0, *(int(middle.getlength(name)) for name in rows)])
    left = wide + _MARGIN + (_MARGIN if wide else 0)
    top = _MARGIN + (24 if title else 0) + (18 if legend else 0) + (20 if any(above) else 0)
    words = int(max(large.getlength(title), small.getlength(legend)))
    width = max(left + picture.width, _MARGIN + words) + _MARGIN
    canvas = Image.new("RGB" if shares else picture.mode, (width, top + picture.height + _MARGIN), "white")
    canvas.paste(picture, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 28), title, "#222222", large, anchor="ls")
    draw.text((_MARGIN, 46 if title else 22), legend, "#666666", small, anchor="ls")
    step, high = picture.width / count, picture.height / max(1, ceil(len(images) / count))
    for i, name in enumerate(above):
        draw.text((left + (i + 0.5) * step, top - 6), fitting(name, small, 2 * step), "#555555", small, anchor="ms")
    for i, name in enumerate(names):
        at = left + (i % count + 0.5) * step, top + (i // count + 1) * high - 5
        draw.text(at, fitting(name, small, step - 2), "#333333", small, anchor="ms")
    right = left - _MARGIN
    for i, name in enumerate(rows):
        y = top + int((i + 0.5) * high)
        draw.text((right, y), name, "#222222", middle, anchor="rs" if shares else "rm")
        if shares:
            draw.text((right, y + 15), f"{100 * shares[i]:.1f} %", "#666666", small, anchor="rs")
            draw.rectangle((right - _BAR, y + 20, right, y + 22), "#e6ebf1")
            draw.rectangle(
                (right - round(_BAR * shares[i] / max(max(shares), 1e-12)), y + 20, right, y + 22), "#3b6ea8"
            )
    return canvas


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes along with matplotlib, so that words look the same everywhere."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fitting(words: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The words on one line, cut to a width in pixels; what is no character of Unicode is a question mark."""
    line = " ".join(words.encode("utf-8", "replace").decode().split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[: -1 - len(line) // 16]
    return f"{line.rstrip()}…"


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    write_file(path, lambda file: image.save(file, format="PNG", compress_level=4))  # as small as 6, in half the time


def place_png(pixels: Pixels, path: Path) -> None:
    """Write one of many images, uint8 (C, H, W), as a PNG: atomically, though a power cut may still take it."""
    image = to_image(pixels)
    place_file(path, partial(image.save, format="PNG"))


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int = 80) -> None:
    """Write an endless animation that runs forth and back."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    write_file(
        path,
        lambda file: there_and_back[0].save(
            file, format="GIF", save_all=True, append_images=there_and_back[1:], duration=milliseconds, loop=0
        ),
    )


def save_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str, units: Mapping[str, str]) -> None:
    """Draw every quantity of a `log.jsonl` against the step: training as a line, test images and samples as dots.

    `units`: of each quantity, by its name or by the last word of it, e.g. {"loss": "nats per image"}.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for part in PARTS for name in row.get(part, {})))
    if not names:
        return
    columns = 2 if len(names) == 4 else min(3, len(names))
    rank = ceil(len(names) / columns)
    # In inches, and by hand: matplotlib's layouts take as long as the drawing.
    width, height = 4.2 * columns, 2.9 * rank + 0.2
    across, down = (width - 0.15) / columns - 0.7, (height - 0.55) / rank - 0.8  # one panel
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.suptitle(title, y=1 - 0.08 / height, va="top", parse_math=False)
    figure.subplots_adjust(0.65 / width, 0.5 / height, 1 - 0.2 / width, 1 - 0.85 / height, 0.7 / across, 0.8 / down)
    drawn: dict[str, Any] = {}
    for i, name in enumerate(names):
        axes = figure.add_subplot(rank, columns, i + 1)
        for part, (whose, style, colour) in PARTS.items():
            points = [(row["step"], row[part][name]) for row in rows if name in row.get(part, {})]
            if points:
                drawn[whose], *_ = axes.plot(
                    *zip(*points, strict=True), style, color=colour, markersize=4, linewidth=1.4
                )
        # The first steps fall from far above: the scale is that of the rest.
        late = [row[part][name] for row in rows[len(rows) // 20 :] for part in PARTS if name in row.get(part, {})]
        if late:
            margin = max(0.05 * (max(late) - min(late)), 0.01 * abs(max(late)), 1e-9)
            axes.set_ylim(min(late) - margin, max(late) + margin)
        player, _, term = name.rpartition(".")
        unit = units.get(name) or units.get(term)
        words = f"{player}{': ' if player else ''}{term.replace('_', ' ')}{f' ({unit})' if unit else ''}"
        axes.set_title(words, fontsize=9, loc="left")  # above its axis: words on their side take a third longer
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.ticklabel_format(useOffset=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    place = (0.5, 1 - 0.28 / height)
    figure.legend(drawn.values(), drawn, loc="upper center", bbox_to_anchor=place, ncols=4, fontsize=8, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, pil_kwargs={"compress_level": 4})
    write_file(path, lambda file: file.write(buffer.getvalue()))


def img(image: Image.Image, words: str) -> str:
    """A picture as an HTML element that holds its PNG; the words are for who cannot see it."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/png;base64,{data}" {size} alt="{_plain(words)}">'


def card(title: str, rows: Iterable[tuple[str, str]], *pictures: Image.Image) -> str:
    """A title, names with their values, and pictures below them. Any text will do: it is escaped.

    >>> "&lt;b&gt;" in card("<b>", [])
    True
    """
    lines = "".join(
        f'<tr><th style="{_NAME}">{_plain(name)}</th><td style="{_VALUE}">{_plain(value)}</td></tr>'
        for name, value in rows
    )
    shown = "".join(f'<div style="{_WHITE}">{img(image, title)}</div>' for image in pictures)
    return f"<div><b>{_plain(title)}</b><table>{lines}</table>{shown}</div>"


def _plain(words: str) -> str:
    """Words that are no HTML; what is no character of Unicode, as in the names of some files, is a question mark."""
    return escape(words.encode("utf-8", "replace").decode())
