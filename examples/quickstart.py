"""Train a VAE on the embedded digits, draw from it, and load it again.

python examples/quickstart.py
"""

import sys
from pathlib import Path

import torch

import fabulate
from fabulate.pictures import grid, save_png


def main(out: Path = Path("runs/quickstart"), steps: int = 2000) -> None:
    data = fabulate.load_data("digits")  # a folder of your own images works the same
    model = fabulate.train("vae", data, out=out, steps=steps, conditional=True)

    images = model.sample(64, seed=1)  # (64, 1, 8, 8), floats in [-1, 1]; every class in turn
    sevens = model.sample(16, y="7", seed=1)
    save_png(grid(fabulate.to_uint8(images).numpy()), out / "digits.png")
    save_png(grid(fabulate.to_uint8(sevens).numpy()), out / "sevens.png")

    again = fabulate.load(out)  # tomorrow: the same images to the last bit
    assert (again.sample(64, seed=1) == images).all()

    assert data.test is not None
    real = data.test.batch(torch.arange(8))
    codes = model.encode(real.x, real.y)  # (8, 32)
    print(f"{len(codes)} images, {codes.shape[1]} numbers each; pictures in {out}")


if __name__ == "__main__":
    main(*[Path(word) for word in sys.argv[1:2]])
