"""Tensors on disk: safetensors files that carry the hash of what they hold, so that one flipped bit is noticed.

The hash stands in the file's own header, not in a file beside it: weights and hash are replaced together, and a crash
between two writes cannot part them.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fabulate.errors import RunError
from fabulate.files import write_file

HASH = "sha256"  # the key of the hash in the header


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """The hexadecimal SHA-256 of all tensors and their names, in a fixed order."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, atomically; `about` are words kept in its header beside the hash."""
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {**(about or {}), HASH: tensors_hash(state)}
    write_file(path, lambda file: file.write(save(state, header)))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file on the CPU, and the words of its header.

    A file of another program has no hash, and is believed as it is.
    Errors: `RunError` when the file is missing, damaged, or its tensors are not those that were written.
    """
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
