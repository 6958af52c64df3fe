"""Many processes, one piece of work: each does its share, and what they find is put together.

    fabulate train vae --processes 2                       on this machine
    torchrun --nproc-per-node 8 -m fabulate train vae      the same; torchrun's flags are for several machines

In training P processes with one micro-batch each do what one process does with P micro-batches: the same images, the
same noise (it is addressed by the micro-batch), the same sums. Weights begin equal, since they are seeded, and stay
equal, since all take the same step: gradients and logged terms are added up in one message, and the buffers (running
statistics of batch norms, say) are those of the first process, as in PyTorch's own DistributedDataParallel.

Drawing and measuring are shared out by images. All processes go through the same program; where it is long each takes a
part of the images, in whole blocks as one process would take them, and afterwards all have what all found, in order. So
numbers round as in one process. The first process alone writes and speaks; the others learn from it when to stop.

gloo carries the messages of CPUs, nccl those between GPUs. A process that dies ends the others: torchrun stops them.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fabulate.errors import RunError

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # for others at their part; that one is gone is noticed at once
REFUSED = 2  # the exit code of processes whose first one could not begin


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    >>> Processes().alone, Processes(1, 2).first
    (True, False)
    """

    rank: int = 0
    count: int = 1
    work: str = "training"
    """What they do, for the words about one that is gone."""
    rest: str = "checkpoints are intact, and the same command continues"
    """What is left then."""

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, n: int, block: int = 1) -> range:
        """This process's part of 0..n-1: as many whole blocks as others have, or one more; without gaps, in order.

        >>> [Processes(rank, 3).part(10, block=4) for rank in range(3)]
        [range(0, 4), range(4, 8), range(8, 10)]
        >>> [len(Processes(rank, 3).part(2)) for rank in range(3)]
        [1, 1, 0]
        """
        whole, more = divmod(-(-n // block), self.count)
        first, last = (rank * whole + min(rank, more) for rank in (self.rank, self.rank + 1))
        return range(min(first * block, n), min(last * block, n))

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
        with self.mourning():
            dist.broadcast_object_list(message, 0)
        return message[0]

    def collected(self, value: T) -> list[T]:
        """The objects of all processes, in their order; no process goes on before all have come here."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.count
        with self.mourning():
            dist.all_gather_object(values, value)
        return values

    def gathered(self, rows: Tensor | None) -> Tensor:
        """The rows (N, ...) of all processes, one process's after another's; None is of a process that has none."""
        if self.alone:
            assert rows is not None
            return rows
        kinds = self.collected(None if rows is None else (rows.shape, rows.dtype))
        parts = []
        for rank, kind in enumerate(kinds):
            if kind is None:
                continue
            part = torch.empty(kind[0], dtype=kind[1])
            if rank == self.rank and rows is not None:
                part.copy_(rows)
            with self.mourning():
                dist.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts)

    def dealt(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What each task gives, in every process: tasks are dealt to the processes in turn.

        >>> Processes().dealt([lambda: 1, lambda: 2])
        [1, 2]
        """
        parts = self.collected([task() for task in tasks[self.rank :: self.count]])
        return [parts[i % self.count][i // self.count] for i in range(len(tasks))]

    def leads(self, work: Callable[[], T]) -> T | None:
        """Do something in the first process alone, while the others wait: what it gives there, None in the others.

        What goes wrong there it tells alone; the others leave without a word.
        """
        if self.alone:
            return work()
        if not self.first:
            if not self.given(None):
                raise SystemExit(REFUSED)
            return None
        try:
            result = work()
        except BaseException:
            self.given(False)
            raise
        self.given(True)
        return result

    @contextmanager
    def mourning(self) -> Iterator[None]:
        """Within the block a message that cannot be carried is told as what it means: another process is gone."""
        try:
            yield
        except RuntimeError as error:
            raise RunError(
                f"another process of this {self.work} is gone ({str(error).splitlines()[0]}). Its own words stand "
                f"above; {self.rest}"
            ) from error

    def _together(self, tensors: Sequence[Tensor], carry: Callable[[Tensor], object]) -> None:
        if self.alone:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor.detach() for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in same])
            with self.mourning():
                carry(flat)
            for tensor, part in zip(same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))


ALONE = Processes()


@contextmanager
def together(device: torch.device, work: str = ALONE.work, rest: str = ALONE.rest) -> Iterator[Processes]:
    """Within the block the processes that torchrun started can talk; without torchrun there is only this one.

    `work` and `rest`: what they do, and what is left when one of them is gone, for its words.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(work=work, rest=rest)
        return
    mine = not dist.is_initialized()
    if mine:
        # Imported while a group is there, as torch's compiler does, this module keeps it as a default value for ever.
        # The group's threads then live on to the interpreter's end and may ask for it: the process dies of a signal.
        import_module("torch.distributed.nn.functional")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else nccl would have all of them on the first GPU
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), work, rest)
    finally:
        if mine:
            dist.destroy_process_group()


def launch(count: int, argv: Sequence[str]) -> int:
    """Run `fabulate` with these words in so many processes on this machine; returns the exit code of the first to fail.

    When one fails or is killed the others are ended. Signals are passed on, so that a training saves and leaves.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Who failed has said why, or is told of here.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(
        1, 1, count, run_id="fabulate", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", "fabulate", *argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code: int = failure.exitcode
        if code >= 0:
            return code
        print(
            f"fabulate: process {rank} of {count} was ended by signal {-code}; the others were ended", file=sys.stderr
        )
        return 128 - code  # as a shell tells of a signal
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
