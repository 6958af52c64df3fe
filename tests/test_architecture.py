"""The floor plan of docs/DESIGN section 2, read off the source with `ast`: rooms, their levels, and who imports whom.

A room is a file or a folder directly in src/fabulate. It imports from lower levels and from itself. Imports inside
functions and under `if TYPE_CHECKING` count: they are dependencies too.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "fabulate"
LEVELS = [
    {"types", "config", "errors", "seeds", "files", "pictures"} | {"processes", "signals"},
    {"nets", "prob", "paths", "data", "metrics"},
    {"samplers", "features", "compiling", "report"},
    {"models", "stats"},
    {"training", "samples"},
    {"evaluation", "uses", "share"},
    {"cli", "studio"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FRONT_DOOR = {"__init__", "__main__"}  # they open onto every room: names are imported there when first used
EXEMPT: dict[tuple[str, str], str] = {  # (room, imported room): the reason
    ("cli", "studio"): "the verb opens the page; the studio itself knows the command line as child processes only",
}
MOST_LINES = 450
VAGUE = {"utils", "util", "common", "misc", "helpers"}

Texts = dict[str, str]  # "models/vae.py" -> its text


def source() -> Texts:
    return {path.relative_to(SOURCE).as_posix(): path.read_text() for path in sorted(SOURCE.rglob("*.py"))}


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def modules(file: str, text: str) -> Iterator[str]:
    """The dotted names a file imports; `from fabulate import models` is `fabulate.models`."""
    here = ["fabulate", *file.removesuffix(".py").split("/")]
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*(here[: -node.level] if node.level else []), *([node.module] if node.module else [])])
            yield from (f"fabulate.{alias.name}" for alias in node.names) if base == "fabulate" else (base,)


def imports(texts: Texts) -> list[tuple[str, str, str]]:
    """(file, its room, imported room) for each import of fabulate by a file that is not the front door."""
    return [
        (file, room(file), name.split(".")[1])
        for file, text in texts.items()
        if room(file) not in FRONT_DOOR
        for name in modules(file, text)
        if name.startswith("fabulate.") and not name.startswith("fabulate.__")
    ]


def strangers(texts: Texts) -> list[str]:
    """Rooms without a level."""
    rooms = {room(file) for file in texts} | {there for _, _, there in imports(texts)}
    lost = sorted(rooms - LEVEL.keys() - FRONT_DOOR)
    return [f"{name} is on no level: add it to LEVELS here and to the floor plan in the design" for name in lost]


def climbers(texts: Texts) -> list[str]:
    """Imports that do not go down."""
    return [
        f"{file} (level {LEVEL[here]}) imports {there} (level {LEVEL[there]})"
        for file, here, there in imports(texts)
        if not (here == there or LEVEL[there] < LEVEL[here] or LEVEL[there] == LEVEL[here] == 0)
        and (here, there) not in EXEMPT
    ]


def cycle(texts: Texts) -> list[str]:
    """A circle of files on level 0, if there is one."""
    graph: dict[str, set[str]] = {name: set() for name in LEVELS[0]}
    for _, here, there in imports(texts):
        if here in LEVELS[0]:
            graph[here].add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def visitors(texts: Texts) -> list[str]:
    """Imports of torchvision: from PyPI it does not import beside CPU torch, and then breaks whoever tries."""
    return [
        f"{file} imports torchvision"
        for file, text in texts.items()
        if any(name.split(".")[0] == "torchvision" for name in modules(file, text))
    ]


def nets_for_everything(texts: Texts) -> list[str]:
    """`except:`, `except Exception` and `except (..., Exception)`: they swallow bugs with the errors."""
    return [
        f"{file}:{node.lineno} catches everything"
        for file, text in texts.items()
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or any(isinstance(n, ast.Name) and n.id == "Exception" for n in ast.walk(node.type)))
    ]


def long_files(texts: Texts) -> list[str]:
    return [
        f"{file} has {lines} lines, more than {MOST_LINES}: give an idea a file of its own"
        for file, text in texts.items()
        if (lines := len(text.splitlines())) > MOST_LINES
    ]


def vague_names(texts: Texts) -> list[str]:
    return [f"{file} says nothing of what is in it" for file in texts if {*Path(file).with_suffix("").parts} & VAGUE]


LAWS = [strangers, climbers, cycle, visitors, nets_for_everything, long_files, vague_names]


@pytest.mark.parametrize("law", LAWS)
def test_the_source_keeps_the_floor_plan(law):
    found = law(source())
    assert not found, "\n".join(found)


def test_imports_were_checked():
    count = len(imports(source()))
    print(f"{count} imports checked")
    assert count > 0


def test_exemptions_are_used_and_have_a_reason():
    used = {(here, there) for _, here, there in imports(source())}
    assert all(pair in used and reason for pair, reason in EXEMPT.items())


@pytest.mark.parametrize(
    ("law", "texts"),
    [
        (strangers, {"attic.py": ""}),
        (strangers, {"cli/a.py": "from fabulate import attic"}),
        (climbers, {"nets/a.py": "import fabulate.models.families.vae"}),
        (climbers, {"prob.py": "def f():\n    from fabulate.nets import MLP"}),
        (climbers, {"types.py": "if TYPE_CHECKING:\n    from fabulate.nets.mlp import MLP"}),
        (climbers, {"models/a.py": "from ..training import loop"}),
        (climbers, {"samples.py": "from fabulate import training"}),
        (cycle, {"files.py": "import fabulate.seeds", "seeds.py": "from fabulate.files import sha256"}),
        (visitors, {"data/a.py": "from torchvision.datasets import MNIST"}),
        (nets_for_everything, {"cli/a.py": "try:\n    pass\nexcept (OSError, Exception):\n    pass"}),
        (nets_for_everything, {"cli/a.py": "try:\n    pass\nexcept:\n    raise"}),
        (long_files, {"cli/a.py": "\n" * (MOST_LINES + 1)}),
        (vague_names, {"nets/utils.py": ""}),
    ],
)
def test_each_law_finds_what_breaks_it(law, texts):
    assert len(law(texts)) == 1


@pytest.mark.parametrize("law", LAWS)
def test_each_law_lets_pass_what_keeps_it(law):
    keeping = {
        "models/a.py": "from fabulate.models.base import Player\nfrom ..nets import MLP\nfrom fabulate import config",
        "pictures.py": "import fabulate.files\ntry:\n    pass\nexcept OSError:\n    pass",
    }
    assert law(keeping) == []
