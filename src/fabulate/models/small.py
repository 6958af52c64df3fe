"""Every family made small, and images for it to learn from: what laws, and tests, are asked of.

Nothing here names a family. One that is registered gets its cases by itself.

Legend: N images, C H W image.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch

from fabulate.config import override
from fabulate.errors import ConfigError
from fabulate.models.base import Conditional, GenerativeModel
from fabulate.models.families import families, family
from fabulate.models.spaces import SPACES
from fabulate.nets import NETWORKS
from fabulate.nets.tokens import Transformer
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, ImageShape, Tensors

SMALL = ImageShape(1, 8, 8)
SHAPES = [SMALL, ImageShape(3, 9, 11), ImageShape(1, 28, 28)]
CLASSES = ("cat", "dog", "horse")
NARROW: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (16,)},
    "conv": {"width": 4, "blocks": 1},
    "dcgan": {"width": 4},
    "projected": {"width": 2},
    "unet": {"width": 8},
    "dit": {"width": 32, "depth": 1},
    "pca": {"patch": 2, "keep": 3},
    "vae": {"patch": 2, "keep": 3, "width": 8, "blocks": 1},
}  # others keep their defaults
# Hyperparameters of models and of sampling, where a family has them.
QUICK: dict[str, Any] = {"latent_dim": 5, "evaluations": 4, "transformer": Transformer(width=16, layers=1)}


def pictures(shape: ImageShape, n: int, classes: Sequence[str] = (), seed: int = 0) -> Tensors:
    """n waves of random slope and phase, brighter with each class: enough structure for 30 steps to learn from."""
    down, across, phase = torch.rand(3, n, 1, 1, generator=generator(seed, "pictures"))
    rows, columns = torch.linspace(0, 3, shape.height)[:, None], torch.linspace(0, 3, shape.width)
    waves = torch.sin(down * rows + across * columns + 3 * phase)[:, None].expand(n, *shape)
    y = torch.arange(n) % len(classes) if classes else None
    bright = 1.0 if y is None else (1 + y[:, None, None, None]) / len(classes)
    return Tensors(((waves + 1) * 127.5 * bright).to(torch.uint8), y)


class Case(NamedTuple):
    """A family, kinds of network and of space (None: the default, or no choice) and classes (none: unconditional)."""

    family: str
    kind: str | None
    classes: tuple[str, ...] = ()
    space: str | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, [self.family, self.kind, self.space, "classes" if self.classes else None]))


def quick(spec: Any) -> dict[str, Any]:
    """What makes a spec's model or sampling quick."""
    return {field.name: QUICK[field.name] for field in fields(spec) if field.name in QUICK}


def hyperparameters(cls: type[GenerativeModel], kind: str | None, space: str | None = None) -> dict[str, Any]:
    """A narrow network of the kind, a short code and few evaluations, where the family has them."""
    small = quick(cls.Config)
    if kind:
        small["network"] = NETWORKS[kind](**NARROW.get(kind, {}))
    if space:
        small["space"] = SPACES[space](**NARROW.get(space, {}))
    if hasattr(cls.Config, "sampling"):
        small["sampling"] = override(cls.Config().sampling, quick(cls.Config().sampling))
    return small


def kinds(cls: type[GenerativeModel]) -> list[str] | list[None]:
    """The kinds of network a family's config takes."""
    taken = []
    for kind in NETWORKS:
        try:
            override(cls.presets["default"].model, hyperparameters(cls, kind))
        except ConfigError:
            continue
        taken.append(kind)
    return taken or [None]


def spaces(cls: type[GenerativeModel]) -> list[str]:
    """The kinds of space a family can work in, but for its default."""
    return [kind for kind in SPACES if kind != "pixels"] if hasattr(cls.Config, "space") else []


def cases(capability: type = GenerativeModel, of: Sequence[str] | None = None) -> list[Case]:
    """Every family (or some) with the capability x every network, and every space, it takes x conditional or not.

    A family that works as another does (`akin`) is made with its first network and its default space only.
    """
    found = [
        Case(name, kind, classes, space)
        for name, cls in families().items()
        if issubclass(cls, capability) and (of is None or name in of)
        for kind, space in [*((kind, None) for kind in kinds(cls)), *((kinds(cls)[0], space) for space in spaces(cls))][
            : 1 if cls.akin else None
        ]
        for classes in ((), CLASSES)
        if not classes or issubclass(cls, Conditional)
    ]
    assert found, f"no family has {capability.__name__}: its laws would pass unasked"
    return found


def make(case: Case, shape: ImageShape = SMALL, seed: int = 0) -> GenerativeModel:
    """A small model of the case with the weights of a seed."""
    cls = family(case.family)
    with seeded(seed, "weights"):
        return cls(
            override(cls.presets["default"].model, hyperparameters(cls, case.kind, case.space)), shape, case.classes
        )


def some_batch(model: GenerativeModel, n: int = 6) -> Batch:
    """A batch for the model."""
    return pictures(model.shape, n, model.classes).batch(torch.arange(n))
