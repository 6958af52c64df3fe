"""`fabulate debias SOURCE`: who is rare in its class, how much must it count, and what does that change?"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from pydantic import Field

from fabulate.cli import debias_page
from fabulate.cli.shared import counting, load_images, parse, where
from fabulate.config import Megapixels, PositiveInt, Range, data_spec, spec
from fabulate.data import Data, Images, image_names
from fabulate.errors import ConfigError
from fabulate.files import outside, own_folder, place_file, replaceable_folder, write_file, write_json
from fabulate.folder_names import folder_name, folder_names
from fabulate.nets.blocks import check_sides
from fabulate.pictures import save_png, to_image
from fabulate.types import to_float, to_uint8
from fabulate.uses.debias import Debiaser, factors, filling, proof, views
from fabulate.uses.debias.columns import read_column
from fabulate.uses.debias.densities import Labels, Numbers
from fabulate.uses.debias.duotone import DuotoneConfig
from fabulate.uses.debias.verdict import RECORD, Record, record, verdicts

PORTION = 500  # images recoloured at a time
Proofs = dict[str, proof.Proof]


@spec
class Arguments:
    """Find images that are rare in their class, weigh them, and test whether a classifier becomes fairer by it."""

    source: tyro.conf.Positional[str]
    """The images, in a folder for each class: a folder, a name such as mnist, an .npz file."""
    size: Annotated[int, Field(ge=8, le=64)] | None = None
    """Resize so that the shorter side is this many pixels (antialiased), then crop the centre to a square."""
    limit_broken: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of unreadable files that may be set aside; above it, intake stops and lists them."""
    range: Annotated[Range, tyro.conf.arg(metavar="LOW:HIGH|auto")] | None = None
    """Pixel values that become black and white in images of more than 8 bits: 0:4095, or auto, what is found."""
    max_megapixels: Megapixels = 200
    """Images of more millions of pixels are set aside unread."""
    by: tuple[str, ...] = ()
    """What shall tell nothing of the class: palette, structure, structure-3, ... (default: palette; with --environments
    what differs between them)."""
    density: Literal["mixture", "histogram", "flow"] = "mixture"
    """How the density of codes in a class is estimated."""
    target: Literal["overall", "even"] | None = None
    """What the factor follows in every class afterwards: its density over all classes, or the same everywhere."""
    groups: Path | None = None
    """A CSV file with the group of each test image: accuracy is told for each. Used in the test only."""
    environments: Path | None = None
    """A CSV file with the environment of each training image: what differs between them is the bias."""
    attribute: Path | None = None
    """A CSV file with an attribute of each image: rare pairs of class and attribute are filled up by new images."""
    fill: PositiveInt = 200
    """With --attribute: images of a pair, real and generated."""
    family: str = "vae"
    """With --attribute: the family of the model that generates."""
    recoloured: bool = False
    """Also write each training image in the palette of another, in a folder for each class."""
    steps: PositiveInt | None = None
    """Training steps of the model (default: 2,000, with --attribute 3,000)."""
    classifier_steps: Annotated[int, Field(ge=0)] = proof.STEPS
    """Training steps of each classifier that is tested; 0 tests none."""
    seed: int = 0
    """Of all that is random."""
    device: str = "auto"
    """Where the model is trained: cpu, cuda, ...; auto takes a GPU if there is one."""
    out: Path | None = None
    """The folder to write (default: runs/debias-SOURCE)."""
    overwrite: bool = False
    """Replace the results of an earlier `debias`; other files in the folder stay."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate debias")
    if flags.attribute and (flags.by or flags.environments or flags.groups or flags.recoloured or flags.target):
        raise ConfigError(
            "--attribute names the bias, so --by, --environments, --groups, --target and --recoloured do not go with it"
        )
    if flags.out is not None:
        vacant(flags.out, flags)
    if flags.by:
        factors.columns(flags.by, DuotoneConfig())
    data = load_images(data_spec(vars(flags)))
    check(flags, data)
    if flags.classifier_steps:
        data.tested()  # refuses test images without classes before anything is trained
    out = vacant(flags.out or Path("runs") / f"debias-{data.name}", flags)
    (by_attribute if flags.attribute else by_codes)(flags, data, out)


def vacant(out: Path, flags: Arguments) -> Path:
    """A folder to write, outside of the images; only what an earlier `debias` wrote is replaced."""
    return replaceable_folder(outside(out, flags.source), flags.overwrite, RECORD, Record)


def check(flags: Arguments, data: Data) -> None:
    """Refuse images that nothing could be told of in the end."""
    if len(data.classes) < 2:
        raise ConfigError(
            f"{flags.source} has {'one class' if data.classes else 'no classes'}: a bias here is something that goes "
            "along with the class, so put the images of each class in a folder"
        )
    check_sides("the classifier", data.shape)


def by_codes(flags: Arguments, data: Data, out: Path) -> None:
    """Without labels of the bias: by the codes of a generative model."""
    known = image_names(data)
    environments = environments_of(flags, known[: len(data.train)])
    groups = None
    if flags.groups is not None and data.test is not None:
        groups = read_column(flags.groups, known[len(data.train) :], "group")
    debiaser = Debiaser(
        flags.by or None,
        density=flags.density,
        target=flags.target,
        steps=flags.steps,
        device=flags.device,
        seed=flags.seed,
    )
    with counting("learning what varies") as progress:
        debiaser.fit(data.train, environments=environments, progress=progress)
    proofs: Proofs = {}
    if flags.classifier_steps and data.test is not None:
        weights = debiaser.weigh(data.test)
        for way, show in proof.WAYS.items():
            with counting(f"a classifier, {debias_page.WAYS[way]}") as progress:
                taught = proof.teach(
                    data.train,
                    data.classes,
                    show(data.train, debiaser),
                    seed=flags.seed,
                    steps=flags.classifier_steps,
                    progress=progress,
                )
            proofs[way] = proof.prove(taught, data.test, weights, data.classes, groups)
    write_json(own_folder(out) / RECORD, record(flags.source, list(debiaser.chosen_), debiaser.weights_, proofs))
    labels = class_names(data, data.train)
    views.write_weights(known[: len(data.train)], labels, debiaser.weights_, out / "weights.csv")
    picture = views.factors_picture(debiaser, data.train, f"{data.name}: what is rare in its class")
    save_png(picture, out / "factors.png")
    body = debias_page.of_codes(data.name, debiaser, picture, views.recoloured_picture(debiaser, data.train), proofs)
    write_file(out / "debias.html", lambda file: file.write(body.encode()))
    if flags.recoloured:
        write_recoloured(debiaser, data, out / "recoloured")
    print(debias_page.sentence(debiaser))
    tell(proofs)
    where("weights", out / "weights.csv")
    where("picture", out / "factors.png")
    where("page", out / "debias.html")


def by_attribute(flags: Arguments, data: Data, out: Path) -> None:
    """With a known attribute: rare pairs are filled up."""
    assert flags.attribute is not None
    train, test, known = data.train, data.test, image_names(data)
    attributes = read_column(flags.attribute, known, "attribute")
    own, others = attributes[: len(train)], attributes[len(train) :]
    steps = {} if flags.steps is None else {"steps": flags.steps}
    with counting("learning the pairs") as progress:
        filled = filling.fill(
            train,
            own,
            up_to=flags.fill,
            name=flags.family,
            hyperparameters=steps,
            seed=flags.seed,
            device=flags.device,
            progress=progress,
        )
    assert train.y is not None
    sets: dict[str, tuple[Images, Numbers]] = {
        "plain": (train, np.ones(len(train))),
        "weights": (train, filling.pair_weights(train.y, own)),
        "generated": (filled.images, filled.weights),
    }
    proofs: Proofs = {}
    if flags.classifier_steps and test is not None:
        assert test.y is not None  # `tested` has looked
        for way, (images, weights) in sets.items():
            with counting(f"a classifier, {debias_page.WAYS[way]}") as progress:
                show = proof.by_weight(images, weights, flags.seed)
                taught = proof.teach(
                    images, data.classes, show, seed=flags.seed, steps=flags.classifier_steps, progress=progress
                )
            proofs[way] = proof.prove(taught, test, filling.pair_weights(test.y, others), data.classes, others)
    write_json(own_folder(out) / RECORD, record(flags.source, [str(flags.attribute)], filled.weights, proofs))
    made = [f"generated/{place}" for place in write_generated(filled, data, out / "generated")]
    labels = class_names(data, filled.images)
    views.write_weights([*known[: len(train)], *made], labels, filled.weights, out / "weights.csv")
    body = debias_page.of_pairs(data.name, filled, data.classes, proofs)
    write_file(out / "debias.html", lambda file: file.write(body.encode()))
    print(f"{len(made):,} images generated for pairs of class and attribute with fewer than {flags.fill:,}")
    tell(proofs)
    where("generated", out / "generated")
    where("weights", out / "weights.csv")
    where("page", out / "debias.html")


def environments_of(flags: Arguments, train: tuple[str, ...]) -> Labels | None:
    """The number of each training image's environment."""
    if flags.environments is None:
        return None
    named = read_column(flags.environments, train, "environment")
    return np.unique(named, return_inverse=True)[1].astype(np.int64)


def class_names(data: Data, images: Images) -> list[str]:
    """The name of each image's class."""
    assert images.y is not None
    return [data.classes[k] for k in images.y]


def class_folders(folder: Path, data: Data) -> list[Path]:
    """A folder for each class, in their order."""
    own_folder(folder)
    return [own_folder(folder / name) for name in folder_names(data.classes).values()]


def write_recoloured(debiaser: Debiaser, data: Data, folder: Path) -> None:
    """Write each training image in the palette of another, under its class."""
    assert data.train.y is not None
    places = class_folders(folder, data)
    with counting("recolouring") as progress:
        for first in range(0, len(data.train), PORTION):
            indices = torch.arange(first, min(first + PORTION, len(data.train)))
            x = to_float(torch.from_numpy(data.train.pixels(indices)))
            new = to_uint8(debiaser.recoloured(x, "written", first)).numpy()
            for i, image in zip(indices.tolist(), new, strict=True):
                place_file(places[data.train.y[i]] / f"{i:06}.png", partial(to_image(image).save, format="PNG"))
            progress(first + len(indices), len(data.train))


def write_generated(filled: filling.Filled, data: Data, folder: Path) -> list[str]:
    """Write the generated images under their classes; their paths within the folder."""
    assert filled.images.y is not None
    within, places = class_folders(folder, data), []
    for i in range(filled.real, len(filled.images)):
        place = within[filled.images.y[i]] / f"{folder_name(filled.attributes[i])}-{i:06}.png"
        place_file(place, partial(to_image(filled.images.x[i]).save, format="PNG"))
        places.append(place.relative_to(folder).as_posix())
    return places


def tell(proofs: Proofs) -> None:
    """One line for each classifier, and what to do."""
    for way, found in proofs.items():
        parts = [f"test {found.overall.value:.1%}", f"weighted {found.unbiased.value:.1%}"]
        if found.balanced is not None and found.worst is not None:
            parts += [
                f"mean of pairs {found.balanced.value:.1%}",
                f"worst {found.worst[1].value:.1%} ({found.worst[0]})",
            ]
        print(f"{debias_page.WAYS[way]:22} {', '.join(parts)}")
    for way, said in verdicts(proofs).items():
        print(f"{debias_page.WAYS[way]}: {said.word}. {said.because}")
