"""A debiasing on disk: weights.csv, pictures, images, debias.json, and the page that says what was found and proven.

Legend: N images, R rows, C H W image.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from fabulate.data import Data, Images, image_names
from fabulate.errors import ConfigError
from fabulate.features.trained import enough_steps
from fabulate.files import class_folders, folder_name, own_folder, write_json, write_table
from fabulate.nets.blocks import check_sides
from fabulate.pictures import grid, paired_rows, place_png, save_png, table
from fabulate.prob import effective_size
from fabulate.report import Card, Facts, Figure, Figures, Notes, Page, Section, Table, percent, write_page
from fabulate.seeds import permutation
from fabulate.types import Progress, Stages, silent, to_float, to_uint8
from fabulate.uses.debias import factors, filling, proof
from fabulate.uses.debias.debiaser import Debiaser
from fabulate.uses.debias.densities import Numbers, whitening
from fabulate.uses.debias.factors import Factor, read_column
from fabulate.uses.debias.proof import Accuracies, Show

RECORD = "debias.json"
PORTION = 500  # images recoloured at a time
ROWS, ENDS, RARE = 5, 4, 9  # of factors.png
LITTLE = 0.05  # of what the class has to tell: a factor that tells less is hardly a bias
RECOLOURED = 24  # training images on the page
SHOWN = 10  # pairs in a row of generated images
WAYS = {
    "plain": "as it is",
    "weights": "by weight",
    "errors": "by the weight of errors",
    "recolour": "with the factor of others",
    "generated": "with generated images",
}

Proofs = Mapping[str, Accuracies]


@with_config(ConfigDict(extra="ignore"))
class Record(TypedDict):
    """debias.json, as far as it says whose a folder is."""

    kind: Literal["debias"]


class Done(NamedTuple):
    """What a debiasing found and wrote."""

    summary: str
    proofs: Proofs
    files: tuple[str, ...]
    """In the folder, those to look at."""


def run(
    data: Data,
    out: Path,
    debiaser: Debiaser,
    *,
    groups: Path | None = None,
    environments: Path | None = None,
    recoloured: bool = False,
    classifier_steps: int | None = None,
    progress: Stages | None = None,
) -> Done:
    """Without labels of the bias: fit a debiaser to a source's training part, prove it, and write all into `out`.

    `groups`, `environments`: CSV files (`read_column`), of test and of training images. `recoloured`: also write the
    training images, each with the factor of another. `classifier_steps`: 0 tests nothing, None
    takes 40 epochs, but 300 to 600 steps. Errors: as of `Debiaser.fit`,
    and `DataError` for tables that do not fit.
    """
    told, classifier_steps = progress or silent, checked(data, classifier_steps)
    train, test, names = data.train, data.test, image_names(data)
    places = groups_of = None
    if environments is not None:
        named = read_column(environments, names[: len(train)], "environment")
        places = np.unique(named, return_inverse=True)[1].astype(np.int64)
    if groups is not None and test is not None:
        groups_of = read_column(groups, names[len(train) :], "group")
    debiaser.fit(train, environments=places, progress=partial(told, "learning what varies"))
    proofs: dict[str, Accuracies] = {}
    weights, more = debiaser.weights_, {}
    if classifier_steps and test is not None:
        ways = {way: (train, show) for way, show in proof.ways(train, debiaser).items()}
        wrong = proof.errors(
            *(train, data.classes), seed=debiaser.seed, steps=classifier_steps, progress=partial(told, "errors")
        )
        more["error_weight"] = proof.half_weights(wrong, train.class_numbers)
        ways["errors"] = train, proof.by_weight(train, more["error_weight"], debiaser.seed)
        proofs = proven(data, ways, debiaser.weigh(test), groups_of, debiaser.seed, classifier_steps, told)
    write_record(data.spec.source, list(debiaser.chosen_), weights, proofs, out)
    write_weights(names[: len(train)], data, train, {"weight": weights, **more}, out)
    picture = factors_picture(debiaser, train, f"{data.name}: what is rare in its class")
    save_png(picture, out / "factors.png")
    write_page(out / "debias.html", codes_page(data, debiaser, picture, proofs))
    if recoloured:
        write_recoloured(debiaser, data, out / "recoloured", partial(told, "recolouring"))
    summary = (
        f"{' and '.join(debiaser.chosen_)}: made independent of the class; effective sample size {size_of(weights)}, "
        f"largest weight {largest(weights)}. {told_most(debiaser)}"
    )
    return Done(summary, proofs, ("weights.csv", "factors.png", "debias.html"))


def run_pairs(
    data: Data,
    out: Path,
    attribute: Path,
    *,
    up_to: int = 200,
    family: str = "vae",
    hyperparameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    classifier_steps: int | None = None,
    progress: Stages | None = None,
) -> Done:
    """With a known attribute, of a CSV file: fill rare pairs of class and attribute up by generated images.

    Errors: as of `filling.fill`, and `DataError` for a table that does not fit.
    """
    told, classifier_steps = progress or silent, checked(data, classifier_steps)
    train, test, names = data.train, data.test, image_names(data)
    attributes = read_column(attribute, names, "attribute")
    own, others = attributes[: len(train)], attributes[len(train) :]
    filled = filling.fill(
        train,
        own,
        up_to=up_to,
        name=family,
        hyperparameters=hyperparameters,
        seed=seed,
        device=device,
        progress=partial(told, "learning the pairs"),
    )
    proofs: dict[str, Accuracies] = {}
    if classifier_steps and test is not None:
        sets = {
            "plain": (train, np.ones(len(train))),
            "weights": (train, filling.pair_weights(train.class_numbers, own)),
            "generated": (filled.images, filled.weights),
        }
        ways = {way: (images, proof.by_weight(images, weights, seed)) for way, (images, weights) in sets.items()}
        test_weights = filling.pair_weights(test.class_numbers, others)
        proofs = proven(data, ways, test_weights, others, seed, classifier_steps, told)
    write_record(data.spec.source, [str(attribute)], filled.weights, proofs, out)
    made = [f"generated/{place}" for place in write_generated(filled, data, out / "generated")]
    write_weights([*names[: len(train)], *made], data, filled.images, {"weight": filled.weights}, out)
    write_page(out / "debias.html", pairs_page(data, filled, proofs))
    summary = f"{len(made):,} images generated for pairs of class and attribute with fewer than {up_to:,}"
    return Done(summary, proofs, ("generated", "weights.csv", "debias.html"))


def checked(data: Data, steps: int | None) -> int:
    """The steps of a classifier, as they are given or as many as are enough.

    Errors: `ConfigError` for images that nothing could be told of in the end.
    """
    if len(data.classes) < 2:
        raise ConfigError(
            f"{data.spec.source} has {'one class' if data.classes else 'no classes'}: a bias here is something that "
            "goes along with the class, so put the images of each class in a folder"
        )
    check_sides("the classifier", data.shape)
    steps = enough_steps(len(data.train), proof.STEPS) if steps is None else steps
    if steps:
        data.tested()
    return steps


def proven(
    data: Data,
    ways: Mapping[str, tuple[Images, Show]],
    weights: Numbers,
    groups: Sequence[str] | None,
    seed: int,
    steps: int,
    told: Stages,
) -> dict[str, Accuracies]:
    """What classifiers that are taught in each way find of the test images, of given weights and groups."""
    assert data.test is not None
    proofs = {}
    for way, (images, show) in ways.items():
        progress = partial(told, f"a classifier, {WAYS[way]}")
        taught = proof.teach(images, data.classes, show, seed=seed, steps=steps, progress=progress)
        proofs[way] = proof.tested(taught, data.test, weights, data.classes, groups)
    return proofs


# What is written


def write_record(source: str, independent: list[str], weights: Numbers, proofs: Proofs, folder: Path) -> None:
    """Write debias.json: what was made independent of the class, of which images, and what tests say, by way."""
    record = {
        "kind": "debias",
        "source": source,
        "independent": independent,
        "images": len(weights),
        "advice": proof.advice(proofs, WAYS).verdict if proofs else "not tested",
        "verdicts": {way: card.verdict for way, card in proof.verdicts(proofs).items()},
        "accuracy": {way: found.overall.value for way, found in proofs.items()},
        "unbiased": {way: found.unbiased.value for way, found in proofs.items()},
        "worst_group": {way: found.worst[1].value for way, found in proofs.items()},
    }
    write_json(own_folder(folder) / RECORD, record)


def write_weights(
    names: Sequence[str], data: Data, images: Images, weights: Mapping[str, Numbers], folder: Path
) -> None:
    """Write image, class and weights of every image learnt from, in their order."""
    labels = [data.classes[k] for k in images.class_numbers]
    columns = [each.tolist() for each in weights.values()]
    rows = zip(names, labels, *columns, strict=True)
    write_table(folder / "weights.csv", ["image", "class", *weights], rows)


def write_recoloured(debiaser: Debiaser, data: Data, folder: Path, progress: Progress) -> None:
    """Write each training image with the factor of another, under its class."""
    within = class_folders(folder, data.classes)
    for indices in torch.split(torch.arange(len(data.train)), PORTION):
        x = to_float(torch.from_numpy(data.train.pixels(indices)))
        new = to_uint8(debiaser.recoloured(x, "written", int(indices[0]))).numpy()
        for i, image in zip(indices.tolist(), new, strict=True):
            place_png(image, within[data.train.class_numbers[i]] / f"{i:06}.png")
        progress(int(indices[-1]) + 1, len(data.train))


def write_generated(filled: filling.Filled, data: Data, folder: Path) -> list[str]:
    """Write the generated images under their classes; their paths within the folder."""
    within, places = class_folders(folder, data.classes), []
    for i in range(filled.real, len(filled.images)):
        place = within[filled.images.class_numbers[i]] / f"{folder_name(filled.attributes[i])}-{i:06}.png"
        place_png(filled.images.x[i], place)
        places.append(place.relative_to(folder).as_posix())
    return places


# The page


def codes_page(data: Data, debiaser: Debiaser, picture: Image, proofs: Proofs) -> Page:
    """The page of weights by codes."""
    weights = debiaser.weights_
    facts = [
        ("images", f"{len(weights):,}"),
        ("made independent of the class", ", ".join(debiaser.chosen_)),
        ("tells most of the class", told_most(debiaser)),
        ("density of codes", debiaser.density),
        ("effective sample size", size_of(weights)),
        ("largest weight", largest(weights)),
    ]
    rare = (
        "Each row is a factor of variation. On the left images from both its ends, on the right those it makes rare in "
        "their class though they are common in others: a bias shows where they look as they should, and are few."
    )
    below = "Below each image the same with the factor of another, drawn at random."
    return _page(
        data.name,
        facts,
        proofs,
        Section(
            "What varies, and who is under-represented",
            [Figures([Figure(picture, rare)]), factor_table(debiaser.factors_)],
        ),
        Section("The same images, recoloured", [Figures([Figure(recoloured_picture(debiaser, data.train), below)])]),
    )


def pairs_page(data: Data, filled: filling.Filled, proofs: Proofs) -> Page:
    """The page of filled-up pairs."""
    made = len(filled.images) - filled.real
    facts = [("real images", f"{filled.real:,}"), ("generated", f"{made:,}")]
    if filled.absent:
        pairs = ", ".join(f"{data.classes[k]} {a}" for k, a in filled.absent[:8])
        more = f" and {len(filled.absent) - 8} more" if len(filled.absent) > 8 else ""
        facts.append(("pairs without any image, not generated", pairs + more))
    if not made:
        return _page(data.name, facts, proofs)
    shown = filled.images.x[filled.real :: max(1, made // (4 * SHOWN))][: 4 * SHOWN]
    figure = Figure(grid(shown, columns=SHOWN), "Drawn for pairs of class and attribute that were rare.")
    return _page(data.name, facts, proofs, Section("Generated images", [Figures([figure])]))


def _page(name: str, facts: Sequence[tuple[str, str]], proofs: Proofs, *sections: Section) -> Page:
    if proofs:
        cards = [proof.advice(proofs, WAYS), *proof.verdicts(proofs).values()]
        words = (
            "Accuracy on test images of the same classifier, taught on the images as they are and in other ways; "
            "95 % intervals."
        )
        tests = [Section("Before and after", [Notes([words]), proof_table(proofs)])]
    else:
        because = "No classifier was tested: it takes test images, and steps for them."
        cards, tests = [Card("How to teach?", "not tested", because, "unknown")], []
    return Page(
        kind="fabulate debias",
        title=name,
        about=f"Bias in {name}",
        cards=cards,
        sections=[Section("", [Facts(facts)]), *tests, *sections],
    )


def proof_table(proofs: Proofs) -> Table:
    """Accuracies of classifiers side by side: over all test images, where the bias is undone, and in each group."""
    found = list(proofs.values())
    rows = [
        ["all test images", *(percent(one.overall) for one in found)],
        ["weighted, as if nothing went along with the class", *(percent(one.unbiased) for one in found)],
    ]
    rows.append(["mean over pairs of class and group", *(percent(one.balanced) for one in found)])
    rows.append(["the worst group", *(f"{percent(one.worst[1])}, {one.worst[0]}" for one in found)])
    rows += [[f"group {group}", *(percent(one.groups[group]) for one in found)] for group in found[0].groups]
    return Table(["accuracy", *(WAYS[way] for way in proofs)], rows)


def factor_table(found: Sequence[Factor]) -> Table:
    """What each factor tells of the class, and between environments."""
    tested = any(one.p_value is not None for one in found)
    columns = ["factor", "bits it tells of the class", "images against their class"]
    columns += ["bits by which that differs between environments", "p-value"] if tested else []
    rows = [
        [one.name, f"{one.bits:.3f}", f"{one.against:,}"]
        + ([f"{one.failure:.5f}", f"{one.p_value:.2g}"] if tested else [])
        for one in found
    ]
    return Table(columns, rows)


def told_most(debiaser: Debiaser) -> str:
    """Which factor tells most of the class, and whether that is much."""
    most, shares = factors.telling(debiaser.factors_), np.bincount(debiaser.y_) / len(debiaser.y_)
    known = -float(sum(share * np.log2(share) for share in shares if share))
    told = f"{most.name} tells {most.bits:.2f} of the class's {known:.2f} bits"
    if most.bits < LITTLE * known:
        return f"No factor tells much of the class (the most: {told}), so nothing here speaks of a bias."
    return f"Of all factors {told}. Does it make the class, or merely go along with it? See factors.png."


def size_of(weights: Numbers) -> str:
    """The effective sample size, in words."""
    return f"{effective_size(torch.from_numpy(weights)):,.0f} of {len(weights):,}"


def largest(weights: Numbers) -> str:
    """The largest weight, in words."""
    return f"{weights.max() / np.median(weights):.3g} times the median"


def factors_picture(debiaser: Debiaser, images: Images, title: str) -> Image:
    """A row for each factor: images from both its ends, and those that are rarest in their class by it."""
    shown = debiaser.factors_[:ROWS]
    z = debiaser.codes_.double().numpy()
    rows = []
    for factor in shown:
        along = whitening(z[:, factor.columns])(z[:, factor.columns])[:, 0]  # of several numbers the main axis
        order = np.argsort(along, kind="stable")
        rare = np.argsort(-factor.weights, kind="stable")[:RARE]
        rows.append(images.x[np.concatenate([order[:ENDS], order[-ENDS:], rare])])
    columns = [*["low"] * ENDS, *["high"] * ENDS, *["rare"] * RARE]
    legend = (
        "low, high: both ends of the factor; rare: common in other classes, rare in their own; bars: how many are so"
    )
    shares = [factor.against / len(images) for factor in shown]
    return table(np.stack(rows), columns, title, legend, [factor.name for factor in shown], shares)


def recoloured_picture(debiaser: Debiaser, images: Images) -> Image:
    """Training images, each above itself with the factor of another."""
    chosen = permutation(len(images), debiaser.seed, "debias", "shown")[:RECOLOURED]
    x = images.pixels(chosen)
    new = debiaser.recoloured(to_float(torch.from_numpy(x)), "picture")
    return grid(paired_rows(x, to_uint8(new).numpy(), 12), columns=min(12, len(x)))
