"""`fabulate reconstruct`, `interpolate`, `traverse` and `morph`: pictures of what a model makes of images and codes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from fabulate.cli.parsing import parse
from fabulate.cli.shared import (
    Count,
    Other,
    OtherImages,
    Run,
    counting,
    drawn_file,
    images_for,
    named,
    own_reading,
    say,
    where,
)
from fabulate.config import PositiveFloat, PositiveInt, spec
from fabulate.errors import ConfigError
from fabulate.evaluation.gallery import (
    Kind,
    class_number,
    code_at,
    codes_of,
    interpolation,
    morphing,
    need,
    reconstructions,
    traversal,
    usual_walk,
    walked,
)
from fabulate.files import folder_names, vacant_file
from fabulate.models.capabilities import Encodes, HasLatent, Reconstructs
from fabulate.models.directions import check_size
from fabulate.pictures import save_gif, save_png
from fabulate.training import load
from fabulate.types import SequenceShape, some_of


@spec
class Reconstruct:
    """Pass real images through a run's model and draw each above its reconstruction."""

    run: Run
    data: Other = OtherImages()
    n: Count = 32
    """How many images."""
    seed: int = 0
    """Which images: a random choice of the test images (of all images when there are none)."""
    out: Path | None = None
    """The picture (default: RUN/drawn/reconstructions-seed-SEED.png)."""
    overwrite: bool = False
    """Replace an existing picture."""


def reconstruct(argv: list[str]) -> None:
    flags = parse(Reconstruct, argv, "fabulate reconstruct")
    out = drawn_file(flags, f"reconstructions-seed-{flags.seed}.png", flags.data.source)
    model = need(load(flags.run), Reconstructs, "cannot reconstruct images")
    data = images_for(flags.run, model, flags.data, streams=True)
    title = f"{flags.run.name}: images of {data.name} and their reconstructions"
    picture, words = reconstructions(model, data, flags.n, flags.seed, title)
    save_png(picture, out)
    say(words)
    where("picture", out)


@spec
class Interpolate:
    """Walk between two noise seeds, or two images, and draw what the model sees on the way."""

    run: Run
    seeds: tuple[int, int] = (0, 1)
    """From the first sample of one seed to the first of another."""
    images: tuple[Path, Path] | None = None
    """From one image file to another instead."""
    items: tuple[str, str] | None = None
    """From one text to another instead, as their model writes them: --items anna maria."""
    path: Literal["linear", "spherical"] = "spherical"
    """Straight, or along the shell on which Gaussian codes lie."""
    steps: int = 10
    """Images in the strip, at least 2."""
    label: str | None = None
    """The class to walk in (a conditional model needs one; default: its first)."""
    out: Path | None = None
    """The strip (default: RUN/drawn/interpolation-A-B.png, and -LABEL when one is given), a GIF beside it."""
    overwrite: bool = False
    """Replace existing pictures."""


def interpolate(argv: list[str]) -> None:
    flags = parse(Interpolate, argv, "fabulate interpolate")
    ends: Any = flags.images or flags.items or flags.seeds
    names = (
        [path.stem for path in flags.images] if flags.images else [folder_names([end])[end] for end in map(str, ends)]
    )
    model = need(load(flags.run), HasLatent, "has no codes to walk between")
    shape: Any = model.shape
    if (flags.images if isinstance(shape, SequenceShape) else flags.items) is not None:
        raise ConfigError(f"this model learnt {shape.medium}: leave out {'--images' if flags.images else '--items'}")
    label, own = walked(model, flags.label), own_reading(flags.run)
    out = drawn_file(flags, f"interpolation-{'-'.join(names)}{named(flags.label, model.classes)}.png")
    gif = vacant_file(out.with_suffix(".gif"), flags.overwrite)
    start, end = (code_at(model, at, label, own, "use --seeds") for at in ends)
    first, last = [path.name for path in ends] if flags.images else ends if flags.items else [f"seed {s}" for s in ends]
    title = f"{flags.run.name}: from {first} to {last}" + ("" if label is None else f", class {label}")
    strip, frames = interpolation(model, start, end, flags.steps, flags.path, label, title)
    save_png(strip, out)
    if isinstance(shape, SequenceShape):
        say(*model.items(model.interpolate(start, end, flags.steps, label, flags.path)))
    where("strip", out)
    if frames:
        save_gif(frames, gif)
        where("animation", gif)


@spec
class Traverse:
    """Walk along one direction of the code at a time, the one that carries most first, and draw what changes."""

    run: Run
    data: Other = OtherImages()
    directions: Kind | None = None
    """The numbers of the code, the directions in which codes of images differ most, or those that change the image most
    (default: axes; jacobian where codes have to be searched for)."""
    axes: PositiveInt = 10
    """How many directions, a row for each."""
    steps: Annotated[int, Field(ge=2)] = 13
    """Images in a row, an odd number to see the base in the middle."""
    reach: PositiveFloat = 3.0
    """How far each row goes, in standard deviations to both sides."""
    image: Path | None = None
    """Start from the code of this image file (default: from the mean code)."""
    seed: int | None = None
    """Start from the first sample of this seed instead."""
    label: str | None = None
    """The class to walk in (a conditional model needs one; default: its first)."""
    n: Annotated[int, Field(ge=2), tyro.conf.arg(aliases=["-n"])] = 2000
    """How many codes, of images or drawn, tell what varies."""
    out: Path | None = None
    """The picture (default: RUN/drawn/traversal-DIRECTIONS-BASE.png, with the label when one is given)."""
    overwrite: bool = False
    """Replace an existing picture."""


def traverse(argv: list[str]) -> None:
    flags = parse(Traverse, argv, "fabulate traverse")
    if flags.image is not None and flags.seed is not None:
        raise ConfigError("give --image (a file) or --seed (a sample) to start from, not both")
    model = need(load(flags.run), HasLatent, "has no codes to walk among")
    label = walked(model, flags.label)
    check_size(model, model.code(0, label))
    kind = flags.directions or usual_walk(model)
    at, base, words = start(flags)
    out = drawn_file(flags, f"traversal-{kind}-{base}{named(flags.label, model.classes)}.png", flags.data.source)
    codes = None
    if kind != "jacobian":
        need(model, Encodes, "cannot find the codes of images (use --directions jacobian)")
        data = images_for(flags.run, model, flags.data, streams=True, sequences=True)
        with counting("finding codes") as progress:
            codes = codes_of(model, data, data.train, some_of(data.train, flags.n, 0, "traverse"), progress)
    code = None if at is None else code_at(model, at, label, own_reading(flags.run), "use --seed")
    title = f"{flags.run.name}{'' if label is None else f', class {label}'}"
    asked: dict[str, Any] = {"rows": flags.axes, "steps": flags.steps, "reach": flags.reach, "n": flags.n}
    picture, held = traversal(model, kind, codes, code, label=label, titles=(title, words), **asked)
    save_png(picture, out)
    say(held)
    where("picture", out)


def start(flags: Traverse) -> tuple[int | Path | None, str, str]:
    """Where the walk starts: a seed, an image or the mean code; in a word, for a file's name; and in words."""
    if flags.image is not None:
        return flags.image, flags.image.stem, f"the code of {flags.image.name}"
    if flags.seed is not None:
        return flags.seed, f"seed-{flags.seed}", f"the first sample of seed {flags.seed}"
    return None, "mean", "the mean code"


@spec
class Morph:
    """Turn real images of one class towards another, along the difference of the mean codes of both.

    A class-conditional model is told the class beside the code: it encodes as the first and decodes as the second.
    """

    run: Run
    data: Other = OtherImages()
    first: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """The class of the images that are turned, as the data names it."""
    second: Annotated[str | None, tyro.conf.arg(name="to")] = None
    """The class that they are turned towards."""
    rows: PositiveInt = 6
    """How many images are turned: test images, which the model and the direction have not seen (if there are any)."""
    steps: Annotated[int, Field(ge=2)] = 7
    """Images in a row, after the real one (of a class-conditional model always two: as either class)."""
    reach: Annotated[float, Field(gt=0)] = 1.5
    """How far a row goes: 1 is the whole way between the mean codes."""
    n: Count = 200
    """Training images of each class whose codes are averaged."""
    seed: int = 0
    """Which images: a random choice."""
    out: Path | None = None
    """The picture (default: RUN/drawn/morph-FROM-TO.png)."""
    overwrite: bool = False
    """Replace an existing picture."""


def morph(argv: list[str]) -> None:
    flags = parse(Morph, argv, "fabulate morph")
    model = need(load(flags.run), Encodes, "cannot find the codes of images")
    check_size(model, model.code(0, walked(model, None)))
    data = images_for(flags.run, model, flags.data, sequences=True)
    classes = class_number(data, flags.first, "--from"), class_number(data, flags.second, "--to")
    file = f"morph{''.join(named(data.classes[c], data.classes) for c in classes)}.png"
    out = drawn_file(flags, file, flags.data.source)
    asked = {name: getattr(flags, name) for name in ("rows", "steps", "reach", "n", "seed")}
    with counting("finding codes") as progress:
        picture = morphing(model, data, classes, title=flags.run.name, progress=progress, **asked)
    save_png(picture, out)
    where("picture", out)
