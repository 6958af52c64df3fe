"""Did a model learn, or copy?

A model that copies nothing draws samples that lie as near to images it was never shown as to those it was trained on.
See `metrics/copies.py` for the test. What no test can do is to find copies too few for its power, so the section says
how many it would have found.

Legend: N samples, C H W image.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fabulate.data import Images
from fabulate.evaluation.subject import Findings, Subject
from fabulate.metrics.copies import Memorisation, authenticity, exact_copies
from fabulate.metrics.copies import memorisation as measure
from fabulate.metrics.intervals import Estimate
from fabulate.pictures import table
from fabulate.report import Card, Row

TITLE = "Memorisation"
PAIRS = 10  # shown
CHUNK = 10_000  # images read at a time
TOO_WEAK = 0.3  # a test that would not have noticed so many copies answers nothing
LEVEL, POWER = 0.01, 0.8  # copies are noticed at a p-value below LEVEL; told is the share found POWER of the time


def memorisation(subject: Subject) -> Findings:
    """Are samples nearer to training images than to images held out, and which are the most suspicious?"""
    data = subject.data
    if data.test is None:
        why = "all images were trained on: there are none held out to which samples could lie as near by chance"
        return Findings(title=TITLE, absent={"Memorisation": why})
    train, held_out = data.train, data.test
    features = described(subject, train), described(subject, held_out)
    drawn = subject.features(subject.samples)
    found, real = measure(drawn, *features), authenticity(features[1], features[0])
    copies = copied(subject.samples, train)
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
            value=Estimate.of_share(copies, n),
            better="lower",
            words=f"share of samples equal to a training image in every pixel: {copies:,} of {n:,}",
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
        title=TITLE,
        rows=rows,
        sentences=tuple(sentences),
        pictures={caption: pairs},
        cards=(verdict(found, copies, n, noticed),),
    )


def copied(samples: Tensor, train: Images) -> int:
    """How many samples equal a training image in every pixel."""
    return int(torch.stack([exact_copies(samples, part) for part in chunks(train)]).any(0).sum())


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


def least_noticed(found: Memorisation) -> float:
    """The share m of copies that the test finds, at its level, `POWER` of the time; it moves the share m (1 - p_0)."""
    normal = NormalDist()
    reach = normal.inv_cdf(1 - LEVEL) + normal.inv_cdf(POWER)
    return min(1.0, reach * found.deviation / (1 - found.expected))


def verdict(found: Memorisation, copies: int, n: int, noticed: float) -> Card:
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
    if copies:
        because += f" But {copies:,} of {n:,} samples equal a training image in every pixel."
        return Card(question, "some samples are copies", because, "fair")
    if noticed > TOO_WEAK:
        because += f" Too few images to tell: {noticed:.0%} of copies could have passed unseen."
        return Card(question, "cannot tell", because, "unknown")
    because += f" A model with {noticed:.1%} of copies would have been noticed."
    return Card(question, "no sign of it", because, "good")


def suspicious(subject: Subject, found: Memorisation) -> Image.Image:
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
