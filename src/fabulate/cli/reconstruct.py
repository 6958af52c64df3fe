"""`fabulate reconstruct RUN`: real images above what the model makes of them."""

from pathlib import Path

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Other, OtherImages, Run, drawn_file, images_for, say, where
from fabulate.config import spec
from fabulate.evaluation.gallery import need, reconstructions
from fabulate.models.capabilities import Reconstructs
from fabulate.pictures import save_png
from fabulate.training import load


@spec
class Arguments:
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate reconstruct")
    out = drawn_file(flags, f"reconstructions-seed-{flags.seed}.png", flags.data.source)
    model = need(load(flags.run), Reconstructs, "cannot reconstruct images")
    data = images_for(flags.run, model, flags.data, streams=True)
    title = f"{flags.run.name}: images of {data.name} and their reconstructions"
    picture, words = reconstructions(model, data, flags.n, flags.seed, title)
    save_png(picture, out)
    say(words)
    where("picture", out)
