"""What every process of a training but the first does: the same steps, and its part of looks and tests between them.

Before each step all agree on one number, the largest that a process gives: go on, leave with a signal that one of them
had, or help with a task that the first one wants done. The first alone has the clock, the folder and the judge, so the
others know nothing of when. They have the data, and weights equal to its own; what a family fits once the weights stand
still the first fits alone and hands over.
"""

from collections.abc import Callable

from torch import Tensor

from fabulate.data import Data
from fabulate.models import GenerativeModel
from fabulate.signals import InterruptedTraining, Stop
from fabulate.training.loop import Learner, score_images
from fabulate.training.validation import Selected
from fabulate.types import some_of

GO_ON, TEST, DRAW, VALIDATE, OVER = 0, 1001, 1002, 1003, 1004  # above all signals: what the first wants comes first


def follow(learner: Learner, data: Data, stop: Stop) -> GenerativeModel:
    """The steps from where the first process begins until it says otherwise, and all that it wants help with."""
    state = learner.processes.given(None)
    if state is not None:
        learner.restore(state)
    if hear(learner, data, stop) == OVER:
        return learner.sampler()
    for _ in learner.steps():
        number = hear(learner, data, stop)
        if number == OVER:  # stopped early
            return learner.sampler()
        if number != GO_ON:
            hear(learner, data, stop)  # until the first has saved
            raise InterruptedTraining(number, "")
    hear(learner, data, stop)  # the last test, and that it is over
    return learner.sampler()


def hear(learner: Learner, data: Data, stop: Stop) -> int:
    """What all agree on next, once the first process wants no more help."""
    while (number := int(learner.processes.most(stop.number or GO_ON, learner.model.device))) in HELP:
        HELP[number](learner, data)
        learner.model.train()
    return number


def test(learner: Learner, data: Data, n: int = 0) -> dict[str, float]:
    """The mean test terms of the averaged weights over n test images, each process asking about a part of them."""
    assert data.test is not None
    ask(learner, TEST)
    n = int(learner.processes.told(n, learner.model.device))
    images = data.test if n == len(data.test) else Selected(data.test, some_of(data.test, n, "test"))
    return score_images(learner.average, images, learner.training.seed, learner.processes)


def validate(learner: Learner) -> dict[str, float]:
    """The mean test terms of the averaged weights over the validation images."""
    assert learner.held_out is not None
    ask(learner, VALIDATE)
    return score_images(learner.average, learner.held_out, learner.training.seed, learner.processes)


def drawn(learner: Learner, n: int) -> Tensor:
    """Samples 0 .. n - 1 of the averaged weights, in [-1, 1] (N, C, H, W) on the CPU; each process draws a part."""
    ask(learner, DRAW)
    n = int(learner.processes.told(n, learner.model.device))
    part = learner.processes.part(n, learner.average.rows)
    return learner.processes.gathered(learner.average.sample(len(part), start=part.start).cpu() if part else None)


def ask(learner: Learner, job: int) -> None:
    """Let the others begin a task with the first process's model, whose weights must have settled."""
    if learner.processes.first:
        learner.processes.most(job, learner.model.device)
    learner.processes.share_([*learner.average.parameters(), *learner.average.buffers()])  # the chosen step's, perhaps


HELP: dict[int, Callable[[Learner, Data], object]] = {
    TEST: test,
    VALIDATE: lambda learner, data: validate(learner),
    DRAW: lambda learner, data: drawn(learner, 0),
}
