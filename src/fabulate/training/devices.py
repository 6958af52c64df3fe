"""Where and with how many threads models run, and in how many parts a step is taken: what its rounding depends on.

Noise belongs to the micro-batch: it is a function of (seed, step, player, micro-batch). So do the statistics of a batch
norm, and a diffusion's times, which are spread over it. P processes with A micro-batches each are therefore one process
with P x A of them, and not one with a single one. A run keeps the number that it began with, whoever continues it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NotRequired

import torch
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.config import Precision, Training
from fabulate.errors import ConfigError, RunError
from fabulate.models.base import GenerativeModel
from fabulate.types import Batch, BatchSource

ONE_THREAD = 32_768  # numbers in a batch of images; 128 digits of 8x8 are 8,192, of 28x28 100,352 (see docs/LOG.md)


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU, or the CPU; of several processes on a machine each has a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from error
    return torch.device(name)


@contextmanager
def flushed() -> Iterator[None]:
    """Within the block, on a CPU, numbers below 1e-38 (denormal in float32) count as zero.

    Adam's mean of a gradient that has become zero (of a pixel in the border, say) halves every seven steps until it is
    there, and then costs a processor many times the time of a normal number: after 800 steps a third of a small step.
    Threads that torch has started before the block are not reached.
    """
    before = bool(torch.tensor(1e-39) * 1 == 0)  # torch tells it in no other way
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class Arithmetic(TypedDict):
    """What the numbers of a run depend on beside its hyperparameters, in its config.json."""

    micro_batches: int
    """Of each step, in all processes together: another number is another training."""
    threads: int
    """Of each process on a CPU: another number rounds sums in another way."""
    precision: NotRequired[Precision]
    """Of the products in a denoiser's network; of runs that do not tell it is float32."""


def arithmetic(
    training: Training, model: GenerativeModel, processes: int, before: Mapping[str, Any] | None
) -> Arithmetic:
    """How a training computes: as its run began, or anew where there is none (`before`: a config.json, None).

    Few numbers in a batch are given one thread, where more would mostly wait for each other. That rule knows only the
    batch, never the clock: a run that continues must round as it began.
    Errors: `RunError` where its micro-batches cannot be shared evenly, `ConfigError` where new ones cannot.
    """
    numbers = model.numbers
    begun = None if before is None else before.get("arithmetic")  # older runs do not tell
    parts = shared_evenly(training, numbers, processes) if begun is None else int(begun["micro_batches"])
    if parts % processes:
        can = [str(n) for n in range(1, parts + 1) if parts % n == 0]
        raise RunError(
            f"this run takes the images of each step as {parts} micro-batch{'es' if parts > 1 else ''}, which "
            f"{processes} processes cannot share evenly; another number would draw other noise: another training. "
            f"Continue it with --processes {' or '.join(can)}, or give another --out"
        )
    few = training.batch(numbers) * numbers // parts < ONE_THREAD
    precision = precision_on(model, training) if begun is None else begun.get("precision", "float32")
    return {"micro_batches": parts, "threads": 1 if few else torch.get_num_threads(), "precision": precision}


def precision_on(model: GenerativeModel, training: Training) -> Precision:
    """Of the products in the model's network, where it is. Errors: `ConfigError` for one that the family has not."""
    if training.precision != "auto":
        if training.precision != "float32" and model.precision is None:
            raise ConfigError(f"{model.family} computes in float32 alone; leave out --precision {training.precision}")
        return training.precision
    fewer = model.precision is not None and model.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if fewer else "float32"


@contextmanager
def multiplying(model: GenerativeModel, precision: Precision) -> Iterator[None]:
    """Within the block products in the model's network are of this precision, where it takes another than float32."""
    before = model.precision
    if before is not None:
        model.precision = getattr(torch, precision)
    try:
        yield
    finally:
        model.precision = before


def shared_evenly(training: Training, numbers: int, processes: int) -> int:
    """The micro-batches of a step: `accumulate` for each process. Errors: `ConfigError` when they are not equal."""
    parts = training.accumulate * processes
    if training.batch(numbers) % parts:
        raise ConfigError(
            f"batch_size {training.batch(numbers)} must be a multiple of accumulate x processes: "
            f"{training.accumulate} x {processes}"
        )
    return parts


def rounding(before: Mapping[str, Any] | None, now: Arithmetic) -> list[str]:
    """A sentence for who continues a run with another number of threads."""
    begun = now if before is None else before.get("arithmetic", now)
    if begun["threads"] == now["threads"]:
        return []
    return [
        f"This run began with {begun['threads']} threads for each process and continues with {now['threads']}: sums "
        f"are rounded in another way, so weights will differ from an unbroken run's, at first in their last bits. "
        f"OMP_NUM_THREADS={begun['threads']} keeps them equal."
    ]


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process has held at once, on a GPU those that tensors have; None where no system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes everywhere else


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within the block torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take(images: BatchSource, indices: Tensor, model: GenerativeModel, device: torch.device) -> Batch:
    """These images on the model's device as they are stored, with their classes only when the model learns them."""
    x, y = images.stored(indices)
    return Batch(moved(x, device), moved(y, device) if y is not None and model.classes else None)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU copies from pinned memory while the host goes on."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
