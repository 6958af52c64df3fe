"""Images that are arrays already: scikit-learn's digits, an `.npz` file, or an array in memory.

Layouts (N, H, W), (N, H, W, C) and (N, C, H, W). Pixels uint8, bool, floats in [0, 1], or 16-bit integers (divided by
257); anything else has no agreed range and is refused rather than guessed.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import blake2b, file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabulate.data.listing import Contents, Label, Listing, Part, Pixels, label_of, number
from fabulate.errors import DataError

AnyArray = npt.NDArray[Any]

# Names of images and of their labels in an .npz, in any case: Keras, MedMNIST, scikit-learn, and plain ones.
_PARTS = ("train", "test", "val")
_Names = dict[str, tuple[str, ...]]
_IMAGES: _Names = {part: (f"x_{part}", f"{part}_x", f"{part}_images", f"images_{part}") for part in _PARTS}
_LABELS: _Names = {part: (f"y_{part}", f"{part}_y", f"{part}_labels", f"labels_{part}") for part in _PARTS}
_IMAGES["train"] += ("x", "images", "image", "data", "arr_0")
_LABELS["train"] += ("y", "labels", "label", "target")


def digits() -> Listing:
    """The 1,797 handwritten 8x8 digits inside scikit-learn; its version is their fingerprint."""

    @contextmanager
    def opened() -> Iterator[Contents]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # the digits' values are 0..16
        known = number(bunch.target.tolist())
        yield Contents(Part(_names("digits", x), x, known.train), classes=known.classes)

    return Listing("digits", f"scikit-learn {version('scikit-learn')}", opened)


def array(x: AnyArray) -> Listing:
    """List an array in memory."""
    pixels, notes = to_pixels(x, "the array")
    whole = blake2b(repr(pixels.shape).encode(), digest_size=16)
    whole.update(np.ascontiguousarray(pixels).data)
    contents = Contents(Part(_names("array", pixels), pixels), notes=notes)
    return Listing("array", whole.hexdigest(), lambda: nullcontext(contents))


def npz(path: Path) -> Listing:
    """List an `.npz` file. Errors: `DataError` for a file that is none, or holds no images under a known name."""

    @contextmanager
    def opened() -> Iterator[Contents]:
        yield _contents(_read(path), path)

    try:
        with path.open("rb") as file:
            fingerprint = "2 " + file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    return Listing(path.stem, fingerprint, opened)


def _read(path: Path) -> dict[str, AnyArray]:
    key = "the file"
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array (.npy): save it with np.savez(path, x=images, y=labels)")
            arrays = {}
            for key in file.files:
                arrays[key] = file[key]
            return arrays
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an .npz file, a zip of plain arrays (np.savez makes one): {key}: {error}"
        ) from error


def _contents(arrays: Mapping[str, AnyArray], path: Path) -> Contents:
    images = {part: key for part in _PARTS if (key := _find(arrays, _IMAGES[part])) is not None}
    if "train" not in images:
        given = ", ".join(f"{key} {value.dtype}{list(value.shape)}" for key, value in arrays.items()) or "nothing"
        raise DataError(
            f"{path} holds no images under a known name; given: {given}. Known: x (or images, data, arr_0) with y (or "
            "labels, target); x_train, y_train, x_test, y_test; train_images, train_labels, test_images, test_labels."
        )
    notes: list[str] = []
    warnings: list[str] = []
    if "val" in images:
        val = images.pop("val")
        if "test" in images:
            warnings.append(f"{val} is not used, as there is {images['test']} to test with")
        else:
            images["test"] = val
            notes.append(f"{val} is the test part: there is none called test")
    pixels, labels = {}, {}
    for part, key in images.items():
        pixels[part], said = to_pixels(arrays[key], f"{path}: {key}")
        notes += [note for note in said if note not in notes]
        of = _find(arrays, _LABELS["val" if key in _IMAGES["val"] else part])
        y = None if of is None else _labels(arrays[of], len(pixels[part]), f"{path}: {of}", warnings)
        labels[part] = y or [None] * len(pixels[part])
    numbered = number(*labels.values(), names=_class_names(arrays, labels))
    train, *test = [
        Part(_names(part, pixels[part]), pixels[part], y)
        for part, y in zip(images, (numbered.train, numbered.test), strict=False)
    ]
    told = (*warnings, *numbered.warnings)
    return Contents(train, test[0] if test else None, numbered.classes, tuple(notes), told)


def _find(arrays: Mapping[str, AnyArray], names: tuple[str, ...]) -> str | None:
    """The first of these names that the file has, as it is written there."""
    by_name = {key.lower(): key for key in arrays}
    return next((by_name[name] for name in names if name in by_name), None)


def _class_names(arrays: Mapping[str, AnyArray], labels: Mapping[str, Sequence[Label | None]]) -> list[str]:
    """The names of the classes, where the file has them beside labels that are numbers, as `fabulate sample` writes."""
    names = arrays.get("classes")
    if names is None or names.ndim != 1 or names.dtype.kind != "U":
        return []
    fits = all(label is None or label in range(len(names)) for part in labels.values() for label in part)
    return [str(name) for name in names] if fits else []


def _labels(y: AnyArray, n: int, what: str, warnings: list[str]) -> list[Label | None] | None:
    if y.ndim == 2 and y.shape[1] == 1:  # MedMNIST and Keras's CIFAR-10 write a column
        y = y[:, 0]
    if y.ndim == 2 and len(y) == n:
        if not _one_hot(y):
            warnings.append(f"no classes: {what} has {y.shape[1]} labels per image")
            return None
        y = y.argmax(axis=1)
    if y.dtype.kind == "S":
        y = y.astype("U")
    whole = y.dtype.kind == "f" and bool((y[np.isfinite(y)] % 1 == 0).all())
    if y.shape != (n,) or not (whole or y.dtype.kind in "iubU"):
        raise DataError(
            f"{what} must hold one class per image, {n} integers or words; given: {y.dtype} of shape {y.shape}"
        )
    return [label_of(value) for value in y.tolist()]


def _one_hot(y: AnyArray) -> bool:
    """Whether each row has a one in one place and zeros elsewhere, as Keras's `to_categorical` makes of a class."""
    return y.dtype.kind in "iufb" and bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def to_pixels(x: AnyArray, what: str) -> tuple[Pixels, tuple[str, ...]]:
    """Any accepted array as uint8 (N, C, H, W), C 1, 3 or 4, and notes on what was done.

    Errors: `DataError` naming the type, shape and range that were given.

    >>> to_pixels(np.ones((2, 8, 8, 3), bool), "the array")[0].shape
    (2, 3, 8, 8)
    """
    given = f"given: {x.dtype} of shape {x.shape}"
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3, 4):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise DataError(f"{what} must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1, 3 or 4; {given}")
    if not x.size:
        raise DataError(f"{what} holds no images; {given}")
    if x.dtype == np.uint8:
        return x, ()
    if x.dtype == bool:
        return x.astype(np.uint8) * np.uint8(255), ("true and false turned into 255 and 0",)
    low, high = (x.min(), x.max()) if x.dtype.kind in "iuf" else (np.nan, np.nan)
    if x.dtype.kind == "f" and low >= 0 and high <= 1:  # a NaN fails both
        return np.rint(x * 255).astype(np.uint8), ("floats in [0, 1] multiplied by 255 and rounded",)
    if x.dtype.kind in "iu" and x.dtype.itemsize == 2 and low >= 0 and high > 255:
        scaled = (x.astype(np.int64) + 128) // 257
        return scaled.astype(np.uint8), (f"16-bit integers divided by 257 (largest value found: {high})",)
    raise DataError(
        f"{what}: pixels must be uint8, bool, floats in [0, 1] or 16-bit integers above 255; {given}, values "
        f"{low:g}..{high:g}. If these are pixels 0..255, save them as x.astype(np.uint8)."
    )


def _names(part: str, x: Pixels) -> list[str]:
    return [f"{part}[{i}]" for i in range(len(x))]
