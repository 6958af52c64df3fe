"""Tunes in ABC notation: `.abc` files of one tune or many, sub-folders or rhythms as classes; samples sound.

A tune is learnt as its letters, without what is no music: its number, the fields for notes and sources, and the `!` by
which old files end a line. The rhythm, `R:` or what a collection's id says (`Z: id:dc-reel-3`), is its class. What does
not parse (`abc_notation.py`) is set aside with its line and reason. Each sample is an .abc file with a .wav beside it;
a page plays them.

The sound is that of a plucked string: harmonics k of the pitch, as loud as in a string plucked at a fifth of its
length, sin(k pi / 5) / k^2, the higher the sooner silent.

`irish` is the file `irish.abc` in `$FABULATE_DATA/music`.
"""

import os
import re
import wave
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fabulate.config import DataSpec
from fabulate.data.images import Data
from fabulate.data.media.abc_notation import AbcError, Tune, parse
from fabulate.data.media.base import Heard
from fabulate.data.media.sequences import Found, SequenceMedium
from fabulate.data.media.texts import bytes_of, walked
from fabulate.errors import DataError
from fabulate.files import place_file
from fabulate.pictures import fitting, font

RATE = 22_050  # numbers of sound in a second
WHOLE = 1.4  # seconds of a whole note
HARMONICS, DECAY = 8, 3.0  # of a string, and how fast the first is silent, in 1 / second
LONGEST = 90.0  # seconds of sound
DROPPED = "XRZNSBDFHOIVWw"  # fields that are no music
KIND = re.compile(r"id:[a-z]+-([a-z]+)-[0-9]+")
CELL = (330, 92)  # pixels of a tune in a picture


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
            place_file(path.with_suffix(".wav"), lambda file: file.write(wav(sound(tune))))

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
        """Piano rolls: time to the right, pitch upwards, a line at each bar; a tune's kind and title above it."""
        order = range(len(items)) if y is None else np.argsort(y, kind="stable").tolist()
        columns, margin, top = 3, 14, 56
        (wide, high), rows = CELL, -(-len(items) // 3)
        canvas = Image.new("RGB", (columns * wide + 2 * margin, top + rows * high + margin), "white")
        draw = ImageDraw.Draw(canvas)
        draw.text((margin, 28), fitting(title, font(15), columns * wide), "#222222", font(15), anchor="ls")
        draw.text((margin, 46), fitting(legend, font(11), columns * wide), "#666666", font(11), anchor="ls")
        for i, k in enumerate(order):
            left, above = margin + i % columns * wide, top + i // columns * high
            tune = parsed(items[k])
            kind = f"{classes[int(y[k])]}: " if y is not None and classes else ""
            told = tune.title if isinstance(tune, Tune) else f"does not parse: {tune}"
            colour = "#333333" if isinstance(tune, Tune) else "#d1495b"
            draw.text((left, above + 12), fitting(kind + told, font(11), wide - 10), colour, font(11), anchor="ls")
            if isinstance(tune, Tune):
                roll(draw, tune, left, above + 18, wide - 12, high - 28)
        return canvas


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


def roll(draw: ImageDraw.ImageDraw, tune: Tune, left: int, top: int, wide: int, high: int) -> None:
    """Draw a tune as a piano roll."""
    notes = [note for bar in tune.bars for note in bar]
    pitches = [pitch for note in notes for pitch in note.pitches]
    low, span = min(pitches) - 1, max(12, max(pitches) - min(pitches) + 2)
    across = wide / max(1e-9, float(sum(note.length for note in notes)))
    draw.rectangle((left, top, left + wide, top + high), outline="#dddddd")
    at = 0.0
    for bar in tune.bars:
        draw.line((left + at * across, top, left + at * across, top + high), "#e6e6e6")
        for note in bar:
            end = at + float(note.length)
            for pitch in note.pitches:
                y = top + high - (pitch - low) / span * high
                draw.rectangle(
                    (left + at * across, y - 1, max(left + at * across, left + end * across - 1), y + 1), "#3b6ea8"
                )
            at = end


def sound(tune: Tune) -> npt.NDArray[np.float32]:
    """What a tune sounds like, numbers in [-1, 1], `RATE` of them for each second."""
    notes = [note for bar in tune.bars for note in bar]
    seconds = min(LONGEST, float(sum(note.length for note in notes)) * WHOLE + 1)
    whole = np.zeros(int(seconds * RATE), np.float32)
    at = 0.0
    for note in notes:
        start = int(at * RATE)
        for pitch in note.pitches:
            one = string(440 * 2 ** ((pitch - 69) / 12), float(note.length) * WHOLE + 0.3)[: max(0, len(whole) - start)]
            whole[start : start + len(one)] += one
        at += float(note.length) * WHOLE
    return whole / max(1.0, float(np.abs(whole).max()) / 0.9) if len(whole) else whole


def string(pitch: float, seconds: float) -> npt.NDArray[np.float32]:
    """A plucked string of a pitch in hertz, let go for so many seconds."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.zeros(len(t))
    for k in range(1, HARMONICS + 1):
        if k * pitch < RATE / 2:
            tone += np.sin(k * np.pi / 5) / k**2 * np.exp(-DECAY * k * t) * np.sin(2 * np.pi * k * pitch * t)
    damped = np.clip((seconds - t) / 0.05, 0, 1) * np.clip(t / 0.002, 0, 1)  # no click at either end
    return (0.5 * tone * damped).astype(np.float32)


def wav(numbers: npt.NDArray[np.float32]) -> bytes:
    """Sound in [-1, 1] as the bytes of a .wav of 16 bits, one channel."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((numbers.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
