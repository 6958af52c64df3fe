"""Many processes, one training: each takes its share of every step's micro-batches, and gradients are averaged.

    fabulate train vae --processes 2                       on this machine
    torchrun --nproc-per-node 8 -m fabulate train vae      the same; torchrun's flags are for several machines

P processes with one micro-batch each do what one process does with P micro-batches: the same images, the same noise (it
is addressed by the micro-batch), the same sums. Weights begin equal, since they are seeded, and stay equal, since all
take the same step: gradients and logged terms are added up in one message, and the buffers (running statistics of batch
norms, say) are those of the first process, as in PyTorch's own DistributedDataParallel. The first process alone draws,
writes and speaks; the others learn from it when to stop.

gloo carries the messages on CPUs, nccl between GPUs. A process that dies ends the others: torchrun stops them.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fabulate.errors import RunError


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    >>> Processes().alone, Processes(1, 2).first
    (True, False)
    """

    rank: int = 0
    count: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def add_(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor, in place, its sum over all processes; tensors of one kind travel in one message."""
        self._together(tensors, dist.all_reduce)

    def share_(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor, in place, the value that it has in the first process."""
        self._together(tensors, partial(dist.broadcast, src=0))

    def told(self, number: float, device: torch.device) -> float:
        """The first process's number."""
        if self.alone:
            return number
        message = torch.tensor(number, dtype=torch.float64, device=device)
        self.share_([message])
        return float(message)

    def given(self, state: Any) -> Any:
        """The first process's object, on the CPU."""
        if self.alone:
            return state
        message = [state]
        with mourning():
            dist.broadcast_object_list(message, 0)
        return message[0]

    def _together(self, tensors: Sequence[Tensor], carry: Callable[[Tensor], object]) -> None:
        if self.alone:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor.detach() for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in same])
            with mourning():
                carry(flat)
            for tensor, part in zip(same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """Within the block the processes that torchrun started can talk; without torchrun there is only this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


@contextmanager
def mourning() -> Iterator[None]:
    """Within the block a message that cannot be carried is told as what it means: another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"another process of this training is gone ({str(error).splitlines()[0]}). Its own words stand above; "
            f"checkpoints are intact, and the same command continues"
        ) from error


def launch(count: int, argv: Sequence[str]) -> int:
    """Run `fabulate` with these words in so many processes on this machine; returns the exit code of the first to fail.

    When one fails or is killed the others are ended. Signals are passed on, so that the training saves and leaves.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        1, 1, count, run_id="fabulate", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", "fabulate", *argv)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code: int = failure.exitcode
        return code if code >= 0 else 128 - code  # as a shell tells of a signal
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
