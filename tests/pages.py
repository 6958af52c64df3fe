"""Reading pages as a browser would: do tags close in order, and does a page load nothing but what it holds?"""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "input", "link", "line", "circle"}  # tags that nothing closes


class Page(HTMLParser):
    """Checks that each tag is closed in order, and collects what a page would load and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe"), f"a page needs no <{tag}>"
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data"):
                self.loads.append(value or "")
            elif name in ("href", "style"):
                (self.links if name == "href" else self.styles).append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"<{tag}/> is no element of its own"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def loads(path: Path) -> list[str]:
    """What a page would load, and where it leads; its tags must close in order."""
    page = Page(path.read_text())
    return [*page.loads, *page.links]
