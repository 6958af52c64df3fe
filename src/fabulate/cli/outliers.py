"""`fabulate outliers fit SOURCE` and `fabulate outliers score RUN SOURCE`: which images do not belong?"""

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import tyro
from pydantic import Field

from fabulate.cli.parsing import parse
from fabulate.cli.shared import Count, Device, Flat, counting, images_and_folder, load_images, stages, told, where
from fabulate.config import PositiveInt, Reading, nearest, spec, to_json
from fabulate.data import Data, image_names, read_once
from fabulate.data.stream import PREFIX
from fabulate.errors import ConfigError
from fabulate.files import outside, read_lines, replaceable_folder, vacant_file
from fabulate.types import ImageShape, SequenceShape
from fabulate.uses.outliers import OutlierDetector, load_detector, ranking, save_detector, sequences
from fabulate.uses.outliers.conformal import percent
from fabulate.uses.outliers.saving import CONFIG, Mark, spec_of
from fabulate.uses.outliers.scores import Kind, named

SOME = 5  # names that are told
TABLE = ".parquet"  # what the name of a file ends in that is written in the place of a folder
T = TypeVar("T")

USAGE = """\
usage: fabulate outliers fit SOURCE [options]          learn what normal images look like
       fabulate outliers score RUN SOURCE [options]    rank images by how strange they are

`fabulate outliers fit --help` and `fabulate outliers score --help` tell the options.
"""


@spec
class Fitting:
    """Learn normal images: the training part of SOURCE. Writes a folder that `fabulate outliers score` reads."""

    source: tyro.conf.Positional[str]
    """Where normal images come from: a folder, a name such as mnist, an .npz file."""
    reading: Annotated[Reading, Flat] = Reading()
    groups: str | None = None
    """A regular expression over names of files whose first bracket says what belongs together: '(.*)_exp' (default:
    images that are much nearer to each other than others are found)."""
    normal: tuple[str, ...] = ()
    """Only images of these classes are normal (default: all images of the source)."""
    false_alarm: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share of normal images that may be called outliers."""
    features: Kind = "auto"
    """What images are compared by: lite0 (ImageNet) or scattering; auto: lite0 for colour photographs, if installed."""
    scores: tuple[str, ...] = ()
    """What to judge by (default: the Mahalanobis distance of the features)."""
    family: str = "ae"
    """The generative model behind scores that need one: reconstruction, likelihood, latent, ..."""
    steps: PositiveInt | None = None
    """Its training steps (default: 1,500)."""
    without: Path | None = None
    """A list of images that are not learnt from, a name on each line, as the studio's reject.txt."""
    variants: Annotated[int, Field(ge=0, le=20)] = 0
    """Slightly moved and turned variants of each image to learn from as well: for handwriting, drawings, letters."""
    seed: int = 0
    """Which normals are held out, and all else that is random."""
    device: Device = "auto"
    out: Path | None = None
    """The folder to write (default: runs/outliers-SOURCE)."""
    overwrite: bool = False
    """Replace an existing detector."""


@spec
class Scoring:
    """Rank all images of SOURCE, the strangest first. Writes outliers.csv and a page with heat maps.

    `--out NAME.parquet` writes a table instead, one row an image in the order of SOURCE. With stream:FOLDER parquet
    files are judged as they are read, however many.
    """

    run: tyro.conf.Positional[Path]
    """A folder that `fabulate outliers fit` wrote."""
    source: tyro.conf.Positional[str]
    """The images to judge: a folder, a name such as mnist, an .npz file, or stream:FOLDER of parquet files."""
    limit_broken: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of unreadable files that may be set aside."""
    false_alarm: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Another share of normal images that may be called outliers than the one asked for at the fit."""
    n: Count = 64
    """How many of the strangest images the page shows."""
    out: Path | None = None
    """The folder to write (default: RUN/SOURCE), or a file NAME.parquet."""
    overwrite: bool = False
    """Replace an existing ranking, or file."""


def outliers(argv: list[str]) -> None:
    if argv[:1] in ([], ["-h"], ["--help"]):
        print(USAGE, end="")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in PARTS:
        hint = nearest(argv[0], [*PARTS])
        raise ConfigError(f"outliers takes fit or score, and not {argv[0]!r}{hint} (fabulate outliers --help)")
    PARTS[argv[0]](argv[1:])


def fit(argv: list[str]) -> None:
    """Learn normals and say what is promised."""
    flags = parse(Fitting, argv, "fabulate outliers fit")
    named(flags.scores or None, flags.family, images=True)  # refuses what cannot be before images are read
    pattern = compiled(flags.groups)
    rejected = [] if flags.without is None else read_lines(flags.without)
    images = flags.reading.of(flags.source)
    usual = "runs/outliers-{}"
    data, out = images_and_folder(
        images, flags.out, lambda data: Path(usual.format(data.name)), flags.overwrite, CONFIG, Mark, sequences=True
    )
    shape: Any = data.shape
    if isinstance(shape, SequenceShape):
        fit_sequences(flags, data, shape, out)
        return
    detector = OutlierDetector(
        list(flags.scores) or None,
        features=flags.features,
        false_alarm=flags.false_alarm,
        family=flags.family,
        hyperparameters=None if flags.steps is None else {"steps": flags.steps},
        variants=flags.variants,
        device=flags.device,
        random_state=flags.seed,
    )
    names = image_names(data)
    chosen = ranking.without(ranking.normals_of(data, flags.normal), names, rejected)
    groups = None if pattern is None else ranking.groups_of([names[i] for i in chosen], pattern)
    x = data.train.x[chosen]
    with counting("learning what is normal") as progress:
        warned(lambda: detector.fit(x, groups=groups, progress=progress))
    count = len(set(detector.groups_.tolist()))
    save_detector(detector, out, data=to_json(data.spec), normals=len(x), groups=count, pattern=flags.groups)
    held = f"{ranking.calibrating(detector)} of them held out"
    print(f"{len(x):,} normal images, {held}; scores: {', '.join(detector.names_)}")
    if count < len(x):
        how = "by likeness" if pattern is None else "by their names"
        print(f"they are {count:,} groups, found {how}; each is left out as a whole and counts once")
    if detector.strays_.any():
        far = np.flatnonzero(detector.strays_)
        some = ", ".join(names[chosen[i]] for i in far[:SOME]) + (" ..." if len(far) > SOME else "")
        print(f"{len(far):,} lie as far from the others as outliers do, and were left out: {some}")
    print(f"false alarms: {percent(detector.false_alarm_)} of normal images")
    where("detector", out)


def fit_sequences(flags: Fitting, data: Data, shape: SequenceShape, out: Path) -> None:
    """Learn normal texts or tunes."""
    for name in ("groups", "scores", "variants", "features", "family"):
        if getattr(flags, name) != getattr(Fitting(source=""), name):
            raise ConfigError(f"{shape.medium} are judged by their likelihood: leave out --{name}")
    detector = sequences.SequenceDetector(flags.false_alarm, flags.steps, flags.seed, flags.device)
    rejected = [] if flags.without is None else read_lines(flags.without)
    chosen = ranking.without(ranking.normals_of(data, flags.normal), image_names(data), rejected)
    x = torch.from_numpy(data.train.x[chosen])
    with counting("learning what is normal") as progress:
        warned(lambda: detector.fit(x, shape, progress))
    sequences.save(detector, out, data=to_json(data.spec), normals=len(x))
    print(f"{len(x):,} normal {shape.medium}, {len(detector.normals_):,} of them held out; score: likelihood by length")
    print(f"false alarms: {percent(detector.false_alarm_)} of normal {shape.medium}")
    where("detector", out)


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """A regular expression. Errors: `ConfigError` for one that is none, or has no bracket."""
    if pattern is None:
        return None
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--groups is a regular expression, and {pattern!r} is none: {error}") from None
    if not found.groups:
        raise ConfigError(f"the first bracket of --groups is the group, and {pattern!r} has none: try '(.*)_exp'")
    return found


def score(argv: list[str]) -> None:
    """Judge images and write them down."""
    flags = parse(Scoring, argv, "fabulate outliers score")
    of_sequences = sequences.of_sequences(flags.run)
    detector: Any = warned(lambda: (sequences.load if of_sequences else load_detector)(flags.run))
    if flags.false_alarm is not None:
        detector.false_alarm = flags.false_alarm
        warned(detector.calibrate)
    if of_sequences:
        images = sequences.spec_of(flags.run, flags.source, flags.limit_broken)
    else:
        images = spec_of(detector, flags.run, flags.source, flags.limit_broken)
    if flags.out is not None:
        place(flags.out, flags)
    streamed = flags.source.startswith(PREFIX) and not of_sequences
    data: Any = (
        read_once(images, ImageShape(*detector.shape_)) if streamed else load_images(images, sequences=of_sequences)
    )
    out = place(flags.out or flags.run / data.name, flags)
    name = str(flags.run)
    with stages() as progress:
        told_of = partial(progress, "judging")
        if out.suffix == TABLE and of_sequences:
            found, n = ranking.write_parquet(out, [sequences.judged(detector, data, name)[0]])
        elif out.suffix == TABLE:
            found, n = ranking.write_parquet(out, (part for part, _ in ranking.judge(detector, data, told_of)))
        else:
            ranked = (
                sequences.run(detector, data, out, name=name, n=flags.n, progress=told_of)
                if of_sequences
                else ranking.run(detector, data, out, name=name, n=flags.n, progress=progress)
            )
            found, n = int(ranked.outliers.sum()), len(ranked.scores)
    if streamed and data.warning:
        told(data.warning)
    print(
        f"{found:,} of {n:,} {data.shape.medium} are outliers; of normal {data.shape.medium} "
        f"{percent(detector.false_alarm_)} would be"
    )
    if out.suffix == TABLE:
        where("table", out)
        return
    where("ranking", out / "outliers.csv")
    where("page", out / "outliers.html")


def place(out: Path, flags: Scoring) -> Path:
    """Where the results may be written: a folder, or a parquet file. Errors: `RunError`."""
    outside(out, flags.source)
    if out.suffix == TABLE:
        return vacant_file(out, flags.overwrite)
    return replaceable_folder(out, flags.overwrite, ranking.RECORD, ranking.Record)


def warned(work: Callable[[], T]) -> T:
    """What some work returns; what it warns of is printed as a line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = work()
    for warning in caught:
        told(f"Warning: {warning.message}")
    return found


PARTS: dict[str, Callable[[list[str]], None]] = {"fit": fit, "score": score}
