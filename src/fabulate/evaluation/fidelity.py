"""Are samples as good as real images, and as varied?

Two distances between the clouds of features (Fréchet: Heusel et al. 2017, https://arxiv.org/abs/1706.08500; kernel:
Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018, https://arxiv.org/abs/1801.01401) say how far
apart they are, four shares say in which way: precision and density whether samples look real, recall and coverage
whether they reach everything real (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991; Naeem, Oh, Uh, Choi,
Yoo 2020, https://arxiv.org/abs/2002.09797).

None of these numbers means anything alone: all depend on the features and on how many images were compared. So each
stands between two anchors computed in the same way: training images in the place of samples, and uniform noise.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from fabulate.evaluation.subject import Findings, Subject
from fabulate.metrics import fidelity as measure
from fabulate.metrics import frechet_warning
from fabulate.pictures import sheet
from fabulate.report import Better, Card, Row, graded, number
from fabulate.seeds import generator

SHOWN, COLUMNS = 49, 7  # images of each picture: two stand side by side on a page

NAMES: dict[str, tuple[str, Better, str]] = {
    "frechet_distance": ("Fréchet distance", "lower", "squared distance of the features' means and covariances"),
    "kernel_distance": ("Kernel distance", "lower", "squared distance in a kernel's space; unbiased in n"),
    "precision": ("Precision", "higher", "share of samples that lie where real images lie"),
    "recall": ("Recall", "higher", "share of real images that lie where samples lie"),
    "density": ("Density", "higher", "how densely samples lie where real images lie; may exceed 1"),
    "coverage": ("Coverage", "higher", "share of real images that have a sample near them"),
}


def fidelity(subject: Subject) -> Findings:
    """Distances, precision and recall, each between its anchors, and samples beside real images."""
    train, perfect = subject.data.train, subject.perfect
    real, y = subject.reference.stored(subject.real)
    classes = subject.data.classes if subject.y is not None else ()  # a row for each class where the model knows them
    # The distances are biased by the number of images: samples are as many as the training images they stand beside.
    samples = subject.samples[: len(perfect)]
    chance = generator(subject.seed, "evaluate", "noise")
    noise = torch.randint(256, samples.shape, dtype=torch.uint8, generator=chance)
    reals = subject.features(real)
    others = [subject.features(images) for images in (samples, torch.from_numpy(train.pixels(perfect)), noise)]
    values, floors, noises = [measure(reals, features, seed=subject.seed) for features in others]
    rows = {
        key: Row(
            name=name, value=values[key], better=better, floor=floors[key].value, noise=noises[key].value, words=words
        )
        for key, (name, better, words) in NAMES.items()
    }
    sentences = [
        f"{len(samples):,} samples are compared with {len(real):,} {subject.named}; the anchors are as many training "
        f"images ({len(perfect):,}) and as many images of noise in the place of the samples."
    ]
    if len(samples) < len(subject.samples):
        sentences.append(
            f"Of {len(subject.samples):,} samples only {len(samples):,} are compared: there are no more training "
            "images to stand in their place."
        )
    if warning := frechet_warning(min(len(samples), len(real)), reals.shape[1]):
        sentences.append(f"Warning: {warning}.")
    return Findings(
        title="Fidelity and diversity",
        rows=tuple(rows.values()),
        sentences=tuple(sentences),
        pictures={
            "Samples, not chosen: the first of the seed.": picture("samples", subject.samples, subject.y, classes),
            f"Real images ({subject.named}), a random choice.": picture("real images", real, y, classes),
        },
        cards=(good(rows), diverse(rows)),
    )


def picture(title: str, images: Tensor, y: Tensor | None = None, classes: Sequence[str] = ()) -> Image.Image:
    """The first images of a set (N, C, H, W) below a title; with their classes (N,) a row for each."""
    numbers = None if y is None else y[:SHOWN].numpy()
    return sheet(images[:SHOWN].numpy(), title, y=numbers, classes=classes, columns=COLUMNS)


def good(rows: dict[str, Row]) -> Card:
    """By precision or the distance, whichever is worse: features of a classifier do not see every blur."""
    precision, distance = rows["precision"], rows["frechet_distance"]
    because = (
        f"{precision.value.value:.0%} of samples lie where real images lie ({precision.floor:.0%} of training images "
        f"do). Fréchet distance {number(distance.value.value)}; perfect {number(distance.floor)}, noise "
        f"{number(distance.noise)}."
    )
    worse = min((precision, distance), key=lambda row: row.reached(row.value.value))
    return graded("Is it good?", worse, because)


def diverse(rows: dict[str, Row]) -> Card:
    """By recall: how much of what training images reach is reached."""
    recall, coverage = rows["recall"], rows["coverage"]
    because = (
        f"{recall.value.value:.0%} of real images lie where samples lie (with training images {recall.floor:.0%}). "
        f"{coverage.value.value:.0%} have a sample near them ({coverage.floor:.0%})."
    )
    return graded("Is it diverse?", recall, because)
