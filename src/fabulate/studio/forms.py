"""The forms of a training, made from the specs that make the command line's flags; and their values checked by these.

A form is the JSON Schema that pydantic makes of a spec, with the docstrings of its fields as descriptions, and what
each preset fills in.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from fabulate import training
from fabulate.config import DataSpec, Reading, Training, from_json, override, to_json
from fabulate.errors import ConfigError
from fabulate.models.capabilities import CAPABILITIES
from fabulate.models.families import families, family
from fabulate.studio.requests import Train
from fabulate.types import ImageShape, SequenceShape

LARGEST = 2**31  # of whole numbers in the training's part
LARGEST_PART = 2**16  # of those of a model: a layer's width, a code's length
LONGEST = 64  # numbers in a list: a network's layers
Json = dict[str, Any]


@cache
def cards() -> list[Json]:
    """The families as cards tell of them."""
    return [
        {
            "name": name,
            "title": (cls.__doc__ or name).split("(")[0].strip().rstrip("."),
            "idea": first_sentence(inspect.getmodule(cls)),
            "presets": [*cls.presets],
            "can": [word for word, capability in CAPABILITIES.items() if issubclass(cls, capability)],
            "images": ImageShape in cls.takes,
            "sequences": SequenceShape in cls.takes,
        }
        for name, cls in families().items()
    ]


def first_sentence(module: Any) -> str:
    """What a family's file says first."""
    words = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return words.partition(": ")[2].rstrip(".") or words.rstrip(".")


@cache
def form(name: str) -> Json:
    """The form of a family: schemas, and the values of each preset. Errors: `ConfigError` for no such family."""
    cls = family(name)
    return {
        "family": name,
        "model": schema(cls.Config),
        "training": schema(Training),
        "reading": schema(Reading),
        "presets": {
            preset: {
                "model": to_json(values.model),
                "training": to_json(values.training),
                "kinds": kinds(name, preset),
            }
            for preset, values in cls.presets.items()
        },
        "reading_defaults": to_json(Reading()),
    }


def kinds(name: str, preset: str) -> Json:
    """What each kind of a part is filled with: {part: {kind: values}}."""
    return {
        part: {kind: to_json(getattr(training.configure(name, preset, {part: kind})[0], part)) for kind in specs}
        for part, specs in training.choices(family(name).Config).items()
    }


def schema(cls: type[Any]) -> Json:
    """The JSON Schema of a spec, each field with its help."""
    found: Json = TypeAdapter(cls).json_schema()
    described(found, cls)
    for each in parts(cls):
        described(found.get("$defs", {}).get(each.__name__, {}), each)
    return found


def parts(cls: type[Any]) -> list[type[Any]]:
    """The specs that a spec's fields may be."""
    return [spec for kinds in training.choices(cls).values() for spec in kinds.values()]


def described(found: Json, cls: type[Any]) -> None:
    """Put the help of a spec's fields into its schema."""
    for name, words in helps(cls).items():
        if name in found.get("properties", {}):
            found["properties"][name]["description"] = words


def helps(cls: type[Any]) -> dict[str, str]:
    """The docstrings below the fields of a spec, and of those that it derives from.

    >>> helps(Reading)["channels"].split(";")[0]
    '1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha'
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def checked(asked: Train) -> None:
    """Errors: `ConfigError` with the field's name for what a training cannot be asked for."""
    bounded(asked.model, LARGEST_PART)
    bounded(asked.training, LARGEST)
    checked_reading(asked.source, asked.reading)
    own = training.choices(family(asked.family).Config)
    known = {*form(asked.family)["training"]["properties"]}
    if strange := [*(asked.training.keys() - known), *(asked.model.keys() & known)]:
        raise ConfigError(f"{strange[0]}: no hyperparameter of the training, or of the model")
    whole = {part: value["kind"] for part, value in asked.model.items() if part in own and isinstance(value, Mapping)}
    plain = {name: value for name, value in {**asked.model, **asked.training}.items() if name not in whole}
    config, _ = training.configure(asked.family, asked.preset, {**plain, **whole})
    for part in whole:
        values = {name: value for name, value in asked.model[part].items() if name != "kind"}
        override(getattr(config, part), {name: tupled(value) for name, value in values.items()})


def checked_reading(source: str, values: Mapping[str, Any]) -> DataSpec:
    """How images are read. Errors: `ConfigError` with the field's name."""
    if strange := values.keys() - {*helps(Reading)}:
        raise ConfigError(f"{min(strange)}: not a way of reading images")
    return from_json(DataSpec, {**values, "source": source})


def bounded(values: Any, most: int, name: str = "") -> None:
    """Errors: `ConfigError` for numbers that no machine of today could work with, with the field's name."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            bounded(value, 2**63 - 1 if key == "seed" else most, f"{name}.{key}".lstrip("."))
    elif isinstance(values, list):
        if len(values) > LONGEST:
            raise ConfigError(f"{name}: must have {LONGEST} numbers at most (given: {len(values)})")
        for value in values:
            bounded(value, most, name)
    elif isinstance(values, int | float) and not isinstance(values, bool) and not -most <= values <= most:
        raise ConfigError(f"{name}: must lie between -{most:,} and {most:,} (given: {values})")


def tupled(value: Any) -> Any:
    """A list as the tuple that it is in a spec."""
    return tuple(value) if isinstance(value, list) else value
