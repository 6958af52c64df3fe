"""What several test files share: images to learn from, and every family of the registry made small.

Nothing here names a family. One that is added to `fabulate/models/families` gets its cases by itself.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fabulate.cli import main
from fabulate.config import override
from fabulate.errors import ConfigError
from fabulate.models import GenerativeModel
from fabulate.models.base import Conditional
from fabulate.models.families import families
from fabulate.nets import NETWORKS
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, BatchSource, ImageShape

SMALL = ImageShape(1, 8, 8)
SHAPES = [SMALL, ImageShape(3, 9, 11), ImageShape(1, 28, 28), ImageShape(3, 64, 64)]
CLASSES = ("cat", "dog", "horse")
NARROW: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (16,)},
    "conv": {"width": 4, "blocks": 1},
    "dcgan": {"width": 4},
    "unet": {"width": 8},
    "dit": {"width": 32, "depth": 1},
}  # others keep their defaults
QUICK = {"latent_dim": 5, "evaluations": 4}  # hyperparameters of models and of sampling, where a family has them


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


class Pixels(BatchSource):
    """The smallest `BatchSource`: uint8 images (N, C, H, W), and classes (N,) or None."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def stored(self, indices: Tensor) -> Batch:
        return Batch(self.x[indices], None if self.y is None else self.y[indices])


def pictures(shape: ImageShape, n: int, classes: Sequence[str] = (), seed: int = 0) -> Pixels:
    """n waves of random slope and phase, brighter with each class: enough structure for 30 steps to learn from."""
    chance = generator(seed, "pictures")
    down, across, phase = torch.rand(3, n, 1, 1, generator=chance)
    rows, columns = torch.linspace(0, 3, shape.height)[:, None], torch.linspace(0, 3, shape.width)
    waves = torch.sin(down * rows + across * columns + 3 * phase)[:, None].expand(n, *shape)
    y = torch.arange(n) % len(classes) if classes else None
    bright = 1.0 if y is None else (1 + y[:, None, None, None]) / len(classes)
    return Pixels(((waves + 1) * 127.5 * bright).to(torch.uint8), y)


class Case(NamedTuple):
    """A family, a kind of network (None: the family has no such choice) and classes (none: unconditional)."""

    family: str
    kind: str | None
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([self.family, *([self.kind] if self.kind else []), *(["classes"] if self.classes else [])])


def quick(spec: Any) -> dict[str, Any]:
    """What makes a spec's model or sampling quick."""
    return {field.name: QUICK[field.name] for field in fields(spec) if field.name in QUICK}


def hyperparameters(cls: type[GenerativeModel], kind: str | None) -> dict[str, Any]:
    """A narrow network of the kind, a short code and few evaluations, where the family has them."""
    small = quick(cls.Config)
    if kind:
        small["network"] = NETWORKS[kind](**NARROW.get(kind, {}))
    if hasattr(cls.Config, "sampling"):
        small["sampling"] = override(cls.Config().sampling, quick(cls.Config().sampling))
    return small


def config(cls: type[GenerativeModel], kind: str | None, preset: str = "default") -> Any:
    """The preset's hyperparameters made small."""
    return override(cls.presets[preset].model, hyperparameters(cls, kind))


def small(name: str) -> dict[str, Any]:
    """Hyperparameters that make a family small, with the first kind of network that it takes."""
    cls = families()[name]
    return hyperparameters(cls, _kinds(cls)[0])


def make(case: Case, shape: ImageShape = SMALL, seed: int = 0) -> GenerativeModel:
    """A small model of the case with the weights of a seed."""
    cls = families()[case.family]
    with seeded(seed, "weights"):
        return cls(config(cls, case.kind), shape, case.classes)


def cases(capability: type = GenerativeModel) -> list[Case]:
    """Every family with the capability x every network it takes x conditional or not."""
    found = [
        Case(name, kind, classes)
        for name, cls in families().items()
        if issubclass(cls, capability)
        for kind in _kinds(cls)
        for classes in ((), CLASSES)
        if not classes or issubclass(cls, Conditional)
    ]
    assert found, f"no family has {capability.__name__}: its laws would pass unasked"
    return found


def _kinds(cls: type[GenerativeModel]) -> list[str] | list[None]:
    """The kinds of network a family's config takes."""
    taken = []
    for kind in NETWORKS:
        try:
            config(cls, kind)
        except ConfigError:
            continue
        taken.append(kind)
    return taken or [None]


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
