"""The docs tell the truth about the code: snippets, links, pictures and commands.

A python block that follows a link to lines of a source file is those lines, to the letter (only their common
indentation may be gone). `python tests/test_docs.py` mends line numbers after the source moved; words that changed are
for people.
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

from fabulate.cli import IMPORTED, VERBS, importing
from fabulate.models import GenerativeModel, family
from fabulate.models.base import NoChoice

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OURS = [
    *("tutorial.md", "families.md", "architecture.md", "extending.md", "evaluation.md"),
    *("augment.md", "debias.md", "outliers.md", "rare.md"),
]
LARGEST_PICTURE = 150_000  # bytes: a page loads them all

SNIPPET = re.compile(
    r"\]\((?P<path>[^()#\s]+\.py)#L(?P<first>\d+)(?:-L(?P<last>\d+))?\)[^\n]*\n+```python\n(?P<text>.*?)^```",
    re.M | re.S,
)
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)|<(?:img|a)\b[^>]*?(?:src|href)=\"(?P<html>[^\"]+)\"")
ABSOLUTE = re.compile(r"(?<![\w.~:/$}])/(?:home|tmp|work|root|mnt|opt|Users|private)\b")

over = pytest.mark.parametrize


class Snippet(NamedTuple):
    """A python block and the link above it."""

    page: Path
    source: Path
    first: int
    last: int
    text: str
    span: tuple[int, int]
    """Where in the page its line numbers stand."""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.source.name}:{self.first}"


def snippets(page: Path) -> Iterator[Snippet]:
    for match in SNIPPET.finditer(page.read_text()):
        first, last = int(match["first"]), int(match["last"] or match["first"])
        end = match.end("last") if match["last"] else match.end("first")
        span = (match.start("first") - 2, end)  # with "#L" before it
        yield Snippet(page, (page.parent / match["path"]).resolve(), first, last, textwrap.dedent(match["text"]), span)


def places(snippet: Snippet) -> list[int]:
    """The line numbers at which the snippet begins in its source, nearest first."""
    source, length = snippet.source.read_text().splitlines(keepends=True), snippet.text.count("\n")
    found = [
        i + 1
        for i in range(len(source) - length + 1)
        if textwrap.dedent("".join(source[i : i + length])) == snippet.text
    ]
    return sorted(found, key=lambda line: abs(line - snippet.first))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def lines(first: int, length: int) -> str:
    return f"#L{first}" if length == 1 else f"#L{first}-L{first + length - 1}"


def problem(snippet: Snippet) -> str | None:
    """What is wrong with a snippet, in words."""
    length, where = snippet.text.count("\n"), f"{name(snippet.page)}: the snippet of {name(snippet.source)}"
    if not snippet.source.exists():
        return f"{where}: there is no such file"
    found = places(snippet)
    if snippet.first in found and snippet.last == snippet.first + length - 1:
        return None
    said = f"is said to be at {lines(snippet.first, snippet.last - snippet.first + 1)}"
    if found:
        return f"{where} {said} and is now at {lines(found[0], length)}: run `python tests/test_docs.py` to mend it"
    start = snippet.text.split("\n", 1)[0].strip()
    return f"{where} that begins with {start!r} {said} and is nowhere in it: the source's words changed; copy them anew"


def mend(page: Path) -> int:
    """Write the right line numbers into a page; how many changed."""
    text, changed = page.read_text(), 0
    for snippet in reversed(list(snippets(page))):
        if problem(snippet) and snippet.source.exists() and (found := places(snippet)):
            first, last = snippet.span
            text, changed = text[:first] + lines(found[0], snippet.text.count("\n")) + text[last:], changed + 1
    if changed:
        page.write_text(text)
    return changed


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
    if numbers := re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor):
        last = int(numbers[2] or numbers[1])
        if last > len(there.read_text().splitlines()):
            return f"{name(page)}: {name(there)} has no line {last}"
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
            default = f"runs/{words[0]}-{given.get('--data', 'digits').rsplit('/')[-1]}"
            families[given.get("--out", default)] = words[0]
    return families


class Parsed(Exception):  # noqa: N818  # not an error: the command was understood
    """Thrown where a verb would begin its work."""


def understand(argv: list[str], monkeypatch: pytest.MonkeyPatch, families: Mapping[str, str]) -> None:
    """Run a command up to the point where its flags are parsed; `families` of runs that are not on this disk.

    Errors: `ConfigError` for a flag that the command does not take.
    """
    assert argv[0] in VERBS, f"there is no verb {argv[0]!r}"
    verb = importlib.import_module(f"fabulate.cli.{argv[0]}")
    parse = verb.parse

    def parse_only(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(verb, "parse", parse_only)
        patch.setattr(GenerativeModel, "families", {**GenerativeModel.families})  # what --import brings is forgotten
        patch.setenv(IMPORTED, "")
        patch.chdir(ROOT)
        if argv[0] == "sample" and (name := families.get(argv[1])):
            patch.setattr(verb, "sampling_of", lambda _: getattr(family(name).Config(), "sampling", NoChoice()))
        with pytest.raises(Parsed), importing(argv[1:]) as words:
            verb.main(words)
    sys.modules.pop("own_family", None)


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]
COMMANDS = sorted({(page, shlex.join(words)) for page in PAGES for words in commands(page)})


def test_the_docs_are_there_and_were_searched():
    assert {page.name for page in PAGES} >= {"README.md", *OURS}
    assert len(SNIPPETS) > 20, SNIPPETS
    assert len(COMMANDS) > 10, COMMANDS
    assert sum(len(links(page)) for page in PAGES) > 40


@over("snippet", SNIPPETS, ids=str)
def test_snippets_are_the_lines_they_are_said_to_be(snippet):
    wrong = problem(snippet)
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
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture in shown, f"{picture.name} stands on no page"
        assert picture.stat().st_size < LARGEST_PICTURE, f"{picture.name} has {picture.stat().st_size:,} bytes"


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
    ("numbers", "code", "words"),
    [
        ("#L3-L4", "x = 1\ny = 2\n", None),
        ("#L3-L4", "    x = 1\n    y = 2\n", None),
        ("#L3", "x = 1\n", None),
        ("#L2-L3", "x = 1\ny = 2\n", "now at #L3-L4"),
        ("#L3-L3", "x = 1\ny = 2\n", "now at #L3-L4"),
        ("#L3-L4", "x = 1\ny = 3\n", "nowhere in it"),
    ],
)
def test_a_snippet_is_checked_and_its_numbers_are_mended(tmp_path, numbers, code, words):
    page = written(tmp_path, f"In [`code.py`](code.py{numbers}):\n\n```python\n{code}```\n")
    (snippet,) = snippets(page)
    assert (problem(snippet) is None) == (words is None)
    assert words is None or words in problem(snippet)
    assert mend(page) == (words is not None and "now at" in words)
    assert [problem(again) for again in snippets(page)] == [None] or "nowhere" in words


@over("target", ["gone.md", "page.md#gone", "#gone", "code.py#L3-L5"])
def test_a_broken_link_is_found(tmp_path, target):
    page = written(tmp_path, f"# Here\n\n[`x`]({target}) [y](#here) [z](code.py#L4) `[not](a-link)`\n")
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


if __name__ == "__main__":
    print(f"{sum(mend(page) for page in PAGES)} line numbers mended")
    unmended = [words for page in PAGES for snippet in snippets(page) if (words := problem(snippet))]
    print("\n".join(unmended))
    sys.exit(bool(unmended))
