"""Randomness that is addressed, not streamed.

Every random number is a function of where it is used: (seed, step, player, ...). None depends on how many were drawn
before it, so resuming needs one integer, and a sample does not change with the batch it is drawn in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor


def seed_at(*address: int | str) -> int:
    """The 63-bit seed that belongs to an address; equal addresses give equal seeds, on every machine.

    >>> seed_at(0, "order", 3) == seed_at(0, "order", 3) != seed_at(0, "order", 4)
    True
    """
    digest = blake2b(repr(address).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*address: int | str) -> torch.Generator:
    """A CPU generator at the start of the address's own stream (the same numbers for every device)."""
    return torch.Generator().manual_seed(seed_at(*address))


def permutation(n: int, *address: int | str) -> Tensor:
    """The address's permutation of 0..n-1, int64.

    >>> sorted(permutation(5, 0, "order").tolist())
    [0, 1, 2, 3, 4]
    """
    return torch.randperm(n, generator=generator(*address))


@contextmanager
def seeded(*address: int | str, device: torch.device | None = None) -> Iterator[None]:
    """Within the block torch's global generators start at the address; afterwards they are as they were before."""
    seed = seed_at(*address)
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also leave word for each kind of device that is not there, with the stack of its
        # caller: half a millisecond, a fifth of a small step.
        torch.default_generator.manual_seed(seed)
        if device is not None and device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield
