"""Images that are arrays already: in memory, in an `.npz` file, or scikit-learn's digits; and what their numbers mean.

| given                              | read as                                                                  |
|------------------------------------|--------------------------------------------------------------------------|
| uint8                              | pixels                                                                   |
| bool                               | 0 and 255                                                                |
| floats in [0, 1]                   | 0 is black, 1 is white                                                   |
| floats in [-1, 1], some below 0    | as models make them, -1 is black; samples that lie a little beyond are clipped |
| 16-bit integers above 255          | divided by 257; refused where all would be dark                          |
| other numbers, and a span          | its first is black, its second white, what lies beyond is clipped        |
| anything else                      | refused: 0..255 as int64 or float may be pixels, counts or probabilities |

Layouts (N, H, W), (N, H, W, C) and (N, C, H, W), told apart by where 1, 3 or 4 stands, or else 2; where it stands in
both places the array is refused.

Of an `.npz` only the arrays that are used are opened. Their headers are read first: what would not fit is refused, or
unpacked into a file that is mapped, before anything is allocated.

Legend: N images, C H W image.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from math import prod
from pathlib import Path
from shutil import copyfileobj
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec, written_range
from fabulate.data import cache
from fabulate.data.decode import DARK, FEW, Span, Values, scaled
from fabulate.data.listing import Contents, Label, Listing, Pixels, label_of, numbered_names
from fabulate.data.report import counted, listed
from fabulate.errors import DarkError, DataError
from fabulate.files import digest, file_digest
from fabulate.types import ImageShape, meant

AnyArray = npt.NDArray[Any]
Reading = Literal["pixels", "unit", "signed"]
"""How an array's numbers are images: as pixels, or as floats in [0, 1] or in [-1, 1]."""

BEYOND = 0.5  # how far samples of a model may lie outside [-1, 1]: a decoder without a last tanh overshoots at edges
_CHANNELS = (1, 3, 4)
_DIM = 32768  # of 65,535: half of the gray levels are not used
_CHUNK = 1 << 24  # numbers converted at a time
_NAMED = 20  # arrays that an error tells of
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

# Names of images and of their labels in an .npz, in any case: Keras, MedMNIST, scikit-learn, and plain ones.
_PARTS = ("train", "test", "val")
_Names = dict[str, tuple[str, ...]]
_IMAGES: _Names = {part: (f"x_{part}", f"{part}_x", f"{part}_images", f"images_{part}") for part in _PARTS}
_LABELS: _Names = {part: (f"y_{part}", f"{part}_y", f"{part}_labels", f"labels_{part}") for part in _PARTS}
_IMAGES["train"] += ("x", "images", "image", "data", "arr_0")
_LABELS["train"] += ("y", "labels", "label", "target")


# Numbers as pixels


def to_pixels(
    x: AnyArray, what: str, span: Span | None = None, beside: AnyArray | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Any accepted array as uint8 (N, C, H, W), C 1 to 4, and notes on what was done.

    `span`: the values of black and white, for what holds more than 8 bits. `beside`: the other part of a data set, if
    there is one: both have one scale. Errors: `DataError` naming the type, shape and range that were given.

    >>> to_pixels(np.ones((2, 8, 8, 3), bool), "the array")[0].shape
    (2, 3, 8, 8)
    """
    return pixel_values(channels_first(x, what), what, span, beside)


def pixel_values(
    x: AnyArray, what: str, span: Span | None = None, beside: AnyArray | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """As `to_pixels`, for an array of any shape, which stays as it is."""
    if x.dtype == np.uint8:
        return x, ()
    alike = [part for part in (x, beside) if part is not None and part.dtype == x.dtype]
    values = [values_of(part) for part in alike]
    low, high = min(low for low, _ in values), max(high for _, high in values)
    chosen, note = _span(alike, low, high, what, span)
    if chosen is None:
        shape = (len(x), *x.shape[2:]) if x.ndim == 4 and x.shape[1] == 1 else x.shape  # gray ones as they are written
        raise DataError(
            f"{what}: pixels must be uint8, bool, floats in [0, 1] or [-1, 1], or 16-bit integers above 255; given: "
            f"{x.dtype} of shape {shape}, values {low:g}..{high:g}. If these are pixels 0..255, give them as "
            "x.astype(np.uint8)."
        )
    pixels = np.empty(x.shape, np.uint8)
    step = max(1, _CHUNK // max(1, x[0].size))
    for start in range(0, len(x), step):
        pixels[start : start + step] = np.rint(scaled(x[start : start + step], chosen))
    return pixels, (note,)


def channels_first(x: AnyArray, what: str) -> AnyArray:
    """An array of images as (N, C, H, W), a view. Errors: `DataError` for another shape, or one that could be two."""
    given = f"given: {x.dtype} of shape {x.shape}"
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4:
        places = [axis for axis in (1, 3) if x.shape[axis] in _CHANNELS] or [a for a in (1, 3) if x.shape[a] == 2]
        if len(places) == 2 and x.shape[1:] != (1, 1, 1):
            raise DataError(
                f"{what} may have its channels first or last; {given}. Give (N, C, H, W) with more than 4 columns, or "
                "(N, H, W, C) with more than 4 rows, or (N, H, W)"
            )
        x = x.transpose(0, 3, 1, 2) if 3 in places else x
    if x.ndim != 4 or x.shape[1] not in (2, *_CHANNELS):
        raise DataError(f"{what} must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 to 4; {given}")
    if not x.size:
        raise DataError(f"{what} holds no images; {given}")
    return x


def values_of(x: AnyArray) -> Span:
    """The smallest and the largest number of an array; NaN for what are no numbers, and for arrays with a NaN."""
    if x.dtype.kind not in "biuf":
        return np.nan, np.nan
    return float(x.min()), float(x.max())


def _range(low: float, high: float) -> Reading | None:
    """What floats of these values are by themselves; a NaN fails all comparisons."""
    if 0 <= low <= high <= 1:
        return "unit"
    return "signed" if -1 - BEYOND <= low < 0 and high <= 1 + BEYOND else None


def _span(
    parts: Sequence[AnyArray], low: float, high: float, what: str, wanted: Span | None
) -> tuple[Span | None, str]:
    """The values of black and white, None where they cannot be told; and a note."""
    kind, width = parts[0].dtype.kind, parts[0].dtype.itemsize
    if kind == "b":
        return (0, 1), "true and false turned into 255 and 0"
    if wanted is not None and np.isfinite([low, high]).all():
        return wanted, within(low, high, wanted, what)
    if kind == "f" and (known := _range(low, high)):
        floats: dict[Reading, tuple[Span, str]] = {
            "unit": ((0, 1), "floats in [0, 1] multiplied by 255 and rounded"),
            "signed": ((-1, 1), "floats in [-1, 1] brought to 0..255"),
        }
        return floats[known]
    if kind in "iu" and width == 2 and low >= 0 and high > 255:
        if all(np.count_nonzero(x >= DARK) <= FEW * x.size for x in parts):
            raise dark(low, high, f"{what}: the 16-bit integers")
        return (0, 65535), f"16-bit integers divided by 257 (values found: {low:g}..{high:g})"
    return None, ""


def reading(x: AnyArray, what: str, known: Reading | None = None) -> Reading:
    """How an array of images, of any shape, is to be read, by its type and values; `known`: as one before it was.

    A whole set of floats in [0, 1] is that; a few images that are bright everywhere may be of [-1, 1] as well, so then
    it is what is known that decides. Errors: `DataError` where nothing does.

    >>> reading(np.array([0.2, 0.9]), "x"), reading(np.array([0.2, 0.9]), "x", "signed")
    ('unit', 'signed')
    """
    if x.dtype.kind != "f":
        return "pixels"
    low, high = values_of(x)
    found = _range(low, high)
    if found == "signed" and known != "unit":
        return "signed"
    if found == "unit":
        if known == "pixels":
            raise DataError(
                f"{what}: floats {low:g}..{high:g} may be of [0, 1] or of [-1, 1], and those before them were pixels; "
                "give uint8, such as (x * 255).round().astype(np.uint8)"
            )
        return known or "unit"
    raise DataError(
        f"{what}: images are uint8, or floats in {'[0, 1] as those before them' if known == 'unit' else '[-1, 1]'}; "
        f"given {x.dtype} of shape {x.shape}, values {low:g}..{high:g}. If these are pixels 0..255, give them as "
        "x.astype(np.uint8)"
    )


def within(low: float, high: float, span: Span, what: str) -> str:
    """The note on values that a span was given for. Errors: `DataError` where it leaves all black, or all white."""
    if high <= span[0] or low >= span[1]:
        raise DataError(
            f"{what}: the range {written_range(*span)} makes all {'black' if high <= span[0] else 'white'}: the values "
            f"found are {low:g}..{high:g}. Give another --range LOW:HIGH, or auto"
        )
    return f"values {low:g}..{high:g} found; {span[0]:g} is black and {span[1]:g} is white"


def scale(found: Sequence[Values], spec: DataSpec) -> list[str]:
    """A note on the values of images that held more than 8 bits, if there were any.

    Errors: `DarkError` when all of them would be black, or nearly; `DataError` when the range asked for makes them so.
    """
    gray = [values for values in found if not values.colour]
    low, high = min((v.low for v in gray), default=0.0), max((v.high for v in gray), default=0.0)
    if spec.span is not None:
        if not gray:
            return [f"the range {spec.range} is not used: it is for numbers of more than 8 bits, and there are none"]
        return [f"{counted(len(gray), 'image')} of more than 8 bits: {within(low, high, spec.span, spec.source)}"]
    if found and not any(values.bright for values in found):
        if gray:
            raise dark(low, high, f"the 16-bit images of {spec.source}")
        raise DataError(
            f"the 16-bit colour images of {spec.source} use less than a sixteenth of their range: by their upper 8 "
            "bits, which are all that can be read, they would be black. Bring them to 8 bits first"
        )
    if not gray:
        return []
    dim = "; --range auto would make the brightest white" if high < _DIM else ""
    return [f"values of the 16-bit images: {low:g}..{high:g} of 0..65535{dim}"]


def dark(low: float, high: float, what: str) -> DarkError:
    """The error for images of 16 bits that use a small part of their range."""
    found = written_range(low, high)
    bits = next(n for n in range(8, 17) if high < 2**n)
    return DarkError(
        f"{what} hold values {found.replace(':', '..')} of 0..65535 and would be black, or nearly so. Give the values "
        f"of black and white: --range {found} (what was found; --range auto finds it), --range 0:{2**bits - 1} (all of "
        f"{bits} bits), or --range 0:65535 to leave them dark (range=... in Python)",
        range=found,
    )


def to_images(x: Tensor | AnyArray, shape: ImageShape) -> Tensor:
    """Images of a shape for a model, (N, C, H, W): uint8, or floats in [-1, 1]; channels that are last come first.

    Errors: `DataError`, as `to_pixels` and `types.meant`.

    >>> to_images(np.zeros((2, 8, 8, 3), np.uint8), ImageShape(3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.array(x if x.dtype.kind == "f" else to_pixels(x, "the images")[0]))
    if x.ndim == 4 and tuple(x.shape[1:]) != shape and tuple(x.shape[1:]) == (*shape[1:], shape[0]):
        x = x.permute(0, 3, 1, 2)
    return meant(x.to(torch.uint8) * 255 if x.dtype == torch.bool else x)


# Sources


def digits() -> Listing:
    """The 1,797 handwritten 8x8 digits inside scikit-learn; its version is their fingerprint."""

    @contextmanager
    def opened() -> Iterator[Contents]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # the digits' values are 0..16
        yield Contents.of([numbered_names("digits", len(x))], [x], [bunch.target.tolist()])

    return Listing("digits", f"scikit-learn {version('scikit-learn')}", opened)


def array(x: AnyArray) -> Listing:
    images = channels_first(x, "the array")
    kind = () if x.dtype == np.uint8 else (x.dtype.str,)
    numbers = np.ascontiguousarray(images).data if x.dtype.kind in "biuf" else b""  # others are refused later
    contents = Contents.of([numbered_names("array", len(images))], [images], [[None] * len(images)])
    whole = digest(repr((*images.shape, *kind)).encode(), numbers)
    return Listing("array", whole, lambda: nullcontext(contents))


def npz(path: Path) -> Listing:
    """List an `.npz` file. Errors: `DataError` for a file that is none, or holds no images under a known name."""
    try:
        whole = file_digest(path).hex()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error

    @contextmanager
    def opened() -> Iterator[Contents]:
        with cache.workspace(whole[:32]) as scratch, _Members.of(path) as members:
            yield _contents(members, scratch)

    return Listing(path.stem, f"2 {whole}", opened)


class _Members:
    """The arrays in an `.npz`, by their names: known by their headers, read one by one."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        self.names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]

    @classmethod
    @contextmanager
    def of(cls, path: Path) -> Iterator["_Members"]:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(zipfile.ZipFile(path))
            except zipfile.BadZipFile as error:
                with path.open("rb") as plain:
                    single = plain.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
                if single:
                    raise DataError(
                        f"{path} is a single array (.npy): save it with np.savez(path, x=images, y=labels)"
                    ) from error
                raise _unreadable(path, "the file", error) from error
            yield cls(path, file)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, which are what the file has room for. Errors: `DataError`."""
        with self.telling(name), self.file.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"an array in the format {version}")
            shape, _, kind = _HEADERS[version](stream)
            if kind.hasobject:
                raise ValueError("Python objects, and not a plain array (allow_pickle would run what is in it)")
            promised, there = prod(shape) * kind.itemsize, self.file.getinfo(f"{name}.npy").file_size - stream.tell()
            if promised != there:
                raise ValueError(f"its header promises {promised:,} bytes, and there are {there:,}")
        return shape, kind

    def read(self, name: str, scratch: Path | None = None) -> AnyArray:
        """An array: in memory where it fits, else unpacked into a file in `scratch` and mapped.

        Errors: `DataError` where it fits in neither, or is damaged.
        """
        shape, kind = self.header(name)
        nbytes = prod(shape) * kind.itemsize
        with self.telling(name), self.file.open(f"{name}.npy") as stream:
            if cache.in_memory(nbytes):
                whole: AnyArray = np.lib.format.read_array(stream, allow_pickle=False)
                return whole
            file = cache.room_for(nbytes, scratch, f"{self.path}: {name} {list(shape)}") / f"{name}.npy"
            with file.open("wb") as out:
                copyfileobj(stream, out, 1 << 20)
            return np.load(file, mmap_mode="r", allow_pickle=False)

    @contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """What a damaged file raises is told with the names of the file and of the array."""
        try:
            yield
        except DataError:
            raise
        except (
            *(OSError, ValueError, EOFError, KeyError, SyntaxError, RuntimeError, NotImplementedError, MemoryError),
            *(zipfile.BadZipFile, zlib.error),
        ) as error:
            raise _unreadable(self.path, name, error) from error


def _unreadable(path: Path, what: str, error: BaseException) -> DataError:
    return DataError(
        f"{path} cannot be read as an .npz file, a zip of plain arrays (np.savez makes one): {what}: {error}"
    )


def _contents(members: _Members, scratch: Path | None) -> Contents:
    path, keys = members.path, {key.lower(): key for key in members.names}

    def named(names: Sequence[str]) -> str | None:
        """The first of these names that the file has, as it is written there."""
        return next((keys[name] for name in names if name in keys), None)

    found = {part: key for part in _PARTS if (key := named(_IMAGES[part])) is not None}
    if "train" not in found:
        headers = [(key, *members.header(key)) for key in members.names[:_NAMED]]
        given = ", ".join(listed([f"{key} {kind}{list(shape)}" for key, shape, kind in headers], _NAMED)) or "nothing"
        raise DataError(
            f"{path} holds no images under a known name; given: {given}. Known: x (or images, data, arr_0) with y (or "
            "labels, target); x_train, y_train, x_test, y_test; train_images, train_labels, test_images, test_labels."
        )
    notes: list[str] = []
    warnings: list[str] = []
    used = {part: part for part in found if part != "val"}  # the labels of each part, by the names of which
    if "val" in found and "test" in found:
        warnings.append(f"{found['val']} is not used, as there is {found['test']} to test with")
    elif "val" in found:
        notes.append(f"{found['val']} is the test part: there is none called test")
        found["test"], used["test"] = found["val"], "val"
    names, images, labels = [], [], []
    for part, own in used.items():
        x = channels_first(members.read(found[part], scratch), f"{path}: {found[part]}")
        of = named(_LABELS[own])
        y = None if of is None else _labels(members, of, len(x), f"{path}: {of}", warnings)
        names.append(numbered_names(part, len(x)))
        images.append(x)
        labels.append(y or [None] * len(x))
    return Contents.of(names, images, labels, _class_names(members, labels), notes, warnings)


def _class_names(members: _Members, labels: Sequence[Sequence[Label | None]]) -> list[str]:
    """The names of the classes, where the file has them beside labels that are numbers, as `fabulate sample` writes."""
    if "classes" not in members.names:
        return []
    shape, kind = members.header("classes")
    if len(shape) != 1 or kind.kind != "U":
        return []
    fits = all(label is None or label in range(shape[0]) for part in labels for label in part)
    return [str(name) for name in members.read("classes")] if fits else []


def _labels(members: _Members, key: str, n: int, what: str, warnings: list[str]) -> list[Label | None] | None:
    shape, kind = members.header(key)
    wrong = f"{what} must hold one class per image, {n} integers or words; given: {kind} of shape {shape}"
    if shape[:1] != (n,) or len(shape) > 2 or kind.kind not in "iufbUS":
        raise DataError(wrong)
    y = members.read(key)
    if y.ndim == 2 and y.shape[1] == 1:  # MedMNIST and Keras's CIFAR-10 write a column
        y = y[:, 0]
    if y.ndim == 2:
        one_hot = y.dtype.kind in "iufb" and bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())
        if not one_hot:
            warnings.append(f"no classes: {what} has {y.shape[1]} labels per image")
            return None
        y = y.argmax(axis=1)
    if y.dtype.kind == "S":
        y = y.astype("U")
    if y.dtype.kind == "f" and (y[np.isfinite(y)] % 1 != 0).any():
        raise DataError(wrong)
    return [label_of(value) for value in y.tolist()]
