"""A folder of colour images to try everything with, drawn by Pillow: six kinds of icon, a class folder each.

python examples/draw_icons.py [FOLDER] [SIDE] [N]      (default: icons 64 5000)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("card", "face", "house", "ring", "star", "triangle")


def icon(kind: str, side: int, rng: np.random.Generator) -> Image.Image:
    """One icon of a kind, of a random size, place and colours."""

    def colour(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(low, high, 3).tolist())

    whole = 4 * side  # made small at the end, so that edges are smooth
    image = Image.new("RGB", (whole, whole), colour(200, 256))
    draw, dark, light = ImageDraw.Draw(image), colour(0, 180), colour(150, 256)
    r = whole * rng.uniform(0.25, 0.42)
    x, y = whole / 2 + rng.uniform(-0.08, 0.08, 2) * whole

    def circle(x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
        draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)

    if kind == "card":
        draw.rounded_rectangle([x - r, y - 0.7 * r, x + r, y + 0.7 * r], radius=0.2 * r, fill=dark)
        draw.line([x - 0.6 * r, y, x + 0.6 * r, y], fill="white", width=whole // 20)
    elif kind == "triangle":
        draw.polygon([(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)], fill=dark)
    elif kind == "star":
        angles, radii = np.arange(10) * np.pi / 5 - np.pi / 2, np.where(np.arange(10) % 2, 0.45 * r, r)
        draw.polygon([*zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)], fill=dark)
    elif kind == "house":
        draw.polygon([(x, y - r), (x + r, y - 0.1 * r), (x - r, y - 0.1 * r)], fill=dark)
        draw.rectangle([x - 0.75 * r, y - 0.1 * r, x + 0.75 * r, y + 0.85 * r], fill=light)
    elif kind == "ring":
        circle(x, y, r, dark)
        circle(x, y, r / 2, light)
    else:  # a face
        circle(x, y, r, dark)
        for eye in (-0.4, 0.4):
            circle(x + eye * r, y - 0.3 * r, 0.15 * r, light)
        draw.arc([x - 0.55 * r, y - 0.4 * r, x + 0.55 * r, y + 0.6 * r], 20, 160, light, whole // 25)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def main(folder: Path = Path("icons"), side: int = 64, n: int = 5000) -> None:
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        icon(kind, side, np.random.default_rng(i)).save(folder / kind / f"{i:05}.png")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((Path, int, int), sys.argv[1:], strict=False)))
