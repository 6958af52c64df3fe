"""`fabulate reconstruct RUN`: real images above what the model makes of them."""

from pathlib import Path
from typing import Annotated

import tyro

from fabulate.cli.shared import Other, OtherImages, class_names, load_images, off_images, parse, run_data, where
from fabulate.config import PositiveInt, spec
from fabulate.errors import CapabilityError
from fabulate.files import vacant_file
from fabulate.models.base import able
from fabulate.models.capabilities import Reconstructs
from fabulate.pictures import pairs, save_png
from fabulate.training import load
from fabulate.types import some_of, to_uint8


@spec
class Arguments:
    """Pass real images through a run's model and draw each above its reconstruction."""

    run: tyro.conf.Positional[Path]
    """A run folder or a model folder."""
    data: Other = OtherImages()
    n: Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])] = 32
    """How many images."""
    seed: int = 0
    """Which images: a random choice of the test images (of all images when there are none)."""
    out: Path | None = None
    """The picture (default: RUN/drawn/reconstructions-seed-SEED.png)."""
    overwrite: bool = False
    """Replace an existing picture."""


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate reconstruct")
    picture = flags.out or flags.run / "drawn" / f"reconstructions-seed-{flags.seed}.png"
    out = vacant_file(off_images(picture, flags.run, flags.data.source), flags.overwrite)
    model = load(flags.run)
    if not isinstance(model, Reconstructs):
        raise CapabilityError(f"{model.family} cannot reconstruct images; {able(Reconstructs)}")
    data = load_images(run_data(flags.run, model, flags.data), streams=True)
    images = data.unseen(labelled=bool(model.classes))
    chosen = some_of(images, flags.n, flags.seed, "reconstruct")
    x, y = images.batch(chosen)
    copies = model.reconstruct(x, class_names(model, data, y))
    error = float((copies - x).square().mean()) / 4  # from [-1, 1] to pixels in [0, 1]
    told = f"mean squared error {error:.5f} (pixels in [0, 1], {len(chosen)} images)"
    title = f"{flags.run.name}: images of {data.name} and their reconstructions"
    save_png(pairs(to_uint8(x).numpy(), to_uint8(copies).cpu().numpy(), title, told), out)
    print(told)
    where("picture", out)
