"""`fabulate morph RUN --from A --to B`: real images of one class turned towards another, one row for each."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Other, OtherImages, Run, counting, drawn_file, images_for, named, where
from fabulate.config import PositiveInt, spec
from fabulate.evaluation.gallery import class_number, morphing, need, walked
from fabulate.models.capabilities import Encodes
from fabulate.models.directions import check_size
from fabulate.pictures import save_png
from fabulate.training import load


@spec
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate morph")
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
