"""One sitting at a run: what happens between the steps of the loop.

It restores the newest good checkpoint, takes the steps, and between them logs, draws, tests and saves.
"""

import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from fabulate.data import Data
from fabulate.errors import DivergedError
from fabulate.files import own_folder, place_file
from fabulate.models import GenerativeModel
from fabulate.models.base import SHOWN
from fabulate.models.capabilities import Reconstructs
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import pairs, save_curves, save_png
from fabulate.signals import InterruptedTraining, Stop
from fabulate.training.folder import RunFolder, read_log
from fabulate.training.followers import GO_ON, OVER, drawn, test, validate
from fabulate.training.loop import Learner, take
from fabulate.training.progress import Display
from fabulate.training.validation import LOOKS
from fabulate.types import Ordered, some_of, to_uint8

if TYPE_CHECKING:
    from fabulate.training.judge import Judge

PICTURES = 8  # times in a run that samples are drawn and the test images scored
REPORTS = 200  # lines in the log of a run whose length is known; with a budget in minutes, one every 50 steps
SETTLED = 500  # steps before which nothing is warned of: every model begins badly
SAVE_SECONDS = 30.0  # between checkpoints, unless asked otherwise
BACKWARD = 3  # times as long as a pass forward takes one with its gradients
COPIES = 32  # reconstructions in a picture
FEWEST_TESTS = 500  # test images, however little time there is
SHARE = 0.1  # of a budget in minutes that pictures and tests between the steps may take


def best_look(log: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of a log whose samples were the nearest to the training images; None when nobody looked."""
    looks = [row for row in log if "samples" in row]
    return min(looks, key=lambda row: row["samples"]["frechet_distance"], default=None)


class Session:
    """One sitting at a run: from the newest checkpoint to the end of the budget, or to a signal."""

    def __init__(
        self,
        learner: Learner,
        folder: RunFolder,
        data: Data,
        display: Display,
        save_every: int | None = None,
        judge: "Judge | None" = None,
    ) -> None:
        self.learner, self.folder, self.data, self.display = learner, folder, data, display
        self.save_every, self.judge = save_every, judge
        self.shown = data.test if data.test is not None else data.train  # whose reconstructions are drawn
        self.tested: dict[str, float] = {}
        self.warned: set[str] = set()
        self.saved_at = time.monotonic()
        self.settled_at = -1  # the step whose weights `settled` last fitted the rest to
        self.looking = 0.0  # seconds that pictures and tests have taken between the steps
        self.expected = 0.0  # seconds that the last picture took
        self.seen = 0  # looks at the validation loss that were due

    def finish(self, stop: Stop) -> GenerativeModel:
        """Train to the end and return the model."""
        learner, folder = self.learner, self.folder
        self.restore()
        log = read_log(folder.path)
        self.told(OVER if log and log[-1].get("finished") else None)
        if log and log[-1].get("finished"):
            self.display.say(
                f"{folder.path} is finished: {learner.step:,} steps. For another run give another --out; "
                f"fabulate info {folder.path} tells its numbers."
            )
            self.tested = next((row["test"] for row in reversed(log) if "test" in row), {})
            self.choose()
            return self.model()
        try:
            self.train(stop)
            for sentence in self.choose():
                self.display.say(sentence)
            self.picture(last=True)
            self.told(OVER)
            last = log[-1] if log else {}
            if not ("test" in last and last["step"] == learner.step):  # else a sitting told it, and was killed then
                folder.report({**self.where(), "test": self.tested})
            self.summary_pictures()
            self.save()
            self.save_model()
        except DivergedError as error:
            kept = f"step {folder.good[0]['step']:,}"
            raise DivergedError(f"{error}. Last good checkpoint in {folder.path}: {kept}") from error
        folder.report({**self.where(), "finished": True})  # last of all: a kill before this line repeats the end
        return self.model()

    def restore(self) -> None:
        """Go to the newest good checkpoint; say which were passed over."""
        state, passed = self.folder.restore()
        for sentence in passed:
            self.display.say(f"Warning: {sentence}; going on from an older one.")
        self.learner.processes.given(state)
        if state is None:
            self.save()  # from now on a log without a checkpoint means that one was lost
            return
        self.learner.restore(state)
        self.display.say(f"Continuing {self.folder.path} from step {self.learner.step:,}.")
        self.folder.rewind(self.learner.step)

    def train(self, stop: Stop) -> None:
        """The steps, and what happens between them."""
        learner, count, busy = self.learner, 0, 0.0
        start = learner.seconds
        sums: dict[str, torch.Tensor] = {}
        interval = max(1, learner.total // REPORTS) if learner.total else 50
        pictures, self.seen = int(learner.progress * PICTURES), int(learner.progress * LOOKS)
        self.display.begin(learner.progress)
        self.tell_news()
        for terms in learner.steps():
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
            count += 1
            self.tell_news()
            if learner.step % interval == 0 or learner.progress >= 1:
                learner.guard.check()
                means = {name: float(value) / count for name, value in sums.items()}
                speed = count * learner.batch_size / max(learner.stepping - busy, 1e-9)
                self.folder.report({**self.where(), "images_per_second": round(speed, 1), "train": means})
                self.display.update(learner.progress, learner.step, speed, means)
                self.warn(means)
                sums, count, busy = {}, 0, learner.stepping
            if self.validation_due():
                self.validate()
                if learner.validation.hopeless:
                    break
            if int(learner.progress * PICTURES) > pictures and learner.progress < 1 and self.affordable():
                pictures = int(learner.progress * PICTURES)
                self.illustrate()
            if self.judge is not None and self.judge.due(learner.step, learner.seconds - start, self.settled):
                self.look(self.judge)
            if number := self.told(stop.number):  # all leave at the same step, whoever had the signal
                self.leave(number)
            if self.due():
                self.save()
        if self.judge is not None:
            self.display.say(self.judge.words(learner.seconds - start))

    def illustrate(self) -> None:
        """Draw, test and save the model of this step; how long that took says what the end will take."""
        began = time.perf_counter()
        self.picture()
        self.folder.report({**self.where(), "test": self.tested})
        self.save_model()
        self.learner.model.train()
        self.expected = time.perf_counter() - began
        self.looking += self.expected

    def affordable(self) -> bool:
        """Whether one more picture keeps all looks below their share of a budget in minutes."""
        learner = self.learner
        if learner.training.minutes is None:
            return True
        expected = self.forward * (2 * self.drawing + self.tests)
        learner.reserved = expected + self.forward * self.copying
        return self.looking + max(expected, self.expected) <= SHARE * learner.seconds

    @property
    def forward(self) -> float:
        """Seconds of one image's way forward through the networks, by the steps so far."""
        return self.learner.stepping / max(self.learner.taken, 1) / self.learner.batch_size / BACKWARD

    @property
    def drawing(self) -> int:
        """Ways forward that drawing the samples of a picture takes; a saved model shows them once more."""
        return SHOWN * max(1, sum(self.learner.model.repeated().values()))

    @property
    def copying(self) -> int:
        """Ways forward of the reconstructions that are drawn at the end only."""
        model = self.learner.model
        return 3 * self.drawing if isinstance(model, Reconstructs) and model.slow else 0

    @property
    def tests(self) -> int:
        """How many test images are asked about: all, or as many as a twentieth of a budget in minutes allows."""
        if self.data.test is None:
            return 0
        n, minutes = len(self.data.test), self.learner.training.minutes
        return n if minutes is None else min(n, max(FEWEST_TESTS, int(3 * minutes / max(self.forward, 1e-9))))

    def validation_due(self) -> bool:
        """Whether to ask for the validation loss: so many times in a run, within the looks' share of minutes."""
        learner = self.learner
        if learner.held_out is None or int(learner.progress * LOOKS) <= self.seen:
            return False
        self.seen = int(learner.progress * LOOKS)
        expected = self.looking + self.forward * len(learner.held_out)
        return learner.training.minutes is None or expected <= SHARE * learner.seconds

    def validate(self) -> None:
        """Ask for the validation loss of this step, and keep the weights when none before were better."""
        learner, began = self.learner, time.perf_counter()
        if self.settled_at != learner.step:
            learner.sampler()
        terms = validate(learner)
        learner.validation.take(learner.step, terms["loss"], learner.average)
        self.folder.report({**self.where(), "validation": terms})
        learner.model.train()
        self.looking += time.perf_counter() - began

    def choose(self) -> list[str]:
        """Take the weights with the lowest validation loss, and say so where they are not the last."""
        learner, validation = self.learner, self.learner.validation
        if validation.best is None or validation.best[0] == learner.step:
            return []
        step, loss, _ = validation.best
        learner.choose()
        self.settled_at = -1
        early = ", and stopped early" if validation.hopeless else ""
        return [
            f"The validation loss rose since step {step:,} ({loss:.5g} there, {validation.latest:.5g} at step "
            f"{learner.step:,}{early}): the weights of step {step:,} are kept."
        ]

    def tell_news(self) -> None:
        """Say what the learner has to tell."""
        while self.learner.news:
            self.display.say(self.learner.news.pop(0))

    def look(self, judge: "Judge") -> None:
        """Measure the samples of this step, and keep the model when none before was better."""
        before = best_look(read_log(self.folder.path))
        distance = judge.look(self.drawn)
        self.folder.report({**self.where(), "samples": {"frechet_distance": distance}})
        if before is None or distance < before["samples"]["frechet_distance"]:
            with self.folder.writing():
                self.model().save_pretrained(own_folder(self.folder.best))
        self.learner.model.train()

    def drawn(self, n: int) -> torch.Tensor:
        """Samples 0 .. n - 1 of this step, in [-1, 1] (N, C, H, W)."""
        self.settled()
        return drawn(self.learner, n)

    def warn(self, means: dict[str, float]) -> None:
        """Say what goes wrong, each thing once."""
        learner = self.learner
        sentences = learner.images.warnings() if isinstance(learner.images, Ordered) else []
        if learner.step >= SETTLED:
            sentences += learner.model.warnings(means)
        for sentence in sentences:
            if sentence not in self.warned:
                self.warned.add(sentence)
                self.display.say(f"Warning: {sentence}")

    def where(self) -> dict[str, Any]:
        """How far training has come, as each line of the log says it."""
        learner = self.learner
        return {"step": learner.step, "epoch": round(learner.epoch, 3), "seconds": round(learner.seconds, 3)}

    def told(self, number: int | None) -> int:
        """Tell the other processes to go on, or to leave for a reason; one of them may have a reason too."""
        return int(self.learner.processes.most(number or GO_ON, self.learner.model.device))

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.save_every is not None:
            return self.learner.step % self.save_every == 0
        return time.monotonic() - self.saved_at >= SAVE_SECONDS

    def save(self) -> None:
        """Write a checkpoint."""
        for sentence in self.folder.save(self.learner.state()):
            if sentence not in self.warned:
                self.warned.add(sentence)
                self.display.say(f"Warning: {sentence}")
        self.saved_at = time.monotonic()

    def leave(self, number: int) -> None:
        """A signal came: save everything and go."""
        self.save()
        self.save_model()
        self.told(OVER)
        raise InterruptedTraining(
            number, f"Stopped at step {self.learner.step:,}, saved in {self.folder.path}. The same command continues."
        )

    def settled(self) -> GenerativeModel:
        """The averaged weights of this step, and what a family fits once they stand still."""
        learner = self.learner
        if self.settled_at != learner.step:
            learner.sampler().fit_latents(learner.images)
            self.settled_at = learner.step
        return learner.average

    def model(self) -> GenerativeModel:
        """The model to use, with what its card tells."""
        model = self.settled().eval().requires_grad_(False)
        model.record = {
            "data": self.data.name,
            "steps": self.learner.weights_of,
            "seconds": round(self.learner.seconds, 1),
            "test": self.tested,
        }
        return model

    def save_model(self) -> None:
        """Write the folder for users."""
        with self.folder.writing():
            self.model().save_pretrained(own_folder(self.folder.model))

    def picture(self, last: bool = False) -> None:
        """Draw 64 samples from fixed noise, some reconstructions (slow ones at the last), and score the test images."""
        model, step = self.settled(), f"step-{self.learner.step:08d}"
        title = f"{self.folder.path.name}, step {self.learner.weights_of:,}"
        if self.data.test is not None:
            n = self.tests
            self.tested = test(self.learner, self.data, n)
            if last and n < len(self.data.test):
                self.display.say(
                    f"The test numbers are of {n:,} of the {len(self.data.test):,} test images, as many as the minutes "
                    f"allow; fabulate evaluate {self.folder.path} asks more."
                )
        with self.folder.writing():
            save_png(model.show(title=f"{title}: samples"), self.folder.samples / f"{step}.png")
            # A family without an encoder searches for codes, which takes too long now and then.
            if not isinstance(model, EncodesBySearch) and isinstance(model, Reconstructs) and (last or not model.slow):
                chosen = some_of(self.shown, COPIES, "shown").sort().values  # a folder's come class after class
                batch = take(self.shown, chosen, model, model.device)
                copies = model.reconstruct(batch.x, batch.y)
                real, copied = (to_uint8(x).cpu().numpy() for x in (batch.x, copies))
                part = "training" if self.data.test is None else "test"
                picture = pairs(real, copied, f"{title}: reconstructions", f"of {part} images")
                save_png(picture, self.folder.samples / f"reconstructions-{step}.png")

    def summary_pictures(self) -> None:
        """The run's last pictures under plain names, and its curves."""
        step = f"step-{self.learner.step:08d}.png"
        with self.folder.writing():
            for old, new in ((step, "samples.png"), (f"reconstructions-{step}", "reconstructions.png")):
                if (self.folder.samples / old).exists():
                    place_file(self.folder.path / new, partial(copy, self.folder.samples / old))
            log, title = read_log(self.folder.path), f"{self.folder.path.name}: how the training went"
            save_curves(log, self.folder.path / "curves.png", title, self.learner.model.units)


def copy(picture: Path, file: IO[bytes]) -> None:
    """Write a picture's bytes into another file."""
    file.write(picture.read_bytes())
