"""What the verbs share: parsing, reading images, saying how far the work is and where something was written.

A stage that tells how far it is, and one that does not, both say that they are at work: by a bar on a terminal, and
elsewhere by lines every few seconds, from a thread of their own. What is quick says nothing.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import tyro
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fabulate import models
from fabulate.config import (
    UNSAID,
    Channels,
    DataSpec,
    Fit,
    Megapixels,
    PositiveInt,
    Range,
    Size,
    from_json,
    override,
    spec,
    written_size,
)
from fabulate.data import Data, load_spec
from fabulate.errors import ConfigError
from fabulate.files import folder_names, outside, read_json, replaceable_folder, vacant_file
from fabulate.models.base import GenerativeModel, NoChoice
from fabulate.models.saving import Description
from fabulate.training import is_run, own_data
from fabulate.types import ImageShape, Progress, SequenceShape, Stages

T = TypeVar("T")

FIRST, BETWEEN = 2.0, 5.0  # seconds until the first line of a stage, and between lines

Flat = tyro.conf.arg(name="")  # flags of a spec within another are called as if they were its own
Device = Annotated[
    str, tyro.conf.arg(help="Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")
]
Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="A run folder or a model folder.")]
Count = Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])]

Source = Annotated[
    tyro.conf.Positional[str | None],
    UNSAID,
    tyro.conf.arg(name="source", metavar="[SOURCE]", help="The same as --data SOURCE."),
]


def positional(source: str | None, data: DataSpec, usual: str = DataSpec().source) -> DataSpec:
    """The images of a verb whose source is a word of its own or --data. Errors: `ConfigError` when it is given twice.

    `usual`: the source where neither is given.

    >>> positional("mnist", DataSpec()).source
    'mnist'
    """
    if source is None:
        return data
    if data.source not in (usual, source):
        raise ConfigError(f"give the images once: {source}, or --data {data.source}")
    return override(data, {"source": source})


def load_images(spec: DataSpec, streams: bool = False, sequences: bool = False) -> Data:
    """What a spec names, with a bar while images are decoded and a line about what was set aside.

    Errors: `DataError`, also for streamed images and for sequences, where the verb does not say that it can do with
    `streams` or `sequences`.
    """
    with counting("reading images") as progress:
        data = load_spec(spec, progress)
    if data.report.warning:
        told(data.report.warning)
    shape: Any = data.shape
    taken = sequences if isinstance(shape, SequenceShape) else streams
    return data if taken else data.whole()


def named(label: str | None, classes: Sequence[str]) -> str:
    """What a class adds to the name of a file: as its folder is called, or nothing.

    >>> named("a/b", ["a/b", "a_b"]), named(None, [])
    ('-a_b-c14cddc0', '')
    """
    return "" if label is None else f"-{folder_names([*classes, label])[label]}"


def told(sentence: str) -> None:
    """Tell people something beside what the verb answers."""
    Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def say(*sentences: str) -> None:
    """What the verb answers, in sentences."""
    for sentence in sentences:
        Console().print(sentence, highlight=False, markup=False, soft_wrap=True)


def where(what: str, *places: Path | str) -> None:
    """Say where something was written."""
    for place in places:
        Console().print(f"{what:10} {place}", highlight=False, markup=False, soft_wrap=True)


def images_and_folder(
    images: DataSpec,
    out: Path | None,
    usual: Callable[[Data], Path],
    overwrite: bool,
    record: str,
    kind: Any,
    sequences: bool = False,
) -> tuple[Data, Path]:
    """Images, and the folder for what is made of them: `out`, or the usual one.

    It lies outside of the images, and only what the same verb wrote, as its `record` of a `kind` says, is replaced.
    Errors: `RunError`, before images are read where `out` is given.
    """

    def folder(place: Path) -> Path:
        return replaceable_folder(outside(place, images.source), overwrite, record, kind)

    if out is not None:
        folder(out)
    data = load_images(images, sequences=sequences)
    return data, folder(out or usual(data))


@spec
class OtherImages:
    """Images for a verb on a run; what is not given is as the run had it."""

    source: Annotated[str | None, tyro.conf.arg(name="data", metavar="SOURCE")] = None
    """Other images than the run's own: a name such as mnist, a folder or an .npz file, brought to the model's size."""
    size: Size = None
    """Resize (antialiased) to a square of N pixels a side, or to HEIGHTxWIDTH."""
    fit: Fit | None = None
    """How images of other proportions get there: crop, pad or stretch."""
    channels: Channels | None = None
    """1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha."""
    limit_broken: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of unreadable files that may be set aside; above it, intake stops and lists them."""
    range: Annotated[Range, tyro.conf.arg(metavar="LOW:HIGH|auto")] | None = None
    """Pixel values that become black and white, one scale for all images: 0:4095, --range=-1000:3000, or auto."""
    max_megapixels: Megapixels | None = None
    """Images of more millions of pixels are set aside unread."""
    window: PositiveInt | None = None
    """Of running text: items are windows of so many characters."""
    tokens: PositiveInt | None = None
    """Of texts and tunes: pieces of words that are symbols."""
    column: str | None = None
    """Of a .csv or .parquet: the column of the texts."""


Other = Annotated[OtherImages, Flat]


def images_for(
    run: Path, model: GenerativeModel, given: OtherImages, streams: bool = False, sequences: bool = False
) -> Data:
    """The images for a verb on a run: its own as it read them, or others, brought to the model's form.

    Errors: as `load_images`; `ConfigError` for a model folder without others: it does not say which images it was
    trained on.
    """
    spec = own_reading(run)
    if given.source is not None and isinstance(model.shape, ImageShape):
        channels, height, width = model.shape
        spec = override(spec, {"channels": channels, "size": written_size(height, width)})
    elif given.source is None and not is_run(run):
        raise ConfigError(f"{run} is a model without its run: give --data, the images it was trained on")
    spec = override(spec, {name: value for name, value in vars(given).items() if value is not None})
    return load_images(spec, streams, sequences)


def own_reading(run: Path) -> DataSpec:
    """How a run read its images, the range of their values among it; as images are read by default without a run."""
    return own_data(run) if is_run(run) else DataSpec()


def sampling_of(run: str) -> Any:
    """How a run draws samples when no flag says otherwise: a spec, whose fields are the flags; none without a run."""
    folder = Path(run)
    for place in (folder / "model", folder):
        if (place / "config.json").is_file():
            config = read_json(place / "config.json", Description)
            cls = models.family(config["family"], config.get("defined_in"))
            return getattr(from_json(cls.Config, cls.current(config["model"])), "sampling", NoChoice())
    return NoChoice()


def off_images(out: Path, run: str | Path, source: str | None = None) -> Path:
    """A path for a run's results that does not lie among its images, or others that a verb reads (`outside`)."""
    folder = Path(run)
    place = source if source is not None or not is_run(folder) else own_data(folder).source
    return out if place is None else outside(out, place)


def drawn_file(flags: Any, name: str, source: str | None = None) -> Path:
    """The file for a picture of a run, vacant: `flags.out`, or RUN/drawn/NAME."""
    return vacant_file(off_images(flags.out or flags.run / "drawn" / name, flags.run, source), flags.overwrite)


# How far the work is


class Lines:
    """Lines about the stages of some work, by the clock."""

    def __init__(self, first: float = FIRST, between: float = BETWEEN) -> None:
        self.first, self.between = first, between
        self.what, self.done, self.total = "", 0, 0
        self.began = time.monotonic()
        self.next = self.began + first
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.clock.join()
        self._end()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        with self.lock:
            if what != self.what:
                self._end()
                self.what, self.began = what, time.monotonic()
                self.next = self.began + self.first
            self.done, self.total = done, total

    def _tick(self) -> None:
        while not self.over.wait(self.first / 10):
            with self.lock:
                if self.what and time.monotonic() >= self.next:
                    self.next = time.monotonic() + self.between
                    far = f"{self.done:,} of {self.total:,}, " if self.total > 1 else ""
                    self._say(f"{self.what}: {far}{self._seconds:.0f} s")

    def _end(self) -> None:
        """Say how long a stage took that was long enough to be told of."""
        if self.what and self._seconds >= self.first:
            self._say(f"{self.what}: done in {self._seconds:.0f} s")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def stages() -> Iterator[Stages]:
    """Within the block people see what is done now: told (what, done, total), a bar moves or lines are written."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with Lines() as lines:
            yield lines
        return
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:  # a bar of its own, so that its clock begins anew
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield told


@contextmanager
def counting(what: str) -> Iterator[Progress]:
    """As `stages`, of work that has one stage: told (done, total)."""
    with stages() as told:
        told(what, 0, 0)
        yield lambda done, total: told(what, done, total)
