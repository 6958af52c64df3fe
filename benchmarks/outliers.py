"""Are outliers found, and is the promised rate of false alarms kept? Prints the tables of docs/outliers.md.

    python benchmarks/outliers.py --part mnist          one digit of MNIST is normal, the nine others are not
    python benchmarks/outliers.py --part calibration    false alarms asked for, and had, on unseen normals
    python benchmarks/outliers.py --part cifar10        one class of CIFAR-10 is normal; the extra features is needed
    python benchmarks/outliers.py --part spoilt         blurred, dull, negative photographs among the same as they were
    python benchmarks/outliers.py --part rows           beside scikit-learn's detectors on its own data sets

MNIST comes from $FABULATE_DATA/mnist or from the Hugging Face hub. `mnist` is the protocol of Ruff et al., "Deep
one-class classification", 2018 (https://proceedings.mlr.press/v80/ruff18a.html): a detector learns the training images
of one digit and ranks all 10,000 test images; the number is the AUROC. `--held-out` is the same without the test
part: a fifth of the training images takes its place. By that, and by nothing else, the configuration was chosen.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import betabinom, norm
from sklearn import datasets
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

import fabulate
from fabulate import OutlierDetector
from fabulate.seeds import permutation
from fabulate.types import to_float
from fabulate.uses.outliers.conformal import rank

Array = npt.NDArray[Any]
RATES = (0.1, 0.05, 0.01)
SPLITS = 20  # of the calibration


def auroc(detector: Any, normals: Array, others: Array) -> float:
    """How often, in per cent, a normal has a higher score than another."""
    scores = detector.score_samples(np.concatenate([normals, others]))
    return 100 * float(roc_auc_score(np.repeat([1, 0], [len(normals), len(others)]), scores))


def table(head: list[str], rows: list[list[str]]) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print("|", " | ".join(cells), "|")


def mnist(seeds: int, variants: int, held_out: bool) -> None:
    """One-class MNIST: a line for each digit."""
    data = fabulate.load_data("mnist")
    assert data.test is not None and data.train.y is not None and data.test.y is not None
    x, y, others, truth = data.train.x, data.train.y, data.test.x, data.test.y
    if held_out:
        places = permutation(len(x), "benchmark").numpy()
        held, kept = places[: len(x) // 5], places[len(x) // 5 :]
        x, y, others, truth = x[kept], y[kept], x[held], y[held]
    rows, every = [], []
    for digit in range(10):
        found, began = [], time.process_time()
        for seed in range(seeds):
            detector = OutlierDetector(variants=variants, random_state=seed).fit(x[y == digit])
            found.append(auroc(detector, others[truth == digit], others[truth != digit]))
        spent = (time.process_time() - began) / seeds
        every.append(found)
        rows.append([str(digit), f"{np.mean(found):.2f}", f"{np.ptp(found):.2f}", f"{spent:.0f}"])
        print(rows[-1], flush=True)
    rows.append(["mean", f"{np.mean(every):.2f}", f"{np.ptp(np.mean(every, axis=0)):.2f}", ""])
    table(["normal digit", "AUROC", "between seeds", "CPU seconds, fit and 10,000 images"], rows)


def cifar10(normals: int, others: int) -> None:
    """One-class CIFAR-10 by features of ImageNet: a line for each class.

    `normals`: training images of the class that are learnt, `others`: test images of each class that are ranked. What
    the network makes of the test images is computed once for all ten detectors.
    """
    data = fabulate.load_data("cifar10")
    assert data.test is not None and data.train.y is not None and data.test.y is not None
    chosen = np.concatenate([np.flatnonzero(data.test.y == k)[:others] for k in range(10)])
    x, truth = data.test.x[chosen], data.test.y[chosen]
    seen = None
    rows, found, alarms = [], [], []
    for k, name in enumerate(data.classes):
        began = time.process_time()
        detector = OutlierDetector(features="lite0", false_alarm=0.01).fit(data.train.x[data.train.y == k][:normals])
        spent = time.process_time() - began
        seen = seen or detector._seen(to_float(torch.from_numpy(x)).float())
        scores = detector._combined(detector._raw(detector.fitted_, seen))
        found.append(100 * float(roc_auc_score(truth == k, scores)))
        p = detector.p_values_of(scores)[truth == k]
        alarms.append([float((p <= rate).mean()) for rate in RATES])
        rows.append([name, f"{found[-1]:.1f}", *(f"{rate:.1%}" for rate in alarms[-1]), f"{spent:.0f}"])
        print(rows[-1], flush=True)
    rows.append(["mean", f"{np.mean(found):.2f}", *(f"{rate:.2%}" for rate in np.mean(alarms, axis=0)), ""])
    table(["normal class", "AUROC", *(f"alarms at {rate:.0%}" for rate in RATES), "CPU seconds of the fit"], rows)


def dull(x: Array, contrast: float) -> Array:
    middle = x.mean((1, 2, 3), keepdims=True)
    return np.rint(middle + (x - middle) * contrast).astype(np.uint8)


def squares(x: Array, side: int) -> Array:
    """A square of one random colour, anywhere in each image."""
    x, chance = x.copy(), np.random.default_rng(0)
    for image in x:
        top, left = chance.integers(0, image.shape[1] - side + 1, 2)
        image[:, top : top + side, left : left + side] = chance.integers(0, 256, (3, 1, 1))
    return x


def blurred(x: Array, sigma: float) -> Array:
    return np.rint(gaussian_filter(x.astype(np.float32), (0, 0, sigma, sigma), mode="nearest")).astype(np.uint8)


SPOILT: Mapping[str, Callable[[Array], Array]] = {
    "as they were": lambda x: x,
    "blurred, 1 pixel": lambda x: blurred(x, 1.0),
    "blurred, 1.5 pixels": lambda x: blurred(x, 1.5),
    "contrast halved": lambda x: dull(x, 0.5),
    "contrast 0.3": lambda x: dull(x, 0.3),
    "negative": lambda x: 255 - x,
    "a square of 5x5": lambda x: squares(x, 5),
}


def spoilt(normals: int) -> None:
    """Training images of CIFAR-10 only: of two classes some are learnt, and 200 others spoilt. Found at 1 % alarms."""
    data = fabulate.load_data("cifar10")
    assert data.train.y is not None
    found: dict[str, list[str]] = {name: [] for name in SPOILT}
    classes = ("automobile", "horse")
    for name in classes:
        x = data.train.x[data.train.y == data.classes.index(name)]
        detector = OutlierDetector(features="lite0", false_alarm=0.01).fit(x[:normals])
        for what, change in SPOILT.items():
            found[what].append(f"{(detector.predict(change(x[-200:])) == -1).mean():.0%}")
    table(["images", *classes], [[what, *shares] for what, shares in found.items()])


def digit_three(n: int, fresh: int) -> Iterator[tuple[Array, Array]]:
    """`n` normals to learn and `fresh` unseen ones, for each split: threes of MNIST."""
    data = fabulate.load_data("mnist").train
    assert data.y is not None
    threes = data.x[data.y == 3]
    for split in range(SPLITS):
        places = permutation(len(threes), "benchmark", split).numpy()
        yield threes[places[:n]], threes[places[n : n + fresh]]


def heavy_rows(n: int, fresh: int) -> Iterator[tuple[Array, Array]]:
    """The same of rows of 6 correlated numbers with the tails of Student's t, 3 degrees of freedom."""
    for split in range(SPLITS):
        chance = np.random.default_rng([4, split])
        x = chance.standard_t(3, size=(n + fresh, 6)) @ chance.normal(size=(6, 6))
        yield x[:n], x[n:]


NORMALS: dict[str, tuple[int, int, Callable[[int, int], Iterator[tuple[Array, Array]]]]] = {
    "images, a fifth held out": (2000, 1500, digit_three),
    "images, held out in turns": (500, 750, digit_three),
    "rows, held out in turns": (500, 5000, heavy_rows),
}


def calibration() -> None:
    """False alarms on unseen normals: of all splits together, and in how many splits they are as many as promised.

    With k the rank of the threshold among M held-out normals, the false alarms among m others follow a beta-binomial
    law (m, k, M + 1 - k): what is promised is k / (M + 1), and each split lies within 95 % of the law 19 times of 20.
    """
    rows = []
    for name, (n, fresh, splits) in NORMALS.items():
        alarms: dict[float, list[int]] = {rate: [] for rate in RATES}
        for seed, (normals, others) in enumerate(splits(n, fresh)):
            detector = OutlierDetector(random_state=seed).fit(normals)
            p = detector.p_values(others)  # <= rate: the same as below the threshold for that rate
            held = len(detector.normals_)
            for rate in RATES:
                alarms[rate].append(int((p <= rate + 1e-12).sum()))
        for rate, counts in alarms.items():
            k = rank(held, rate)
            law = betabinom(fresh, k, held + 1 - k)
            low, high = law.ppf([0.025, 0.975])
            inside = sum(low <= count <= high for count in counts)
            promised, error = k / (held + 1), law.std() / fresh / np.sqrt(SPLITS)
            band = norm.ppf([0.025, 0.975], promised, error)
            cells = [f"{rate:.0%}", f"{promised:.2%}", f"{np.mean(counts) / fresh:.2%}"]
            rows.append([name, *cells, f"{band[0]:.2%} to {band[1]:.2%}", f"{inside} of {SPLITS}"])
            print(rows[-1], flush=True)
    head = ["normals", "asked for", "promised", "found", "where it lies 95 times in 100", "splits as promised"]
    table(head, rows)


RIVALS: Mapping[str, Callable[[], Any]] = {
    "ours": OutlierDetector,
    "IsolationForest": partial(IsolationForest, random_state=0),
    "LOF": partial(LocalOutlierFactor, novelty=True),
    "LOF, scaled": lambda: make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)),
    "OneClassSVM": OneClassSVM,
    "OneClassSVM, scaled": lambda: make_pipeline(StandardScaler(), OneClassSVM()),
}
SETS = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}


def one_class(x: Array, y: Array, make: Callable[[], Any], splits: int) -> float:
    """Each class in turn is normal, half of it is learnt, the rest is told from all others: the mean AUROC."""
    found = []
    for label in np.unique(y):
        normals, others = x[y == label], x[y != label]
        for split in range(splits):
            places = permutation(len(normals), "benchmark", split).numpy()
            learnt, unseen = np.split(normals[places], [len(normals) // 2])
            found.append(auroc(make().fit(learnt), unseen, others))
    return float(np.mean(found))


def sets(splits: int) -> None:
    """Rows of scikit-learn's data sets: a line for each set."""
    rows = []
    for name, load in SETS.items():
        means = [one_class(*load(return_X_y=True), make, splits) for make in RIVALS.values()]
        rows.append([name, *(f"**{mean:.1f}**" if mean == max(means) else f"{mean:.1f}" for mean in means)])
        print(rows[-1], flush=True)
    table(["rows", *RIVALS], rows)
    x, y = datasets.load_digits(return_X_y=True)
    as_images = one_class(x / 8 - 1, y, partial(OutlierDetector, image_shape=(1, 8, 8)), splits)
    print(f"ours, digits given as images: {as_images:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=["mnist", "cifar10", "spoilt", "calibration", "rows"], required=True)
    parser.add_argument("--seeds", type=int, default=3, help="of mnist")
    parser.add_argument("--variants", type=int, default=1, help="of mnist: copies of each normal, slightly moved")
    parser.add_argument("--held-out", action="store_true", help="of mnist: leave the test images alone")
    parser.add_argument("--normals", type=int, default=5000, help="of cifar10 and spoilt: images of a class learnt")
    parser.add_argument("--others", type=int, default=1000, help="of cifar10: test images of each class")
    flags = parser.parse_args()
    if flags.part == "mnist":
        mnist(flags.seeds, flags.variants, flags.held_out)
    elif flags.part == "cifar10":
        cifar10(flags.normals, flags.others)
    elif flags.part == "spoilt":
        spoilt(flags.normals)
    elif flags.part == "calibration":
        calibration()
    else:
        sets(splits=5)


if __name__ == "__main__":
    main()
