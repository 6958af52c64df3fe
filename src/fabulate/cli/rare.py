"""`fabulate rare RUN`: images from the tail of a model, and how rare they are."""

from html import escape
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from fabulate.cli.shared import Device, Other, OtherImages, counting, load_images, off_images, parse, run_data, where
from fabulate.cli.traverse import PROBES, drawn
from fabulate.config import PositiveInt, nearest, spec
from fabulate.errors import CapabilityError, ConfigError
from fabulate.evaluation.page import facts, figure, number, page
from fabulate.features import ClassifierFeatures, features_for
from fabulate.files import folder_name, replaceable_folder, write_file
from fabulate.metrics.intervals import Estimate
from fabulate.models.base import GenerativeModel, able
from fabulate.models.capabilities import HasBound, HasLatent, HasLikelihood
from fabulate.models.directions import check_size, jacobian
from fabulate.pictures import sheet
from fabulate.training import load
from fabulate.uses.rare import Tail, tail
from fabulate.uses.rare.folder import RECORD, Record, curve, model_column, write_tail
from fabulate.uses.rare.scores import SCORES, along, odds
from fabulate.uses.rare.simulator import Score, Simulator
from fabulate.uses.rare.tail import check

CODES = 2000  # drawn for the Jacobian directions, as `fabulate traverse` does: direction 3 is the same there and here
STEADY = 0.9  # share of images that must stay beyond the threshold, or the score's noise chose them
SHOWN, COLUMNS = 49, 7  # of rare and of plain images on the page: two such grids stand beside each other
GAINFUL = 1  # plain samples that one call must be worth, or plain sampling is cheaper


@spec
class Arguments:
    """Draw images from the tail of a model: the rarest by a score, with their probability and its interval.

    Give one of --score, --towards and --direction, and how far out by --quantile or --above.
    """

    run: tyro.conf.Positional[Path]
    """A run folder or a model folder."""
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
    n: Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])] = 64
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


def main(argv: list[str]) -> None:
    flags = parse(Arguments, argv, "fabulate rare")
    asked = [flags.score is not None, flags.towards is not None, flags.direction is not None]
    if sum(asked) > 1:
        raise ConfigError("give one of --score, --towards and --direction, not more")
    threshold = 0.0 if flags.towards is not None and flags.above is None and flags.quantile is None else flags.above
    check(threshold, flags.quantile, flags.n, flags.calls)
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
    out = flags.out or flags.run / "drawn" / f"rare-{folder(flags)}"
    replaceable_folder(off_images(out, flags.run, flags.data.source), flags.overwrite, RECORD, Record)
    score, what = asked_for(flags, model)
    with counting("decoding") as progress:
        found = tail(
            model,
            score,
            threshold=threshold,
            quantile=flags.quantile,
            n=flags.n,
            y=flags.label,
            calls=flags.calls,
            seed=flags.seed,
            progress=progress,
        )
    plain = counted(flags, model, score, found.threshold)
    write_tail(found, model, out, what, flags.seed, flags.label)
    told = [*numbers(found, what), *([] if plain is None else [("plain samples", plain)])]
    write_file(out / "rare.html", lambda file: file.write(rare_page(flags, model, found, what, told).encode()))
    for name, value in told:
        print(f"{name:22} {value}")
    for words in cautions(found):
        print(f"warning: {words}")
    where("images", out, out / "grid.png")
    where("page", out / "rare.html")


def folder(flags: Arguments) -> str:
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
        return classified(flags, model)
    if flags.direction is not None:
        return directed(flags, model)
    name = flags.score or "surprise"
    score = SCORES[name](model, flags.label)
    if name != "surprise":
        return score, f"{name}: {'mean pixel' if name == 'brightness' else '1 - mean pixel'}, 0 to 1"
    kinds = {HasLikelihood: "-log p(x) in nats", HasBound: "minus the bound of log p(x) in nats"}
    kind = next((words for kind, words in kinds.items() if isinstance(model, kind)), "minus the score of the family")
    return score, f"surprise: {kind}"


def classified(flags: Arguments, model: HasLatent) -> tuple[Score, str]:
    """The log odds of the class asked for, by a classifier of the run's images."""
    data = load_images(run_data(flags.run, model, flags.data))
    if flags.towards not in data.classes:
        hint = nearest(str(flags.towards), list(data.classes))
        raise ConfigError(
            f"{data.name} has no class {flags.towards!r}{hint} (classes: {', '.join(data.classes) or 'none'})"
        )
    if data.shape != model.shape:
        raise ConfigError(f"{data.name} has images of {data.shape}, and the model draws {model.shape}")
    with counting("training a classifier") as progress:
        features = features_for(data, "classifier", device=model.device, progress=progress)
    assert isinstance(features, ClassifierFeatures)
    return odds(features.classifier, data.classes.index(flags.towards)), f"log odds of class {flags.towards}"


def directed(flags: Arguments, model: HasLatent) -> tuple[Score, str]:
    """How far codes lie along a direction of the Jacobian, or against it."""
    check_size(model, model.code(0, flags.label))
    codes = drawn(model, CODES, flags.label)
    count, wanted = codes.shape[1], abs(flags.direction or 0)
    if not 1 <= wanted <= count:
        raise ConfigError(f"--direction is 1 to {count}, or -1 to -{count} for its other end, not {flags.direction}")
    vector = jacobian(model, codes, flags.label, max(1, PROBES // count)).vectors[wanted - 1]
    sign = 1 if (flags.direction or 0) > 0 else -1
    return along(sign * vector), f"how far the code lies {'along' if sign > 0 else 'against'} direction {wanted}"


def counted(flags: Arguments, model: GenerativeModel, score: Score, threshold: float) -> str | None:
    """What plain samples say, where some were asked for."""
    if not flags.check:
        return None
    with counting("plain samples") as progress:
        simulator = Simulator(model, score, flags.label, progress, flags.check)
        above = simulator.exceeding(threshold, flags.check, flags.seed)
    return f"{above:,} of {flags.check:,} beyond it: {Estimate.of_share(above, flags.check)}"


def numbers(found: Tail, what: str) -> list[tuple[str, str]]:
    """What was found, by name."""
    event = found.event
    low, high = event.interval
    cost = f"{event.calls:,} images decoded, {found.calls:,} with threshold and tail"
    gain = f"each says as much as {found.gain:,.1f} plain samples" if isfinite(found.gain) else "no error to compare"
    return [
        ("score", what),
        ("event", f"score > {number(found.threshold)}"),
        ("probability", f"{event.probability:.3g} ({low:.3g} to {high:.3g})"),
        ("one in", f"{1 / event.probability:,.0f} plain samples"),
        ("cost", cost),
        ("gain", gain),
        ("effective samples", f"{event.effective_samples:,.0f} behind the probability"),
        ("images", f"{len(found.images):,}, from {found.ancestors:,} different draws"),
    ]


def cautions(found: Tail) -> list[str]:
    """Why not to trust the result, or not to need it."""
    cautions, n = list(found.event.warnings), len(found.images)
    if found.gain < GAINFUL:
        cautions.append("plain samples would have told the probability as well: this is for rarer events")
    if found.again < STEADY * n:
        cautions.append(f"the score is noisy: judged again, {found.again} of {n} images are beyond the threshold")
    return cautions


def rare_page(flags: Arguments, model: GenerativeModel, found: Tail, what: str, told: list[tuple[str, str]]) -> str:
    """The page: the numbers, the rare images beside plain ones, and the curve of the tail."""
    order = "Each from the highest score down. The rare ones count alike, as if plain sampling had found them."
    shown = np.unique(np.linspace(0, len(found.images) - 1, SHOWN).round().astype(int))  # evenly from first to last
    both = {"Rare": found.images, "Plain": found.typical}
    beside = "".join(figure(name, sheet(x[shown], f"{name} images", columns=COLUMNS)) for name, x in both.items())
    warned = "".join(f"<li>{escape(words)}</li>" for words in cautions(found))
    own = model_column(model)
    table = f"rare.csv has each image's score, its rarity P(score at least this high){f', and {own}' if own else ''}."
    body = (
        f'<p class="eyebrow">fabulate rare</p><h1>{escape(flags.run.name)}</h1><section>{facts(told)}'
        + (f'<ul class="sentences">{warned}</ul>' if warned else "")
        + f'</section><section><h2>Rare and typical</h2><p class="soft">{order}</p><div class="pictures">{beside}</div>'
        f'</section><section><h2>The tail</h2><div class="pictures">'
        f"{figure(f'The chance of a score this high. {table}', curve(found, what))}</div></section>"
    )
    return page(f"Rare images of {flags.run.name}", body)
