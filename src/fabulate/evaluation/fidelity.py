"""Are samples as good as real images, as varied, and new?

Three distances between the clouds of features (`metrics/distances.py`, `metrics/sliced.py`) say how far apart they are,
four shares (`metrics/manifold.py`) in which way: precision and density whether samples look real, recall and coverage
whether they reach everything real.

None of these numbers means anything alone: all depend on the features and on how many images were compared. So each
stands between two anchors computed in the same way: training images in the place of samples, and uniform noise.

A model that copies nothing draws samples that lie as near to images it was never shown as to those it was trained on.
See `metrics/copies.py` for the test. What no test can do is to find copies too few for its power, so the section says
how many it would have found.

Legend: N samples, C H W image.
"""

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fabulate.data import Images
from fabulate.evaluation.subject import Findings, Subject
from fabulate.metrics import copies, frechet_warning
from fabulate.metrics import fidelity as measure
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import sheet, table
from fabulate.report import Better, Card, Row, graded, number
from fabulate.seeds import generator

MEMORISATION = "Memorisation"
PAIRS = 10  # suspicious samples shown
CHUNK = 10_000  # images read at a time
TOO_WEAK = 0.3  # a test that would not have noticed so many copies answers nothing
LEVEL, POWER = 0.01, 0.8  # copies are noticed at a p-value below LEVEL; told is the share found POWER of the time
SHOWN, COLUMNS = 49, 7  # images of each picture: two stand side by side on a page

NAMES: dict[str, tuple[str, Better, str]] = {
    "frechet_distance": ("Fréchet distance", "lower", "squared distance of the features' means and covariances"),
    "kernel_distance": ("Kernel distance", "lower", "squared distance in a kernel's space; unbiased in n"),
    "monge_distance": (
        "MIND",
        "lower",
        "sliced Wasserstein distance of the features, times 3 D; of 5,000 images at most",
    ),
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


# Memorisation


def memorisation(subject: Subject) -> Findings:
    """Are samples nearer to training images than to images held out, and which are the most suspicious?"""
    data = subject.data
    if data.test is None:
        why = "all images were trained on: there are none held out to which samples could lie as near by chance"
        return Findings(title=MEMORISATION, absent={"Memorisation": why})
    train, held_out = data.train, data.test
    features = described(subject, train), described(subject, held_out)
    drawn = subject.features(subject.samples)
    found, real = copies.memorisation(drawn, *features), copies.authenticity(features[1], features[0])
    equal = copied(subject.samples, train)
    n = len(subject.samples)
    noticed = least_noticed(found)
    rows = (
        Row(
            name="Nearest to training images",
            value=found.share,
            better="neither",
            floor=found.expected,
            words="share of samples nearer to a training image than to any held out; beside it what chance gives",
        ),
        Row(
            name="p-value",
            value=Estimate(found.p_value),
            better="neither",
            words="how often chance gives a share so high",
        ),
        Row(
            name="Copied share",
            value=as_share(found.copied),
            better="lower",
            floor=0.0,
            words="estimated share of samples that are copies",
        ),
        Row(
            name="Exact copies",
            value=Estimate.of_share(equal, n),
            better="lower",
            words=f"share of samples equal to a training image in every pixel: {equal:,} of {n:,}",
        ),
        Row(
            name="Authenticity",
            value=found.authenticity,
            better="neither",
            floor=real.value,
            words="share of samples further from their nearest training image than that is from its own neighbour; "
            "beside it that of held-out images",
        ),
    )
    sentences = [
        f"{n:,} samples, {len(train):,} training images and {len(held_out):,} held out, "
        f"compared by their features ({subject.features.name}).",
        f"Power: had {noticed:.1%} or more of the samples been copies of many different images, this test would have "
        f"noticed it {POWER:.0%} of the time. Fewer copies, or copies of a few images only, pass unseen by it; "
        "then look at exact copies, at authenticity and at the pairs below.",
    ]
    pairs = suspicious(subject, found)
    caption = "The samples nearest to a training image for how near held-out images come. Some always are nearer."
    return Findings(
        title=MEMORISATION,
        rows=rows,
        sentences=tuple(sentences),
        pictures={caption: pairs},
        cards=(verdict(found, equal, n, noticed),),
    )


def copied(samples: Tensor, train: Images) -> int:
    """How many samples equal a training image in every pixel."""
    return int(torch.stack([copies.exact_copies(samples, part) for part in chunks(train)]).any(0).sum())


def as_share(copied: Estimate) -> Estimate:
    """The copied share within [0, 1]: below 0 is no better than 0, and there the interval, too low, says nothing."""
    value, low, high = (min(max(number, 0.0), 1.0) for number in copied)
    return Estimate(value, low, high) if high > 0 else Estimate(value)


def chunks(images: Images) -> Iterator[Tensor]:
    """All images, some (M, C, H, W) at a time: they may lie on the disk."""
    for rows in torch.split(torch.arange(len(images)), CHUNK):
        yield torch.from_numpy(images.pixels(rows))


def described(subject: Subject, images: Images) -> Tensor:
    """The features (N, D) of all images."""
    return torch.cat([subject.features(part) for part in chunks(images)])


def least_noticed(found: copies.Memorisation) -> float:
    """The share m of copies that the test finds, at its level, `POWER` of the time; it moves the share m (1 - p_0)."""
    normal = NormalDist()
    reach = normal.inv_cdf(1 - LEVEL) + normal.inv_cdf(POWER)
    return min(1.0, reach * found.deviation / (1 - found.expected))


def verdict(found: copies.Memorisation, equal: int, n: int, noticed: float) -> Card:
    """Did it memorise, in words."""
    question = "Did it memorise?"
    because = (
        f"{found.share.value:.1%} of samples are nearest to a training image, where chance gives {found.expected:.1%} "
        f"(p = {found.p_value:.2g})."
    )
    if found.p_value < LEVEL:
        least, most = max(found.copied.low, 0.0), min(found.copied.high, 1.0)
        because += f" About {max(found.copied.value, 0):.1%} of samples ({least:.1%} to {most:.1%}) are copies."
        return Card(question, "yes", because, "poor")
    if equal:
        because += f" But {equal:,} of {n:,} samples equal a training image in every pixel."
        return Card(question, "some samples are copies", because, "fair")
    if noticed > TOO_WEAK:
        because += f" Too few images to tell: {noticed:.0%} of copies could have passed unseen."
        return Card(question, "cannot tell", because, "unknown")
    because += f" A model with {noticed:.1%} of copies would have been noticed."
    return Card(question, "no sign of it", because, "good")


def suspicious(subject: Subject, found: copies.Memorisation) -> Image.Image:
    """The samples nearest to a training image for how near held-out images come, above both images."""
    assert subject.data.test is not None
    ratio = (found.train_distances + 1e-12) / (found.held_out_distances + 1e-12)
    chosen = ratio.argsort(stable=True)[:PAIRS]
    shown = np.stack(
        [
            subject.samples[chosen].numpy(),
            subject.data.train.pixels(found.nearest_train[chosen]),
            subject.data.test.pixels(found.nearest_held_out[chosen]),
        ]
    )
    return table(
        shown,
        [f"{float(r):.2f}" for r in ratio[chosen]],
        "The most suspicious samples",
        "above each: distance to the nearest training image, over that to the nearest image held out",
        rows=("sample", "training image", "held-out image"),
    )
