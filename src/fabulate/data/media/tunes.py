"""Tunes in ABC notation: `.abc` files of one tune or many, sub-folders or rhythms as classes; samples sound.

A tune is learnt as its letters, without what is no music: its number, the fields for notes and sources, and the `!` by
which old files end a line. The rhythm, `R:` or what a collection's id says (`Z: id:dc-reel-3`), is its class. What does
not parse (`abc_notation.py`) is set aside with its line and reason. Each sample is an .abc file with a .wav beside it;
a page plays them.

`irish` is the file `irish.abc` in `$FABULATE_DATA/music`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fabulate.config import DataSpec
from fabulate.data.images import Data
from fabulate.data.media.abc_notation import AbcError, Tune, parse
from fabulate.data.media.base import Heard
from fabulate.data.media.notes import Note, Piece, rolls, sound, wav
from fabulate.data.media.sequences import Found, SequenceMedium
from fabulate.data.media.texts import bytes_of, walked
from fabulate.errors import DataError
from fabulate.files import place_file

WHOLE = 1.4  # seconds of a whole note
DROPPED = "XRZNSBDFHOIVWw"  # fields that are no music
KIND = re.compile(r"id:[a-z]+-([a-z]+)-[0-9]+")


class TuneMedium(SequenceMedium):
    """Tunes."""

    name = "tunes"
    ending = ".abc"
    sources = ("irish",)

    def load(self, spec: DataSpec) -> Data | None:
        place = Path(spec.source).expanduser()
        if spec.source in self.sources:
            around = os.environ.get("FABULATE_DATA")
            place = Path(around or ".").expanduser() / "music" / f"{spec.source}.abc"
            if not around or not place.is_file():
                raise DataError(f"there is no {spec.source}: put {place.name} into the folder music of $FABULATE_DATA")
        if place.is_file() and place.suffix.lower() == ".abc":
            some = [place]
        elif place.is_dir():
            some = [file for file in walked(place) if file.suffix.lower() == ".abc"]
        else:
            some = []
        if not some:
            return None
        if spec.window is not None:
            raise DataError("--window cuts running text; tunes are whole")
        found = Found()
        for file in some:
            within = file.relative_to(place).parts if place.is_dir() else (file.name,)
            read(file, found, within[0] if len(within) > 1 else None)
        note = f"numbers and fields that are no music ({', '.join(DROPPED)}) are left out; R: is the class"
        return self.data(place.stem, spec, [found], [note])

    def place(self, item: str, path: Path) -> None:
        number = int(path.stem) if path.stem.isdecimal() else 0
        place_file(path, lambda file: file.write(f"X:{number + 1}\n{item}\n".encode()))
        tune = parsed(item)
        if isinstance(tune, Tune):
            place_file(path.with_suffix(".wav"), lambda file: file.write(wav(sound(played(tune), WHOLE))))

    def read(self, path: Path) -> str:
        return path.read_text("utf-8").split("\n", 1)[1].removesuffix("\n")

    def copy(self, file: Path, path: Path) -> None:
        self.place(self.read(file), path)

    def judge(self, item: str) -> dict[str, tuple[int, int]]:
        tune = parsed(item)
        fits = tune.full if isinstance(tune, Tune) else (0, 0)
        return {"Tunes that parse": (int(isinstance(tune, Tune)), 1), "Bars that are full": fits}

    def heard(self, item: str, name: str) -> Heard:
        tune = parsed(item)
        if isinstance(tune, str):
            return Heard(name, f"does not parse: {tune}", "", item)
        full, bars = tune.full
        return Heard(tune.title or name, f"{name}: {full} of {bars} bars are full", f"{name[:-4]}.wav", item)

    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: npt.NDArray[Any] | None = None,
        classes: Sequence[str] = (),
    ) -> Image.Image:
        """Piano rolls with a line at each bar; a tune's kind and title above it."""
        order = range(len(items)) if y is None else np.argsort(y, kind="stable").tolist()
        pieces = []
        for k in order:
            tune = parsed(items[k])
            kind = f"{classes[int(y[k])]}: " if y is not None and classes else ""
            piece = played(tune) if isinstance(tune, Tune) else Piece(f"does not parse: {tune}", ())
            pieces.append(piece._replace(title=kind + piece.title))
        return rolls(pieces, title, legend)


def parsed(item: str) -> Tune | str:
    """A tune, or why it cannot be parsed."""
    try:
        return parse(item)
    except AbcError as error:
        return str(error)


def read(file: Path, found: Found, label: str | None) -> None:
    """Take in the tunes of a file; each begins with its number, X:."""
    raw = bytes_of(file).decode("utf-8", "surrogateescape").split("\n")
    starts = [i for i, line in enumerate(raw) if line.startswith("X:")] or [0]
    for first, end in zip(starts, [*starts[1:], len(raw)], strict=True):
        name = f"{file.name}:{first + 1}"
        kept, kind = [], label
        for line in raw[first:end]:
            if re.match(f"[{DROPPED}]:", line):
                told = KIND.search(line) if line[0] == "Z" else re.match(r"R:\s*(.+)", line)
                kind = kind or (told[1].strip().lower() if told else None)
            elif line.strip() and not line.startswith("%"):
                kept.append(line.rstrip().rstrip("!").rstrip())
        text = "\n".join(kept)
        tune = parsed(text)
        if text and isinstance(tune, str):
            found.set_aside.append((name, tune))
        else:
            found.add(name, text.encode("utf-8", "surrogateescape"), kind)


def played(tune: Tune) -> Piece:
    """A tune's notes in time."""
    notes, bars, at = [], [], 0.0
    for bar in tune.bars:
        bars.append(at)
        for note in bar:
            length = float(note.length)
            notes += [Note(at, length, pitch) for pitch in note.pitches]
            at += length
    return Piece(tune.title, notes, bars)
