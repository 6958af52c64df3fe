"""Libraries of machine code on the disk: made by torch's compiler ahead of time (AOTInductor), loaded without it.

A library is a file `NAME.so`, and beside it a `NAME.json` where it calls operations that torch has no C interface to. A
damaged one could end the process, so the file ends with a seal of both, where the system does not look.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from fabulate.data.shelves import touched

SEAL = 16  # bytes

# Between the kernels there is little to optimise, and a third of the time to compile is to be saved.
# They are part of a library's name, and torch adds to what it is given.
OPTIONS: Mapping[str, Any] = MappingProxyType({"fallback_random": True, "aot_inductor.compile_wrapper_opt_level": "O0"})

Run = Callable[[list[Tensor]], list[Tensor]]


def seal(code: bytes) -> bytes:
    """What stands at the end of a library's file."""
    return blake2b(code, digest_size=SEAL).digest()


def loaded(path: Path) -> Run | None:
    """The code of a library on the disk; None where there is none that is whole."""
    if not path.exists():
        return None
    touched(path)
    content, named = path.read_bytes(), path.with_suffix(".json")
    calls = named.read_bytes() if named.exists() else b""
    return opened(path) if content[-SEAL:] == seal(content[:-SEAL] + calls) else None


def opened(path: Path) -> Run:
    """The code of a library. (`torch._inductor.aoti_load_package` has two seconds of imports, and unpacks in /tmp.)"""
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run


def compiled(path: Path, graph: torch.fx.GraphModule, given: Sequence[Tensor]) -> None:
    """Compile a graph to a library, which is on the disk whole or not at all."""
    from torch._inductor import aoti_compile_and_package

    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), TemporaryDirectory(dir=path.parent) as temporary:
        program = torch.export.export(graph, tuple(value.detach() for value in given))
        package = aoti_compile_and_package(
            program, package_path=str(Path(temporary) / "turn.pt2"), inductor_configs=dict(OPTIONS)
        )
        with ZipFile(package) as files:
            (name,) = (name for name in files.namelist() if name.endswith(".so"))
            beside = name.removesuffix(".so") + ".json"  # operations that torch has no C interface to, if there are any
            code, calls = files.read(name), files.read(beside) if beside in files.namelist() else b""
        if calls:
            placed(path.with_suffix(".json"), calls, temporary)
        placed(path, code + seal(code + calls), temporary)


def placed(path: Path, content: bytes, temporary: str) -> None:
    """Write a file elsewhere and move it into place."""
    made = Path(temporary) / path.name
    made.write_bytes(content)
    made.replace(path)


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block torch's compiler keeps to itself what it thinks of its own old ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
