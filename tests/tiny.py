"""What several test files share: images to learn from, and every family of the registry made small.

Nothing here names a family. One that is added to `fabulate/models/families` gets its cases by itself.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from fabulate.cli import main
from fabulate.models import small as models_small
from fabulate.models.families import families
from fabulate.models.small import CLASSES, NARROW, SMALL, Case, cases, hyperparameters, kinds, make, pictures
from fabulate.types import ImageShape, Tensors

__all__ = ["CLASSES", "NARROW", "SMALL", "Case", "Tensors", "cases", "make", "pictures"]

SHAPES = [*models_small.SHAPES, ImageShape(3, 64, 64)]


IN_TWO = """
import sys, torch
from pathlib import Path
from {module} import {name}
from fabulate.processes import together

torch.set_num_threads(1)
with together(torch.device("cpu")) as processes:
    {name}(sys.argv[1], processes)
# A thread that lives on may ask for the interpreter when it is no more, and that ends the process by a signal.
left = [path.read_text() for path in Path("/proc/self/task").glob("*/comm") if "gloo" in path.read_text()]
assert not left, left
"""


def in_two(work: Callable[..., None], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let two processes, of one thread each, do `work(folder, processes)`, and leave no thread behind."""
    script = folder / "script.py"
    script.write_text(IN_TWO.format(module=work.__module__, name=work.__name__))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, folder],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def small(name: str) -> dict[str, Any]:
    """Hyperparameters that make a family small, with the first kind of network that it takes."""
    cls = families()[name]
    return hyperparameters(cls, kinds(cls)[0])


def within_five_errors(estimate: Tensor, exact: Tensor | float, error: Tensor) -> bool:
    """Is a statistic within five standard errors of what it should be; a sound one is not once in two million."""
    return bool(((estimate - exact).abs() <= 5 * error).all())


def ends(*words: object) -> int:
    """Run a command in this process; its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def long(name: str) -> bool:
    """Whether a family takes long to train or to score, or works as one does that is tested anyway."""
    cls = families()[name]
    return bool(cls.akin) or getattr(cls, "slow", False)
