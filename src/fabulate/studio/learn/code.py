"""The lines of the source that are a model's losses, read from it: nothing is written twice."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabulate
from fabulate.models.base import GenerativeModel
from fabulate.models.families import gan
from fabulate.models.families.gan import GAN
from fabulate.models.families.nf import NF
from fabulate.models.families.vae import VAE

SOURCE = Path(fabulate.__file__).parent
Json = dict[str, Any]


def code_of(model: GenerativeModel) -> dict[str, list[Json]]:
    """For each player, excerpts: file, symbol, line, text, and the numbers (from 0) of the lines that are the loss."""
    return {name: [excerpt(player.loss), *more(model, name)] for name, player in model.players().items()}


def more(model: GenerativeModel, player: str) -> list[Json]:
    """What a player's loss calls, where the formula stands there."""
    if isinstance(model, GAN):
        name = model.config.game
        row = excerpt(getattr(model.game, player), f"GAMES[{name!r}].{player}")
        return [{**row, "marks": [*range(len(row["text"].splitlines()))]}]
    if isinstance(model, VAE):
        return [excerpt(model.terms)]
    return [excerpt(model.code_and_log_prob)] if isinstance(model, NF) else []


def excerpt(function: Callable[..., Any], symbol: str = "") -> Json:
    """A function as it stands in its file, without its docstring."""
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getsourcefile(function) or "").relative_to(SOURCE).as_posix()
    text = textwrap.dedent("".join(lines)).rstrip()
    marks: list[int] = []
    if not symbol:
        symbol = function.__qualname__
        text, marks = without_docstring(text)
    return {"file": file, "symbol": symbol, "line": first, "text": text, "marks": marks}


def without_docstring(text: str) -> tuple[str, list[int]]:
    """A function's lines without its docstring, and which of them, from 0, compute what is called the loss.

    >>> without_docstring('def f(x):\\n    "What."\\n    loss = x\\n    return {"loss": loss}')
    ('def f(x):\\n    loss = x\\n    return {"loss": loss}', [1])
    """
    body = ast.parse(text).body[0]
    assert isinstance(body, ast.FunctionDef)
    told = body.body[0]
    gone = range(told.lineno, (told.end_lineno or told.lineno) + 1) if ast.get_docstring(body) is not None else range(0)
    statements = [node for node in own(body) if computes(node)]
    marked = {n for node in statements for n in range(node.lineno, (node.end_lineno or 0) + 1)}
    kept = [(number, line) for number, line in enumerate(text.splitlines(), 1) if number not in gone]
    return "\n".join(line for _, line in kept), [i for i, (number, _) in enumerate(kept) if number in marked]


def own(body: ast.stmt) -> Iterator[ast.stmt]:
    """The statements within a statement, but for those of functions in it."""
    for node in ast.iter_child_nodes(body):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
            yield node
            yield from own(node)


def computes(node: ast.stmt) -> bool:
    """Whether a statement computes a loss: `loss = ...`, or a return of more than its name."""
    if isinstance(node, ast.Assign):
        return any(
            isinstance(target, ast.Name) and target.id in ("loss", "log_p_x", "kl", "rate") for target in node.targets
        )
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
        value = node.value.values[0]
        return not isinstance(value, ast.Name) and not (isinstance(value, ast.UnaryOp))
    return isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Dict)


def whole(file: str) -> str:
    """A file's text. Errors: `FileNotFoundError` for one that no excerpt is of."""
    known = {inspect.getsourcefile(inspect.getmodule(cls) or gan) for cls in GenerativeModel.families.values()}
    path = SOURCE / file
    if str(path) not in known:
        raise FileNotFoundError(2, "there is no such source of a loss", file)
    return path.read_text()
