"""`fabulate traverse RUN`: what each direction of the code does, one row for each."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from fabulate.cli.parsing import parse
from fabulate.cli.shared import (
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
from fabulate.evaluation.gallery import Kind, code_at, codes_of, need, traversal, usual_walk, walked
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.models.directions import check_size
from fabulate.pictures import save_png
from fabulate.training import load
from fabulate.types import some_of


@spec
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate traverse")
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


def start(flags: Arguments) -> tuple[int | Path | None, str, str]:
    """Where the walk starts: a seed, an image or the mean code; in a word, for a file's name; and in words."""
    if flags.image is not None:
        return flags.image, flags.image.stem, f"the code of {flags.image.name}"
    if flags.seed is not None:
        return flags.seed, f"seed-{flags.seed}", f"the first sample of seed {flags.seed}"
    return None, "mean", "the mean code"
