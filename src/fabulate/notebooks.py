"""What objects show of themselves in a notebook: names, values and pictures, as HTML.

A notebook's colours are its reader's, light or dark, and unknown here. So words take the colour that is around them,
and pictures, which are dark on white, bring their white along.
"""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_NAME = "text-align: left; vertical-align: top; white-space: nowrap; opacity: 0.7; font-weight: normal"
_VALUE = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace"
_WHITE = "background: white; width: fit-content; max-width: 100%; overflow-x: auto"


def img(image: "Image", words: str) -> str:
    """A picture as an HTML element that holds its PNG; the words are for who cannot see it."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/png;base64,{data}" {size} alt="{_plain(words)}">'


def card(title: str, rows: Iterable[tuple[str, str]], *pictures: "Image") -> str:
    """A title, names with their values, and pictures below them. Any text will do: it is escaped.

    >>> "&lt;b&gt;" in card("<b>", [])
    True
    """
    lines = "".join(
        f'<tr><th style="{_NAME}">{_plain(name)}</th><td style="{_VALUE}">{_plain(value)}</td></tr>'
        for name, value in rows
    )
    shown = "".join(f'<div style="{_WHITE}">{img(image, title)}</div>' for image in pictures)
    return f"<div><b>{_plain(title)}</b><table>{lines}</table>{shown}</div>"


def _plain(words: str) -> str:
    """Words that are no HTML; what is no character of Unicode, as in the names of some files, is a question mark."""
    return escape(words.encode("utf-8", "replace").decode())
