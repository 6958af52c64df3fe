"""The families, one file each. A file put here is found by its name; no list is kept.

A family defined elsewhere counts as soon as its class statement has run, `class PPCA(GenerativeModel, family="ppca")`:
when its module is imported, in Python or by `--import FILE`, or when it is first asked for, where an installed package
names it in its pyproject.toml:

    [project.entry-points."fabulate.families"]
    ppca = "my_package.ppca"
"""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from fabulate.config import nearest
from fabulate.errors import ConfigError
from fabulate.models.base import GenerativeModel

GROUP = "fabulate.families"
OURS = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__"}


def names() -> list[str]:
    """The names of all families, without importing them.

    >>> {"ae", "vae", "gan"} <= set(names())
    True
    """
    return sorted(OURS | installed().keys() | GenerativeModel.families.keys())


def family(name: str, place: str | None = None) -> type[GenerativeModel]:
    """The class of a family; `place` is what a saved model says of where it is defined.

    Errors: `ConfigError` naming the nearest family when there is none of this name, and how to bring one's own.
    """
    if name in GenerativeModel.families:
        return GenerativeModel.families[name]
    if name in OURS:
        import_module(f"fabulate.models.families.{name}")
    elif name in installed():
        entry = installed()[name]
        try:
            entry.load()
        except ImportError as error:
            raise ConfigError(f"the family {name!r} of {entry.value} cannot be imported: {error}") from error
    if name not in GenerativeModel.families:
        if place is not None:
            raise ConfigError(
                f"the model is of the family {name!r}, which is defined in {place}: give --import with that file "
                f"(in Python: import it first), or install the package that has it"
            )
        raise ConfigError(
            f"there is no family {name!r}{nearest(name, names())} (families: {', '.join(names())}); "
            f"one of your own is found by --import FILE, or in Python once its module has been imported"
        )
    return GenerativeModel.families[name]


def families() -> dict[str, type[GenerativeModel]]:
    """All families by name."""
    return {name: family(name) for name in names()}


@cache
def installed() -> dict[str, EntryPoint]:
    """The families that installed packages offer, by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def defined_in(cls: type[GenerativeModel]) -> str | None:
    """Where a family is defined, for a saved model to name: a file, or a module; None for one of this package."""
    if cls.family in OURS:
        return None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return cls.__module__ if file is None or "." in cls.__module__ else Path(file).name


def import_families(place: str | Path) -> list[str]:
    """Import a Python file, or a module by its dotted name, and return the names of the families that it defines.

    Errors: `ConfigError` where there is no such file or module, where it defines no family, or one of our names.
    """
    before, file = {**GenerativeModel.families}, Path(place)
    name = file.stem if file.suffix == ".py" else str(place)
    try:
        if file.suffix == ".py":
            import_file(name, file.resolve())
        else:
            import_module(name)
    except (OSError, ImportError, SyntaxError) as error:
        raise ConfigError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    own = [family for family, cls in GenerativeModel.families.items() if cls.__module__ == name]
    if not own:
        raise ConfigError(f"{place} defines no family; one is made by class NAME(GenerativeModel, family='name')")
    if taken := OURS.intersection(own):
        GenerativeModel.families = before
        sys.modules.pop(name, None)
        raise ConfigError(f"{place} defines the family {taken.pop()!r}, which fabulate has; give it another name")
    return own


def import_file(name: str, file: Path) -> None:
    """Import a file as a module of a name. Errors: `ConfigError` where the name is another module's."""
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return
    other = None if known is not None else find_spec(name)
    if known is not None or (other is not None and other.origin != str(file)):
        raise ConfigError(f"{file.name} has the name of another module, {name}; give the file a name of its own")
    found = spec_from_file_location(name, file)
    assert found is not None and found.loader is not None
    sys.modules[name] = module = module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
