"""Reading pages as a browser would: do tags close in order, and does a page load nothing but what it holds?"""

from html.parser import HTMLParser
from pathlib import Path

VOID = ("meta", "img", "circle", "line")  # tags that nothing closes


class Sound(HTMLParser):
    """Checks that tags close in order, and collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def loads(path: Path) -> list[str]:
    """What a page would load; its tags must close in order."""
    page = Sound()
    page.feed(path.read_text())
    page.close()
    assert not page.open
    return page.loads
