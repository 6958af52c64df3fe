"""Five exercises, and the numbers by which the server knows that one is solved.

An exercise is solved by what a lesson shows, or by a number that people find out or predict.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fabulate.config import override
from fabulate.studio.learn.toys import CENTRES, ENTROPY, coverage

if TYPE_CHECKING:
    from fabulate.studio.learn.lesson import Lesson

ENOUGH = 0.6  # share of samples near a mode
CLOSE = 0.1  # nats


class Exercise(NamedTuple):
    """A task, the lesson it begins with, and how it is known to be solved."""

    name: str
    title: str
    task: str
    start: dict[str, Any]
    """What the lesson is of."""
    why: str
    """What is told once it is solved."""
    solved: "Callable[[Lesson], bool] | None" = None
    """By what a lesson shows; asked with each picture."""
    answer: "Callable[[Lesson, float], bool] | None" = None
    """By a number that somebody gives."""


def few_enough(lesson: "Lesson", count: float) -> bool:
    """Whether so many evaluations, and no fewer, bring enough samples near a mode."""
    if lesson.given.family != "flow" or lesson.given.data != "grid" or lesson.step < 1000 or count != int(count):
        return False

    def share(evaluations: int) -> float:
        before = lesson.model.sampling
        lesson.model.sampling = override(before, {"evaluations": evaluations})
        try:
            return coverage(lesson.view.points()).near
        finally:
            lesson.model.sampling = before

    return 1 <= count <= 50 and share(int(count)) >= ENOUGH and (count == 1 or share(int(count) - 1) < ENOUGH)


EXERCISES = (
    Exercise(
        "code",
        "How many numbers does a point need?",
        "The autoencoder copies the ring through a code of one number: the curve it can draw has two ends, and the "
        "longest arrows are where they do not meet. Change what it takes to bring the loss below 0.0002.",
        {"family": "ae", "preset": "default", "data": "ring", "latent_dim": 1},
        "Two numbers hold a point, so nothing is lost. It also has learnt nothing about the ring: a code as large as "
        "the data may copy anything. What a narrow code cannot hold is what makes it learn.",
        solved=lambda lesson: (
            lesson.given.family == "ae" and lesson.given.data == "ring" and lesson.mean("loss") < 2e-4
        ),
    ),
    Exercise(
        "beta",
        "A code that says nothing",
        "The VAE pays for its code: KL is what a code tells of its point, in nats. Train for 1,000 steps, move beta "
        "until KL is below 0.1, and watch where samples and reconstructions go.",
        {"family": "vae", "preset": "default", "data": "moons"},
        "Posterior collapse: a code that costs too much says nothing, every point has the same reconstruction, the "
        "mean of the data, and so have samples. The noise of p(x | z) has to explain all that varies.",
        solved=lambda lesson: lesson.given.family == "vae" and lesson.step >= 1000 and lesson.mean("kl") < 0.1,
    ),
    Exercise(
        "modes",
        "All nine modes",
        "The textbook's GAN draws one mode or a few, and wanders. Find a GAN that covers all nine of the grid, and "
        "goes on to cover them in twenty pictures one after the other.",
        {"family": "gan", "preset": "tutorial", "data": "grid"},
        "The default's critic judges each real point against a fake, so a mode without fakes always pulls, and "
        "penalties on its gradient make the field smooth enough to follow. The textbook's generator has only to find "
        "one place that its critic likes now.",
        solved=lambda lesson: (
            lesson.given.family == "gan" and len(lesson.modes) == 20 and min(lesson.modes) == len(CENTRES)
        ),
    ),
    Exercise(
        "evaluations",
        "As few steps as will do",
        "Train the flow on the grid for 1,000 steps or more, and pause. What is the smallest number of evaluations at "
        "which 60 % of the samples lie near a mode? Move the number, watch the share, and give your answer.",
        {"family": "flow", "preset": "default", "data": "grid"},
        "Far from the data the velocity points to the mean of all modes, and has to turn as noise goes away. Each "
        "step is straight: with too few, samples end between the modes. Solvers that remember earlier slopes need few.",
        answer=few_enough,
    ),
    Exercise(
        "entropy",
        "How low can it go?",
        "The loss of the normalizing flow is -E log p(x) in nats. The grid is nine Gaussians that do not overlap, each "
        "with a standard deviation of 0.05 in both directions. Predict the loss below which no model can come.",
        {"family": "nf", "preset": "default", "data": "grid"},
        "-E log p(x) = H + KL(data || model), and KL is never below 0. The entropy H of nine such Gaussians is "
        "ln 9 + ln(2 pi e 0.05^2) = -0.96: the curve of the loss comes down to it, and a flow that has to cut one "
        "Gaussian into nine pieces stays a little above.",
        answer=lambda lesson, value: lesson.given.family == "nf" and abs(value - ENTROPY) < CLOSE,
    ),
)


def told() -> list[dict[str, Any]]:
    """The exercises as the page shows them."""
    return [
        {
            **{name: getattr(each, name) for name in ("name", "title", "task", "start", "why")},
            "asks": each.answer is not None,
        }
        for each in EXERCISES
    ]
