"""Do synthetic images help on imbalanced MNIST? The table of docs/augment.md: some 45 minutes of one core.

python benchmarks/augment_mnist.py runs/augment-mnist

MNIST's training images, 4,000 of the digit 0 down to 40 of the digit 9, and all of its 10,000 test images. Everything
was chosen on training images outside these 9,000: family, rule, `--to 1500`, steps.
"""

import sys
from pathlib import Path

import numpy as np

import fabulate
from fabulate.cli import main
from fabulate.seeds import permutation

COUNTS = (4000, 2000, 1000, 750, 500, 350, 200, 100, 60, 40)


def imbalanced(path: Path) -> None:
    """Write the data set as an .npz; the same images each time."""
    data = fabulate.load_data("mnist")
    order = permutation(len(data.train), 0, "imbalanced MNIST").numpy()
    y = data.train.y[order]
    rows = np.concatenate([order[y == k][:count] for k, count in enumerate(COUNTS)])
    arrays = {"x_train": data.train.x[rows][:, 0], "y_train": data.train.y[rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays, x_test=data.test.x[:, 0], y_test=data.test.y)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/augment-mnist")
    source, made = folder / "imbalanced.npz", folder / "made"
    if not source.exists():
        imbalanced(source)
    if not (made / "samples.png").exists():
        main(["augment", str(source), "--to", "1500", "--out", str(made)])
    main(["prove", str(source), str(made), "--seeds", "5", "--device", "cpu"])
