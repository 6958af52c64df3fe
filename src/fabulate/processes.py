"""Many processes, one training: each has its share of every step, and what they find is put together.

    fabulate train vae --processes 2                       on this machine
    torchrun --nproc-per-node 8 -m fabulate train vae      the same; torchrun's flags are for several machines

P processes with one micro-batch each do what one process does with P micro-batches: the same images, the same noise (it
is addressed by the micro-batch), the same sums. Weights begin equal, since they are seeded, and stay equal, since all
take the same step: gradients and logged terms are added up in one message, and the buffers (running statistics of batch
norms, say) are those of the first process, as in PyTorch's own DistributedDataParallel. The first process alone tests,
draws, writes and speaks.

gloo carries the messages of CPUs, nccl those between GPUs. A process that dies ends the others: its launcher stops
them, and each ends when the launcher is gone.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fabulate.errors import RunError
from fabulate.signals import Stop, catching

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # for others at their part; that one is gone is noticed at once
REFUSED = 2  # the exit code of processes whose first one could not begin
LAUNCHER, LISTENER = "FABULATE_LAUNCHER", "FABULATE_LISTENER"  # what `launch` tells: its id, and an open socket
LEAVING, UNWINDING = 10.0, 30.0  # seconds for the others to leave when one failed, and after SIGTERM


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
        """Give each tensor, in place, its sum over all processes; tensors of one type travel in one message."""
        self._together(tensors, dist.all_reduce)

    def share_(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor, in place, the value that it has in the first process."""
        self._together(tensors, partial(dist.broadcast, src=0))

    def broadcast(self, number: float, device: torch.device) -> float:
        """The first process's number."""
        return self._number(number, device, partial(dist.broadcast, src=0))

    def most(self, number: float, device: torch.device) -> float:
        """The largest of the numbers that all processes give."""
        return self._number(number, device, partial(dist.all_reduce, op=dist.ReduceOp.MAX))

    def broadcast_object(self, value: Any) -> Any:
        """The first process's object, on the CPU."""
        if self.alone:
            return value
        message = [value]
        with peer_failure():
            dist.broadcast_object_list(message, 0)
        return message[0]

    def leads(self, work: Callable[[], T]) -> T | None:
        """Do something in the first process alone, while the others wait: what it gives there, None in the others.

        What goes wrong there it tells alone; the others leave without a word.
        """
        if self.alone:
            return work()
        if not self.first:
            if not self.broadcast_object(None):
                raise SystemExit(REFUSED)
            return None
        try:
            result = work()
        except BaseException:
            self.broadcast_object(False)
            raise
        self.broadcast_object(True)
        return result

    def _number(self, number: float, device: torch.device, carry: Callable[[Tensor], object]) -> float:
        if self.alone:
            return number
        message = torch.tensor(number, dtype=torch.float64, device=device)
        self._together([message], carry)
        return float(message)

    def _together(self, tensors: Sequence[Tensor], carry: Callable[[Tensor], object]) -> None:
        if self.alone:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor.detach() for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in same])
            with peer_failure():
                carry(flat)
            for tensor, part in zip(same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))


ALONE = Processes()


@contextmanager
def peer_failure() -> Iterator[None]:
    """Within the block a message that cannot be carried is told as what it means: another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"another process of this training is gone ({str(error).splitlines()[0]}). Its own words stand above; "
            "checkpoints are intact, and the same command continues"
        ) from error


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """Within the block the processes that torchrun started can talk; without torchrun there is only this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    mine = not dist.is_initialized()
    if mine:
        # Imported while a group is there, as torch's compiler does, this module keeps it as a default value for ever.
        # The group's threads then live on to the interpreter's end and may ask for it: the process dies of a signal.
        import_module("torch.distributed.nn.functional")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else nccl would have all of them on the first GPU
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, **meeting())
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


def meeting() -> dict[str, Any]:
    """Where processes find each other: by torchrun's variables, or in a store on a socket that `launch` has opened."""
    if LISTENER not in os.environ:
        return {}
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    listener = int(os.environ[LISTENER]) if rank == 0 else None
    store = dist.TCPStore(  # type: ignore[attr-defined]  # documented, and not in the module's list
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        count,
        is_master=rank == 0,
        timeout=PATIENCE,
        master_listen_fd=listener,
    )
    return {"store": store, "rank": rank, "world_size": count}


class Relay(Stop):
    """Passes every signal on to processes, which know what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number if self.number is None else self.number
        for child in self.children:
            child.send_signal(number)  # to one that has ended it does nothing


def launch(count: int, argv: Sequence[str]) -> int:
    """Run `fabulate` with these words in so many processes on this machine; returns the exit code of the first to fail.

    When one fails or is killed the others are ended. Signals are passed on, so that a training saves and leaves.
    Everything listens on this machine's own address alone: the store in which they find each other, gloo, and nccl.
    """
    environment = {**os.environ, "WORLD_SIZE": str(count), LAUNCHER: str(os.getpid()), "MASTER_ADDR": "127.0.0.1"}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    own = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if own is not None:
        environment |= {"GLOO_SOCKET_IFNAME": own, "NCCL_SOCKET_IFNAME": own}
    command = [sys.executable, "-m", "fabulate", *argv]
    with catching(Relay()) as relay:
        try:
            with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
                environment["MASTER_PORT"] = str(listener.getsockname()[1])
                for rank in range(count):
                    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), LISTENER: str(listener.fileno())}
                    handed = [listener.fileno()] if rank == 0 else []
                    relay.children.append(
                        subprocess.Popen(command, env=environment | place, stdin=subprocess.DEVNULL, pass_fds=handed)
                    )
            failed = ended(relay.children)
        finally:
            for child in relay.children:
                child.kill()
                child.wait()
    if relay.number is not None:
        return 128 + relay.number
    if failed is None:
        return 0
    rank, code = failed
    if code > 0:
        return code
    print(f"fabulate: process {rank} of {count} was ended by signal {-code}; the others were ended", file=sys.stderr)
    return 128 - code  # as a shell tells of a signal


def ended(children: Sequence["subprocess.Popen[bytes]"]) -> tuple[int, int] | None:
    """Wait until all have ended: which one failed first and how, if one did; the others are ended when they do not."""
    failed: tuple[int, int] | None = None
    steps = [(LEAVING, subprocess.Popen.terminate), (LEAVING + UNWINDING, subprocess.Popen.kill)]
    since = 0.0
    while running := [child for child in children if child.poll() is None]:
        if failed is None:
            failed, since = first_failure(children), time.monotonic()
        elif steps and time.monotonic() - since > steps[0][0]:
            for child in running:
                steps[0][1](child)
            del steps[0]
        time.sleep(0.05)
    return failed or first_failure(children)


def first_failure(children: Sequence["subprocess.Popen[bytes]"]) -> tuple[int, int] | None:
    """Rank and code of a process that failed; one that a signal ended before those that miss it."""
    failures = [(child.returncode, rank) for rank, child in enumerate(children) if child.returncode]
    return min(failures)[::-1] if failures else None
