"""Does a run's model cover all classes? The share of 5,000 samples in each, by the nearest of 10,000 real images.

python examples/count_modes.py runs/gan-mnist
"""

import sys
from pathlib import Path

import torch

import fabulate
from fabulate.data import load_spec
from fabulate.metrics import class_shares
from fabulate.training import own_data


def main(run: Path, n: int = 5000, references: int = 10_000) -> torch.Tensor:
    data = load_spec(own_data(run))
    assert data.train.y is not None, "counting classes needs images with classes"
    real, labels = torch.from_numpy(data.train.x[:references]), torch.from_numpy(data.train.y[:references])

    samples = fabulate.to_uint8(fabulate.load(run).sample(n, seed=0))
    shares = class_shares(samples, real, labels, len(data.classes))
    for name, share in zip(data.classes, shares.tolist(), strict=True):
        print(f"{name:12} {share:6.1%}  {'█' * round(share * 200)}")
    print(f"smallest share {shares.min():.1%}, largest {shares.max():.1%}")
    return shares


if __name__ == "__main__":
    main(Path(sys.argv[1]))
