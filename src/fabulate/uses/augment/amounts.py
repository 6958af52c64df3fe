"""How many synthetic images each class gets.

The words say where a class shall end, real and synthetic images together: `balanced` (all as many as the largest),
a number (all up to it), or `name=number,...` (these up to theirs). Nothing is ever taken away from a class.
"""

from collections.abc import Mapping

from fabulate.config import nearest
from fabulate.errors import ConfigError


def missing(to: str, counts: Mapping[str, int]) -> dict[str, int]:
    """How many images each class lacks (0: none) of what the words say, from how many real ones it has.

    >>> missing("balanced", {"cat": 50, "dog": 8}), missing("dog=10", {"cat": 50, "dog": 8})
    ({'cat': 0, 'dog': 42}, {'cat': 0, 'dog': 2})

    Errors: `ConfigError` for words that are none of these, for unknown classes, and when no class lacks any.
    """
    goals = _goals(to.strip(), counts)
    lacking = {name: max(0, goals.get(name, 0) - count) for name, count in counts.items()}
    if not any(lacking.values()):
        has = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name in goals)
        raise ConfigError(f"nothing to make: with --to {to} no class lacks images (it has: {has}); ask for more")
    return lacking


def _goals(to: str, counts: Mapping[str, int]) -> dict[str, int]:
    if to == "balanced":
        return dict.fromkeys(counts, max(counts.values()))
    if "=" not in to:
        return dict.fromkeys(counts, _number(to, to))
    goals = {}
    for part in to.split(","):
        name, _, number = part.rpartition("=")
        name = name.strip()
        if name not in counts:
            hint = nearest(name, [*counts])
            raise ConfigError(f"--to {to}: there is no class {name!r}{hint} (classes: {', '.join(counts)})")
        goals[name] = _number(number, to)
    return goals


def _number(word: str, to: str) -> int:
    if not word.strip().isdecimal():
        raise ConfigError(f"--to takes balanced, a number, or name=number,...; given {to!r}")
    return int(word)
