"""An augmented data set on disk, real images apart from synthetic ones, with a record of how it came to be.

    DIR/
      real/CLASS/*.png         the images that were learnt from
      synthetic/CLASS/*.png    those that were made
      test/CLASS/*.png         those that nothing was learnt from: test with these, and with no others
      augment.json             source, cut, model's hash, seeds, filters, counts; the number of each synthetic image
      learnt-from.txt          a digest of the pixels of each image that was learnt from
      samples.png              some of each class
      run/                     the model, unless one was given

A proof on images that the generator has seen proves nothing: what it copied from them would count as found. So before
anything is trained it is settled which images a model may learn from, and which are kept for the test. The test is the
source's own test part (a tenth of the images, where it has none). Where a class has less than its share there, images
of it are taken out of the training part, by an addressed permutation: a random tenth of a rare class may be no image at
all. And what was learnt from is written down, image by image, as digests of pixels; a test image that equals one of
them is no test image, wherever it came from.

Legend: N images, C H W image.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from fabulate.config import DataSpec, to_json
from fabulate.data import Data, Images
from fabulate.data.listing import Labels
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.files import (
    Name,
    class_folders,
    digest,
    inside,
    own_folder,
    read_bytes,
    read_json,
    replaceable_folder,
    write_file,
    write_json,
)
from fabulate.nets.blocks import LARGEST_SIDE
from fabulate.pictures import Pixels, from_image, place_png
from fabulate.seeds import permutation
from fabulate.types import Progress

MANIFEST, LEARNT_FROM, SYNTHETIC = "augment.json", "learnt-from.txt", "synthetic"
KIND: Literal["augmented images"] = "augmented images"
FORMAT: Literal[1] = 1
SHARE = 0.1  # of each class is kept for the test, at least
PORTION = 4096  # images hashed at a time: they may lie on the disk
MOST_DIGESTS = 1 << 30  # bytes: thirty million images
Count = Annotated[int, Field(ge=0)]


@with_config(ConfigDict(extra="ignore"))
class Origin(TypedDict):
    """Which real images, how they were read and how they were cut."""

    spec: DataSpec
    name: str
    fingerprint: str
    held_out: list[Count]


@with_config(ConfigDict(extra="ignore"))
class Model(TypedDict):
    """What drew the images."""

    family: str
    sha256: str
    sampling: dict[str, Any]
    trained: dict[str, Any]


@with_config(ConfigDict(extra="ignore"))
class Counts(TypedDict):
    """Of a class: real images to learn from and to test with; what became of its samples stands beside them."""

    real: Count
    test: Count


Listed = TypedDict("Listed", {"file": Name, "class": str, "number": Count})


@with_config(ConfigDict(extra="ignore"))
class Begun(TypedDict):
    """augment.json from the first moment on: whose the folder is."""

    kind: Literal["augmented images"]
    format: Literal[1]
    data: Origin
    finished: NotRequired[bool]
    images: NotRequired[list[Listed]]


@with_config(ConfigDict(extra="ignore"))
class Manifest(Begun):
    """augment.json in the end."""

    classes: Annotated[list[str], Field(min_length=2)]
    model: Model
    counts: dict[str, Counts]


class Augmented(NamedTuple):
    """What the folder of an augmented data set says."""

    images: Images
    """The synthetic ones (N, C, H, W), numbered by `classes`."""
    classes: tuple[str, ...]
    gone: int
    """Synthetic images that were written and are no longer there."""
    learnt_from: set[str]
    """Digests of the images that the model learnt from."""
    manifest: Manifest

    def spec_of(self, source: str) -> DataSpec:
        """How to read a source so that its images are like these."""
        return replace(self.manifest["data"]["spec"], source=source)

    @property
    def origin(self) -> dict[str, Any]:
        """What they were made from and by."""
        data = self.manifest["data"]
        return {"made_from": {**data, "spec": to_json(data["spec"])}, "model": self.manifest["model"]}


class Split(NamedTuple):
    """Images to learn from and images to test with; no image is in both, unless the source repeats it."""

    train: Images
    test: Images
    held_out: tuple[int, ...] = ()
    """Numbers of the training part's images that were moved to the test."""


class Splits(NamedTuple):
    """What a proof is made of; all labelled by the classes of the data."""

    real: Images
    synthetic: Images
    test: Images
    repeated: int
    """Test images left out because they equal an image that was learnt from."""


def claim(folder: Path, data: Data, cut: Split, overwrite: bool) -> None:
    """Make a folder this data set's, or see that it is: one that was interrupted goes on, a finished one is refused.

    With `overwrite` the synthetic images that an earlier manifest lists are removed; no other file ever is, and none
    outside of the folder.
    Errors: `RunError` for a folder that holds anything else.
    """
    told = folder / MANIFEST
    about = {"kind": KIND, "format": FORMAT, "data": origin(data, cut)}
    if told.is_file():
        before: Begun = _record(folder, Begun)
        if before["data"]["fingerprint"] != data.fingerprint or before["data"]["held_out"] != list(cut.held_out):
            raise RunError(f"{folder} holds images made from other data, or cut otherwise; give another --out")
        if before.get("finished") and not overwrite:
            raise RunError(f"{folder} exists; give --overwrite to replace its synthetic images, or another --out")
        for place in [_synthetic(folder, image) for image in before.get("images", ())]:  # all are ours, or none is
            place.unlink(missing_ok=True)
    else:
        replaceable_folder(folder, overwrite, MANIFEST, Begun)
    own_folder(folder)
    write_json(told, about)


def origin(data: Data, cut: Split) -> dict[str, Any]:
    """Which real images, how they were read and how they were cut."""
    spec = to_json(data.spec)
    return {"spec": spec, "name": data.name, "fingerprint": data.fingerprint, "held_out": list(cut.held_out)}


def write_part(
    folder: Path,
    part: str,
    images: Images,
    classes: tuple[str, ...],
    numbers: Labels | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write labelled images as folder/part/CLASS/NUMBER.png; their paths there. Numbers: 0, 1, ... by default"""
    within, paths = class_folders(folder / part, classes), []
    for i, k in enumerate(images.class_numbers.tolist()):
        path = within[k] / f"{i if numbers is None else numbers[i]:05}.png"
        place_png(images.x[i], path)
        paths.append(path.relative_to(folder))
        if progress is not None:
            progress(i + 1, len(images))
    return paths


def finish(
    folder: Path, data: Data, cut: Split, files: Mapping[Path, tuple[str, int]], about: Mapping[str, Any]
) -> None:
    """Write the record. `files`: class and number of each synthetic image; `about`: model, seeds, filters, counts."""
    text = "".join(f"{each}\n" for each in digests(cut.train))
    write_file(folder / LEARNT_FROM, lambda file: file.write(text.encode()))
    images = [{"file": path.as_posix(), "class": name, "number": number} for path, (name, number) in files.items()]
    manifest = {"kind": KIND, "format": FORMAT, "finished": True, "data": origin(data, cut), **about}
    write_json(folder / MANIFEST, {**manifest, "images": images})


def read(folder: Path) -> Augmented:
    """The augmented data set of a folder; synthetic images that somebody removed are left out and counted.

    Errors: `RunError` for a folder that holds none, or an unfinished one; `DataError` when no synthetic image is left,
    or one cannot be read.
    """
    if not _record(folder, Begun).get("finished"):
        raise RunError(f"{folder} is not finished; give the `fabulate augment` command again to continue it")
    manifest: Manifest = _record(folder, Manifest)
    classes, images = tuple(manifest["classes"]), manifest.get("images", [])
    strange = {image["class"] for image in images} - set(classes)
    if strange or len(set(classes)) < len(classes):
        raise RunError(f"{folder / MANIFEST} is damaged: its images are of classes that it does not list once each")
    there = [(path, image["class"]) for image in images if (path := _synthetic(folder, image)).is_file()]
    if not there:
        raise DataError(f"{folder} holds none of the {len(images):,} synthetic images its record lists")
    first = _pixels(there[0][0], None)
    x = np.stack([first, *(_pixels(path, first.shape) for path, _ in there[1:])])
    y = np.array([classes.index(name) for _, name in there], np.int64)
    learnt_from = _learnt_from(folder / LEARNT_FROM, sum(count["real"] for count in manifest["counts"].values()))
    return Augmented(Images(x, y), classes, len(images) - len(there), learnt_from, manifest)


def splits(data: Data, made: Augmented) -> Splits:
    """Real images to train and to test with, so that no test image was learnt from, by the generator or a classifier.

    Where the source is the one that the synthetic images were made from, it is cut as it was then. Another source is
    taken as it is, if none of its test images was seen.
    Errors: `RunError` when the model saw test images of the source; `ConfigError` for other classes or shapes;
    `DataError` without classes or test images.
    """
    labels(data)
    if set(data.classes) != set(made.classes) or data.shape != made.images.shape:
        raise ConfigError(
            f"{data.spec.source} has {data.shape} images of {', '.join(data.classes)}; "
            f"the synthetic ones are {made.images.shape} ones of {', '.join(made.classes)}"
        )
    held_out = made.manifest["data"]["held_out"]
    if data.fingerprint != made.manifest["data"]["fingerprint"]:
        cut = _own_cut(data, made.learnt_from)
    elif max(held_out, default=-1) >= len(data.train):
        raise RunError(f"{MANIFEST} is damaged: it holds out image {max(held_out)} of {len(data.train):,}")
    else:
        cut = rejoined(data, held_out)
    test = untouched(cut.test, made.learnt_from | set(digests(cut.train)))
    if not len(test):
        raise DataError(f"every test image of {data.spec.source} equals one that was learnt from")
    numbers = np.array([data.classes.index(name) for name in made.classes], np.int64)
    return Splits(cut.train, Images(made.images.x, numbers[made.images.class_numbers]), test, len(cut.test) - len(test))


def _own_cut(data: Data, learnt_from: set[str]) -> Split:
    """The cut of a source that the synthetic images were not made from."""
    test = data.tested()
    if test is None:
        raise DataError(f"{data.spec.source} has no test images: it has too few images to hold any out")
    if seen := len(test) - len(untouched(test, learnt_from)):
        raise RunError(
            f"{seen:,} of {len(test):,} test images of {data.spec.source} are among those that the synthetic "
            "images were made from, which would prove nothing. The source changed since then, or is another one: make "
            "the synthetic images anew from it, or give a source whose test part the model never saw"
        )
    return Split(data.train, test)


def _record(folder: Path, kind: Any) -> Any:
    try:
        return read_json(folder / MANIFEST, kind)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{folder} does not say which images it was made from ({MANIFEST} is missing), so no test image could be "
            "trusted; make one with `fabulate augment`"
        ) from error


def _synthetic(folder: Path, image: Listed) -> Path:
    """Where a listed image lies. Errors: `RunError` for a name that leads anywhere but to the synthetic images."""
    path = inside(folder, image["file"])
    if not path.parent.resolve().is_relative_to((folder / SYNTHETIC).resolve()) or path.suffix != ".png":
        raise RunError(
            f"{folder / MANIFEST} is damaged: {image['file']!r} is none of the images that {SYNTHETIC} holds"
        )
    return path


def _learnt_from(path: Path, count: int) -> set[str]:
    try:
        found = read_bytes(path, MOST_DIGESTS).decode(errors="replace").split()
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: which images the model saw cannot be told") from error
    if len(found) != count or not all(re.fullmatch("[0-9a-f]{32}", each) for each in found):
        raise RunError(
            f"{path} is damaged: it should hold {count:,} digests of images that the model saw; make the folder anew"
        )
    return set(found)


def _pixels(path: Path, shape: tuple[int, ...] | None) -> Pixels:
    """An image that was written here, of this shape (C, H, W) unless it is the first."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            own = (len(image.getbands()), image.height, image.width)
            if (
                image.mode not in ("L", "LA", "RGB", "RGBA")
                or max(own) > LARGEST_SIDE
                or (shape is not None and own != shape)
            ):
                raise DataError(f"{path} is not as `fabulate augment` wrote it: it has {own} {image.mode}, not {shape}")
            return from_image(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}") from error


# The cut


def split(data: Data, share: float = SHARE) -> Split:
    """Cut a labelled data set so that at least the `share` of each class, and one image, is kept for the test.

    Errors: `ConfigError` for a share outside 0..1; `DataError` without classes, for a class of a single image, and
    where test images have none.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of each class kept for the test is 0 to 1; given {share}")
    y = labels(data)
    tested = data.tested()
    test_y = np.zeros(0, np.int64) if tested is None or tested.y is None else tested.y
    moved: list[int] = []
    for k, name in enumerate(data.classes):
        own, others = np.flatnonzero(y == k), int((test_y == k).sum())
        missing = max(1, ceil(share * (len(own) + others))) - others
        if len(own) <= max(missing, 0):
            raise DataError(
                f"class {name} has {len(own)} training and {others} test images: too few to learn from some and test "
                "with others. Give more images of it, or leave the class out"
            )
        order = permutation(len(own), "augment", "hold-out", k)[: max(missing, 0)]
        moved += own[order.numpy()].tolist()
    return rejoined(data, sorted(moved))


def rejoined(data: Data, held_out: list[int]) -> Split:
    """The cut in which these images of the training part were moved to the test."""
    keep = np.ones(len(data.train), bool)
    keep[held_out] = False
    test = data.tested()
    parts = [taken(data.train, np.array(held_out, np.int64))] + ([] if test is None else [test])
    train = data.train if not held_out else taken(data.train, np.flatnonzero(keep))
    return Split(train, parts[-1] if not held_out else joined(*parts), tuple(held_out))


def labels(data: Data) -> Labels:
    """The classes of the training images. Errors: `DataError` when there are not at least two."""
    if data.train.y is None or len(data.classes) < 2:
        raise DataError(
            f"{data.spec.source} has {len(data.classes) or 'no'} class{'es' if not data.classes else ''}, and this "
            "needs at least two: put the images of each class in a folder"
        )
    return data.train.y


def counted(images: Images, classes: tuple[str, ...]) -> dict[str, int]:
    """How many images there are of each class."""
    return dict(zip(classes, np.bincount(images.class_numbers, minlength=len(classes)).tolist(), strict=True))


def taken(images: Images, rows: Labels) -> Images:
    """Some of the images, in memory."""
    return Images(np.ascontiguousarray(images.x[rows]), None if images.y is None else images.y[rows])


def joined(*parts: Images) -> Images:
    """All images of some parts, one part after the other; all of them have classes."""
    return Images(np.concatenate([part.x for part in parts]), np.concatenate([part.class_numbers for part in parts]))


def digests(images: Images) -> list[str]:
    """One hexadecimal digest for each image's pixels: equal for equal images.

    >>> a, b, c = digests(Images(np.array([0, 1, 0], np.uint8).reshape(3, 1, 1, 1)))
    >>> a == c != b
    True
    """
    found = []
    for start in range(0, len(images), PORTION):
        part = np.ascontiguousarray(images.x[start : start + PORTION])
        found += [digest(image.tobytes()) for image in part]
    return found


def untouched(test: Images, seen: set[str]) -> Images:
    """The test images whose pixels equal none of those that were learnt from, given by their digests."""
    clean = np.array([each not in seen for each in digests(test)], bool)
    return test if clean.all() else taken(test, np.flatnonzero(clean))
