"""What samples are worth after so many images: python benchmarks/learning_curves.py [--seconds 40 120 360]

Writes the table from which `fabulate plan` foresees (src/fabulate/training/learning_curves.csv): a row for each
training of each family of `plan` with its defaults, on each of some data sets, each time for so many seconds of a
core's work. A row that is there is not measured again. 1,000 samples stand beside 1,000 held-out images, by the
features that `fabulate evaluate` takes; beside each number stand those of as many training images and of noise. No
number of test images is used but to judge.

icons: `examples/draw_icons.py`. photographs: crops of scikit-learn's two sample photographs. MNIST and CIFAR-10 are
looked for where `fabulate train` looks for them (CIFAR-10 as JPEG wherever it is kept so).
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from fabulate.config import override
from fabulate.data import Data, load_data
from fabulate.errors import DataError
from fabulate.features import features_for
from fabulate.metrics.distances import frechet_distance
from fabulate.metrics.manifold import density_coverage
from fabulate.pictures import sheet
from fabulate.training import configure, fit
from fabulate.training.plan import CANDIDATES, TABLE, Measured, read_table, seconds_of_a_step
from fabulate.training.train import fresh
from fabulate.types import to_uint8

N, TRAIN, SIDE, SHOWN = 1000, 4000, 64, 48


def photographs(side: int, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Crops (N, 3, side, side) of two photographs, of any place and of a third to the half of their height."""
    from sklearn.datasets import load_sample_images

    chance = np.random.default_rng(seed)
    wholes = [Image.fromarray(image) for image in load_sample_images().images]
    crops = []
    for k in chance.integers(len(wholes), size=n):
        width, height = wholes[k].size
        cut = int(chance.integers(height // 4, height // 2 + 1))
        x, y = chance.integers(width - cut + 1), chance.integers(height - cut + 1)
        crops.append(np.asarray(wholes[k].resize((side, side), Image.Resampling.LANCZOS, (x, y, x + cut, y + cut))))
    return np.stack(crops).transpose(0, 3, 1, 2)


def sets(folder: Path) -> Iterator[Data]:
    """The data sets, those that are there."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from draw_icons import main as draw_icons

    images = photographs(SIDE, TRAIN + N)
    np.savez(folder / "photographs.npz", train_images=images[:TRAIN], test_images=images[TRAIN:])
    draw_icons(folder / "icons", SIDE, TRAIN + N)
    for source in ("digits", "mnist", "cifar10", str(folder / "icons"), str(folder / "photographs.npz")):
        try:
            yield load_data(source)
        except DataError as error:
            print(f"left out: {error}")


def train(name: str, data: Data, limit: float) -> tuple[Any, int, float]:
    """A model of a family after so many seconds of one core: the model, images seen, seconds."""
    config, schedule = configure(name, "default", {"epochs": None, "minutes": None, "steps": 1000, "compile": "off"})
    model = fresh(name, config, schedule, data.shape, (), "cpu")
    steps = max(1, round(limit / seconds_of_a_step(model, schedule)))
    began = time.process_time()
    model = fit(name, config, override(schedule, {"steps": steps}), data.train, data.shape, device="cpu")
    return model, steps * schedule.batch(model.numbers), time.process_time() - began


def judged(samples: torch.Tensor, data: Data) -> dict[str, float]:
    """Fréchet distance and coverage of samples, of training images in their place, and of noise."""
    features, chance = features_for(data), torch.Generator().manual_seed(0)
    assert data.test is not None
    n = min(len(samples), len(data.test), len(data.train) // 2)
    real = features(torch.from_numpy(data.test.pixels(torch.randperm(len(data.test), generator=chance)[:n])))
    train = torch.from_numpy(data.train.pixels(torch.randperm(len(data.train), generator=chance)[:n]))
    noise = torch.randint(256, train.shape, dtype=torch.uint8, generator=chance)
    found = {}
    for what, images in (("", samples[:n]), ("_perfect", train), ("_noise", noise)):
        vectors = features(images)
        found[f"frechet{what}"] = float(f"{frechet_distance(vectors, real):.4g}")
        found[f"coverage{what}"] = float(f"{density_coverage(real, vectors).coverage.value:.4g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[40, 120, 360])
    parser.add_argument("--families", nargs="+", default=CANDIDATES)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--pictures", type=Path, help="a folder for samples of each")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    rows = read_table(asked.out) if asked.out.exists() else []
    with TemporaryDirectory() as folder:
        for data, limit, name in product(list(sets(Path(folder))), asked.seconds, asked.families):
            if any((row.family, row.data, row.limit) == (name, data.name, limit) for row in rows):
                continue
            model, seen, seconds = train(name, data, limit)
            samples = to_uint8(model.sample(N, seed=0))
            judgement = judged(samples, data)
            shape = tuple(data.shape)
            rows.append(Measured(name, data.name, *shape, len(data.train), limit, round(seconds), seen, **judgement))
            with asked.out.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(Measured._fields)
                writer.writerows(rows)
            print(rows[-1], flush=True)
            if asked.pictures:
                asked.pictures.mkdir(parents=True, exist_ok=True)
                title = f"{name}, {data.name}, {seen:,} images seen"
                sheet(samples[:SHOWN].numpy(), title).save(asked.pictures / f"{data.name}-{name}-{limit:g}.png")


if __name__ == "__main__":
    main()
