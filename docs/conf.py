"""The site: README and docs as pages of a browser, by Sphinx, MyST and Furo. `make docs` builds it into build/docs.

A page loads nothing from anywhere else. Formulas are MathML, which docutils makes of them. Links into the code lead to
pages with the code; docs/api.md is filled in from the docstrings.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer, TypeScriptLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).parents[1]
ROOMS = {  # the pages, as the bar on the left has them
    "Begin": ["docs/studio", "docs/photographs", "docs/families", "docs/tutorial"],
    "Put to use": [
        "docs/evaluation",
        "docs/augment",
        "docs/debias",
        "docs/outliers",
        "docs/rare",
        "docs/audit",
        "docs/sharing",
        "docs/sequences",
    ],
    "Reference": ["docs/api", "docs/reliability", "docs/results", "CHANGELOG"],
    "Inside": ["docs/architecture", "docs/extending", "benchmarks/README", "docs/LOG"],
}
CODE = {".py": PythonLexer, ".ts": TypeScriptLexer}

project = "fabulate"
copyright = "the fabulate authors"  # Sphinx's name for it
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "docs/*.md", "benchmarks/README.md"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "fabulate"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "friendly", "github-dark"


# Formulas


def mathml(self: Any, node: Any) -> None:
    """A formula within a line, or of its own."""
    block = isinstance(node, nodes.math_block)
    words = re.sub(r"\\[bB]igg?[lr]?(?![a-z])", "", node.astext())  # sizes of brackets: MathML stretches them
    formula = latex2mathml.tex2mathml(words, as_block=block)
    self.body.append(f'<div class="formula">{formula}</div>\n' if block else formula)
    raise nodes.SkipNode


# Code


def lead_to_code(app: Sphinx, tree: nodes.document) -> None:
    """Let links to files of the code lead to pages with them, rather than be downloads."""
    for link in [*tree.findall(addnodes.download_reference)]:
        here = Path(app.env.doc2path(app.env.docname)).parent
        file = (here / link["reftarget"].split("#")[0]).resolve()
        if file.suffix not in CODE or not file.is_file():
            continue  # a notebook is a download; of what is not there Sphinx warns
        page = f"code/{file.relative_to(ROOT).as_posix()}"
        app.env.fabulate_code = {*getattr(app.env, "fabulate_code", ()), page}  # type: ignore[attr-defined]
        address = relative_uri(f"{app.env.docname}.html", f"{page}.html")
        link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=True))


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file of the code that is linked to."""
    for page in sorted(getattr(app.env, "fabulate_code", ())):
        name = page.removeprefix("code/")
        text = (ROOT / name).read_text()
        shown = highlight(text, CODE[Path(name).suffix](), HtmlFormatter(cssclass="highlight"))
        yield page, {"title": name, "body": f"<h1>{name}</h1>{shown}"}, "page.html"


# The reference


def filled(app: Sphinx, page: str, text: list[str]) -> None:
    """Fill pages in: the bar of the first, the docstrings of the reference."""
    if page == root_doc:
        text[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {room}\n\n" + "\n".join(pages) + "\n```\n"
            for room, pages in ROOMS.items()
        )
    if page == "docs/api":
        import fabulate

        text[0] += "".join(entry(name, getattr(fabulate, name)) for name in fabulate.__all__)


def entry(name: str, thing: Any) -> str:
    """A name with its docstring; of a class its methods too, of a room its functions."""
    if inspect.ismodule(thing):
        inner = [(each, getattr(thing, each)) for each in getattr(thing, "__all__", ())]
        rest = "".join(told(f"{name}.{each}", it, 3) for each, it in inner if callable(it))
        return f"\n## fabulate.{name}\n\n{prose(inspect.getdoc(thing))}\n{rest}"
    methods = [
        (each, it)
        for each, it in vars(thing).items()
        if inspect.isclass(thing) and inspect.isfunction(it) and not each.startswith("_") and it.__doc__
    ]
    return told(name, thing, 2) + "".join(told(f"{name}.{each}", it, 3) for each, it in methods)


def told(name: str, thing: Any, level: int) -> str:
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):
        signature = ""
    signature = re.sub(r"(?:[a-z_]+\.)+(?=[A-Z])", "", signature).replace("'", "")
    words = "class " if inspect.isclass(thing) else ""
    call = textwrap.fill(f"{words}{name}{signature}", 100, subsequent_indent="    ", break_long_words=False)
    return f"\n{'#' * level} {name}\n\n```python\n{call}\n```\n\n{prose(inspect.getdoc(thing))}\n"


def prose(doc: str | None) -> str:
    """A docstring as Markdown: what is indented, and what is run, stays as it is."""
    parts = []
    for part in re.split(r"\n\s*\n", doc or ""):
        if part.startswith((" ", ">>>")):
            parts.append(f"```{'pycon' if '>>>' in part else 'text'}\n{textwrap.dedent(part)}\n```")
        else:
            words = re.split(r"(`[^`]*`)", part)
            parts.append("".join(w if w.startswith("`") else re.sub(r"([*_<$\[\]])", r"\\\1", w) for w in words))
    return "\n\n".join(parts)


def whole(app: Sphinx, error: Exception | None) -> None:
    """The first page by the name that servers look for, and the pictures that `<picture>` shows."""
    if error is None:
        out = Path(app.outdir)
        shutil.copy(out / "README.html", out / "index.html")
        shutil.copytree(ROOT / "docs" / "pictures", out / "docs" / "pictures", dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("source-read", filled)
    app.connect("doctree-read", lead_to_code)
    app.connect("html-collect-pages", code_pages)
    app.connect("build-finished", whole)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
