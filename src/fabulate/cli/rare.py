"""`fabulate rare RUN`: images from the tail of a model, and how rare they are."""

from pathlib import Path
from typing import Literal

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Other, OtherImages, Run, counting, images_for, off_images, stages, where
from fabulate.config import PositiveInt, spec
from fabulate.errors import CapabilityError, ConfigError
from fabulate.files import folder_name, replaceable_folder
from fabulate.models.base import able
from fabulate.models.capabilities import HasLatent
from fabulate.training import load
from fabulate.uses.rare import folder
from fabulate.uses.rare.simulator import Score
from fabulate.uses.rare.tail import along_direction, check_tail, named, towards


@spec
class Arguments:
    """Draw images from the tail of a model: the rarest by a score, with their probability and its interval.

    Give one of --score, --towards and --direction, and how far out by --quantile or --above.
    """

    run: Run
    data: Other = OtherImages()
    score: Literal["surprise", "brightness", "darkness"] | None = None
    """What the images are extreme in; surprise (the default) is -log p(x), its bound or what else the family has."""
    towards: str | None = None
    """Images that a classifier, trained on the run's images, takes for this class; --quantile: the clearest of them."""
    direction: int | None = None
    """Far out along this direction of the code: 1 is what changes the image most (`fabulate traverse RUN --directions
    jacobian` shows them), -1 its other end."""
    quantile: float | None = None
    """The share of what the model draws that is rarer than that (default: 0.01; for --towards: all of the class)."""
    above: float | None = None
    """Images that score above this, instead of a quantile."""
    label: str | None = None
    """The class to draw, of a class-conditional model."""
    n: Count = 64
    """How many images."""
    calls: PositiveInt = 40_000
    """Images decoded for the probability: four times as many halve its interval."""
    check: int = 0
    """Draw so many plain samples as well and count: a proof of the probability, where it is not too small."""
    seed: int = 0
    """Which images: the same seed draws the same ones."""
    out: Path | None = None
    """The folder to write (default: RUN/drawn/rare-SCORE)."""
    device: Device = "auto"
    overwrite: bool = False
    """Replace the results of an earlier `rare`; other files in the folder stay."""


def rare(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate rare")
    asked = [flags.score is not None, flags.towards is not None, flags.direction is not None]
    if sum(asked) > 1:
        raise ConfigError("give one of --score, --towards and --direction, not more")
    threshold = 0.0 if flags.towards is not None and flags.above is None and flags.quantile is None else flags.above
    check_tail(threshold, flags.quantile, flags.n, flags.calls)
    if flags.check < 0:
        raise ConfigError(f"--check is a number of plain samples, not {flags.check}")
    model = load(flags.run, flags.device)
    if not isinstance(model, HasLatent):
        raise CapabilityError(
            f"{model.family} has no codes among which rare images can be looked for; {able(HasLatent)}"
        )
    if model.classes and flags.label is None:
        raise ConfigError(f"this model draws a class that is asked for: give --label ({', '.join(model.classes)})")
    model.labels(flags.label, 1)  # refuses what the model does not know before any work is done
    out = flags.out or flags.run / "drawn" / f"rare-{event(flags)}"
    replaceable_folder(off_images(out, flags.run, flags.data.source), flags.overwrite, folder.RECORD, folder.Record)
    score, words = asked_for(flags, model)
    with stages() as progress:
        done = folder.run(
            model,
            score,
            words,
            out,
            name=flags.run.name,
            threshold=threshold,
            quantile=flags.quantile,
            n=flags.n,
            y=flags.label,
            calls=flags.calls,
            check=flags.check,
            seed=flags.seed,
            progress=progress,
        )
    for name, value in done.facts:
        print(f"{name:22} {value}")
    for warning in done.warnings:
        print(f"warning: {warning}")
    where("images", out, out / "grid.png")
    where("page", out / "rare.html")


def event(flags: Arguments) -> str:
    """The event in a word, for the name of its folder."""
    if flags.towards is not None:
        name = f"towards-{folder_name(flags.towards)}"
    else:
        name = flags.score or "surprise" if flags.direction is None else f"direction{flags.direction:+d}"
    far = flags.quantile if flags.above is None else flags.above
    parts = [name, None if far is None else f"{far:g}", None if flags.label is None else folder_name(flags.label)]
    return "-".join(part for part in parts if part is not None)


def asked_for(flags: Arguments, model: HasLatent) -> tuple[Score, str]:
    """The score, and what it is in words."""
    if flags.towards is not None:
        data = images_for(flags.run, model, flags.data)
        with counting("training a classifier") as progress:
            return towards(model, data, flags.towards, device=model.device, progress=progress)
    if flags.direction is not None:
        return along_direction(model, flags.direction, flags.label)
    return named(flags.score or "surprise", model, flags.label)
