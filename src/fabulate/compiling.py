"""A function as machine code, by `torch.compile`: when it is first called, and as it is written where that cannot be.

Compiled, elementwise work is fused and nothing of Python is left between operations. Random numbers are the same, since
they come from torch's own generators; sums differ in how they round. It costs ten seconds or more the first time and
about four afterwards, when torch finds the code in its cache, which lies in ours. Whether that pays is decided by what
there is to do, never by the clock: the same command must give the same numbers.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import nn

from fabulate.data.cache import working_folder
from fabulate.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

Say = Callable[[str], None]
"""Takes a sentence for people."""


class Compiled(Generic[P, R]):
    """A function that is compiled when it is first called; one that cannot be runs as it is written, and says why.

    Errors, at the first call: `ConfigError` where it `must` be compiled and cannot be.
    """

    def __init__(self, function: Callable[P, R], what: str, must: bool, say: Say) -> None:
        self.plain, self.what, self.must, self.say, self.first = function, what, must, say, True
        self.call: Callable[P, R] = torch.compile(
            function, fullgraph=True, dynamic=False, options={"fallback_random": True}
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.first:
            return self.call(*args, **kwargs)
        self.first = False
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(working_folder("compiled")))
        trace_gradients()
        try:
            return self.call(*args, **kwargs)
        except RuntimeError as error:  # of which all of the compiler's own errors are
            result = self.plain(*args, **kwargs)  # a mistake of the function is raised here, as it is
            reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            if self.must:
                raise ConfigError(f"{self.what} cannot be compiled ({reason}); leave out --compile on") from error
            self.say(f"{self.what.capitalize()} is not compiled: {reason}")
            self.call = self.plain
            return result


def trace_gradients() -> None:
    """Let torch's compiler trace `torch.autograd.grad`, so that a loss and its gradients are one region.

    No public option of torch 2.13 does so; compiled without their gradients, losses gain 13 to 24 %, not 30 to 60 %.
    `tests/test_compiling.py` fails in words when the name changes.
    """
    import torch._dynamo.config as dynamo

    dynamo.trace_autograd_ops = True


@contextmanager
def compiled(networks: Iterable[nn.Module], must: bool, say: Say) -> Iterator[None]:
    """Within the block networks run compiled, with one code for each shape that they are given."""
    chosen = list(networks)
    for network in chosen:
        network.forward = Compiled(network.forward, "the network", must, say)
    try:
        yield
    finally:
        for network in chosen:
            del network.forward  # the class's own is there again


def announced(what: str) -> str:
    """What people are told before something is compiled."""
    return f"Compiling {what}: ten seconds or more the first time; --compile off goes without."
