"""The site that `make docs` builds: strictly, whole, and loading nothing from anywhere else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site's packages are not here: pip install 'fabulate[docs]'")

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc(?:set)?=\"([^\"]+)\"|<link\b[^>]*\bhref=\"([^\"]+)\""
)
OUTSIDE = re.compile(r"(?:https?:)?//")


@pytest.mark.slow
def test_the_site_is_whole_and_asks_nobody_else(tmp_path: Path) -> None:
    out = tmp_path / "site"
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs", "-d", tmp_path / "trees"]
    done = subprocess.run([*words, ROOT, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.html")}
    sources = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for source in sources:
        page = source.relative_to(ROOT).with_suffix(".html").as_posix()
        assert page in pages, page
        assert page == "README.html" or f'href="{page}"' in pages["README.html"], f"{page} is not in the bar"
    assert pages["index.html"] == pages["README.html"]
    loaded = [(page, script or link) for page, text in pages.items() for script, link in LOADED.findall(text)]
    assert len(loaded) > 10 * len(sources)
    assert not [each for each in loaded if OUTSIDE.match(each[1])]
    styles = [path.read_text() for path in out.rglob("*.css")]
    assert not [match for text in styles for match in re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", text)]
    gone = [(page, at) for page, at in loaded if not at.startswith("data:") and not reached(out, page, at)]
    assert not gone
    assert pages["docs/tutorial.html"].count("<math") > 100 and "$$" not in pages["docs/tutorial.html"]
    assert "false_alarm" in pages["docs/api.html"] and 'id="train"' in pages["docs/api.html"]
    assert 'class="k">def</span>' in pages["code/src/fabulate/prob.py.html"]


def reached(out: Path, page: str, address: str) -> bool:
    """Whether what a page loads lies in the site."""
    return (out / page).parent.joinpath(address.split("?")[0].split("#")[0]).exists()
