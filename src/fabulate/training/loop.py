"""The one training loop. It goes over a model's players and never asks what kind of model it trains.

    for each step:                                  the images of a step are a function of (seed, step)
        for each player in its span, at its turn:   all other parameters stand still
            for each micro-batch:                   noise is a function of (seed, step, player, micro-batch)
                loss, gradients                     one compiled region where that pays
            add up the gradients of all processes   each has its share of the micro-batches
            stop if anything is not finite; clip; Adam or Muon
        move the average of the weights

A player may have a span of the budget: an autoencoder the first part, say, and what works with its codes the rest. Its
learning rate rises and falls, and its average begins, within its span. When a later span begins, those whose own is
over keep their averaged weights, on which the later ones build.

The loop is a generator that yields after each step; progress, logging, pictures and saving happen between steps, in the
caller. There are no callbacks.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fabulate.compiling import Compiled, announced
from fabulate.config import Training, override
from fabulate.errors import DivergedError, RunError
from fabulate.models.base import GenerativeModel, Player
from fabulate.processes import ALONE, Processes
from fabulate.seeds import seeded
from fabulate.training.devices import multiplying, precision_on, shared_evenly, take
from fabulate.training.optimizers import optimizer_of
from fabulate.training.validation import Validation
from fabulate.types import Batch, BatchSource, order_of

WARMUP = 0.05  # of a budget in minutes
ENOUGH_STEPS, ENOUGH_MINUTES = 5000, 10.0  # that compiling saves more than it costs (docs/LOG.md has the numbers)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)  # which gain next to nothing on a CPU


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
        self.parts = shared_evenly(training, model.numbers, processes.count) if parts is None else parts
        self.device = model.device
        model.init_from_data(images)
        self.players = model.players()
        self.parameters = {name: list(player.module.parameters()) for name, player in self.players.items()}
        self.optimizers = {name: optimizer_of(player.module, training) for name, player in self.players.items()}
        self.others = {
            name: [p for p in model.parameters() if all(p is not own for own in parameters)]
            for name, parameters in self.parameters.items()
        }
        self.average = copy.deepcopy(model) if training.ema else model
        self.precision = precision_on(model, training)
        self.averaged = {name: list(player.module.parameters()) for name, player in self.average.players().items()}
        self.begun = {name: 0 for name, its in self.players.items() if its.span[0] <= 0}  # whose span, at which step
        self.furthest = 0.0  # of the budget: a clock may be set back, spans not
        self.latest_order = (-1, torch.empty(0))  # an epoch's permutation serves all its steps
        self.step = 0
        self.began = time.perf_counter()  # of all sessions, as if they had followed each other
        self.seconds = 0.0  # since then, by the clock
        self.step_began = 0.0  # when the latest one did
        self.stepping, self.taken = 0.0, 0  # seconds of all steps in this session, and how many
        self.reserved = 0.0  # of a budget in minutes, for what comes after the last step
        self.best_restored = False  # the average holds the weights of the best step, for good
        self.guard = Guard(self.device.type != "cpu", self.lr)
        self.messages: list[str] = []  # what whoever watches should be told
        self.gradients: dict[str, Callable[[Player, Sequence[Tensor], Batch, int], Gradients]]
        self.gradients = dict.fromkeys(self.players, gradients)
        must = training.compile == "on"
        if must or (training.compile == "auto" and compiling_pays(model, training, self.total, self.device)):
            self.messages.append(announced("the step"))
            say = self.messages.append
            self.gradients = {name: Compiled(gradients, "the step", must, say) for name in self.players}

    @cached_property  # asked for several times a step
    def total(self) -> int | None:
        """Steps in the whole budget, were there no clock; None when minutes are the only budget."""
        return total_steps(self.training, len(self.images), self.batch_size)

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0..1."""
        steps = 0.0 if self.total is None else self.step / self.total
        return min(max(steps, self.clock), 1.0)

    @property
    def spent(self) -> float:
        """The share of the budget that decides whose span it is."""
        return max(self.furthest, self.progress)

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
        """The step whose weights `sampler` gives: the latest, or the best."""
        return self.validation.best[0] if self.best_restored and self.validation.best is not None else self.step

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """Train to the end of the budget; yields each step's logged terms, still on the device.

        Errors: `DivergedError` before an update with a loss or gradient that is not finite.
        """
        self.model.train()
        while self.progress < 1 and not self.validation.should_stop:
            batches = self.begin_step()
            logged: dict[str, Tensor] = {}
            for name in self.moving():
                logged |= self.update(name, batches)
            self.end_step()
            yield logged

    def turns(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One step, player by player; yields the player's name and its logged terms after each turn."""
        batches = self.begin_step()
        for name in self.moving():
            if terms := self.update(name, batches):
                yield name, terms
        self.end_step()

    def begin_step(self) -> list[Batch]:
        """Let spans begin and end; the micro-batches of this step."""
        self.step_began = time.perf_counter()
        self.begin_spans()
        batches = self.micro_batches()
        if self.step in self.begun.values() and not self.processes.alone:
            self.share_first_batch(batches[0])
        return batches

    def moving(self) -> list[str]:
        """The players whose span it is."""
        return [name for name, player in self.players.items() if within(player.span, self.spent)]

    def end_step(self) -> None:
        """Count the step, and let averages follow."""
        moving = self.moving()
        self.step += 1
        self.processes.share_(list(self.model.buffers()))
        for name in moving:
            self.move_average(name)
        now = time.perf_counter()
        self.stepping, self.taken = self.stepping + now - self.step_began, self.taken + 1
        self.seconds = now - self.began
        if self.training.minutes is not None:  # one clock for all, or their rates would drift apart
            self.seconds = self.processes.broadcast(self.seconds, self.device)

    @property
    def all_begun(self) -> bool:
        """Whether every player's span has begun: before, samples are noise and losses those of another thing."""
        return len(self.begun) == len(self.players)

    def begin_spans(self) -> None:
        """Let players whose span begins now begin; those whose span is over keep their averaged weights."""
        self.furthest = self.spent
        spans = {name: player.span for name, player in self.players.items()}
        now = [name for name, (first, _) in spans.items() if name not in self.begun and first <= self.spent]
        self.begun |= dict.fromkeys(now, self.step)
        if any(spans[name][0] > 0 for name in now):
            with torch.no_grad():
                for name in self.begun:
                    if spans[name][1] <= self.spent:
                        for kept, averaged in zip(self.parameters[name], self.averaged[name], strict=True):
                            kept.copy_(averaged)
            self.model.init_from_data(self.images)
            self.processes.share_(list(self.model.buffers()))

    def share_first_batch(self, batch: Batch) -> None:
        """Let the first process alone set what a first batch sets (a normalizing flow's scales, say), for all."""
        if self.processes.first:
            for name, player in self.players.items():
                if self.begun.get(name) == self.step:
                    with seeded(self.training.seed, "noise", self.step, name, 0, device=self.device):
                        player.loss(batch.floats())
        self.processes.share_([*self.model.parameters(), *self.model.buffers()])

    def update(self, name: str, batches: list[Batch]) -> dict[str, Tensor]:
        """One player moves if it is its turn; all else stands still, so no gradient leaks and none is computed.

        What it gives is logged: nothing of a player that waits.
        """
        player, parameters, parts = self.players[name], self.parameters[name], self.parts
        if (self.step + 1) % player.every:
            return {}
        for parameter in self.others[name]:
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        sums: dict[str, Tensor] = {}
        totals: list[Tensor | None] = [None] * len(parameters)
        for i, batch in enumerate(batches, start=self.processes.rank * len(batches)):
            noise = seeded(self.training.seed, "noise", self.step, name, i, device=self.device)
            with noise, multiplying(self.model, self.precision):
                found = self.gradients[name](player, parameters, batch, parts)
            pairs = zip(totals, found.gradients, strict=True)
            totals = [new if old is None else old if new is None else old + new for old, new in pairs]
            for term, value in found.terms.items():
                part = value / parts if parts > 1 else value
                sums[term] = sums[term] + part if term in sums else part
        added = [gradient for gradient in totals if gradient is not None]
        self.processes.add_([*added, *sums.values()])
        norm = get_total_norm(added)
        dropped = self.guard.watch(self.step + 1, name, {**sums, "gradient": norm})
        if self.training.clip:
            scale = (self.training.clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in added:
                gradient.mul_(scale)
        self.optimizers[name].update(totals, self.rate(name), dropped)
        for parameter in self.others[name]:
            parameter.requires_grad_(True)
        prefix = f"{name}." if len(self.players) > 1 else ""
        return {prefix + term: value for term, value in sums.items()}

    def move_average(self, name: str) -> None:
        """Move the average of a player's weights towards them."""
        if self.average is not self.model:
            # Early on the average would remember the random start, so its memory grows with the player's step.
            step = self.step - self.begun[name]
            decay = min(self.training.ema, (1 + step) / (10 + step))
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(self.averaged[name], self.parameters[name], None)

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

    def rate(self, name: str) -> float:
        """A player's learning rate in this step: a linear warm-up, then the schedule over its span of the budget."""
        training, (first, last) = self.training, self.players[name].span
        share = (self.spent - first) / (last - first)
        if training.minutes is not None and training.warmup:
            rising = min(1.0, max(share, 1e-3) / WARMUP)
        else:
            warmup = training.warmup
            if self.total is not None:
                warmup = min(warmup, int(self.total * (last - first)) // 10)
            rising = min(1.0, (self.step - self.begun[name] + 1) / (warmup + 1))
        falling = 1.0 if training.schedule == "constant" else (1 + math.cos(math.pi * share)) / 2
        return self.lr * rising * falling

    def sampler(self) -> GenerativeModel:
        """The model to use and to save: the averaged weights, with the buffers of now."""
        self.check_finite()
        if self.average is not self.model and not self.best_restored:
            for old, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(new)
        return self.average

    def check_finite(self) -> None:
        """Look at all that could be saved now. Errors: `DivergedError` for terms and weights that are not finite."""
        self.guard.check()
        for what, model in {"weights": self.model, "averaged weights": self.average}.items():
            check_finite(what, model, self.step)

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        self.check_finite()
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.training.ema else None,
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "validation": self.validation.state(),
            "begun": self.begun,
            "furthest": self.furthest,
        }

    def restore_best(self) -> None:
        """Put the weights with the lowest validation loss into the average, once training is over."""
        assert self.validation.best is not None
        if self.average is self.model:
            self.average = copy.deepcopy(self.model)
        self.average.load_state_dict(self.validation.best[2])
        self.best_restored = True

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Errors: `RunError` where it lacks something: going on would give other weights."""
        try:
            self.step, self.seconds = state["step"], state["seconds"]
            self.began = time.perf_counter() - self.seconds
            if "validation" in state:
                self.validation.restore(state["validation"])
            self.begun = dict(state.get("begun", dict.fromkeys(self.players, 0)))
            self.furthest = state.get("furthest", 0.0)
            self.model.load_state_dict(state["model"])
            if self.average is not self.model:
                self.average.load_state_dict(state["average"])
            for name, optimizer in self.optimizers.items():
                optimizer.restore(state["optimizers"][name])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            told = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
            raise RunError(f"the checkpoint does not hold all that training needs to continue: {told}") from error


class Gradients(NamedTuple):
    """Each logged term, detached, and a gradient for each parameter, None where there is none."""

    terms: dict[str, Tensor]
    gradients: Sequence[Tensor | None]


def gradients(player: Player, parameters: Sequence[Tensor], batch: Batch, parts: int) -> Gradients:
    """A player's terms on a micro-batch, and the gradients of a `parts`-th of its loss."""
    terms = player.loss(batch.floats())
    found = torch.autograd.grad(terms["loss"] / parts, parameters, allow_unused=True)
    # A fused optimiser reads memory in order, so a gradient must lie as its parameter does.
    laid = [
        g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for g, p in zip(found, parameters, strict=True)
    ]
    return Gradients({name: value.detach().float() for name, value in terms.items()}, laid)


def within(span: tuple[float, float], spent: float) -> bool:
    """Whether a share of the budget lies in a span of it."""
    return span[0] <= spent < span[1]


def compiling_pays(model: nn.Module, training: Training, total: int | None, device: torch.device) -> bool:
    """Whether compiling a step saves more time than it costs, by the model and the budget alone.

    A run that continues must round as it began, so no clock decides.
    """
    if device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return False
    enough = total is None or total >= ENOUGH_STEPS
    return enough and (training.minutes is None or training.minutes >= ENOUGH_MINUTES)


class Guard:
    """Nothing that is not finite reaches the weights: looks at the terms of every update.

    At once on a CPU; `patient`, on a GPU, when asked, for a look makes the host wait.
    """

    def __init__(self, patient: bool, lr: float) -> None:
        self.patient, self.lr = patient, lr
        self.unchecked: list[tuple[int, str, list[str], Tensor]] = []  # step, player, names of terms, their values

    def watch(self, step: int, player: str, terms: Mapping[str, Tensor]) -> Tensor | None:
        """Take in an update's terms (0-d each); the patient gives 1 for one to be dropped on the device, else 0.

        Errors: `DivergedError` at once unless patient.
        """
        values = torch.stack([value.to(torch.float32) for value in terms.values()])
        self.unchecked.append((step, player, [*terms], values))
        if self.patient:
            return (~torch.isfinite(values).all()).float()
        self.check()
        return None

    def check(self) -> None:
        """Look at all updates since the last look. Errors: `DivergedError` for the first with what is not finite."""
        for step, player, terms, values in self.unchecked:
            named = zip(terms, values.tolist(), strict=True)
            if bad := [f"{term} = {value}" for term, value in named if not math.isfinite(value)]:
                raise DivergedError(
                    f"training diverged at step {step}: the player {player!r} has {', '.join(bad)}. Nothing was "
                    f"updated with it; the last checkpoint is good. Try a lower --lr (now {self.lr:g}), --clip 1, or a "
                    f"longer --warmup"
                )
        self.unchecked.clear()


@torch.no_grad()
def check_finite(what: str, model: nn.Module, step: int) -> None:
    """Look at all weights and buffers of a model. Errors: `DivergedError` naming the first that is not finite.

    An update can overflow though its loss and gradient were finite, by a learning rate that is far too large.
    """
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point() and value.numel()}
    sums = [value.sum(dtype=torch.float64) for value in state.values()]
    if not sums or math.isfinite(float(torch.stack(sums).sum())):
        return  # one sum over all is quick; it is finite only where every number is
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise DivergedError(
            f"training diverged: after step {step} the {what} are not finite ({len(bad)} of {len(state)} tensors, "
            f"the first of them {bad[0]}). They were not saved; try a lower --lr"
        )


def total_steps(training: Training, n: int, batch_size: int) -> int | None:
    """Steps in a whole budget on n images, were there no clock; None when minutes are the only budget."""
    totals = [] if training.steps is None else [training.steps]
    if training.epochs is not None:
        totals.append(math.ceil(training.epochs * n / batch_size))
    return min(totals, default=None)


def settled(training: Training, model: GenerativeModel) -> tuple[Training, int, float]:
    """A training with nothing left to the model and its images, its images per step, and its peak learning rate."""
    batch_size, lr = training.batch(model.numbers), training.lr or model.usual_lr
    optimizer = training.optimizer or model.usual_optimizer
    return override(training, {"batch_size": batch_size, "lr": lr, "optimizer": optimizer}), batch_size, lr
