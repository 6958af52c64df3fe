"""Writing that survives a crash: a file is either the old one or the new one, never half of each."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk and move it into place.

    A crash at any moment leaves the old file intact (and at worst a `.tmp` file beside it).
    Errors: `OSError` from the disk; the temporary file is then removed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable (a renamed file can otherwise vanish with the power)."""
    if os.name == "nt":  # Windows cannot open a folder, and needs no such flush
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_file(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
