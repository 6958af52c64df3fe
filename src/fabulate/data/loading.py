"""`load_data`: from a source to images that can be trained on, through the cache when they were decoded before."""

from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec, override, written_range
from fabulate.data import cache, decode, sources, streaming
from fabulate.data.arrays import array
from fabulate.data.assembly import take_in
from fabulate.data.gate import dark, within
from fabulate.data.images import Images
from fabulate.data.intake import Progress, spread
from fabulate.data.listing import Labels, Listing
from fabulate.data.opening import UnreadableError
from fabulate.data.report import Report, listed, rows
from fabulate.data.shards import Shards, find
from fabulate.data.stream import NOT_AT_HAND
from fabulate.errors import DataError
from fabulate.types import ImageShape, Ordered, some_of

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Data:
    """A data set after intake: images, classes, and the report of what was seen."""

    train: Images
    test: Images | None
    classes: tuple[str, ...]
    """Names of the classes; empty when the images have no labels."""
    spec: DataSpec
    fingerprint: str
    """Hexadecimal; equal for equal images, labels and options, wherever they lie and whenever they were written."""
    report: Report
    name: str
    """Short, for run folders."""

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return self.train.shape

    def show(self, n: int = 64, *, seed: int = 0) -> "Image":
        """A picture of n training images, chosen by a seed, each class in rows of its own behind its name.

        Classes take turns, so that rare ones are seen (of streamed images, only those that happen to be chosen).
        """
        from fabulate.pictures import sheet

        whole = not isinstance(self.train, Ordered)
        chosen = some_of(self.train, len(self.train) if whole else n, seed, "show")
        if whole and self.train.y is not None:
            chosen = chosen[in_turn(self.train.y[chosen])]
        x, y = self.train.stored(chosen[:n])
        legend = f"{len(x):,} of {len(self.train):,} training images, seed {seed}"
        return sheet(x.numpy(), f"{self.name}: training images", legend, None if y is None else y.numpy(), self.classes)

    def _repr_html_(self) -> str:
        """What a notebook shows: the intake report, and some of the images."""
        from fabulate.notebooks import card

        return card(self.name, rows(self.report), self.show(min(64, 8 * max(4, len(self.classes)))))

    def unseen(self, labelled: bool = False) -> Images:
        """Images that were never trained on; the training images where there are none.

        `labelled`: with their classes, for who must know them; test images without any do not count then.
        """
        return self.train if self.test is None or (labelled and self.test.y is None) else self.test

    def tested(self) -> Images | None:
        """The test images with their classes; None when there are no test images.

        Errors: `DataError` when their classes are not known, or are others than those of the training images.
        """
        if self.test is not None and self.test.y is None and self.classes:
            raise DataError(
                f"{self.spec.source} has test images without classes, or of classes that training lacks, and this "
                "needs their classes: put each into a folder of its class, add training images of it, or take these "
                "test images out"
            )
        return self.test

    def whole(self) -> Self:
        """These data, whose images can be read in any order. Errors: `DataError` when they are streamed."""
        if isinstance(self.train, Ordered):
            raise DataError(NOT_AT_HAND)
        return self


def in_turn(y: Labels) -> npt.NDArray[np.int64]:
    """An order in which the classes of labels (N,) take turns: first one image of each, then another of each.

    >>> in_turn(np.array([0, 0, 0, 1, 1, 2])).tolist()
    [0, 3, 5, 1, 4, 2]
    """
    by_class = np.argsort(y, kind="stable")
    place = np.empty(len(y), np.int64)
    place[by_class] = np.arange(len(y)) - np.searchsorted(y[by_class], y[by_class])
    return np.argsort(place, kind="stable")


def load_data(
    source: str | Path | npt.NDArray[Any] = "digits",
    *,
    size: int | None = None,
    channels: int | None = None,
    limit_broken: float = 0.1,
    range: str | None = None,
    max_megapixels: float = 200,
    progress: Progress | None = None,
) -> Data:
    """Load a data set, decoding and checking every image, or from the cache when that was done before.

    `source`: a string or path as in `DataSpec.source`, or an array (N, H, W), (N, H, W, C) or (N, C, H, W). `range`:
    "LOW:HIGH", the values that become black and white in images of more than 8 bits, or "auto": what is found.
    `progress`: called now and then with (images decoded, images in all).
    Errors: `DataError` when the source cannot be found or read, holds images of mixed sizes, or more than the share
    `limit_broken` of unreadable ones; `ConfigError` for options out of bounds.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.test), data.shape, len(data.classes)
    (1618, 179, ImageShape(channels=1, height=8, width=8), 10)
    """
    held = isinstance(source, np.ndarray)
    options: dict[str, Any] = {"size": size, "channels": channels, "limit_broken": limit_broken}
    options |= {"range": range, "max_megapixels": max_megapixels}
    spec = override(DataSpec(), {"source": "array" if held else str(source), **options})
    return _loaded(array(source), spec, progress) if isinstance(source, np.ndarray) else load_spec(spec, progress)


def load_spec(spec: DataSpec, progress: Progress | None = None) -> Data:
    """Load the data set that a spec describes. Errors: as `load_data`."""
    if spec.source.startswith(streaming.PREFIX):
        return _streamed(spec, progress)
    return _loaded(sources.find(spec.source), spec, progress)


def _loaded(listing: Listing, spec: DataSpec, progress: Progress | None) -> Data:
    held = spec.source == "array" and listing.name == "array"
    spec = _ranged(listing, spec, progress)
    fingerprint = _fingerprint(listing, spec)
    # An array in memory is its own cache: it is not written to the disk behind its owner's back.
    stored = _take_in(listing, spec, None, progress) if held else cache.load(fingerprint)
    if stored is None:
        with cache.workspace(fingerprint) as workspace:
            stored = _take_in(listing, spec, workspace, progress)
            if workspace is not None:
                cache.store(stored, fingerprint, workspace)
                if isinstance(stored.train.x, np.memmap):  # its file has just been moved, or removed
                    stored = cache.load(fingerprint) or stored
    report = _complete(stored.report, listing)
    _check_broken(report, spec)
    return Data(
        train=stored.train,
        test=stored.test,
        classes=stored.classes,
        spec=spec,
        fingerprint=fingerprint,
        report=report,
        name=listing.name,
    )


def read_image(path: str | Path, shape: ImageShape, spec: DataSpec | None = None) -> Tensor:
    """One image file as uint8 (C, H, W), read as a data set's images are and fitted to a square model's size.

    `spec`: how the images were read that the model learnt from; their range is this image's too.
    Errors: `DataError` when it cannot be read, or its range leaves it black.
    """
    size = shape.height if shape.height == shape.width else None
    spec = spec or DataSpec()
    try:
        pixels, *_, values = decode.decode(Path(path), size, shape.channels, None, spec.span, spec.cap)
        if values is not None and spec.span is not None:
            within(values.low, values.high, spec.span, str(path))
        elif values is not None and not values.bright:
            raise dark(values.low, values.high, str(path))
    except UnreadableError as error:
        raise DataError(f"{path}: {error}") from error
    assert pixels is not None
    return torch.from_numpy(np.array(pixels))


def _ranged(listing: Listing, spec: DataSpec, progress: Progress | None) -> DataSpec:
    """The spec with the range that was found where it says auto: models and other images need the numbers."""
    if spec.range != "auto":
        return spec
    key = blake2b(repr(("range", decode.VERSION, spec.cap, listing.fingerprint)).encode(), digest_size=16).hexdigest()
    found = cache.remembered(key)
    if found is None:
        with listing.open() as contents:
            found = spread([contents.train, *([contents.test] if contents.test else [])], spec.cap, progress)
        cache.remember(key, found)
    return override(spec, {"range": written_range(*found)})


def _streamed(spec: DataSpec, progress: Progress | None) -> Data:
    if spec.range == "auto":
        raise DataError("stream: does not look at all images, as --range auto would have to; give --range LOW:HIGH")
    shards = find(spec.source.removeprefix(streaming.PREFIX))
    stored = streaming.look(shards, spec, progress)
    return Data(**stored._asdict(), spec=spec, fingerprint=_fingerprint(shards, spec), name=shards.name)


def _take_in(listing: Listing, spec: DataSpec, workspace: Path | None, progress: Progress | None) -> cache.Stored:
    with listing.open() as contents:
        return take_in(contents, spec, workspace, progress)


def _fingerprint(listing: Listing | Shards, spec: DataSpec) -> str:
    # Not the source's name, so that a moved folder stays the same data; not limit_broken, which changes no pixel.
    options = [(name, getattr(spec, name)) for name in ("range", "max_megapixels")]
    changed = [(name, value) for name, value in options if value != getattr(DataSpec(), name)]
    key = repr((decode.VERSION, spec.size, spec.channels, listing.fingerprint, *changed))
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _complete(report: Report, listing: Listing) -> Report:
    """The report with what the listing saw, which is told anew on every load."""
    return replace(
        report,
        found=report.found + len(listing.set_aside),
        set_aside=(*listing.set_aside, *report.set_aside),
        ignored=dict(listing.ignored),
        notes=(*listing.notes, *report.notes),
        warnings=(*listing.warnings, *report.warnings),
    )


def _check_broken(report: Report, spec: DataSpec) -> None:
    broken = len(report.set_aside)
    if broken > spec.limit_broken * report.found:
        told = "\n  ".join(listed([f"{name}: {reason}" for name, reason in report.set_aside]))
        raise DataError(
            f"{broken:,} of {report.found:,} images cannot be read, more than the limit of {spec.limit_broken:.0%}:\n"
            f"  {told}\nRepair or remove them, or raise --limit-broken."
        )
