"""`fabulate traverse RUN`: what each direction of the code does, one row for each."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor

from fabulate.cli.shared import (
    Other,
    OtherImages,
    image_codes,
    load_images,
    named,
    off_images,
    own_reading,
    parse,
    run_data,
    where,
)
from fabulate.config import PositiveFloat, PositiveInt, spec
from fabulate.data import read_image
from fabulate.errors import CapabilityError, ConfigError
from fabulate.files import vacant_file
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.models.directions import Directions, axes, check_size, jacobian, principal, traverse
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import save_png, table
from fabulate.seeds import generator
from fabulate.training import load
from fabulate.types import some_of, to_uint8

PROBES = 2048  # pairs of decoded images on which the Jacobian directions rest, or one code's where it has more numbers


@spec
class Arguments:
    """Walk along one direction of the code at a time, the one that carries most first, and draw what changes."""

    run: tyro.conf.Positional[Path]
    """A run folder or a model folder."""
    data: Other = OtherImages()
    directions: Literal["axes", "principal", "jacobian"] | None = None
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
    model = load(flags.run)
    if not isinstance(model, HasLatent):
        raise CapabilityError(f"{model.family} has no codes to walk among; {able(HasLatent)}")
    label = flags.label if flags.label is not None or not model.classes else model.classes[0]
    check_size(model, model.code(0, label))
    searched = not isinstance(model, Encodes) or isinstance(model, EncodesBySearch)
    kind = flags.directions or ("jacobian" if searched else "axes")
    base = "mean" if flags.seed is None else f"seed-{flags.seed}"
    base = base if flags.image is None else flags.image.stem
    of_class = named(flags.label, model.classes)
    picture = flags.out or flags.run / "drawn" / f"traversal-{kind}-{base}{of_class}.png"
    out = vacant_file(off_images(picture, flags.run, flags.data.source), flags.overwrite)
    codes, directions = found(model, flags, kind, label)
    directions = directions.first(flags.axes)
    values = torch.linspace(-flags.reach, flags.reach, flags.steps, device=model.device)
    images = traverse(model, start(model, flags, codes, label), directions, values, label)
    shares = directions.shares.tolist()
    columns = [f"{value:+.3g}" if abs(value) > 1e-6 else "0" for value in values.tolist()]
    title = f"{flags.run.name}{'' if label is None else f', class {label}'}: {TITLES[kind]}"
    legend = f"columns: standard deviations from {words(flags)}; bars: share of {HELD[kind]}"
    pixels = to_uint8(images).cpu().numpy()
    save_png(table(pixels, columns, title, legend, directions.names, shares), out)
    print(f"{len(shares)} directions hold {sum(shares):.1%} of {HELD[kind]}")
    where("picture", out)


TITLES = {
    "axes": "one number of the code at a time",
    "principal": "one principal direction of the codes at a time",
    "jacobian": "one direction of the code at a time, those that change the image most",
}
HELD = {
    "axes": "the variance of the codes",
    "principal": "the variance of the codes",
    "jacobian": "the change of the image",
}


def found(model: HasLatent, flags: Arguments, kind: str, label: str | None) -> tuple[Tensor, Directions]:
    """Codes (N, Z), of images or drawn, and their directions."""
    if kind == "jacobian":
        codes = drawn(model, flags.n, label)
        return codes, jacobian(model, codes, label, max(1, PROBES // codes.shape[1]))
    if not isinstance(model, Encodes):
        raise CapabilityError(
            f"{model.family} cannot find the codes of images (use --directions jacobian); {able(Encodes)}"
        )
    data = load_images(run_data(flags.run, model, flags.data), streams=True)
    codes = image_codes(model, data, data.train, some_of(data.train, flags.n, 0, "traverse"))
    return codes, {"axes": axes, "principal": principal}[kind](codes)


def drawn(model: HasLatent, n: int, label: str | None) -> Tensor:
    """Codes (N, Z) as samples are drawn from."""
    labels = model.labels(label, n)
    return model.prior(n, None if labels is None else labels.to(model.device), generator(0, "traverse"))


def start(model: HasLatent, flags: Arguments, codes: Tensor, label: str | None) -> Tensor:
    """The code (1, Z) from which each row walks to both sides."""
    if flags.image is not None:
        if not isinstance(model, Encodes):
            raise CapabilityError(f"{model.family} cannot find the codes of images (use --seed); {able(Encodes)}")
        return model.encode(read_image(flags.image, model.shape, own_reading(flags.run))[None], label)
    return codes.mean(0, keepdim=True) if flags.seed is None else model.code(flags.seed, label)


def words(flags: Arguments) -> str:
    """Where the walk starts."""
    if flags.image is not None:
        return f"the code of {flags.image.name}"
    return "the mean code" if flags.seed is None else f"the first sample of seed {flags.seed}"
