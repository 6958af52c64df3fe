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
from fabulate.data.listing import Contents, Label, Listing, Part, label_of, number
from fabulate.data.report import listed
from fabulate.errors import DataError

_NAMED = 20  # arrays that an error tells of
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

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
            fingerprint = "2 " + file_digest(file, "blake2b").hexdigest()
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
    found = {part: key for part in _PARTS if (key := _find(names, _IMAGES[part])) is not None}
    if "train" not in found:
        headers = [(key, *members.header(key)) for key in names[:_NAMED]]
        given = ", ".join(listed([f"{key} {kind}{list(shape)}" for key, shape, kind in headers], _NAMED)) or "nothing"
        raise DataError(
            f"{path} holds no images under a known name; given: {given}. Known: x (or images, data, arr_0) with y (or "
            "labels, target); x_train, y_train, x_test, y_test; train_images, train_labels, test_images, test_labels."
        )
    notes: list[str] = []
    warnings: list[str] = []
    if "val" in found:
        val = found.pop("val")
        if "test" in found:
            warnings.append(f"{val} is not used, as there is {found['test']} to test with")
        else:
            found["test"] = val
            notes.append(f"{val} is the test part: there is none called test")
    images, labels = {}, {}
    for part, key in found.items():
        images[part] = channels_first(members.read(key, scratch), f"{path}: {key}")
        n = len(images[part])
        of = _find(names, _LABELS["val" if key.lower() in _IMAGES["val"] else part])
        y = None if of is None else _labels(members, of, n, f"{path}: {of}", warnings)
        labels[part] = y or [None] * n
    numbered = number(*labels.values(), names=_class_names(members, labels))
    train, *test = [
        Part(_names(part, images[part]), images[part], y)
        for part, y in zip(images, (numbered.train, numbered.test), strict=False)
    ]
    told = (*warnings, *numbered.warnings)
    return Contents(train, test[0] if test else None, numbered.classes, tuple(notes), told)


def _find(keys: Sequence[str], names: tuple[str, ...]) -> str | None:
    """The first of these names that the file has, as it is written there."""
    by_name = {key.lower(): key for key in keys}
    return next((by_name[name] for name in names if name in by_name), None)


def _class_names(members: _Members, labels: Mapping[str, Sequence[Label | None]]) -> list[str]:
    """The names of the classes, where the file has them beside labels that are numbers, as `fabulate sample` writes."""
    if "classes" not in members.names:
        return []
    shape, kind = members.header("classes")
    if len(shape) != 1 or kind.kind != "U":
        return []
    fits = all(label is None or label in range(shape[0]) for part in labels.values() for label in part)
    return [str(name) for name in members.read("classes")] if fits else []


def _labels(members: _Members, key: str, n: int, what: str, warnings: list[str]) -> list[Label | None] | None:
    shape, kind = members.header(key)
    if shape[:1] != (n,) or len(shape) > 2 or kind.kind not in "iufbUS":
        raise DataError(f"{what} must hold one class per image, {n} integers or words; given: {kind} of shape {shape}")
    y = members.read(key)
    if y.ndim == 2 and y.shape[1] == 1:  # MedMNIST and Keras's CIFAR-10 write a column
        y = y[:, 0]
    if y.ndim == 2:
        if not _one_hot(y):
            warnings.append(f"no classes: {what} has {y.shape[1]} labels per image")
            return None
        y = y.argmax(axis=1)
    if y.dtype.kind == "S":
        y = y.astype("U")
    if y.dtype.kind == "f" and (y[np.isfinite(y)] % 1 != 0).any():
        raise DataError(f"{what} must hold one class per image, {n} integers or words; given: {kind} of shape {shape}")
    return [label_of(value) for value in y.tolist()]


def _one_hot(y: AnyArray) -> bool:
    """Whether each row has a one in one place and zeros elsewhere, as Keras's `to_categorical` makes of a class."""
    return y.dtype.kind in "iufb" and bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def _names(part: str, x: AnyArray) -> list[str]:
    return [f"{part}[{i}]" for i in range(len(x))]
