"""`fabulate morph RUN --from A --to B`: real images of one class turned towards another, one row for each."""

from pathlib import Path
from typing import Annotated

import torch
import tyro
from pydantic import Field

from fabulate.cli.shared import Other, OtherImages, image_codes, load_images, named, off_images, parse, run_data, where
from fabulate.config import PositiveInt, nearest, spec
from fabulate.data import Data, Images
from fabulate.errors import CapabilityError, ConfigError
from fabulate.files import vacant_file
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes
from fabulate.models.directions import as_classes, check_size, difference, morph
from fabulate.pictures import save_png, table
from fabulate.seeds import permutation
from fabulate.training import load
from fabulate.types import to_uint8


@spec
class Arguments:
    """Turn real images of one class towards another, along the difference of the mean codes of both.

    A class-conditional model is told the class beside the code: it encodes as the first and decodes as the second.
    """

    run: tyro.conf.Positional[Path]
    """A run folder or a model folder."""
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
    n: Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])] = 200
    """Training images of each class whose codes are averaged."""
    seed: int = 0
    """Which images: a random choice."""
    out: Path | None = None
    """The picture (default: RUN/drawn/morph-FROM-TO.png)."""
    overwrite: bool = False
    """Replace an existing picture."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate morph")
    model = load(flags.run)
    if not isinstance(model, Encodes):
        raise CapabilityError(f"{model.family} cannot find the codes of images; {able(Encodes)}")
    check_size(model, model.code(0, model.classes[0] if model.classes else None))
    data = load_images(run_data(flags.run, model, flags.data))
    first, second = class_number(data, flags.first, "--from"), class_number(data, flags.second, "--to")
    names = data.classes[first], data.classes[second]
    picture = flags.out or flags.run / "drawn" / f"morph{''.join(named(name, data.classes) for name in names)}.png"
    out = vacant_file(off_images(picture, flags.run, flags.data.source), flags.overwrite)

    shown = data.unseen(labelled=True)
    x = shown.batch(some(shown, first, flags.rows, flags.seed)).x
    images, columns, legend = (retold if model.classes else turned)(model, flags, data, x, (first, second))
    pictures = torch.cat([x[:, None], images.cpu()], dim=1)
    title = f"{flags.run.name}: {names[0]} turned towards {names[1]}"
    save_png(table(to_uint8(pictures).numpy(), ["real", *columns], title, legend), out)
    where("picture", out)


Turned = tuple[torch.Tensor, list[str], str]  # images (N, S, C, H, W), the S columns' names, and a line about them


def turned(model: Encodes, flags: Arguments, data: Data, x: torch.Tensor, classes: tuple[int, int]) -> Turned:
    """Images (N, C, H, W) on their way along the difference of the mean codes of two classes."""
    codes = [image_codes(model, data, data.train, some(data.train, c, flags.n, flags.seed)) for c in classes]
    strengths = torch.linspace(0, flags.reach, flags.steps)
    images = morph(model, model.encode(x), difference(*codes), strengths.to(model.device))
    legend = "columns: parts of the way between the mean codes of both, 0 is the reconstruction"
    return images, [f"{value:.3g}" for value in strengths.tolist()], legend


def retold(model: Encodes, flags: Arguments, data: Data, x: torch.Tensor, classes: tuple[int, int]) -> Turned:
    """Images (N, C, H, W) encoded as one class, and decoded as that and as another."""
    names = [data.classes[c] for c in classes]
    images = as_classes(model, model.encode(x, names[0]), names)
    return images, [f"as {name}" for name in names], f"columns: codes found as {names[0]}, decoded as each class"


def class_number(data: Data, name: str | None, flag: str) -> int:
    """The number of a class of the data."""
    if not data.classes:
        raise ConfigError(f"the images of {data.name} have no classes; give others with --data, in folders by class")
    if name not in data.classes:
        given = f"there is no class {name!r}{nearest(name, list(data.classes))}" if name else f"{flag} is not given"
        raise ConfigError(f"{given} (classes: {', '.join(data.classes)})")
    return data.classes.index(name)


def some(images: Images, label: int, n: int, seed: int) -> torch.Tensor:
    """The places of n images of a class, chosen by a seed; all of them if there are fewer."""
    assert images.y is not None
    members = torch.where(torch.from_numpy(images.y) == label)[0]
    return members[permutation(len(members), seed, "morph")[:n]]
