"""The one training loop. It goes over a model's players and never asks what kind of model it trains.

    for each step:                                  the images of a step are a function of (seed, step)
        for each player whose turn it is:           all other parameters stand still
            for each micro-batch:                   noise is a function of (seed, step, player, micro-batch)
                loss, gradients                     one compiled region where that pays
            add up the gradients of all processes   each has its share of the micro-batches
            stop if anything is not finite; clip; Adam
        move the average of the weights

The loop is a generator that yields after each step; progress, logging, pictures and saving happen between steps, in the
caller. There are no callbacks.
"""

import copy
import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fabulate.config import Training, override
from fabulate.errors import RunError
from fabulate.models.base import GenerativeModel, Player
from fabulate.processes import ALONE, Processes
from fabulate.seeds import seeded
from fabulate.training.adam import Adam
from fabulate.training.devices import shared_evenly
from fabulate.training.guard import Guard, check_finite
from fabulate.training.turn import turns
from fabulate.training.validation import Validation
from fabulate.types import Batch, BatchSource, order_of

TEST_BATCH = 500  # images scored together, fewer of large ones
WARMUP = 0.05  # of a budget in minutes


class Learner:
    """A model in training: its players' optimisers, the average of its weights, and how far it has come."""

    def __init__(
        self,
        model: GenerativeModel,
        training: Training,
        images: BatchSource,
        processes: Processes = ALONE,
        held_out: BatchSource | None = None,
        parts: int | None = None,
    ) -> None:
        """`parts`: the micro-batches of a step, of all processes together (default: `accumulate` for each process)."""
        training, self.batch_size, self.lr = settled(training, model)
        self.model, self.training, self.images, self.processes = model, training, images, processes
        self.held_out, self.validation = held_out, Validation()
        self.parts = shared_evenly(training, model.shape.size, processes.count) if parts is None else parts
        self.device = model.device
        model.init_from_data(images)
        self.players = model.players()
        self.parameters = {name: list(player.module.parameters()) for name, player in self.players.items()}
        self.optimizers = {name: Adam(parameters, training.betas) for name, parameters in self.parameters.items()}
        self.others = {
            name: [p for p in model.parameters() if all(p is not own for own in parameters)]
            for name, parameters in self.parameters.items()
        }
        self.average = copy.deepcopy(model) if training.ema else model
        self.latest_order = (-1, torch.empty(0))  # an epoch's permutation serves all its steps
        self.step = 0
        self.began = time.perf_counter()  # of all sittings, as if they had followed each other
        self.seconds = 0.0  # since then, by the clock
        self.stepping, self.taken = 0.0, 0  # of them in steps, and how many, in this sitting
        self.reserved = 0.0  # of a budget in minutes, for what comes after the last step
        self.chosen = False  # the average holds the weights of the best step, for good
        self.guard = Guard(self.device.type != "cpu", self.lr)
        self.news: list[str] = []  # what whoever watches should be told
        self.turns = turns(model, training, self.total, self.news.append)

    @cached_property  # asked for several times a step
    def total(self) -> int | None:
        """Steps in the whole budget, were there no clock; None when minutes are the only budget."""
        training = self.training
        totals = [] if training.steps is None else [training.steps]
        if training.epochs is not None:
            totals.append(math.ceil(training.epochs * len(self.images) / self.batch_size))
        return min(totals, default=None)

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0..1."""
        steps = 0.0 if self.total is None else self.step / self.total
        return min(max(steps, self.clock), 1.0)

    @property
    def clock(self) -> float:
        """The share of the minutes that is spent; 0 where none were given."""
        if self.training.minutes is None:
            return 0.0
        budget = 60 * self.training.minutes
        return self.seconds / max(budget - self.reserved, budget / 2)

    @property
    def epoch(self) -> float:
        """How often each training image has been seen."""
        return self.step * self.batch_size / len(self.images)

    @property
    def weights_of(self) -> int:
        """The step whose weights `sampler` gives: the latest, or the chosen one."""
        return self.validation.best[0] if self.chosen and self.validation.best is not None else self.step

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """Train to the end of the budget; yields each step's logged terms, still on the device.

        Errors: `DivergedError` before an update with a loss or gradient that is not finite.
        """
        self.model.train()
        while self.progress < 1 and not self.validation.hopeless:
            began = time.perf_counter()
            terms = self.advance()
            now = time.perf_counter()
            self.stepping, self.taken = self.stepping + now - began, self.taken + 1
            self.seconds = now - self.began
            if self.training.minutes is not None:  # one clock for all, or their rates would drift apart
                self.seconds = self.processes.told(self.seconds, self.device)
            yield terms

    def advance(self) -> dict[str, Tensor]:
        """One step: each player takes its turn on the same images."""
        batches = self.micro_batches()
        if self.step == 0 and not self.processes.alone:
            self.touch(batches[0])
        rate = self.rate()
        terms: dict[str, Tensor] = {}
        for name, player in self.players.items():
            if (self.step + 1) % player.every == 0:
                prefix = f"{name}." if len(self.players) > 1 else ""
                turn = self.turn(name, player, batches, rate)
                terms |= {prefix + term: value for term, value in turn.items()}
        self.step += 1
        if not self.processes.alone:
            self.processes.share_(list(self.model.buffers()))
        if self.average is not self.model:
            # Early on the average would remember the random start, so its memory grows with the step.
            decay = min(self.training.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
                ema(list(self.average.parameters()), list(self.model.parameters()), None)
        return terms

    def touch(self, batch: Batch) -> None:
        """Let the first process alone set what a first batch sets (a normalizing flow's scales, say), for all."""
        if self.processes.first:
            for name, player in self.players.items():
                with seeded(self.training.seed, "noise", 0, name, 0, device=self.device):
                    player.loss(batch.floats())
        self.processes.share_([*self.model.parameters(), *self.model.buffers()])

    def turn(self, name: str, player: Player, batches: list[Batch], rate: float) -> dict[str, Tensor]:
        """One player moves; everything else stands still, so no gradient leaks and none is computed."""
        parameters = self.parameters[name]
        for parameter in self.others[name]:
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        sums: dict[str, Tensor] = {}
        gradients: list[Tensor | None] = [None] * len(parameters)
        parts = self.parts
        for i, batch in enumerate(batches, start=self.processes.rank * len(batches)):
            with seeded(self.training.seed, "noise", self.step, name, i, device=self.device):
                taken = self.turns[name](player, parameters, batch, parts)
            pairs = zip(gradients, taken.gradients, strict=True)
            gradients = [new if old is None else old if new is None else old + new for old, new in pairs]
            for term, value in taken.terms.items():
                part = value / parts if parts > 1 else value
                sums[term] = sums[term] + part if term in sums else part
        added = [gradient for gradient in gradients if gradient is not None]
        self.processes.add_([*added, *sums.values()])
        norm = get_total_norm(added)
        dropped = self.guard.watch(self.step + 1, name, {**sums, "gradient": norm})
        if self.training.clip:
            scale = (self.training.clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in added:
                gradient.mul_(scale)
        self.optimizers[name].update(gradients, rate, dropped)
        for parameter in self.others[name]:
            parameter.requires_grad_(True)
        return sums

    def micro_batches(self) -> list[Batch]:
        """The images of this step. Epoch after epoch, every image once each, in a new order; nothing is dropped."""
        n, size = len(self.images), self.batch_size
        first, last = self.step * size, (self.step + 1) * size
        epochs = range(first // n, (last - 1) // n + 1)
        order = torch.cat([self.order(epoch)[max(first - epoch * n, 0) : last - epoch * n] for epoch in epochs])
        mine = order.chunk(self.processes.count)[self.processes.rank]
        micro = mine.chunk(self.parts // self.processes.count)
        return [take(self.images, indices, self.model, self.device) for indices in micro]

    def order(self, epoch: int) -> Tensor:
        """The order of the images in an epoch."""
        known, order = self.latest_order
        if known != epoch:
            order = order_of(self.images, self.training.seed, epoch)
            self.latest_order = (epoch, order)
        return order

    def rate(self) -> float:
        """This step's learning rate: a linear warm-up, then the schedule over the budget."""
        training = self.training
        if training.minutes is not None and training.warmup:
            rising = min(1.0, max(self.clock, 1e-3) / WARMUP)
        else:
            warmup = training.warmup if self.total is None else min(training.warmup, self.total // 10)
            rising = min(1.0, (self.step + 1) / (warmup + 1))
        falling = 1.0 if training.schedule == "constant" else (1 + math.cos(math.pi * self.progress)) / 2
        return self.lr * rising * falling

    def sampler(self) -> GenerativeModel:
        """The model to use and to save: the averaged weights, with the buffers of now."""
        self.sound()
        if self.average is not self.model and not self.chosen:
            for old, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(new)
        return self.average

    def sound(self) -> None:
        """Look at all that could be saved now. Errors: `DivergedError` for terms and weights that are not finite."""
        self.guard.check()
        for what, model in {"weights": self.model, "averaged weights": self.average}.items():
            check_finite(what, model, self.step)

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        self.sound()
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.training.ema else None,
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "validation": self.validation.state(),
        }

    def choose(self) -> None:
        """Put the weights with the lowest validation loss into the average, once training is over."""
        assert self.validation.best is not None
        if self.average is self.model:
            self.average = copy.deepcopy(self.model)
        self.average.load_state_dict(self.validation.best[2])
        self.chosen = True

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `RunError` where it lacks something: going on would give other weights."""
        try:
            self.step, self.seconds = state["step"], state["seconds"]
            self.began = time.perf_counter() - self.seconds
            if "validation" in state:
                self.validation.restore(state["validation"])
            self.model.load_state_dict(state["model"])
            if self.average is not self.model:
                self.average.load_state_dict(state["average"])
            for name, optimizer in self.optimizers.items():
                optimizer.restore(state["optimizers"][name])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            told = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
            raise RunError(f"the checkpoint does not hold all that training needs to continue: {told}") from error


def settled(training: Training, model: GenerativeModel) -> tuple[Training, int, float]:
    """A training with nothing left to the model and its images, its images per step, and its peak learning rate."""
    batch_size, lr = training.batch(model.shape.size), training.lr or model.usual_lr
    return override(training, {"batch_size": batch_size, "lr": lr}), batch_size, lr


def take(images: BatchSource, indices: Tensor, model: GenerativeModel, device: torch.device) -> Batch:
    """These images on the model's device as they are stored, with their classes only when the model learns them."""
    x, y = images.stored(indices)
    return Batch(moved(x, device), moved(y, device) if y is not None and model.classes else None)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU copies from pinned memory while the host goes on."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@torch.no_grad()
def score_images(
    model: GenerativeModel, images: BatchSource, seed: int, processes: Processes = ALONE
) -> dict[str, float]:
    """The mean of the model's test terms over all images, each counted once; noise is addressed by the seed.

    Each process asks about some batches, and all have the mean, summed in the order of the images.
    """
    model.eval()
    found: list[dict[str, float]] = []
    together = model.shape.together(TEST_BATCH)
    for first in processes.part(len(images), together)[::together]:
        batch = take(images, torch.arange(first, min(first + together, len(images))), model, model.device).floats()
        with seeded(seed, "test", first, device=model.device):
            terms = model.test_terms(batch)
        found.append({name: float(value) * len(batch.x) / len(images) for name, value in terms.items()})
    sums: dict[str, float] = {}
    for terms_of_batch in (terms for part in processes.collected(found) for terms in part):
        for name, value in terms_of_batch.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums
