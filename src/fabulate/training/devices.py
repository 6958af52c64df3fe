"""Where and with how many threads models run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fabulate.errors import ConfigError

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


@contextmanager
def threads(numbers: int) -> Iterator[None]:
    """Within the block one CPU thread where a batch has so few numbers that more would mostly wait for each other.

    The rule knows only the batch, never the clock: the number of threads decides how sums are rounded, and a run that
    continues must round as it began.
    """
    before = torch.get_num_threads()
    if numbers < ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
