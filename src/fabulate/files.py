"""Files on disk: written so that a crash loses nothing, read so that nothing in them is believed unchecked.

Writing goes through a temporary file of our own in the same folder, made exclusively and moved into place: a file is
the old one or the new one, never half of each, and a link in its place is replaced, never followed. What a killed
process leaves behind has a name that nobody else gives, so it can be removed without touching a user's files.

Reading JSON has one way in, `read_json`: its size is bounded before it is read, its form is checked against a
declaration, and a name that it gives of another file stays within its folder (`Name`, `inside`). Tensors carry the hash
of what they hold, so that one flipped bit is noticed.

A class may be called anything: `cat/dog`, `CON`, `grid.png`, nothing at all, 300 letters. A folder may not, and on many
systems `Cat` and `cat` are one folder. A name that is fine stays as it is; any other is changed as little as possible,
and where two classes would then meet, a few digits of the name's hash part them.
"""

import csv
import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import TextIOWrapper
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from fabulate.config import explain
from fabulate.errors import RunError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from torch import Tensor

T = TypeVar("T")

LARGEST_JSON = 64 << 20  # bytes: the manifest of a million images
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.fabulate-tmp")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # https://owasp.org/www-community/attacks/CSV_Injection
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
HASH = "sha256"  # the key of the hash in the header
LONGEST = 100  # bytes: file systems take 255, and a name may become part of a longer one
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    """A new file in the folder of `path`, moved to its place when the block ends well and removed otherwise."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.fabulate-tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666), "wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def place_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a new file and move it into place: whole or not at all, though a power cut may still take it.

    Errors: `OSError` from the disk; nothing is left behind then.
    """
    with _beside(path) as file:
        write(file)


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """As `place_file`, and flushed to the disk: neither a crash nor a power cut leaves half a file."""
    with _beside(path) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, which is made when it is missing. Errors: `OSError`, also where it is a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINKS, 0o666), "ab") as file:
        file.write(line.encode() + b"\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writes left in a folder; none where the folder is a link, or missing."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            Path(entry.path).unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is a temporary one of a killed write.

    >>> is_leftover(".0123456789abcdef.fabulate-tmp"), is_leftover("notes.tmp")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def own_folder(folder: Path) -> Path:
    """Make a folder that only fabulate writes to. Errors: `RunError` where a link stands: it may lead anywhere."""
    if folder.is_symlink():
        raise RunError(f"{folder} is a link to {folder.readlink()}; nothing is written through links. Remove the link")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def vacant_file(path: Path, overwrite: bool, flag: str = "--out") -> Path:
    """A path that may be written: its folder is made, and an existing file is refused unless told to overwrite.

    `flag`: the one that gave the path.
    """
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise RunError(f"{path} exists; give --overwrite to replace it, or another {flag}")
    if path.is_dir():
        raise RunError(f"{path} is a folder, and a file is to be written; give another {flag}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def vacant_folder(folder: Path, overwrite: bool) -> Path:
    """A folder that may be written into, not yet made: one that holds something is refused unless told to overwrite."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, and a folder is to be written; give another --out")
    if not overwrite and folder.is_dir() and any(not is_leftover(entry.name) for entry in folder.iterdir()):
        raise RunError(f"{folder} is not empty; give --overwrite to write into it, or another --out")
    return folder


def replaceable_folder(folder: Path, overwrite: bool, record: str, kind: Any) -> Path:
    """As `vacant_folder`; and what is overwritten must be ours, as the folder's `record`, of a declared form, says.

    Errors: `RunError` for a folder that holds something without such a record, whatever `overwrite` says.
    """
    if not overwrite or not folder.is_dir() or all(is_leftover(entry.name) for entry in folder.iterdir()):
        return vacant_folder(folder, overwrite)
    try:
        read_json(folder / record, kind)
    except (FileNotFoundError, RunError) as error:
        raise RunError(
            f"{folder} holds files, and no {record} that says they are fabulate's: --overwrite replaces only what "
            "fabulate wrote. Give another --out"
        ) from error
    return folder


def outside(out: Path, source: str | Path) -> Path:
    """A path for results that does not lie in the folder of a source, where its pictures would become data.

    Errors: `RunError` naming both.
    """
    place = Path(str(source).removeprefix("stream:"))
    if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
        raise RunError(
            f"{out} lies in {source}, where the images come from: what is written there would be read as images. "
            "Give an --out outside of it"
        )
    return out


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable (a renamed file can otherwise vanish with the power)."""
    if os.name == "nt":  # Windows cannot open a folder, and needs no such flush
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_table(path: Path, names: Iterable[str], rows: Iterable[Iterable[str | float]]) -> None:
    """Write a CSV file with a heading, atomically; numbers to six digits, and text never as a spreadsheet's formula."""

    def write(file: IO[bytes]) -> None:
        text = TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        try:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow([cell(name) for name in names])
            writer.writerows([value if isinstance(value, int) else cell(value) for value in row] for row in rows)
        finally:
            text.detach()  # or it would close the file

    write_file(path, write)


def cell(value: str | float) -> str:
    """What stands in a table: a number, or a text with an apostrophe before what a spreadsheet takes for a formula.

    >>> cell("=1+1.png"), cell("cat/01.png"), cell("-3"), cell(-2 / 3)
    ("'=1+1.png", 'cat/01.png', '-3', '-0.666667')
    """
    if not isinstance(value, str):
        return f"{value:.6g}"
    return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_file(path, lambda file: file.write(text.encode()))


def read_json(path: Path, kind: Any, limit: int = LARGEST_JSON) -> Any:
    """Read a JSON file of a declared form: a spec, a `TypedDict`, or any type that pydantic checks.

    `limit`: bytes; a larger file is refused before it is read.
    Errors: `FileNotFoundError` when there is none; `RunError`, a line with the file's name, when it is damaged, too
    large, not a regular file, or of another form.
    """
    parts = read_bytes(path, limit)
    return parse_json(parts, kind, str(path))


def parse_json(text: str | bytes, kind: Any, what: str) -> Any:
    """The value of a JSON text of a declared form; `what` names it in errors.

    >>> parse_json('{"step": 3}', dict[str, int], "latest.json")
    {'step': 3}

    Errors: `RunError`, a line.
    """
    try:
        return _form(kind).validate_json(text)
    except ValidationError as error:
        told = explain(error, most=3).replace("\n", " ")
        raise RunError(f"{what} is damaged or of another form: {told[:300]}") from error


@cache
def _form(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # takes longer to make than most files to read


def read_lines(path: Path, limit: int = LARGEST_JSON) -> list[str]:
    """The lines of a text, names of files say. Errors: `RunError` where there is no such file, or it cannot be read."""
    try:
        return read_bytes(path, limit).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError as error:
        raise RunError(f"there is no file {path}") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file's bytes. Errors: `FileNotFoundError`; `RunError` when it is larger than `limit` or not regular."""
    if path.exists() and not path.is_file():
        raise RunError(f"{path} is not a regular file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise RunError(f"{path} has {size:,} bytes, more than the {limit:,} that such a file can have")
            return file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _plain(name: str) -> str:
    parts = PurePosixPath(name).parts
    if (
        not parts
        or ".." in parts
        or name.startswith("/")
        or "\0" in name
        or "\\" in name
        or PureWindowsPath(name).drive
    ):
        raise ValueError("must be the name of a file in the same folder, without '..' and not absolute")
    return name


Name = Annotated[str, AfterValidator(_plain)]
"""A relative path with forward slashes that leads to nowhere above its folder."""


def inside(folder: Path, name: str) -> Path:
    """The file of a name that a record in `folder` gives. Errors: `RunError` when it lies elsewhere, by a link too.

    >>> inside(Path("run"), "../victim")
    Traceback (most recent call last):
    fabulate.errors.RunError: run names '../victim', which does not lie in it
    """
    try:
        path = folder / _plain(name)
    except ValueError as error:
        raise RunError(f"{folder} names {name!r}, which does not lie in it") from error
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{folder} names {name!r}, which does not lie in it")
    return path


# Names of classes as names of folders


def folder_name(label: str) -> str:
    """A class's name as part of the name of a file or folder: valid everywhere, never empty or hidden.

    >>> folder_name("cat/dog"), folder_name(".."), folder_name("3"), folder_name("aux")
    ('cat_dog', '_.._', '3', '_aux')
    """
    name = _FORBIDDEN.sub("_", label)
    if len(name.encode()) > LONGEST:
        name = name.encode()[: LONGEST - 9].decode(errors="ignore") + "-" + _digits(label)
    if name.endswith((".", " ")):  # Windows drops them
        name += "_"
    if not name or name.startswith(".") or _DEVICES.fullmatch(name):
        name = f"_{name}"
    return name


def folder_names(labels: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A folder for each class, no two the same on any system, and none called as what is `taken`.

    >>> folder_names(["a_b", "a/b", "grid.png"], taken=["grid.png"])
    {'a_b': 'a_b', 'a/b': 'a_b-c14cddc0', 'grid.png': 'grid.png-b6ef05f7'}
    """
    labels = list(dict.fromkeys(labels))
    used, found = {_folded(name) for name in taken}, {}
    for label in sorted(labels, key=lambda label: folder_name(label) != label):  # what is fine as it is goes first
        name, digits = folder_name(label), 8
        while _folded(name) in used:
            name, digits = f"{folder_name(label)}-{_digits(label, digits)}", digits + 8
        used.add(_folded(name))
        found[label] = name
    return {label: found[label] for label in labels}


def class_folders(folder: Path, classes: Iterable[str]) -> list[Path]:
    """A folder for each class within a folder that only fabulate writes to, made, in the order of the classes."""
    own_folder(folder)
    return [own_folder(folder / name) for name in folder_names(classes).values()]


def _folded(name: str) -> str:
    """What a file system that ignores case, or writes accents in another way, may take a name for."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def _digits(label: str, count: int = 8) -> str:
    return hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:count]


# Hashes


def digest(*parts: "ReadableBuffer") -> str:
    """32 hexadecimal digits that name bytes: images that are equal, what is kept in a cache."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def key(value: object) -> str:
    """32 hexadecimal digits that name a value of plain Python types, the same ones everywhere.

    >>> key(("digits", 3)) == key(("digits", 3)) != key(("digits", 4))
    True
    """
    return digest(repr(value).encode())


def file_digest(path: Path, kind: str = "blake2b") -> bytes:
    """The digest of a file's bytes. Errors: `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).digest()


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    return file_digest(path, "sha256").hex()


# Tensors


def tensors_hash(tensors: "Mapping[str, Tensor]") -> str:
    """The hexadecimal SHA-256 of all tensors and their names, in a fixed order."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_weights(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, atomically; `about` are words kept in its header beside their hash.

    So weights and hash are replaced together, and a crash between two writes cannot part them.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {**(about or {}), HASH: tensors_hash(state)}
    write_file(path, lambda file: file.write(save(state, header)))


def read_weights(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The tensors of a safetensors file on the CPU, and the words of its header.

    A file of another program has no hash, and is believed as it is.
    Errors: `RunError` when the file is missing, damaged, or its tensors are not those that were written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping: it has no iterator
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing") from error
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    expected = about.pop(HASH, None)
    if expected is not None and tensors_hash(state) != expected:
        raise RunError(f"{path} is damaged: its weights are not those that were written (their hash is another)")
    return state, about
