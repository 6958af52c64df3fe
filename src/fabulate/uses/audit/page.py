"""What `fabulate audit` does: from a run, its images and samples to a verdict, a page and audit.json."""

from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from pydantic import ConfigDict, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from fabulate.data import Data, image_names
from fabulate.errors import ConfigError, DataError
from fabulate.features import features_for
from fabulate.files import digest, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.pictures import table
from fabulate.report import Block, Card, Facts, Figure, Figures, Notes, Page, Section, Table, percent, plots, write_page
from fabulate.samples import Order
from fabulate.training import load
from fabulate.types import Progress, Stages, silent
from fabulate.uses.audit.examine import BY_MODEL, LEVEL, Found, divided, examined
from fabulate.uses.audit.near_copies import Measure, thumbnails

RECORD = "audit.json"
SURE = 0.01  # p-value below which more samples are flagged than chance would
FEWEST = 100  # images held out, below which no p-value reaches LEVEL
SHOWN = 14  # flagged samples on the page
LEAKS, LITTLE = 0.6, 0.55  # areas under the ROC curve: from here on an attack works, and below it hardly does
NO_PROOF = (
    "An audit knows the attacks that it tries, and each image that it is given. That it finds nothing is no proof of "
    "privacy, as training with differential privacy would be."
)


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """audit.json, as far as it says whose a folder is."""

    kind: Literal["audit"]


class Done(NamedTuple):
    """What an audit found and wrote."""

    cards: list[Card]
    table: Table
    files: tuple[str, ...]


def run(
    source: str | Path | GenerativeModel,
    data: Data,
    out: str | Path,
    *,
    n: int = 1000,
    samples: Tensor | None = None,
    features: str | nn.Module = "auto",
    seed: int = 0,
    device: str = "auto",
    progress: Stages | None = None,
) -> Done:
    """Audit samples of a model: near copies, membership inference, distances; writes audit.html and audit.json.

    `source`: a run, a model folder or a model, `data`: the images it was trained on, some of them held out (its test
    part). `samples`: uint8 (S, C, H, W); None: the first n of the seed. `features`: what `features_for` takes.
    `progress`: called with (what is done, parts done, all parts).
    Errors: `DataError` for fewer than 100 images held out, `ConfigError` for images that the model was not trained on,
    and for samples of another shape.
    """
    told, out = progress or silent, Path(out)
    model = source if isinstance(source, GenerativeModel) else load(source, device)
    if data.test is None or len(data.test) < FEWEST:
        raise DataError(
            f"an audit compares with images that the model never saw, at least {FEWEST} of them, and {data.name} has "
            f"{0 if data.test is None else len(data.test)} test images"
        )
    if tuple(data.shape) != tuple(model.shape):
        raise ConfigError(f"the model is of {model.shape} and the images are {data.shape}")
    if samples is None:
        samples = drawn(model, n, seed, partial(told, "samples"))
    elif tuple(samples.shape[1:]) != tuple(model.shape):
        raise ConfigError(f"the model is of {model.shape} and the samples are of {tuple(samples.shape[1:])}")
    parts = divided(source, model, data, samples, seed)
    measures: dict[str, Measure] = {
        "features": features_for(data, features, device=model.device, progress=partial(told, "features")),
        "thumbnails": thumbnails,
    }
    found = examined(model, data, parts, measures, seed, told)
    cards = verdicts(found)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RECORD, to_json(model, data, found, cards[0].verdict, seed))
    write_page(out / "audit.html", page(data, model, found, cards, measures))
    return Done(cards, attack_table(found), ("audit.html", RECORD))


def drawn(model: GenerativeModel, n: int, seed: int, progress: Progress) -> Tensor:
    """The first n samples of a seed, uint8."""
    order = Order(model, n, seed=seed, progress=progress)
    return torch.cat([torch.from_numpy(images) for _, images in order.batches()])


# The verdict


def verdicts(found: Found) -> list[Card]:
    """May the samples be handed out, and the model, and what stands behind that."""
    of_samples = {name: how for name, how in found.attacks.items() if name not in BY_MODEL}
    of_model = {name: how for name, how in found.attacks.items() if name in BY_MODEL}
    cards = [copied(found), inferred("Do they tell whom the model learnt from?", of_samples)]
    first = answer("May these images be handed out?", cards)
    if not of_model:
        return [first, *cards]
    asked = inferred("Does it tell whom it learnt from?", of_model)
    return [first, *cards, answer("May the model be handed out?", [*cards, asked])]


def answer(question: str, cards: list[Card]) -> Card:
    """By what speaks most against it."""
    worst = max(cards, key=lambda card: ("good", "unknown", "fair", "poor").index(card.grade))
    words = {"good": "no sign against it", "fair": "with care", "poor": "no", "unknown": "cannot tell"}[worst.grade]
    return Card(question, words, worst.because, worst.grade)


def copied(found: Found) -> Card:
    """Are there near copies?"""
    question, n, k = "Are there copies?", len(found.parts.samples), len(found.flagged)
    equal = int(found.exact.sum())
    power = mean(share.value for share in found.planted.values())
    chance = (
        f"{k:,} of {n:,} samples lie as near to a training image as the nearest {LEVEL:.0%} of images held out do (by "
        f"chance {LEVEL * n:.0f}; p = {found.p_value:.2g}). Of copies that were made {power:.0%} are found."
    )
    if equal:
        return Card(question, "yes", f"{equal:,} samples equal a training image in every pixel. {chance}", "poor")
    if found.p_value < SURE:
        share = Estimate.of_share(k, n)
        of = Estimate(*(max(0.0, (part - LEVEL) / (1 - LEVEL)) for part in share))
        return Card(question, "yes, nearly", f"{chance} So about {percent(of)} are near copies.", "poor")
    if power < 0.5:
        return Card(question, "cannot tell", chance, "unknown")
    return Card(question, "no sign of it", chance, "good")


def inferred(question: str, judged: dict[str, tuple[Estimate, Estimate]]) -> Card:
    """Can it be told by these attacks which images were trained on?"""
    name, (area, rate) = max(judged.items(), key=lambda one: one[1][0].value)
    because = (
        f"The best attack, {name}, has an AUC of {area}, where 0.5 is chance, and finds {percent(rate)} of the "
        f"training images at {LEVEL:.0%} false positives."
    )
    if area.value >= LEAKS and area.low > 0.5:
        return Card(question, "yes", because, "poor")
    if area.low > 0.5 and (area.value >= LITTLE or rate.low > 2 * LEVEL):
        return Card(question, "somewhat", because, "fair")
    return Card(question, "hardly", because, "good")


# What is written


def to_json(model: GenerativeModel, data: Data, found: Found, verdict: str, seed: int) -> dict[str, Any]:
    """audit.json: samples by number and digest, the most suspicious first; shares and areas with their intervals."""
    names, hashes = image_names(data), [digest(image.tobytes()) for image in found.parts.samples.numpy()]
    judged = found.judged

    def one(i: int) -> dict[str, Any]:
        return {
            "sample": i,
            "digest": hashes[i],
            "training_image": names[int(judged.nearest[i])],
            "ratio": round(float(judged.ratios[i]), 4),
            "p_value": round(float(judged.p_values[i]), 5),
        }

    return {
        "kind": "audit",
        "model_sha256": model.weights_hash(),
        "data_fingerprint": data.fingerprint,
        "samples": {"n": len(hashes), "seed": seed, "digests": hashes},
        "verdict": verdict,
        "exact": [one(int(i)) for i in found.exact.nonzero()[:, 0]],
        "near": [one(int(i)) for i in found.flagged],
        "flagged": {"level": LEVEL, "samples": len(found.flagged), "p_value": found.p_value},
        "planted": {how: list(share) for how, share in found.planted.items()},
        "attacks": {
            name: {"auc": list(area), f"tpr_at_{LEVEL:g}": [None if x != x else x for x in rate]}
            for name, (area, rate) in found.attacks.items()
        },
    }


def attack_table(found: Found) -> Table:
    """The attacks, and how they did."""
    rows = [[name, str(area), percent(rate)] for name, (area, rate) in found.attacks.items()]
    return Table(["attack", "AUC (0.5: chance)", f"found at {LEVEL:.0%} false positives"], rows)


def page(data: Data, model: GenerativeModel, found: Found, cards: list[Card], measures: dict[str, Measure]) -> Page:
    """audit.html."""
    parts = found.parts
    facts = [
        ("model", f"{model.family}, {model.weights_hash()[:12]}"),
        ("samples", f"{len(parts.samples):,}"),
        ("training images", f"{len(parts.train):,}"),
        ("members", f"{len(parts.members):,}"),
        ("held out", f"{len(parts.held_out):,}"),
        ("features", getattr(measures["features"], "name", "")),
    ]
    made = Table(["copies that were made", "found"], [[how, percent(share, 0)] for how, share in found.planted.items()])
    near: list[Block] = [
        Notes([copies_in_words(found)]),
        *([Figures([Figure(pairs(data, found), "The most suspicious first.")])] if len(found.flagged) else []),
        made,
    ]
    attack = "Numbers that are higher for training images than for images held out give away who was trained on."
    return Page(
        kind="fabulate audit",
        title=data.name,
        about=f"Audit of samples of {data.name}",
        cards=cards,
        sections=[
            Section("", [Facts(facts), Notes([NO_PROOF])]),
            Section("Copies", near),
            Section("Membership inference", [Notes([attack]), attack_table(found)]),
            Section("Distance to the nearest training image", [Figures([Figure(distances(found), FIGURE)])]),
        ],
    )


FIGURE = (
    "In features. Samples that lie nearer than images held out do are either copies or plain; one image held out in "
    "twenty lies below the line."
)


def copies_in_words(found: Found) -> str:
    """How to read what is flagged."""
    return (
        "Flagged are samples whose nearest training image is so much nearer than the next ones that only "
        f"{LEVEL:.0%} of the images held out come as near: {len(found.flagged):,} samples, where chance flags "
        f"{LEVEL * len(found.parts.samples):.0f}. Below, copies that were made of training images, and how many of "
        "each kind would be flagged."
    )


def pairs(data: Data, found: Found) -> Image:
    """Flagged samples above their training images."""
    chosen = found.flagged[:SHOWN]
    shown = np.stack([found.parts.samples[chosen].numpy(), found.parts.train.pixels(found.judged.nearest[chosen])])
    return table(
        shown,
        [f"{float(ratio):.2f}" for ratio in found.judged.ratios[chosen]],
        f"Flagged samples of {data.name}, and the training images they are nearest to",
        "above each: how near, as a multiple of what the nearest hundredth of images held out has; 0 is a copy",
        rows=("sample", "training image"),
    )


def distances(found: Found) -> Image:
    """How far samples and held-out images lie from the training images."""
    of_samples, of_held_out = (values.numpy() for values in found.distances)
    top = float(np.quantile(np.concatenate([of_samples, of_held_out]), 0.995))
    sets = {"samples": of_samples, "images held out": of_held_out}
    return plots.histogram(sets, float(np.quantile(of_held_out, 0.05)), "distance", (0.0, top))
