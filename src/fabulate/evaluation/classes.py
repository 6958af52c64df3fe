"""Does a model know all classes, and does it know them apart?

The classification accuracy score: a classifier learns from samples alone, each with the class that was given, and
is tested on real images (Ravuri, Vinyals, "Classification accuracy score for conditional generative models", 2019,
https://arxiv.org/abs/1905.10887). Samples that look right but miss what varies within a class teach it little. It
stands beside the same classifier of as many real training images; guessing gets 1 / K.

And the shares: each sample takes the class that the features' classifier sees in it, where there is one and it can be
believed, else that of the nearest real image. Legend: N samples, K classes.
"""

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Images
from fabulate.evaluation.subject import Findings, Subject
from fabulate.features import ClassifierFeatures, accuracy, predict, train_classifier
from fabulate.metrics.classes import effective_classes, modes, nearest
from fabulate.metrics.intervals import Estimate
from fabulate.models.base import Conditional, able
from fabulate.nets import transforms
from fabulate.nets.blocks import LARGEST_SIDE, SMALLEST_SIDE
from fabulate.report import Card, Row, plots
from fabulate.seeds import permutation
from fabulate.types import Progress

TITLE = "Classes"
MOST_ROWS = 20  # classes with a row of their own; of more, the rarest
REFERENCES = 10_000  # real images among which the nearest is sought
ASKED, BELIEVED = 2000, 0.8  # images both are asked about; how much less they may agree on samples than on real ones
EVEN = 0.8  # of its real share: a class with less is under-represented
SCORE = "Classification accuracy score"


def classes(subject: Subject, *, progress: Progress | None = None) -> Findings:
    """Shares of the classes among samples and, for a conditional model, what a classifier learns from them.

    `progress`: hears (steps trained, in all) of each classifier in turn.
    """
    names = subject.data.classes
    if subject.data.train.y is None or len(names) < 2:
        return Findings(title=TITLE, absent={"Shares of classes": f"{subject.data.name} has no classes to tell apart"})
    seen, by = recognised(subject)
    counts = torch.bincount(seen, minlength=len(names))
    shares = [Estimate.of_share(int(count), len(seen)) for count in counts]
    labels = subject.data.train.y
    real = torch.from_numpy(np.bincount(labels, minlength=len(names)) / len(labels))
    rows, sentences, absent = score(subject, progress)
    sentences = [
        f"The class of a sample is {by}. Real shares are those of the {len(labels):,} training images.",
        *sentences,
    ]
    rows += [*conditional(subject, seen), *evenness(counts / len(seen), real)]
    order = sorted(range(len(names)), key=lambda k: (float(counts[k]) / max(float(real[k]), 1e-12), k))
    kept = range(len(names)) if len(names) <= MOST_ROWS else order[:MOST_ROWS]
    rows += [Row(name=f"Share of {names[k]}", value=shares[k], better="neither", floor=float(real[k])) for k in kept]
    if len(names) > MOST_ROWS:
        sentences.append(f"Of {len(names):,} classes the {MOST_ROWS} that fall shortest of their real share are shown.")
    caption = "The share of each class among samples, with 95 % intervals; the line is its share among real images."
    return Findings(
        title=TITLE,
        rows=tuple(rows),
        sentences=tuple(sentences),
        pictures={caption: plots.shares(*zip(*((names[k], shares[k], float(real[k])) for k in kept), strict=True))},
        absent=absent,
        cards=(complete(counts / len(seen), real, names),),
    )


def recognised(subject: Subject) -> tuple[Tensor, str]:
    """The class (N,) seen in each sample, and who saw it, in words.

    A classifier may see one class in all that is unlike what it learnt from, such as blur. So it is believed only where
    it agrees with the nearest images about samples nearly as often as about real images.
    """
    by_neighbours = f"that of the nearest, in pixels, of {min(REFERENCES, len(subject.data.train)):,} training images"
    if not isinstance(subject.features, ClassifierFeatures):
        return neighbours(subject, subject.samples), by_neighbours
    classifier = subject.features.classifier
    seen = predict(classifier, Images(subject.samples.numpy()))
    real = torch.from_numpy(subject.reference.pixels(subject.real[:ASKED]))
    known = predict(classifier, Images(real.numpy()))
    agreed = float((neighbours(subject, subject.samples[:ASKED]) == seen[:ASKED]).double().mean())
    usual = float((neighbours(subject, real) == known).double().mean())
    words = (
        f"agrees with the nearest training images about {agreed:.0%} of samples, and about {usual:.0%} of real images"
    )
    if agreed >= BELIEVED * usual:
        return seen, f"what the features' classifier sees, which {words}"
    return neighbours(
        subject, subject.samples
    ), f"{by_neighbours}. The features' classifier is not believed: it {words}"


def neighbours(subject: Subject, images: Tensor) -> Tensor:
    """The class (N,) of the training image nearest to each image in pixels."""
    train = subject.data.train
    assert train.y is not None
    rows = permutation(len(train), subject.seed, "evaluate", "neighbours")[:REFERENCES]
    known = torch.from_numpy(train.pixels(rows))
    return torch.from_numpy(train.y[rows.numpy()])[nearest(images, known)]


def score(subject: Subject, progress: Progress | None = None) -> tuple[list[Row], list[str], dict[str, str]]:
    """The classification accuracy score beside that of real images; or why there is none."""
    data, y = subject.data, subject.y
    if y is None:
        why = "the model was not told classes: its samples have none to learn from"
        if subject.model.classes:
            why = "the model was told other classes than these images have"
        elif not isinstance(subject.model, Conditional):
            why = f"{subject.model.family} cannot learn classes; {able(Conditional)}"
        return [], [], {SCORE: why}
    if data.test is None or data.test.y is None:
        return [], [], {SCORE: "there are no test images with classes to test a classifier on"}
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in data.shape[1:]):
        sides = f"sides from {SMALLEST_SIDE} to {LARGEST_SIDE}"
        return [], [], {SCORE: f"the classifier takes {sides}, and the images are {data.shape}"}
    perfect, held_out = subject.perfect, data.test
    assert data.train.y is not None
    real = Images(data.train.pixels(perfect), data.train.y[perfect.numpy()])
    drawn = Images(subject.samples.numpy()[: len(real)], y.numpy()[: len(real)])

    def taught_by(images: Images) -> Estimate:
        taught = train_classifier(images, data.classes, seed=subject.seed, change=transforms.shifts, progress=progress)
        return accuracy(taught, held_out)

    learnt, taught = taught_by(drawn), taught_by(real)
    row = Row(
        name=SCORE,
        value=learnt,
        better="higher",
        floor=taught.value,
        noise=1 / len(data.classes),
        words="accuracy on test images of a classifier that saw samples only; noise: guessing",
    )
    words = (
        f"A classifier that learnt from {len(drawn):,} samples is right for {learnt.value:.1%} of {len(data.test):,} "
        f"test images; from as many real training images, for {taught}."
    )
    return [row], [words], {}


def conditional(subject: Subject, seen: Tensor) -> list[Row]:
    """How often a conditional model draws the class that it is given."""
    if subject.y is None:
        return []
    n, k = len(seen), len(subject.data.classes)
    hits = int((seen == subject.y).sum())
    known = subject.features.describe().get("accuracy")
    return [
        Row(
            name="Class-conditional accuracy",
            value=Estimate.of_share(hits, n),
            better="higher",
            floor=known["value"] if known else None,
            noise=1 / k,
            words="samples seen to be of the class that was given; noise: guessing",
        )
    ]


def evenness(shares: Tensor, real: Tensor) -> list[Row]:
    """How many classes there are, and how far the shares are from the real ones."""
    distance = float((shares.double() - real).abs().sum()) / 2
    return [
        Row(
            name="Classes present",
            value=Estimate(modes(shares, real)),
            better="higher",
            floor=int((real > 0).sum()),
            words="those with at least a tenth of their real share",
        ),
        Row(
            name="Effective number of classes",
            value=Estimate(effective_classes(shares)),
            better="neither",
            floor=effective_classes(real),
            words="as many equal classes have the same entropy",
        ),
        Row(
            name="Class-share distance",
            value=Estimate(distance),
            better="lower",
            words="total variation between the class shares of samples and of real images",
        ),
    ]


def complete(shares: Tensor, real: Tensor, names: tuple[str, ...]) -> Card:
    """Are all classes there, and which is rarest."""
    there, known = modes(shares, real), int((real > 0).sum())
    relative = torch.where(real > 0, shares.double() / real.clamp(min=1e-12), torch.inf)
    k = int(relative.argmin())
    because = (
        f"{there} of {known} classes are drawn. Most under-represented is {names[k]}: {shares[k]:.1%} of samples, "
        f"{real[k]:.1%} of real images."
    )
    question = "Are all classes there?"
    if there < known:
        return Card(question, "no", because, "poor")
    if float(relative[k]) < EVEN:
        return Card(question, "unevenly", because, "fair")
    return Card(question, "yes", because, "good")
