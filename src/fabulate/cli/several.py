"""Verbs that several processes share: started on this machine or by torchrun, one of them speaks."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from io import StringIO

from fabulate.processes import Processes, launch, together
from fabulate.training import pick_device


def start(count: int, argv: Sequence[str]) -> None:
    """Where more than one process is asked for and torchrun has started none: run these words in so many, and end."""
    if count > 1 and "WORLD_SIZE" not in os.environ:
        raise SystemExit(launch(count, argv))


@contextmanager
def several(device: str, work: str, rest: str) -> Iterator[Processes]:
    """Within the block processes can talk to each other, and only the first one to people; errors all tell.

    `work` and `rest`: what they do, and what is left when one of them is gone.
    """
    with together(pick_device(device), work, rest) as processes, ExitStack() as stack:
        if not processes.first:
            stack.enter_context(redirect_stderr(StringIO()))  # its bars and warnings
        yield processes
