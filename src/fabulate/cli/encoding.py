"""The command line where the terminal, a pipe or the locale has no UTF-8: the same words, in plain characters.

What we write with signs (arrows, lines, dashes) has plain ones instead; letters that cannot be shown, of a class's name
say, are shown as Python escapes them, so that two names never look alike. Files are UTF-8 whatever the locale.
"""

import codecs
import os
import sys
from io import TextIOWrapper

PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━╺╸–—−", "-"),  # these are what is meant
        **dict.fromkeys("│┃▏", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯", "+"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("‘’", "'"),
        **{"•": "*", "·": ".", "…": "...", "×": "x", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "±": "+-", "█": "#"},
    }
)
OWN = {"Fréchet": "Frechet", "Serrà": "Serra"}  # letters in words of ours


def plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: characters that have a plain form in it, others as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    for word, ascii_word in OWN.items():
        for place in range(len(word)):
            begin = error.start - place
            if word[place] == error.object[error.start] and error.object[max(begin, 0) : begin + len(word)] == word:
                return ascii_word[place], error.start + 1
    letters = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if ord(c) < 128 else ascii(c)[1:-1] for c in letters), error.end


def speak_plainly() -> None:
    """Let standard output and error take every character: what they cannot encode has a plain form."""
    codecs.register_error("fabulate.plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="fabulate.plain")


def utf8_names() -> None:
    """Begin again in Python's UTF-8 mode where names of files would not be UTF-8; what is printed stays as it was.

    Python itself does so in the locale C unless told otherwise. Without it a class `dög` could have no folder.
    """
    if os.name == "nt" or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", "ascii"))
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
