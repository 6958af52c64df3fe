"""`fabulate interpolate RUN`: a walk between two images or two noise seeds, as a strip and a GIF."""

from pathlib import Path
from typing import Literal

import tyro
from torch import Tensor

from fabulate.cli.shared import named, off_images, own_reading, parse, where
from fabulate.config import spec
from fabulate.data import read_image
from fabulate.errors import CapabilityError
from fabulate.files import vacant_file
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, HasLatent
from fabulate.pictures import grid, save_gif, save_png, table
from fabulate.training import load
from fabulate.types import to_uint8

BETWEEN = 6  # frames of the GIF for each step of the strip


@spec
class Arguments:
    """Walk between two noise seeds, or two images, and draw what the model sees on the way."""

    run: tyro.conf.Positional[Path]
    """A run folder or a model folder."""
    seeds: tuple[int, int] = (0, 1)
    """From the first sample of one seed to the first of another."""
    images: tuple[Path, Path] | None = None
    """From one image file to another instead."""
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate interpolate")
    ends = [path.stem for path in flags.images] if flags.images else [str(seed) for seed in flags.seeds]
    model = load(flags.run)
    if not isinstance(model, HasLatent):
        raise CapabilityError(f"{model.family} has no codes to walk between; {able(HasLatent)}")
    label = flags.label if flags.label is not None or not model.classes else model.classes[0]
    file = f"interpolation-{'-'.join(ends)}{named(flags.label, model.classes)}.png"
    out = vacant_file(off_images(flags.out or flags.run / "drawn" / file, flags.run), flags.overwrite)
    gif = vacant_file(out.with_suffix(".gif"), flags.overwrite)
    start, end = codes(model, flags, label)
    frames = model.interpolate(start, end, (flags.steps - 1) * BETWEEN + 1, label, flags.path)
    pixels = to_uint8(frames).numpy()
    first, last = [str(path.name) for path in flags.images] if flags.images else [f"seed {s}" for s in flags.seeds]
    title = f"{flags.run.name}: from {first} to {last}" + ("" if label is None else f", class {label}")
    columns = ["from", *[f"{step / (flags.steps - 1):.2f}" for step in range(1, flags.steps - 1)], "to"]
    save_png(table(pixels[::BETWEEN], columns, title, f"columns: parts of the {flags.path} way between the codes"), out)
    save_gif([grid(frame[None]) for frame in pixels], gif)
    where("strip", out)
    where("animation", gif)


def codes(model: HasLatent, flags: Arguments, label: str | None) -> tuple[Tensor, Tensor]:
    """The two ends of the walk."""
    if flags.images is None:
        return model.code(flags.seeds[0], label), model.code(flags.seeds[1], label)
    if not isinstance(model, Encodes):
        raise CapabilityError(f"{model.family} cannot find the codes of images (use --seeds); {able(Encodes)}")
    own = own_reading(flags.run)  # their range is these images' too
    first, second = (model.encode(read_image(path, model.shape, own)[None], label) for path in flags.images)
    return first, second
