"""What happens between the steps of a training: log, validation, tests, pictures, checkpoints.

`Session` is the first process's: it alone has the clock, the folder and the screen, and does all of this. The others
(`follow`) take the same steps and wait meanwhile: before each step all agree on one number, the largest that a process
gives, to go on or to leave with a signal that one of them had.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from fabulate.data import Data
from fabulate.data.media import medium
from fabulate.errors import DivergedError
from fabulate.files import own_folder
from fabulate.models import GenerativeModel
from fabulate.models.base import SHOWN
from fabulate.models.capabilities import Reconstructs
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import save_curves, save_png
from fabulate.signals import InterruptedTraining, Stop
from fabulate.training.devices import peak_memory, take
from fabulate.training.folder import RunFolder, read_log
from fabulate.training.loop import Learner
from fabulate.training.progress import Display
from fabulate.training.validation import VALIDATIONS, SampleQuality, score_images
from fabulate.types import Ordered, Selected, some_of

PICTURES = 8  # times in a run that samples are drawn and the test images scored
REPORTS = 200  # lines in the log of a run whose length is known; with a budget in minutes, one every 50 steps
SETTLED = 500  # steps before which nothing is warned of: every model begins badly
SAVE_SECONDS = 30.0  # between checkpoints, unless asked otherwise
BACKWARD = 3  # times as long as a pass forward takes one with its gradients
RECONSTRUCTIONS = 32  # in a picture
FEWEST_TESTS = 500  # test images, however little time there is
SHARE = 0.1  # of a budget that pictures, validation and tests between the steps may take

GO_ON, OVER = 0, 1000  # above all signals: what is over is not interrupted any more

Report = dict[str, Any]
"""A line of the log."""


def best_samples(log: list[Report]) -> Report | None:
    """The row of a log whose samples were the nearest to the training images; None when none were measured."""
    return min(
        (row for row in log if "samples" in row), key=lambda row: row["samples"]["frechet_distance"], default=None
    )


class Session:
    """From the newest checkpoint of a run to the end of its budget, or to a signal."""

    def __init__(
        self,
        learner: Learner,
        folder: RunFolder,
        data: Data,
        display: Display,
        stop: Stop,
        save_every: int | None = None,
        quality: SampleQuality | None = None,
    ) -> None:
        self.learner, self.folder, self.data, self.display, self.stop = learner, folder, data, display, stop
        self.save_every, self.quality = save_every, quality
        self.shown = data.test if data.test is not None else data.train  # whose reconstructions are drawn
        self.tested: dict[str, float] = {}
        self.pictures, self.validations = 0, 0  # done, or not worth doing any more
        self.warned: set[str] = set()
        self.saved_at = time.monotonic()
        self.fitted_at = -1  # the step whose weights `fitted` last fitted the rest to
        self.evaluating = 0.0  # seconds that pictures, validation and tests have taken between the steps
        self.expected = 0.0  # seconds that the last picture took
        self.log = read_log(folder.path)
        self.sums: dict[str, Tensor] = {}  # of the terms since the last report
        self.counts: dict[str, int] = {}  # of them: not every player moves in every step
        self.count, self.reported_at = 0, 0.0  # steps since then, and seconds of all steps until then

    def begin(self) -> bool:
        """Go to the newest good checkpoint; whether there is anything left to do."""
        learner, path = self.learner, self.folder.path
        state, passed = self.folder.restore()
        for sentence in passed:
            self.display.say(f"Warning: {sentence}; going on from an older one.")
        learner.processes.broadcast_object(state)
        if state is None:
            self.save()  # from now on a log without a checkpoint means that one was lost
        else:
            learner.restore(state)
            self.display.say(f"Continuing {path} from step {learner.step:,}.")
            self.folder.rewind(learner.step)
            self.log = read_log(path)
        finished = bool(self.log and self.log[-1].get("finished"))
        self.agree(OVER if finished else None)
        if finished:
            self.display.say(
                f"{path} is finished: {learner.step:,} steps. For another run give another --out; "
                f"fabulate info {path} tells its numbers."
            )
            self.tested = next((row["test"] for row in reversed(self.log) if "test" in row), {})
            self.restore_best()
            share(learner)
            return False
        self.start = learner.seconds
        self.interval = max(1, learner.total // REPORTS) if learner.total else 50
        self.count_as_done()
        self.display.begin(learner.progress)
        self.tell_messages()
        return True

    def after_step(self, terms: dict[str, Tensor]) -> Iterator[Report]:
        """What is due after a step; gives each line of the log. Errors: `InterruptedTraining` after a signal, saved."""
        learner = self.learner
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.count += 1
        self.tell_messages()
        if learner.step % self.interval == 0 or learner.progress >= 1:
            yield self.report_losses()
        if not learner.all_begun:  # nothing can be drawn yet, nor any loss compared with those to come
            self.count_as_done()
        if self.validation_due():
            yield self.validate()
            if learner.validation.should_stop:
                return
        if int(learner.progress * PICTURES) > self.pictures and learner.progress < 1 and self.affordable():
            self.pictures = int(learner.progress * PICTURES)
            yield self.illustrate()
        if self.quality is not None and self.quality.due(learner.step, learner.seconds - self.start, self.fitted):
            yield self.measure(self.quality)
        if number := self.agree(self.stop.number):  # all leave at the same step, whoever had the signal
            self.leave(number)
        if self.checkpoint_due():
            self.save()

    def count_as_done(self) -> None:
        """No picture and no validation is due for what was trained until now."""
        self.pictures = int(self.learner.progress * PICTURES)
        self.validations = int(self.learner.progress * self.most_validations)

    def end(self) -> Iterator[Report]:
        """The best weights, their test numbers, pictures and model; a kill before the last line repeats all of it."""
        learner = self.learner
        if self.quality is not None:
            self.display.say(self.quality.summary(learner.seconds - self.start))
        for sentence in self.restore_best():
            self.display.say(sentence)
        self.agree(OVER)
        share(learner)
        self.picture(last=True)
        last = self.log[-1] if self.log else {}
        if not ("test" in last and last["step"] == learner.step):  # else a session told it, and was killed then
            yield self.report(test=self.tested)
        self.curves()
        self.save()
        self.save_model()
        peak = peak_memory(learner.device)
        if peak is not None:
            self.display.say(f"Memory at its peak: {peak / 1e9:.2g} GB.")
        yield self.report(finished=True, **({} if peak is None else {"peak_memory": peak}))

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Within the block an error of divergence tells which checkpoint is left, and who leaves the loop saves."""
        try:
            yield
        except DivergedError as error:
            kept = f"step {self.folder.good[0]['step']:,}"
            raise DivergedError(f"{error}. Last good checkpoint in {self.folder.path}: {kept}") from error
        except GeneratorExit:
            self.save()
            raise

    def report(self, **what: Any) -> Report:
        learner = self.learner
        where = {"step": learner.step, "epoch": round(learner.epoch, 3), "seconds": round(learner.seconds, 3)}
        self.folder.report(row := {**where, **what})
        return row

    def report_losses(self) -> Report:
        """Tell the mean losses since the last time."""
        learner = self.learner
        learner.guard.check()
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        speed = self.count * learner.batch_size / max(learner.stepping - self.reported_at, 1e-9)
        row = self.report(images_per_second=round(speed, 1), train=means)
        self.display.update(learner.progress, learner.step, speed, means)
        sentences = learner.images.warnings() if isinstance(learner.images, Ordered) else []
        self.warn([*sentences, *(learner.model.warnings(means) if learner.step >= SETTLED else [])])
        self.sums, self.counts, self.count, self.reported_at = {}, {}, 0, learner.stepping
        return row

    def illustrate(self) -> Report:
        """Draw, test and save the model of this step; how long that took says what the end will take."""
        began = time.perf_counter()
        self.picture()
        row = self.report(test=self.tested)
        self.save_model()
        self.learner.model.train()
        self.expected = time.perf_counter() - began
        self.evaluating += self.expected
        return row

    def affordable(self) -> bool:
        """Whether one more picture keeps all that happens between steps below its share of a budget in minutes."""
        learner, model = self.learner, self.learner.model
        if learner.training.minutes is None:
            return True
        drawing = SHOWN * max(1, sum(model.repeated().values()))  # passes forward; a saved model draws them once more
        expected = self.forward * (2 * drawing + self.tests)
        slow = 3 * drawing if isinstance(model, Reconstructs) and model.slow else 0  # reconstructions at the end only
        learner.reserved = expected + self.forward * slow
        return self.evaluating + max(expected, self.expected) <= SHARE * learner.seconds

    @property
    def forward(self) -> float:
        """Seconds of one image's way forward through the networks, by the steps so far."""
        return self.learner.stepping / max(self.learner.taken, 1) / self.learner.batch_size / BACKWARD

    @property
    def tests(self) -> int:
        """How many test images are scored: all, or as many as a twentieth of a budget in minutes allows."""
        if self.data.test is None:
            return 0
        n, minutes = len(self.data.test), self.learner.training.minutes
        return n if minutes is None else min(n, max(FEWEST_TESTS, int(3 * minutes / max(self.forward, 1e-9))))

    @property
    def most_validations(self) -> int:
        """How often a run measures the validation loss: 40 times, in a short one within a tenth of its work."""
        learner = self.learner
        if learner.held_out is None or learner.total is None:
            return VALIDATIONS
        worth = SHARE * BACKWARD * learner.total * learner.batch_size  # images to go forward through the networks
        return max(1, min(VALIDATIONS, int(worth / len(learner.held_out))))

    def validation_due(self) -> bool:
        """Whether to measure the validation loss: so many times in a run, within the share of a budget in minutes."""
        learner, most = self.learner, self.most_validations
        if learner.held_out is None or int(learner.progress * most) <= self.validations:
            return False
        self.validations = int(learner.progress * most)
        expected = self.evaluating + self.forward * len(learner.held_out)
        return learner.training.minutes is None or expected <= SHARE * learner.seconds

    def validate(self) -> Report:
        """Measure the validation loss of this step, and keep the weights when none before were better."""
        learner, began = self.learner, time.perf_counter()
        assert learner.held_out is not None
        if self.fitted_at != learner.step:
            learner.sampler()
        terms = score_images(learner.average, learner.held_out, learner.training.seed)
        learner.validation.record(learner.step, terms["loss"], learner.average)
        row = self.report(validation=terms)
        learner.model.train()
        self.evaluating += time.perf_counter() - began
        return row

    def restore_best(self) -> list[str]:
        """Take the weights with the lowest validation loss, and say so where they are not the last."""
        learner, validation = self.learner, self.learner.validation
        if validation.best is None or validation.best[0] == learner.step:
            return []
        step, loss, _ = validation.best
        learner.restore_best()
        self.fitted_at = -1
        what = "rose since" if validation.overfitting else "was lowest at"
        early = ", and stopped early" if validation.should_stop else ""
        return [
            f"The validation loss {what} step {step:,} ({loss:.5g} there, {validation.latest:.5g} at step "
            f"{learner.step:,}{early}): the weights of step {step:,} are kept."
        ]

    def measure(self, quality: SampleQuality) -> Report:
        """Measure the samples of this step, and keep the model in best/ when none before were better."""
        before = best_samples(read_log(self.folder.path))
        distance = quality.measure(self.fitted())
        row = self.report(samples={"frechet_distance": distance})
        if before is None or distance < before["samples"]["frechet_distance"]:
            with self.folder.writing():
                self.model().save_pretrained(own_folder(self.folder.best))
        self.learner.model.train()
        return row

    def tell_messages(self) -> None:
        while self.learner.messages:
            self.display.say(self.learner.messages.pop(0))

    def warn(self, sentences: list[str]) -> None:
        """Say what goes wrong, each thing once."""
        for sentence in sentences:
            if sentence not in self.warned:
                self.warned.add(sentence)
                self.display.say(f"Warning: {sentence}")

    def agree(self, number: int | None) -> int:
        """Tell the other processes to go on, or to leave for a reason; one of them may have a reason too."""
        return int(self.learner.processes.most(number or GO_ON, self.learner.device))

    def checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.save_every is not None:
            return self.learner.step % self.save_every == 0
        return time.monotonic() - self.saved_at >= SAVE_SECONDS

    def save(self) -> None:
        self.warn(self.folder.save(self.learner.state()))
        self.saved_at = time.monotonic()

    def leave(self, number: int) -> None:
        """A signal came: save everything and go."""
        self.save()
        self.save_model()
        self.agree(OVER)
        raise InterruptedTraining(
            number, f"Stopped at step {self.learner.step:,}, saved in {self.folder.path}. The same command continues."
        )

    def fitted(self) -> GenerativeModel:
        """The averaged weights of this step, and what a family fits once they stand still."""
        learner = self.learner
        if self.fitted_at != learner.step:
            learner.sampler().fit_latents(learner.images)
            self.fitted_at = learner.step
        return learner.average

    def model(self) -> GenerativeModel:
        """The model to use, with what its card tells."""
        model = self.fitted().eval().requires_grad_(False)
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
        model, step = self.fitted(), f"step-{self.learner.step:08d}"
        title = f"{self.folder.path.name}, step {self.learner.weights_of:,}"
        if self.data.test is not None:
            n, test = self.tests, self.data.test
            images = test if n == len(test) else Selected(test, some_of(test, n, "test"))
            self.tested = score_images(model, images, self.learner.training.seed)
            if last and n < len(test):
                self.display.say(
                    f"The test numbers are of {n:,} of the {len(test):,} test images, as many as the minutes "
                    f"allow; fabulate evaluate {self.folder.path} asks more."
                )
        pictures = {"samples": model.show(title=f"{title}: samples")}
        # A family without an encoder searches for codes, which takes too long now and then.
        if not isinstance(model, EncodesBySearch) and isinstance(model, Reconstructs) and (last or not model.slow):
            subset = some_of(self.shown, RECONSTRUCTIONS, "shown").sort().values  # a folder's come class after class
            batch = take(self.shown, subset, model, model.device)
            real, made = (model.items(x) for x in (batch.x, model.reconstruct(batch.x, batch.y)))
            which = "of training images" if self.data.test is None else "of test images"
            pictures["reconstructions"] = medium(model.shape).pairs(real, made, f"{title}: reconstructions", which)
        with self.folder.writing():
            for name, picture in pictures.items():
                save_png(picture, self.folder.samples / f"{'' if name == 'samples' else name + '-'}{step}.png")
                if last:
                    save_png(picture, self.folder.path / f"{name}.png")

    def curves(self) -> None:
        with self.folder.writing():
            log, title = read_log(self.folder.path), f"{self.folder.path.name}: how the training went"
            save_curves(log, self.folder.path / "curves.png", title, self.learner.model.units)


def follow(learner: Learner, stop: Stop) -> GenerativeModel:
    """In a process that is not the first: its steps, until all agree to leave; returns the first one's weights."""
    processes = learner.processes
    state = processes.broadcast_object(None)
    if state is not None:
        learner.restore(state)
    if processes.most(GO_ON, learner.device) != OVER:
        for _ in learner.steps():
            number = int(processes.most(stop.number or GO_ON, learner.device))
            if number == OVER:  # stopped early
                break
            if number != GO_ON:
                processes.most(GO_ON, learner.device)  # until the first has saved
                raise InterruptedTraining(number, "")
        else:
            processes.most(GO_ON, learner.device)  # that it is over
    share(learner)
    return learner.average


def share(learner: Learner) -> None:
    """Give the averaged weights of the first process, perhaps those of the best step, to all."""
    learner.processes.share_([*learner.average.parameters(), *learner.average.buffers()])
