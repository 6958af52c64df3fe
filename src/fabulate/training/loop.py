"""The one training loop. It goes over a model's players and never asks what kind of model it trains.

    for each step:                                  the images of a step are a function of (seed, step)
        for each player whose turn it is:           all other parameters stand still
            for each micro-batch:                   noise is a function of (seed, step, player, micro-batch)
                loss, backward
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
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fabulate.config import Training
from fabulate.errors import ConfigError, DivergedError
from fabulate.models.base import GenerativeModel, Player
from fabulate.seeds import seeded
from fabulate.training.processes import Processes
from fabulate.types import Batch, BatchSource, order_of

TEST_BATCH = 500
ALONE = Processes()


class Learner:
    """A model in training: its players' optimisers, the average of its weights, and how far it has come."""

    def __init__(
        self, model: GenerativeModel, training: Training, images: BatchSource, processes: Processes = ALONE
    ) -> None:
        if training.batch_size % (training.accumulate * processes.count):
            raise ConfigError(
                f"batch_size {training.batch_size} must be a multiple of accumulate x processes: "
                f"{training.accumulate} x {processes.count}"
            )
        self.model, self.training, self.images, self.processes = model, training, images, processes
        model.begin(images)
        self.players = model.players()
        self.parameters = {name: list(player.module.parameters()) for name, player in self.players.items()}
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=training.lr, betas=training.betas, fused=True)
            for name, parameters in self.parameters.items()
        }
        self.average = copy.deepcopy(model) if training.ema else model
        self.latest_order = (-1, torch.empty(0))  # an epoch's permutation serves all its steps
        self.step = 0
        self.seconds = 0.0  # spent in steps, over all resumptions

    @property
    def total(self) -> int | None:
        """Steps in the whole budget, were there no clock; None when minutes are the only budget."""
        training = self.training
        totals = [] if training.steps is None else [training.steps]
        if training.epochs is not None:
            totals.append(math.ceil(training.epochs * len(self.images) / training.batch_size))
        return min(totals, default=None)

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0..1."""
        steps = 0.0 if self.total is None else self.step / self.total
        clock = 0.0 if self.training.minutes is None else self.seconds / (60 * self.training.minutes)
        return min(max(steps, clock), 1.0)

    @property
    def epoch(self) -> float:
        """How often each training image has been seen."""
        return self.step * self.training.batch_size / len(self.images)

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """Train to the end of the budget; yields each step's logged terms, still on the device.

        Errors: `DivergedError` before an update with a loss or gradient that is not finite.
        """
        self.model.train()
        while self.progress < 1:
            began = time.perf_counter()
            terms = self.advance()
            self.seconds += time.perf_counter() - began
            if self.training.minutes is not None:  # one clock for all, or their rates would drift apart
                self.seconds = self.processes.told(self.seconds, self.model.device)
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
        self.processes.share_(list(self.model.buffers()))
        if self.average is not self.model:
            # Early on the average would remember the random start, so its memory grows with the step.
            decay = min(self.training.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return terms

    def touch(self, batch: Batch) -> None:
        """Let the first process alone set what a first batch sets (a normalizing flow's scales, say), for all."""
        if self.processes.first:
            for name, player in self.players.items():
                with seeded(self.training.seed, "noise", 0, name, 0, device=self.model.device):
                    player.loss(batch)
        self.processes.share_([*self.model.parameters(), *self.model.buffers()])

    def turn(self, name: str, player: Player, batches: list[Batch], rate: float) -> dict[str, Tensor]:
        """One player moves; everything else stands still, so no gradient leaks and none is computed."""
        self.model.requires_grad_(False)
        player.module.requires_grad_(True)
        optimizer = self.optimizers[name]
        optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        parts = len(batches) * self.processes.count  # micro-batches of all processes
        for i, batch in enumerate(batches, start=self.processes.rank * len(batches)):
            with seeded(self.training.seed, "noise", self.step, name, i, device=self.model.device):
                terms = player.loss(batch)
                (terms["loss"] / parts).backward()  # type: ignore[no-untyped-call]
            for term, value in terms.items():
                part = value.detach().float() / parts
                sums[term] = sums[term] + part if term in sums else part
        parameters = self.parameters[name]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.processes.add_([*gradients, *sums.values()])
        norm = get_total_norm(gradients)
        self.guard(name, {**sums, "gradient": norm})
        if self.training.clip:
            clip_grads_with_norm_(parameters, self.training.clip, norm)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        self.model.requires_grad_(True)
        return sums

    def guard(self, name: str, terms: dict[str, Tensor]) -> None:
        """Refuse to go on with anything that is not finite."""
        values = torch.stack([value.to(torch.float32) for value in terms.values()])
        if torch.isfinite(values).all():
            return
        bad = ", ".join(f"{term} = {float(value)}" for term, value in terms.items() if not torch.isfinite(value))
        raise DivergedError(
            f"training diverged at step {self.step + 1}: the player {name!r} has {bad}. Nothing was updated with it; "
            f"the last checkpoint is good. Try a lower --lr (now {self.training.lr:g}), --clip 1, or a longer --warmup"
        )

    def micro_batches(self) -> list[Batch]:
        """The images of this step. Epoch after epoch, every image once each, in a new order; nothing is dropped."""
        n, size = len(self.images), self.training.batch_size
        first, last = self.step * size, (self.step + 1) * size
        epochs = range(first // n, (last - 1) // n + 1)
        order = torch.cat([self.order(epoch)[max(first - epoch * n, 0) : last - epoch * n] for epoch in epochs])
        mine = order.chunk(self.processes.count)[self.processes.rank]
        return [take(self.images, indices, self.model) for indices in mine.chunk(self.training.accumulate)]

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
        warmup = training.warmup if self.total is None else min(training.warmup, self.total // 10)
        rising = min(1.0, (self.step + 1) / (warmup + 1))
        falling = 1.0 if training.schedule == "constant" else (1 + math.cos(math.pi * self.progress)) / 2
        return training.lr * rising * falling

    def sampler(self) -> GenerativeModel:
        """The model to use and to save: the averaged weights, with the buffers of now."""
        if self.average is not self.model:
            for old, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(new)
        return self.average

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not self.model else None,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        if state["average"] is not None:
            self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def take(images: BatchSource, indices: Tensor, model: GenerativeModel) -> Batch:
    """The batch of these images on the model's device, with their classes only when the model learns them."""
    x, y = images.batch(indices)
    return Batch(x.to(model.device), y.to(model.device) if y is not None and model.classes else None)


@torch.no_grad()
def score_images(model: GenerativeModel, images: BatchSource, seed: int) -> dict[str, float]:
    """The mean of the model's test terms over all images, each counted once; noise is addressed by the seed."""
    model.eval()
    sums: dict[str, float] = {}
    for first in range(0, len(images), TEST_BATCH):
        batch = take(images, torch.arange(first, min(first + TEST_BATCH, len(images))), model)
        with seeded(seed, "test", first, device=model.device):
            for name, value in model.test_terms(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.x) / len(images)
    return sums
