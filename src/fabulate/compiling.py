"""A function as machine code, by torch's compiler: when it is first called, and as it is written where that cannot be.

Run as it is written, torch takes one small operation after the other, and between them Python. Compiled
(`torch.compile`), a function is one region: elementwise work is fused, and nothing of Python is left. Random numbers
are the same, since they come from torch's own generators; sums differ in how they round.

It costs ten seconds or more the first time and three afterwards, when the code is in the cache. Whether that pays is
decided by what there is to do, never by the clock: the same words must give the same numbers. On a CPU the turns of a
training have a way of their own (`training/ahead.py`), which costs nothing afterwards.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import nn

from fabulate.data.shelves import bench
from fabulate.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

Say = Callable[[str], None]
"""Takes a sentence for people."""


class Compiled(Generic[P, R]):
    """A function that is compiled when it is first called; one that cannot be runs as it is written, and says why.

    Errors, at the first call: `ConfigError` where it `must` be compiled and cannot be.
    """

    def __init__(self, function: Callable[P, R], what: str, device: torch.device, must: bool, say: Say) -> None:
        self.plain, self.what, self.device, self.must, self.say, self.first = function, what, device, must, say, True
        self.call: Callable[P, R] = torch.compile(
            function, fullgraph=True, dynamic=False, options={"fallback_random": True}
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.first:
            return self.call(*args, **kwargs)
        self.first = False
        import torch._dynamo.config as dynamo
        from torch._dynamo.exc import TorchDynamoException

        prepared(self.device)
        dynamo.trace_autograd_ops = True  # gradients may be part of the region
        dynamo.recompile_limit = max(dynamo.recompile_limit, 1000)  # one code serves all players of all runs
        try:
            return self.call(*args, **kwargs)
        except TorchDynamoException as error:
            reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            if self.must:
                raise ConfigError(f"{self.what} cannot be compiled ({reason}); leave out --compile on") from error
            self.say(f"{self.what.capitalize()} is not compiled: {reason}")
            self.call = self.plain
            return self.plain(*args, **kwargs)


@contextmanager
def compiled(networks: Iterable[nn.Module], device: torch.device, must: bool, say: Say) -> Iterator[None]:
    """Within the block networks run compiled, with one code for each shape that they are given."""
    chosen = list(networks)
    for network in chosen:
        network.forward = Compiled(network.forward, "the network", device, must, say)
    try:
        yield
    finally:
        for network in chosen:
            del network.forward  # the class's own is there again


def shelf() -> Path:
    """Where compiled code is kept: in the cache, or where there is none for as long as the process lives."""
    return bench("compiled")


def prepared(device: torch.device) -> None:
    """Tell torch's compiler where it keeps its code and which instructions work here."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(shelf()))
    if device.type == "cpu":
        vectors_tried(shelf())


def announced(what: str) -> str:
    """What people are told before something is compiled."""
    return f"Compiling {what}: ten seconds or more the first time; --compile off goes without."


def vectors_tried(folder: Path) -> None:
    """Tell torch's compiler that this machine's vector instructions work, once all of them have been tried.

    For each kind that the processor names, the compiler builds a program and loads it into a process of its own: more
    than a second in every run, also where all is compiled already. That all were good is written down in the folder.
    """
    from torch._inductor import config, cpu_vec_isa

    if config.cpp.vec_isa_ok is not None:  # the user's word
        return
    with config.patch({"cpp.vec_isa_ok": True}):
        named = [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list.__wrapped__()]
    what = f"{torch.__version__} {named}"
    note = folder / f"vectors-{blake2b(what.encode(), digest_size=8).hexdigest()}.txt"
    if not note.exists() and [str(isa) for isa in cpu_vec_isa.valid_vec_isa_list()] == named:  # here they are tried
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(what + "\n")
    if note.exists():
        config.cpp.vec_isa_ok = True
