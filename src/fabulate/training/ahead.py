"""A turn as a library of machine code, made ahead of time: on a CPU a third faster than `torch.compile`'s functions.

Each sitting a turn is first taken as it is written, and its operations, gradients among them, are recorded
(`recorder.py`). The record names a library on the disk, which is loaded in milliseconds and without torch's compiler.
Where there is none yet, the compiler makes it: the turn becomes a graph of what goes in (weights, buffers, images) and
what comes out (`make_fx`), and the graph a library (`library.py`). Noise comes from torch's own generators, as without
compiling.

`torch.compile` looks before every call whether something in Python has changed that the code depends on, a twentieth of
a small step. A library does not look. So at steps 1, 2, 4, 8, ... of a sitting the turn is also taken as it is written,
with the same noise, and a difference beyond rounding ends the training.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fabulate.compiling import Say, prepared, shelf
from fabulate.errors import ConfigError, RunError
from fabulate.models.base import Player
from fabulate.training.library import OPTIONS, Run, compiled, loaded, opened, quietly
from fabulate.training.recorder import Recorder
from fabulate.training.turn import Turn, turn
from fabulate.types import Batch

APART = 1e-2  # of a gradient's length; rounding stays far below, also where it decides which code is the nearest

# What tracing and compiling raise for a turn that is beyond them; a mistake in the loss has been raised before.
BEYOND = (
    RuntimeError,
    NotImplementedError,
    AssertionError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    OSError,
)


class Library(NamedTuple):
    """A turn's code, and what its outputs are."""

    run: Run
    terms: list[str]
    moved: list[bool]
    """Which parameters have a gradient."""


class Within(nn.Module):
    """Calls a function on whatever tensors the model holds for now."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Turn], *words: object) -> Turn:
        return function(*words)


class Ahead:
    """A player's turn from a library; one that cannot be compiled is taken as it is written, and says why.

    Errors: `ConfigError` where it `must` be compiled and cannot be; `RunError` when the library's gradients are not
    those of the turn as it is written.
    """

    def __init__(self, model: nn.Module, must: bool, say: Say) -> None:
        self.model, self.must, self.say = model, must, say
        self.state = [*model.parameters(), *model.buffers()]
        self.libraries: dict[object, Library] = {}
        self.calls, self.plain = 0, False

    def __call__(self, player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Turn:
        if self.plain:
            return turn(player, parameters, batch, parts)
        x, y = batch
        about = (x.shape, x.dtype, y is None, parts)
        if about not in self.libraries:
            path, terms, moved = self.record(player, parameters, batch, parts)
            try:
                run = loaded(path) or self.made(path, player, parameters, batch, parts)
            except BEYOND as error:
                self.given_up(error)
                return turn(player, parameters, batch, parts)
            self.libraries[about] = Library(run, terms, moved)
        self.calls += 1
        if self.calls & (self.calls - 1) == 0:
            return self.compared(self.libraries[about], player, parameters, batch, parts)
        return self.taken(self.libraries[about], batch)

    def taken(self, library: Library, batch: Batch) -> Turn:
        """The turn by its library."""
        values = library.run(self.given(batch))
        gradients = iter(values[len(library.terms) :])
        return Turn(
            dict(zip(library.terms, values, strict=False)), [next(gradients) if has else None for has in library.moved]
        )

    def record(
        self, player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int
    ) -> tuple[Path, list[str], list[bool]]:
        """Where the library of a turn is or will be, and what its outputs are."""
        with self.undone(), Recorder(self.given(batch)) as recorder:
            written = turn(player, parameters, batch, parts)
        terms, moved = [*written.terms], [g is not None for g in written.gradients]
        results = [recorder.word(value) for value in flat(written)]
        machine = (torch.__version__, torch.get_num_threads(), torch.cpu.get_capabilities())
        return shelf() / f"turn-{recorder.digest(terms, moved, results, machine, OPTIONS)}.so", terms, moved

    def given(self, batch: Batch) -> list[Tensor]:
        """What goes into a library."""
        return [*self.state, *(value for value in batch if value is not None)]

    def made(self, path: Path, player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Run:
        """Compile a turn to a library."""
        from torch.fx.experimental.proxy_tensor import make_fx

        names = [
            "model." + name for kind in (self.model.named_parameters(), self.model.named_buffers()) for name, _ in kind
        ]
        place = {id(value): i for i, value in enumerate(self.state)}

        def taken(*given: Tensor) -> list[Tensor]:
            own = [given[place[id(parameter)]] for parameter in parameters]
            held = dict(zip(names, given, strict=False))
            words = (turn, player, own, Batch(*given[len(names) :]), parts)
            return flat(functional_call(Within(self.model), held, words))

        with quietly():
            prepared(batch.x.device)
            compiled(path, make_fx(taken, tracing_mode="fake")(*self.given(batch)), self.given(batch))
        return opened(path)

    def given_up(self, error: BaseException) -> None:
        """Go on as it is written, or say that it must not be."""
        reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
        if self.must:
            raise ConfigError(f"the step cannot be compiled ({reason}); leave out --compile on") from error
        self.say(f"The step is not compiled: {reason}")
        self.plain = True

    @contextmanager
    def undone(self) -> Iterator[None]:
        """After the block noise and buffers are as they were before it."""
        buffers = list(self.model.buffers())
        before, noise = [buffer.clone() for buffer in buffers], torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(noise)
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)

    def compared(
        self, library: Library, player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int
    ) -> Turn:
        """The turn by its library, once it has been held against the turn as it is written."""
        with self.undone():
            written = turn(player, parameters, batch, parts)
        taken = self.taken(library, batch)
        if not alike(taken.gradients, written.gradients):
            raise RunError(
                f"the compiled step has other gradients than the loss as it is written (turn {self.calls} of this "
                "sitting): something in Python that the loss depends on has changed; train with --compile off"
            )
        return taken


def flat(turn: Turn) -> list[Tensor]:
    """What a library gives: the terms and the gradients that there are."""
    return [*turn.terms.values(), *(g for g in turn.gradients if g is not None)]


def alike(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    """Whether a player's gradients differ in rounding alone, and lie in memory alike."""
    if [None if g is None else g.stride() for g in some] != [None if g is None else g.stride() for g in others]:
        return False
    # All parameters as one: the gradient of a single one may be nothing but rounding (a bias before a norm, say).
    ours, theirs = (torch.cat([g.flatten() for g in gradients if g is not None]) for gradients in (some, others))
    return not (ours - theirs).norm() > APART * theirs.norm()  # what is not finite is the guard's
