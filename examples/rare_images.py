"""Which digits would a model draw once in a thousand times? The boldest ones, and how bold real ones are.

python examples/rare_images.py
"""

from pathlib import Path

import numpy as np

import fabulate
from fabulate import rare
from fabulate.pictures import grid, save_png


def main(folder: Path = Path("runs/rare-images"), steps: int = 1500, calls: int = 40_000) -> rare.Tail:
    data = fabulate.load_data("digits")
    model = fabulate.train("vae", data, out=folder / "vae", steps=steps, quiet=True)

    found = rare.tail(model, rare.brightness, quantile=1e-3, n=32, calls=calls)
    print(f"mean pixel above {found.threshold:.3f}: {found.event}")
    reduction = f"variance reduction of {found.variance_reduction:.0f} over plain Monte Carlo"
    print(f"one in {1 / found.event.probability:,.0f}; {reduction}")

    both = np.concatenate([found.images, found.typical])
    save_png(grid(both, columns=16), folder / "rare.png")  # two rows from the tail above two plain ones
    print(f"the boldest of the tail: one in {1 / found.rarities[0]:,.0f}")

    ink = (data.train.x / 255).mean(axis=(1, 2, 3))
    print(f"of {len(ink):,} real digits {int((ink > found.threshold).sum())} are as bold")
    return found


if __name__ == "__main__":
    main()
