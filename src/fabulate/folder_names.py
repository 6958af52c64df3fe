"""Names of classes as names of folders: valid on every system, and a folder of its own for each class.

A class may be called anything: `cat/dog`, `CON`, `grid.png`, nothing at all, 300 letters. A folder may not, and on many
systems `Cat` and `cat` are one folder. A name that is fine stays as it is; any other is changed as little as possible,
and where two classes would then meet, a few digits of the name's hash part them.
"""

import re
import unicodedata
from collections.abc import Iterable
from hashlib import sha256

LONGEST = 100  # bytes: file systems take 255, and a name may become part of a longer one
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE)


def folder_name(label: str) -> str:
    """A class's name as part of the name of a file or folder: valid everywhere, never empty or hidden.

    >>> folder_name("cat/dog"), folder_name(".."), folder_name("3"), folder_name("aux")
    ('cat_dog', '_.._', '3', '_aux')
    """
    name = _FORBIDDEN.sub("_", label)
    if len(name.encode()) > LONGEST:
        name = name.encode()[: LONGEST - 9].decode(errors="ignore") + "-" + _digits(label)
    if name.endswith((".", " ")):  # Windows drops them
        name += "_"
    if not name or name.startswith(".") or _DEVICES.fullmatch(name):
        name = f"_{name}"
    return name


def folder_names(labels: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A folder for each class, no two the same on any system, and none called as what is `taken`.

    >>> folder_names(["a_b", "a/b", "grid.png"], taken=["grid.png"])
    {'a_b': 'a_b', 'a/b': 'a_b-c14cddc0', 'grid.png': 'grid.png-b6ef05f7'}
    """
    labels = list(dict.fromkeys(labels))
    used, found = {_folded(name) for name in taken}, {}
    for label in sorted(labels, key=lambda label: folder_name(label) != label):  # what is fine as it is goes first
        name, digits = folder_name(label), 8
        while _folded(name) in used:
            name, digits = f"{folder_name(label)}-{_digits(label, digits)}", digits + 8
        used.add(_folded(name))
        found[label] = name
    return {label: found[label] for label in labels}


def _folded(name: str) -> str:
    """What a file system that ignores case, or writes accents in another way, may take a name for."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def _digits(label: str, count: int = 8) -> str:
    return sha256(label.encode(errors="surrogatepass")).hexdigest()[:count]
