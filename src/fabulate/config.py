"""Hyperparameters are declared once, in frozen dataclasses; flags, validation and JSON all come from that declaration.

`@spec` makes a frozen, keyword-only dataclass whose values are checked whenever one is made: types and bounds by
pydantic (`Annotated[int, Field(gt=0)]`), unknown names refused. Each field carries a one-line docstring, which becomes
the help of its command-line flag.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, dataclass_transform

import tyro
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from fabulate.errors import ConfigError

T = TypeVar("T")

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Compile = Literal["auto", "on", "off"]
Precision = Literal["float32", "bfloat16"]


UNSAID = tyro.conf.arg(help_behavior_hint=lambda default: "" if default == "None" else f"(default: {default})")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen dataclass that checks its values and refuses unknown ones."""
    for name, kind in cls.__annotations__.items():
        if getattr(cls, name, ...) is None:  # its docstring says what happens then
            cls.__annotations__[name] = Annotated[kind, UNSAID]
    return cast(type[T], checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls))


def to_json(value: Any) -> Any:
    """The JSON form of a spec: nested dictionaries, lists and plain values."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """Make a spec from its JSON form.

    Errors: `ConfigError` that names each field that is unknown, missing or out of bounds, and what was given.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(value))
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def override(base: T, values: Mapping[str, Any]) -> T:
    """A copy of a spec with some of its fields changed, checked again.

    Errors: `ConfigError` naming unknown fields (with the nearest known one) and values out of bounds.
    """
    known = [field.name for field in fields(base)]  # type: ignore[arg-type]  # T is a spec, hence a dataclass
    for name in values:
        if name not in known:
            all_known = ", ".join(known) or "none"
            raise ConfigError(f"unknown hyperparameter {name!r}{nearest(name, known)}; known: {all_known}")
    try:
        return replace(base, **values)  # type: ignore[type-var]  # likewise
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def explain(error: ValidationError, most: int = 20) -> str:
    """One line for a pydantic error: each field, what is wrong with it and what was given; `most` of them."""
    problems = []
    for detail in error.errors()[:most]:
        name = ".".join(str(part) for part in detail["loc"])
        given = "" if detail["type"] in ("missing", "value_error") else f" (given: {detail['input']!r})"
        problems.append(f"{name + ': ' if name else ''}{detail['msg'].removeprefix('Value error, ')}{given}")
    more = error.error_count() - len(problems)
    return "; ".join([*problems, *([f"and {more} more"] if more else [])])


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for the known word closest to a mistyped one, or nothing when none is close.

    >>> nearest("mnits", ["mnist", "cifar10"])
    "; did you mean 'mnist'?"
    """
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _range(text: str) -> str:
    """A range in its one form, so that equal ranges are equal words."""
    if text == "auto":
        return text
    try:
        low, high = (float(word) for word in text.split(":"))
    except ValueError:
        raise ValueError("must be LOW:HIGH, such as 0:4095, or auto") from None
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError("must be LOW:HIGH, two finite numbers, the smaller one first")
    return written_range(low, high)


def written_range(low: float, high: float) -> str:
    """The word for a range of pixel values.

    >>> written_range(290, 674.5)
    '290:674.5'
    """
    return ":".join(str(int(value)) if value == int(value) else repr(float(value)) for value in (low, high))


def _size(given: Any) -> int | str | None:
    """A size in its one form: a number for a square, HEIGHTxWIDTH for what is none."""
    if given is None:
        return None
    words = [*map(str, given)] if isinstance(given, tuple | list) else str(given).lower().split("x")
    sides = [int(word) for word in words if word.isdecimal() and 1 <= int(word) <= LARGEST_SIZE]
    if len(sides) != len(words) or len(sides) not in (1, 2):
        raise ValueError(f"must be N or HEIGHTxWIDTH, sides from 1 to {LARGEST_SIZE}, such as 128 or 96x128")
    return written_size(sides[0], sides[-1])


def written_size(height: int, width: int) -> int | str:
    """The size that brings images to these sides.

    >>> written_size(96, 128), written_size(128, 128)
    ('96x128', 128)
    """
    return height if height == width else f"{height}x{width}"


Range = Annotated[str, AfterValidator(_range)]
LARGEST_SIZE = 1024
Size = Annotated[int | str | None, BeforeValidator(_size), tyro.conf.arg(metavar="N|HEIGHTxWIDTH")]
Fit = Literal["crop", "pad", "stretch"]
Channels = Literal[1, 2, 3, 4]
Megapixels = Annotated[float, Field(gt=0, le=10_000)]


@spec
class Reading:
    """How images are read."""

    size: Size = None
    """Resize (antialiased) to a square of N pixels a side, or to HEIGHTxWIDTH: 96x128 is wider than high."""
    fit: Fit = "crop"
    """How images of other proportions get there: crop keeps the centre and cuts the rest away; pad keeps all of it
    between bars, white or, with alpha, transparent; stretch distorts."""
    channels: Channels | None = None
    """1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha; without alpha transparent images are put on white
    (default: gray when all images are gray, else colour)."""
    limit_broken: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of unreadable files that may be set aside; above it, intake stops and lists them."""
    range: Annotated[Range, tyro.conf.arg(metavar="LOW:HIGH|auto")] | None = None
    """Pixel values that become black and white, one scale for all images: 0:4095, --range=-1000:3000, or auto, what is
    found over all of them (default: the whole range of the numbers a file holds them in)."""
    max_megapixels: Megapixels = 200
    """Images of more millions of pixels are set aside unread: decoding takes up to 16 bytes for each pixel."""

    def __post_init__(self) -> None:
        if self.fit != "crop" and self.size is None:
            raise ValueError(f"fit {self.fit} needs a size to bring images to: --size N, or HEIGHTxWIDTH")

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width that images are brought to, if they are.

        >>> Reading(size="96x128").sides, Reading(size=32).sides
        ((96, 128), (32, 32))
        """
        if self.size is None:
            return None
        height, *width = (int(word) for word in str(self.size).split("x"))
        return height, width[0] if width else height

    @property
    def span(self) -> tuple[float, float] | None:
        """The values of black and white that `range` names; None where it names none, or is still to be found."""
        if self.range in (None, "auto"):
            return None
        low, high = map(float, self.range.split(":"))
        return low, high

    @property
    def cap(self) -> int:
        """The most pixels that an image may have."""
        return int(self.max_megapixels * 1e6)

    def of(self, source: str) -> "DataSpec":
        """The images of a source, read so."""
        return DataSpec(**{**vars(self), "source": source})


@spec
class DataSpec(Reading):
    """Which images, and how they are read."""

    source: Annotated[str, tyro.conf.arg(name="data", metavar="SOURCE")] = "digits"
    """Where images come from: digits, mnist, fashion_mnist, cifar10, hf:OWNER/NAME, a folder or an .npz file;
    stream:FOLDER or stream:hf:OWNER/NAME reads parquet files as it trains, without decoding or copying them first.
    Texts: proverbs, names, shakespeare, a .txt, a folder of .txt, or a column of a .csv or .parquet. Tunes: irish, an
    .abc or a folder of them. Pieces for several voices: chorales, a .json piano roll, or a folder of .mid."""
    window: PositiveInt | None = None
    """Of running text: items are windows of so many characters (default: each line, file or row is an item); of pieces
    for several voices: of so many steps."""
    tokens: PositiveInt | None = None
    """Of texts and tunes: symbols are so many pieces of words (byte-pair merging) instead of characters; windows count
    them."""
    column: str | None = None
    """Of a .csv or .parquet: the column of the texts (default: the only one that has any)."""


def data_spec(record: Mapping[str, Any]) -> DataSpec:
    """How images were read, from a record that tells more than that; what an older one does not tell is as it was.

    Errors: `ConfigError`, as `from_json`.

    >>> data_spec({"source": "photos", "size": 32, "name": "photos"}).size
    32
    """
    return from_json(DataSpec, {field.name: record[field.name] for field in fields(DataSpec) if field.name in record})


BUDGETS = ("epochs", "steps", "minutes")


MOST_IMAGES, FEWEST_IMAGES = 128, 16  # of a step, where nobody says
MOST_NUMBERS = 2**18  # in these images


@spec
class Training:
    """How a model is trained. Of the budgets given (epochs, steps, minutes) the one spent first ends the training."""

    epochs: PositiveFloat | None = None
    """Budget: passes over the training images."""
    steps: PositiveInt | None = 5000
    """Budget: steps of one batch each."""
    minutes: PositiveFloat | None = None
    """Budget: minutes by the clock, with pictures, tests and compiling; the learning-rate schedule follows it."""
    batch_size: PositiveInt | None = None
    """Images per step (default: 128, fewer of large images, but at least 16)."""
    accumulate: PositiveInt = 1
    """Split each batch into this many equal micro-batches, to save memory."""
    optimizer: Literal["adam", "muon"] | None = None
    """What moves the weights: adam, or muon, which makes the singular values of each update equal, for the matrices
    between features and adam for the rest (default: adam, or what suits the network)."""
    lr: PositiveFloat | None = None
    """Peak learning rate (default: 1e-3, or what suits the network)."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.999)
    """Adam's decay rates of the gradient's mean and of its square."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate over the budget: constant, or cosine decay to zero; both after the warm-up."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises linearly from zero (at most a tenth of the budget; a twentieth of it
    where the budget is in minutes)."""
    clip: NonNegativeFloat = 0.0
    """Clip the norm of each player's gradient to this value; 0 never clips."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights that samples are drawn with; 0 uses the weights themselves."""
    compile: Compile = "auto"
    """Compile the step by torch.compile, which takes ten seconds or more: auto does so for fully connected networks (on
    a GPU for all) in budgets of 5,000 steps or 10 minutes and more."""
    precision: Precision | Literal["auto"] = "auto"
    """Of the products in a denoiser's network: float32, or bfloat16 by torch's autocast, while weights, losses and all
    else stay float32; auto takes bfloat16 on a GPU that has units for it, float32 on a CPU."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training images that is held out, 2,000 at most, to keep the weights with the lowest validation loss
    and to stop early; 0 learns from all and keeps the last weights."""
    conditional: bool = False
    """Learn p(x | class), so that images of a class can be asked for."""
    seed: int = 0
    """Seed of everything random: weights, order of images, noise."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")

    def batch(self, size: int) -> int:
        """Images per step, of `size` numbers each; where nobody says, few large ones, for time and memory.

        >>> [Training().batch(size) for size in (28 * 28, 3 * 32 * 32, 3 * 256 * 256)]
        [128, 64, 16]
        """
        batch = self.batch_size or MOST_IMAGES
        while self.batch_size is None and batch > FEWEST_IMAGES and batch * size > MOST_NUMBERS:
            batch //= 2
        return batch


class Preset(NamedTuple):
    """A named set of hyperparameters: the model's and the training's."""

    model: Any
    training: Training = Training()
