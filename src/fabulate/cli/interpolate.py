"""`fabulate interpolate RUN`: a walk between two images or two noise seeds, as a strip and a GIF."""

from pathlib import Path
from typing import Any, Literal

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Run, drawn_file, named, own_reading, say, where
from fabulate.config import spec
from fabulate.errors import ConfigError
from fabulate.evaluation.gallery import code_at, interpolation, need, walked
from fabulate.files import folder_names, vacant_file
from fabulate.models.capabilities import HasLatent
from fabulate.pictures import save_gif, save_png
from fabulate.training import load
from fabulate.types import SequenceShape


@spec
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate interpolate")
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
