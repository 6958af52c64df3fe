"""Turns from libraries made ahead of time: when they are made, what they move, and how they are held to the loss."""

import pytest
import torch

from fabulate.compiling import Compiled
from fabulate.config import Training
from fabulate.data.cache import root
from fabulate.errors import RunError
from fabulate.models.base import GenerativeModel, NoChoice, Player
from fabulate.nets import MLP
from fabulate.training import ahead
from fabulate.training.loop import Learner
from fabulate.training.turn import turn
from test_turns import CPU, flat, learner
from tiny import SMALL, pictures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiler")]


class Sliding(GenerativeModel):
    """A model without a family that remembers what it saw in a buffer, and whose loss depends on a Python number.

    It counts by an operation that torch's compiler leaves to torch.
    """

    def __init__(self) -> None:
        super().__init__(NoChoice(), SMALL)
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(2))
        self.factor = 1.0

    def players(self):
        return {"model": Player(self, self.loss)}

    def draw(self, tiles, y):
        raise NotImplementedError

    def loss(self, batch):
        with torch.no_grad():
            self.seen.mul_(0.5).add_(batch.x.mean())
        counts = torch.bincount((batch.x > 0).flatten().long(), minlength=2)
        loss = self.factor * (self.weight * batch.x.mean() - torch.randn(3) + self.seen[0]).square().sum()
        return {"loss": loss, "bright": counts[1]}


def sliding(compile: str) -> Learner:
    return Learner(Sliding(), Training(steps=20, batch_size=10, compile=compile), pictures(SMALL, 40))


def finish(lesson: Learner) -> torch.Tensor:
    for _ in lesson.steps():
        pass
    return flat(lesson.model)


def test_buffers_move_as_without_compiling():
    plain, compiled, again = finish(sliding("off")), finish(sliding("on")), finish(sliding("on"))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)
    assert torch.equal(again, compiled) and plain[:2].abs().min() > 0


def test_a_loss_that_changes_in_python_ends_the_training():
    lesson = sliding("on")
    steps = lesson.steps()
    for _ in range(5):
        next(steps)
    lesson.model.factor = 3.0
    for _ in range(2):
        next(steps)
    with pytest.raises(RunError, match=r"has other gradients than the loss as it is written \(turn 8 .* --compile off"):
        next(steps)


def test_a_library_is_made_once_and_anew_when_it_is_damaged(monkeypatch):
    made, compiled = [], ahead.compiled
    monkeypatch.setattr(ahead, "compiled", lambda *words: made.append(words[0]) or compiled(*words))
    before = {*(root() / "compiled").glob("turn-*")}
    words = {"compile": "on", "network": MLP(hidden=(7,)), "steps": 2}
    first = finish(learner("ae", **words))
    assert torch.equal(finish(learner("ae", **words)), first)
    assert len(made) == 1
    assert {*(root() / "compiled").glob("turn-*")} - before == {*made}
    content = made[0].read_bytes()
    made[0].unlink()  # it is still in use
    made[0].write_bytes(content[:1000])
    assert torch.equal(finish(learner("ae", **words)), first)
    assert len(made) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler uses its own old ways
@pytest.mark.usefixtures("float64")
def test_a_gpus_way_to_compile_turns_learns_the_same():
    """There turns are compiled by `torch.compile`; that it does what libraries do needs no GPU to be seen."""
    words = {"network": MLP(hidden=(16,))}
    plain, compiled = learner("gan", compile="off", **words), learner("gan", compile="off", **words)
    compiled.turns = {name: Compiled(turn, "the step", CPU, True, print) for name in compiled.players}
    torch.testing.assert_close(finish(compiled), finish(plain), rtol=0, atol=1e-9)
