"""The families, one file each. A file put here is found by its name; no list is kept.

A family defined elsewhere counts as soon as its class statement has run: `class PPCA(GenerativeModel, family="ppca")`.
"""

from importlib import import_module
from pathlib import Path

from fabulate.config import nearest
from fabulate.errors import ConfigError
from fabulate.models.base import GenerativeModel


def names() -> list[str]:
    """The names of all families, without importing them.

    >>> {"ae", "vae", "gan"} <= set(names())
    True
    """
    files = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__"}
    return sorted(files | GenerativeModel.families.keys())


def family(name: str) -> type[GenerativeModel]:
    """The class of a family.

    Errors: `ConfigError` naming the nearest family when there is none of this name.
    """
    if name not in names():
        raise ConfigError(
            f"there is no family {name!r}{nearest(name, names())} (families: {', '.join(names())}); "
            f"one of your own counts once its module has been imported"
        )
    if name not in GenerativeModel.families:
        import_module(f"fabulate.models.families.{name}")
    return GenerativeModel.families[name]


def families() -> dict[str, type[GenerativeModel]]:
    """All families by name."""
    return {name: family(name) for name in names()}
