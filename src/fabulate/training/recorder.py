"""Every operation of a function, written down as it runs: two records are equal where the same code would serve both.

torch's tracers know as much, but load its compiler first, which takes longer than the function's first thousand calls.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block operations are written down, gradients among them; tensors by when they were first met.

    Args: given: what goes into the function. Any other tensor that it did not make is a constant, known by its values.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: list[object] = []
        self.numbers: dict[int, int] = {}
        self.kept: list[Tensor] = []  # or another tensor could take its place in memory, and its number
        for value in given:
            self.lines.append((self.met(value), *about(value)))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Says to torch that its compiler never gets to see this class, or it would import it to tell it so."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        words = tree_map(self.word, (args, kwargs))
        results = function(*args, **(kwargs or {}))
        self.lines.append((str(function), words, tree_map(self.made, results)))
        return results

    def met(self, value: Tensor) -> int:
        """A tensor's number."""
        self.kept.append(value)
        return self.numbers.setdefault(id(value), len(self.numbers))

    def made(self, value: object) -> object:
        """How a result is written."""
        return ("made", self.met(value)) if isinstance(value, Tensor) else ()

    def word(self, value: object) -> object:
        """How an argument is written."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.numbers:
            self.lines.append((self.met(value), *about(value), value.tolist()))
        return ("tensor", self.numbers[id(value)])

    def digest(self, *more: object) -> str:
        """The record and other facts, as 32 hexadecimal digits."""
        return blake2b(repr((self.lines, more)).encode(), digest_size=16).hexdigest()


def about(value: Tensor) -> tuple[object, ...]:
    """What code depends on in a tensor that goes in."""
    return tuple(value.shape), value.stride(), str(value.dtype), str(value.device)
