"""Images that are arrays already: scikit-learn's digits, an `.npz` file, or an array in memory.

Of an `.npz` only the arrays that are used are opened. Their headers are read first: what would not fit is refused, or
unpacked into a file that is mapped, before anything is allocated. What numbers mean as pixels is `gate.py`'s to say.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from hashlib import blake2b, file_digest
from importlib.metadata import version
from math import prod
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import numpy as np

from fabulate.data import cache
from fabulate.data.gate import AnyArray, channels_first
from fabulate.data.listing import Contents, Label, Listing, Part, number
from fabulate.data.report import listed
from fabulate.errors import DataError

_NAMED = 20  # arrays that an error tells of
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

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
    images = channels_first(x, "the array")
    kind = () if x.dtype == np.uint8 else (x.dtype.str,)
    whole = blake2b(repr((*images.shape, *kind)).encode(), digest_size=16)
    whole.update(np.ascontiguousarray(images).data if x.dtype.kind in "biuf" else b"")  # others are refused later
    contents = Contents(Part(_names("array", images), images))
    return Listing("array", whole.hexdigest(), lambda: nullcontext(contents))


def npz(path: Path) -> Listing:
    """List an `.npz` file. Errors: `DataError` for a file that is none, or holds no images under a known name."""
    try:
        with path.open("rb") as file:
            fingerprint = file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error

    @contextmanager
    def opened() -> Iterator[Contents]:
        with cache.workspace(f"{fingerprint[:32]}") as scratch, _Members.of(path) as members:
            yield _contents(members, scratch)

    return Listing(path.stem, fingerprint, opened)


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
                if _head(path) == np.lib.format.MAGIC_PREFIX:
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


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX))


def _unreadable(path: Path, what: str, error: BaseException) -> DataError:
    return DataError(
        f"{path} cannot be read as an .npz file, a zip of plain arrays (np.savez makes one): {what}: {error}"
    )


def _contents(members: _Members, scratch: Path | None) -> Contents:
    path, names = members.path, members.names
    found = _find(names, _TRAIN)
    if found is None:
        headers = [(key, *members.header(key)) for key in names[:_NAMED]]
        given = ", ".join(listed([f"{key} {kind}{list(shape)}" for key, shape, kind in headers], _NAMED)) or "nothing"
        raise DataError(
            f"{path} holds no images under a known name; given: {given}. Known: x (or images, arr_0) with y (or "
            "labels); x_train, y_train, x_test, y_test; train_images, train_labels, test_images, test_labels."
        )
    test, val = _find(names, _TEST), _find(names, _VAL)
    notes: list[str] = []
    if val is not None:
        notes.append(f"{val[0]} is {'not used' if test else 'the test part: there is none called test'}")
    parts = {"train": found} | ({"test": test} if test else {"test": val} if val else {})
    images, labels = {}, {}
    for part, (x_key, y_key) in parts.items():
        images[part] = channels_first(members.read(x_key, scratch), f"{path}: {x_key}")
        n = len(images[part])
        labels[part] = None if y_key is None else _labels(members, y_key, n, f"{path}: {y_key}", notes)
    if all(value is not None for value in labels.values()):
        classes, train_y, test_y = number(labels["train"] or [], labels.get("test"))
    else:
        classes, train_y, test_y = (), None, None
    train = Part(_names("train", images["train"]), images["train"], train_y)
    held = Part(_names("test", images["test"]), images["test"], test_y) if "test" in images else None
    return Contents(train, held, classes, tuple(notes))


def _find(arrays: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> tuple[str, str | None] | None:
    """The name of the images in this file, and of their labels (None when there are none)."""
    for x_key, y_keys in names.items():
        if x_key in arrays:
            return x_key, next((key for key in y_keys if key in arrays), None)
    return None


def _labels(members: _Members, key: str, n: int, what: str, notes: list[str]) -> list[Label] | None:
    shape, kind = members.header(key)
    column = len(shape) == 2 and shape[1] == 1  # MedMNIST and Keras's CIFAR-10 write a column
    if len(shape) == 2 and shape[0] == n and not column:
        notes.append(f"no classes: {what} has {shape[1]} labels per image")
        return None
    if shape not in ((n,), (n, 1)) or kind.kind not in "iubU":
        raise DataError(f"{what} must hold one class per image, {n} integers or words; given: {kind} of shape {shape}")
    labels: list[Label] = members.read(key).reshape(-1).tolist()
    return labels


def _names(part: str, x: AnyArray) -> list[str]:
    return [f"{part}[{i}]" for i in range(len(x))]
