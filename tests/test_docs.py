"""The docs tell the truth about the code: snippets, links, pictures and commands.

A link into the code names symbols, [`prob.py`: `Gaussian.log_prob`](../src/fabulate/prob.py), which must be in that
file. A python block that follows such a link is lines of these symbols, to the letter (only their common indentation
may be gone).
"""

import ast
import importlib
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fabulate.cli import IMPORTED, VERBS, function, importing
from fabulate.models import GenerativeModel, family
from fabulate.models.base import NoChoice
from fabulate.models.families import families as every_family

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OURS = [
    *("tutorial.md", "families.md", "architecture.md", "extending.md", "evaluation.md"),
    *("augment.md", "debias.md", "outliers.md", "rare.md", "sequences.md"),
]
LARGEST_PICTURE = 150_000  # bytes: a page loads them all
LARGEST_FILM = 1_000_000
FIRST_FILM = "moving-vae.gif", 3_000_000  # what the README opens with

SYMBOLS = re.compile(r"\[`[^`\]]+`: (?P<names>`[\w.]+`(?:, `[\w.]+`)*)\]\((?P<path>[^()#\s]+\.py)\)")
SNIPPET = re.compile(SYMBOLS.pattern + r"[^\n]*\n+```python\n(?P<text>.*?)^```", re.M | re.S)
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)|<(?:img|a)\b[^>]*?(?:src|href)=\"(?P<html>[^\"]+)\"")
ABSOLUTE = re.compile(r"(?<![\w.~:/$}])/(?:home|tmp|work|root|mnt|opt|Users|private)\b")

over = pytest.mark.parametrize


class Quote(NamedTuple):
    """A link to symbols of a source file, and the python block below it, if there is one."""

    page: Path
    source: Path
    symbols: tuple[str, ...]
    text: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.source.name}:{','.join(self.symbols)}"


def quotes(page: Path, pattern: re.Pattern[str] = SYMBOLS) -> Iterator[Quote]:
    for match in pattern.finditer(page.read_text()):
        text = textwrap.dedent(match["text"]) if pattern is SNIPPET else None
        yield Quote(page, (page.parent / match["path"]).resolve(), (*re.findall(r"`([\w.]+)`", match["names"]),), text)


def spans(body: list[ast.stmt], before: str = "") -> Iterator[tuple[str, int, int]]:
    """The functions, classes and assigned names of some code, with their first and last lines."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield f"{before}{node.name}", first, node.end_lineno or first
            yield from spans(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield f"{before}{target.id}", node.lineno, node.end_lineno or node.lineno


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def problem(quote: Quote) -> str | None:
    """What is wrong with a link to symbols and what is quoted below it, in words."""
    where = f"{name(quote.page)}: {name(quote.source)}"
    if not quote.source.exists():
        return f"{where}: there is no such file"
    source = quote.source.read_text()
    found = {symbol: (first, last) for symbol, first, last in spans(ast.parse(source).body)}
    if missing := [symbol for symbol in quote.symbols if symbol not in found]:
        return f"{where} has no {', '.join(missing)}"
    if quote.text is None:
        return None
    first, last = (pick(found[symbol][i] for symbol in quote.symbols) for i, pick in enumerate((min, max)))
    lines, length = source.splitlines(keepends=True)[first - 1 : last], quote.text.count("\n")
    if any(textwrap.dedent("".join(lines[i : i + length])) == quote.text for i in range(len(lines) - length + 1)):
        return None
    start = quote.text.split("\n", 1)[0].strip()
    return f"{where}: the block that begins with {start!r} is not in {', '.join(quote.symbols)}; copy it anew"


def blocks(page: Path, *languages: str) -> list[str]:
    return [match["text"] for match in BLOCK.finditer(page.read_text()) if match["language"] in languages]


def links(page: Path) -> list[str]:
    """Targets of links and pictures within this repository; code is not searched."""
    prose = re.sub(r"`[^`\n]+`(?!\])", "", BLOCK.sub("", page.read_text()))
    targets = [match["target"] or match["html"] for match in LINK.finditer(prose)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, target: str) -> str | None:
    """What is wrong with a link, in words."""
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    if not there.exists():
        return f"{name(page)}: {target} does not exist"
    if anchor and there.suffix == ".md" and anchor not in headings(there):
        return f"{name(page)}: {name(there)} has no heading #{anchor}"
    if anchor and there.suffix == ".py":
        return f"{name(page)}: {target} leads to a line, which moves; name the symbol: [`file.py`: `symbol`](path)"
    return None


def commands(page: Path, program: str = "fabulate") -> list[list[str]]:
    """The words after the program's name in each such command of the page's bash blocks."""
    joined = "\n".join(blocks(page, "bash", "sh", "console")).replace("\\\n", " ")
    words = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in joined.splitlines()]
    return [line[1:] for line in words if line and line[0].rsplit("/")[-1] == program]


def trained(page: Path) -> dict[str, str]:
    """The family of each run that the page's commands train: the flags of `sample` depend on it."""
    families = {}
    for verb, *words in commands(page):
        if verb == "train":
            given = dict(pairwise(words))
            first = words[1] if words[1:] and not words[1].startswith("-") else "digits"
            default = f"runs/{words[0]}-{given.get('--data', first).rsplit('/')[-1]}"
            families[given.get("--out", default)] = words[0]
        if verb == "distil":
            families[f"{words[0]}-distilled"] = "consistency"
    return families


class Parsed(Exception):  # noqa: N818  # not an error: the command was understood
    """Thrown where a verb would begin its work."""


def understand(argv: list[str], monkeypatch: pytest.MonkeyPatch, families: Mapping[str, str]) -> None:
    """Run a command up to the point where its flags are parsed; `families` of runs that are not on this disk.

    Errors: `ConfigError` for a flag that the command does not take.
    """
    assert argv[0] in VERBS, f"there is no verb {argv[0]!r}"
    work = function(argv[0])
    verb: Any = importlib.import_module(work.__module__)
    parse = verb.parse

    def parse_only(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    every_family()  # before the registry is patched: a module is imported once
    with monkeypatch.context() as patch:
        patch.setattr(verb, "parse", parse_only)
        patch.setattr(GenerativeModel, "families", {**GenerativeModel.families})  # what --import brings is forgotten
        patch.setenv(IMPORTED, "")
        patch.chdir(ROOT)
        if argv[0] == "sample" and (name := families.get(argv[1])):
            patch.setattr(verb, "sampling_of", lambda _: getattr(family(name).Config(), "sampling", NoChoice()))
        with pytest.raises(Parsed), importing(argv[1:]) as words:
            work(words)
    sys.modules.pop("own_family", None)


QUOTES = [quote for page in PAGES for quote in [*quotes(page), *quotes(page, SNIPPET)]]
COMMANDS = sorted({(page, shlex.join(words)) for page in PAGES for words in commands(page)})


def test_the_docs_are_there_and_were_searched():
    assert {page.name for page in PAGES} >= {"README.md", *OURS}
    assert sum(quote.text is not None for quote in QUOTES) > 20, QUOTES
    assert len(COMMANDS) > 10, COMMANDS
    assert sum(len(links(page)) for page in PAGES) > 40


@over("quote", QUOTES, ids=str)
def test_symbols_are_where_they_are_said_to_be_and_quoted_to_the_letter(quote):
    wrong = problem(quote)
    assert wrong is None, wrong


@over("page", PAGES, ids=lambda page: page.name)
def test_other_python_compiles(page):
    for match in BLOCK.finditer(SNIPPET.sub("", page.read_text())):
        if match["language"] == "python":
            ast.parse(match["text"])


@over("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    wrong = [words for target in links(page) if (words := broken(page, target))]
    assert not wrong, "\n".join(wrong)


def test_pictures_are_small_and_shown():
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    most = {".png": LARGEST_PICTURE, ".gif": LARGEST_FILM, FIRST_FILM[0]: FIRST_FILM[1]}
    for picture in pictures:
        assert picture in shown, f"{picture.name} stands on no page"
        bytes_ = picture.stat().st_size
        assert bytes_ < most.get(picture.name, most[picture.suffix]), f"{picture.name} has {bytes_:,} bytes"


@over(("page", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_commands_are_understood(page, command, monkeypatch):
    understand(shlex.split(command), monkeypatch, trained(page))


@over("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_are_run_exist(page):
    scripts = [words[0] for words in commands(page, "python") if words[0].endswith(".py")]
    assert not [script for script in scripts if not (ROOT / script).exists()]


@over("page", PAGES, ids=lambda page: page.name)
def test_no_paths_of_somebodys_machine(page):
    assert not ABSOLUTE.findall(page.read_text())


# The checks find what they are for


SOURCE = 'def f():\n    """One."""\n    x = 1\n    y = 2\n'


def written(folder: Path, text: str) -> Path:
    (folder / "code.py").write_text(SOURCE)
    page = folder / "page.md"
    page.write_text(text)
    return page


@over(
    ("symbols", "code", "words"),
    [
        ("`f`", "x = 1\ny = 2\n", None),
        ("`f`", "    x = 1\n    y = 2\n", None),
        ("`f.x`", "x = 1\n", None),
        ("`f.x`, `f.y`", "x = 1\ny = 2\n", None),
        ("`f.x`", "y = 2\n", "the block that begins with 'y = 2' is not in f.x; copy it anew"),
        ("`f`", "x = 1\ny = 3\n", "is not in f; copy it anew"),
        ("`f`, `g`", "x = 1\n", "code.py has no g"),
    ],
)
def test_a_quote_is_checked(tmp_path, symbols, code, words):
    page = written(tmp_path, f"In [`code.py`: {symbols}](code.py):\n\n```python\n{code}```\n")
    (quote,) = quotes(page, SNIPPET)
    assert [link.symbols for link in quotes(page)] == [quote.symbols]
    assert (problem(quote) is None) if words is None else (words in problem(quote))


@over("target", ["gone.md", "page.md#gone", "#gone", "code.py#L3"])
def test_a_broken_link_is_found(tmp_path, target):
    page = written(tmp_path, f"# Here\n\n[`x`]({target}) [y](#here) [z](code.py) `[not](a-link)`\n")
    assert len([words for link in links(page) if (words := broken(page, link))]) == 1


def test_a_wrong_flag_is_found(monkeypatch):
    from fabulate.errors import ConfigError

    understand(["train", "vae", "--network", "conv", "--network.width", "8"], monkeypatch, {})
    understand(["sample", "runs/a", "--solver", "heun"], monkeypatch, {"runs/a": "flow"})
    with pytest.raises(ConfigError, match="--latent"):
        understand(["train", "vae", "--latent", "8"], monkeypatch, {})
    with pytest.raises(ConfigError, match="--solver"):
        understand(["sample", "runs/a", "--solver", "heun"], monkeypatch, {"runs/a": "gan"})


def test_the_family_of_a_run_is_told_by_its_training(tmp_path):
    page = written(tmp_path, "```bash\nfabulate train vae --data a/b\nfabulate train nf --size 8 --out runs/x\n```\n")
    assert trained(page) == {"runs/vae-b": "vae", "runs/x": "nf"}


@over(("text", "count"), [("see /home/me/x", 1), ("`/tmp/a`", 1), ("https://x.org/work/a", 0), ("out/tmp/a", 0)])
def test_an_absolute_path_is_found(text, count):
    assert len(ABSOLUTE.findall(text)) == count
