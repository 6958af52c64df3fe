"""Two protocols of bias on MNIST: python benchmarks/debias_mnist.py [--seeds 5] [--only coloured|invariant]

coloured: each digit has a colour of its own in 98 % of the training images and any other in the rest; in the test
images colour and digit are independent. No colour label is used in training.

invariant: the protocol of Arjovsky et al., "Invariant risk minimization", 2019, https://arxiv.org/abs/1907.02893. The
label is digit < 5, wrong for a quarter of the images; red or green goes with the label but for 10 % in one training
environment of 25,000 images, 20 % in the other, and 90 % in the test. Test images are those of MNIST's test part.

All images are 14x14. MNIST comes from $FABULATE_DATA/mnist or from the hub. Some 12 minutes of one core for 5 seeds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fabulate import Debiaser, Images, load_data
from fabulate.features.trained import predict
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import save_png
from fabulate.uses.debias import densities, page, proof

COLOURS = np.array(
    [
        *([220, 20, 60], [0, 128, 0], [30, 60, 220], [230, 200, 0], [240, 120, 0]),
        *([140, 20, 160], [0, 190, 200], [240, 50, 230], [150, 150, 150], [160, 90, 30]),
    ]
)
WITH_COLOUR = 0.98
DIGITS, BINARY = tuple(map(str, range(10))), ("5 to 9", "0 to 4")

Rows = dict[str, dict[str, float]]
"""How a classifier was taught -> what was measured -> accuracy."""


def halved(x: np.ndarray) -> np.ndarray:
    """Gray 28x28 images (N, 1, H, W) as means of 2x2 pixels: (N, 14, 14)."""
    return x[:, 0].astype(float).reshape(len(x), 14, 2, 14, 2).mean((2, 4))


def coloured(images: Images, share: float | None, seed: int) -> tuple[Images, np.ndarray]:
    """Digits in colour, `share` of them in their own and the others in another (None: in any), and their colours."""
    assert images.y is not None
    chance = np.random.default_rng(seed)
    any_colour = chance.integers(0, 10, len(images))
    others = (images.y + chance.integers(1, 10, len(images))) % 10
    colour = any_colour if share is None else np.where(chance.random(len(images)) < share, images.y, others)
    paint = np.clip(COLOURS[colour] + 12 * chance.normal(size=(len(images), 3)), 0, 255) / 255
    x = halved(images.x)[:, None] * paint[:, :, None, None]
    return Images(np.rint(x).astype(np.uint8), images.y), colour


def environment(x: np.ndarray, y: np.ndarray, flipped: float, chance: np.random.Generator) -> Images:
    """Digits (N, 14, 14) in red or green, and noisy labels of digit < 5, for which green stands but for `flipped`."""
    label = (y < 5) ^ (chance.random(len(y)) < 0.25)
    green = label ^ (chance.random(len(y)) < flipped)
    painted = np.zeros((len(x), 3, 14, 14), np.uint8)
    painted[np.arange(len(x)), green.astype(int)] = np.rint(x)
    return Images(painted, label.astype(np.int64))


def run_coloured(seed: int) -> Rows:
    data = load_data("mnist")
    assert data.test is not None
    train, _ = coloured(data.train, WITH_COLOUR, 2 * seed)
    test, colour = coloured(data.test, None, 2 * seed + 1)
    assert train.y is not None and test.y is not None
    debiaser = Debiaser(seed=seed).fit(train)
    palette = debiaser.codes_[:, torch.tensor(debiaser.place_)].double().numpy()
    crude = densities.histogram(palette, train.y, 10)(palette)
    db_vae = densities.weights(crude, train.y, densities.log_prior_of(train.y, 10), "even")
    shows = {
        "as it is": proof.as_it_is(train),
        "weights 1 / p(f | y), histogram (DB-VAE)": proof.by_weight(train, db_vae, seed),
        "weights p(f) / p(f | y), mixture": proof.by_weight(train, debiaser.weights_, debiaser.seed),
        "recoloured": proof.recoloured(train, debiaser),
    }
    found: Rows = {}
    for name, show in shows.items():
        right = predict(proof.teach(train, DIGITS, show, seed=seed), test).numpy() == test.y
        against = colour != test.y
        found[name] = {
            "unbiased": right.mean(),
            "conflicting": right[against].mean(),
            "aligned": right[~against].mean(),
        }
    return found


def run_invariant(seed: int) -> Rows:
    data = load_data("mnist")
    assert data.test is not None and data.train.y is not None and data.test.y is not None
    chance = np.random.default_rng(seed)
    order = chance.permutation(50_000)
    x, y = halved(data.train.x[order]), data.train.y[order]
    places = [environment(x[i::2], y[i::2], flipped, chance) for i, flipped in enumerate((0.2, 0.1))]
    test = environment(halved(data.test.x), data.test.y, 0.9, chance)
    train = Images(np.concatenate([e.x for e in places]), np.concatenate([e.y for e in places if e.y is not None]))
    where = np.repeat([0, 1], [len(e) for e in places])
    debiaser = Debiaser(seed=seed).fit(train, environments=where)
    first = debiaser.factors_[0]
    print(
        f"  seed {seed}: recolours {debiaser.chosen_[0]}, which fails by {first.failure:.4f} bits, p = {first.p_value}"
    )
    taught = {
        "as it is": (train, proof.as_it_is(train), [*places, test]),
        "recoloured": (train, proof.recoloured(train, debiaser), [*places, test]),
        "gray images (oracle)": (gray(train), proof.as_it_is(gray(train)), [gray(e) for e in (*places, test)]),
    }
    found: Rows = {}
    for name, (images, show, parts) in taught.items():
        classifier = proof.teach(images, BINARY, show, seed=seed)
        right = [float((predict(classifier, part).numpy() == part.y).mean()) for part in parts]
        found[name] = dict(zip(("environment 1", "environment 2", "test"), right, strict=True))
    return found


def gray(images: Images) -> Images:
    """The same without colours."""
    return Images(images.x.max(1, keepdims=True).repeat(3, axis=1), images.y)


PROTOCOLS: dict[str, Callable[[int], Rows]] = {"coloured": run_coloured, "invariant": run_invariant}


def draw(folder: Path) -> None:
    """Coloured MNIST: who is rare in its class, and the same images recoloured."""
    train, _ = coloured(load_data("mnist").train, WITH_COLOUR, 0)
    debiaser = Debiaser(seed=0).fit(train)
    pictures = {
        "factors": page.factors_picture(debiaser, train, "coloured MNIST"),
        "recoloured": page.recoloured_picture(debiaser, train),
    }
    for name, picture in pictures.items():
        save_png(picture.quantize(64, dither=Image.Dither.NONE), folder / f"debias-{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Debiasing on two protocols of MNIST.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=PROTOCOLS)
    parser.add_argument("--pictures", type=Path, help="only make the pictures of docs/debias.md, in this folder")
    flags = parser.parse_args()
    if flags.pictures:
        draw(flags.pictures)
        return
    for name in [flags.only] if flags.only else PROTOCOLS:
        print(f"\n{name}", flush=True)
        runs, began = [], time.process_time()
        for seed in range(flags.seeds):
            runs.append(PROTOCOLS[name](seed))
            for way, row in runs[-1].items():
                print(f"  seed {seed}: {way}: {', '.join(f'{k} {v:.4f}' for k, v in row.items())}", flush=True)
        measures = list(next(iter(runs[0].values())))
        print(f"\n| | {' | '.join(measures)} |\n|---|{'---|' * len(measures)}")
        for way in runs[0]:
            about = [Estimate.of_mean(100 * torch.tensor([run[way][measure] for run in runs])) for measure in measures]
            print(f"| {way} | {' | '.join(f'{a.value:.1f} ({a.low:.1f} to {a.high:.1f})' for a in about)} |")
        print(f"{time.process_time() - began:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
