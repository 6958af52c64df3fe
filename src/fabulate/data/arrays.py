"""Images that are arrays already: scikit-learn's digits, an `.npz` file, or an array in memory.

Layouts (N, H, W), (N, H, W, C) and (N, C, H, W). Pixels uint8, bool, floats in [0, 1], or 16-bit integers (divided by
257); anything else has no agreed range and is refused rather than guessed.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from hashlib import blake2b, file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabulate.data.listing import Contents, Label, Listing, Part, Pixels, number
from fabulate.errors import DataError

AnyArray = npt.NDArray[Any]

# Names of images and of their labels in an .npz, tried in this order: Keras, MedMNIST, and plain ones.
_PLAIN = ("y", "labels")
_TRAIN = {"x_train": ("y_train",), "train_images": ("train_labels",), "x": _PLAIN, "images": _PLAIN, "arr_0": _PLAIN}
_TEST = {"x_test": ("y_test",), "test_images": ("test_labels",)}
_VAL = {"x_val": ("y_val",), "val_images": ("val_labels",)}


def digits() -> Listing:
    """The 1,797 handwritten 8x8 digits inside scikit-learn; its version is their fingerprint."""

    @contextmanager
    def opened() -> Iterator[Contents]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # the digits' values are 0..16
        classes, y, _ = number(bunch.target.tolist(), None)
        yield Contents(Part(_names("digits", x), x, y), classes=classes)

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
            fingerprint = file_digest(file, "blake2b").hexdigest()
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
    found = _find(arrays, _TRAIN)
    if found is None:
        given = ", ".join(f"{key} {value.dtype}{list(value.shape)}" for key, value in arrays.items()) or "nothing"
        raise DataError(
            f"{path} holds no images under a known name; given: {given}. Known: x (or images, arr_0) with y (or "
            "labels); x_train, y_train, x_test, y_test; train_images, train_labels, test_images, test_labels."
        )
    test, val = _find(arrays, _TEST), _find(arrays, _VAL)
    notes: list[str] = []
    if val is not None:
        notes.append(f"{val[0]} is {'not used' if test else 'the test part: there is none called test'}")
    parts = {"train": found} | ({"test": test} if test else {"test": val} if val else {})
    pixels, labels = {}, {}
    for part, (x_key, y_key) in parts.items():
        pixels[part], said = to_pixels(arrays[x_key], f"{path}: {x_key}")
        notes += [note for note in said if note not in notes]
        labels[part] = None if y_key is None else _labels(arrays[y_key], len(pixels[part]), f"{path}: {y_key}", notes)
    if all(value is not None for value in labels.values()):
        classes, train_y, test_y = number(labels["train"] or [], labels.get("test"))
    else:
        classes, train_y, test_y = (), None, None
    train = Part(_names("train", pixels["train"]), pixels["train"], train_y)
    held = Part(_names("test", pixels["test"]), pixels["test"], test_y) if "test" in pixels else None
    return Contents(train, held, classes, tuple(notes))


def _find(arrays: Mapping[str, AnyArray], names: Mapping[str, tuple[str, ...]]) -> tuple[str, str | None] | None:
    """The name of the images in this file, and of their labels (None when there are none)."""
    for x_key, y_keys in names.items():
        if x_key in arrays:
            return x_key, next((key for key in y_keys if key in arrays), None)
    return None


def _labels(y: AnyArray, n: int, what: str, notes: list[str]) -> list[Label] | None:
    if y.ndim == 2 and y.shape[1] == 1:  # MedMNIST and Keras's CIFAR-10 write a column
        y = y[:, 0]
    if y.ndim == 2 and len(y) == n:
        notes.append(f"no classes: {what} has {y.shape[1]} labels per image")
        return None
    if y.shape != (n,) or y.dtype.kind not in "iubU":
        raise DataError(
            f"{what} must hold one class per image, {n} integers or words; given: {y.dtype} of shape {y.shape}"
        )
    labels: list[Label] = y.tolist()
    return labels


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
