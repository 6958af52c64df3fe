"""Notes as people hear and see them, whichever medium they come from: sound as .wav, and piano rolls.

`SoundingMedium` is what media of notes share.

The sound is that of a plucked string: harmonics k of the pitch, as loud as in a string plucked at a fifth of its
length, sin(k pi / 5) / k^2, the higher the sooner silent.
"""

import wave
from abc import abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fabulate.data.media.sequences import SequenceMedium
from fabulate.files import place_file
from fabulate.pictures import fitting, font

RATE = 22_050  # numbers of sound in a second
HARMONICS, DECAY = 8, 3.0  # of a string, and how fast the first is silent, in 1 / second
LONGEST = 90.0  # seconds of sound
CELL, COLUMNS = (330, 92), 3  # pixels of a piece in a picture, and how many stand beside each other
VOICES = ("#3b6ea8", "#c8553d", "#588157", "#7b5ea7")  # colours, from the highest note of a chord down


class Note(NamedTuple):
    """A note: its beginning and length in whole notes, its pitch as a MIDI number, its place in a chord from above."""

    start: float
    length: float
    pitch: int
    voice: int = 0


class Piece(NamedTuple):
    """Notes with what is told of them; `bars`: where lines are drawn, in whole notes."""

    title: str
    notes: Sequence[Note]
    bars: Sequence[float] = ()

    @property
    def end(self) -> float:
        """Where the last note ends, in whole notes."""
        return max((note.start + note.length for note in self.notes), default=0.0)


class SoundingMedium(SequenceMedium):
    """A medium whose items are notes in time."""

    whole: ClassVar[float]
    """Seconds of a whole note."""

    @abstractmethod
    def played(self, item: str) -> Piece:
        """An item's notes in time; without bars where it is none, which the title then says."""

    @abstractmethod
    def write(self, item: str, path: Path) -> None:
        """Write an item as its file, without its sound."""

    def place(self, item: str, path: Path) -> None:
        self.write(item, path)
        piece = self.played(item)
        if piece.bars:
            place_file(path.with_suffix(".wav"), lambda file: file.write(wav(sound(piece, self.whole))))

    def copy(self, file: Path, path: Path) -> None:
        self.place(self.read(file), path)

    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: npt.NDArray[Any] | None = None,
        classes: Sequence[str] = (),
    ) -> Image.Image:
        """Piano rolls with lines at bars, the notes of a chord in colours from the highest down; kinds above them."""
        pieces = []
        for k in range(len(items)) if y is None else np.argsort(y, kind="stable").tolist():
            piece = self.played(items[k])
            kind = [classes[int(y[k])]] if y is not None and classes else []
            pieces.append(piece._replace(title=": ".join([*kind, *filter(None, [piece.title])]) or f"{k}"))
        return rolls(pieces, title, legend)


def sound(piece: Piece, whole: float) -> npt.NDArray[np.float32]:
    """What a piece sounds like, numbers in [-1, 1], `RATE` of them a second. `whole`: seconds of a whole note."""
    found = np.zeros(int(min(LONGEST, piece.end * whole + 1) * RATE), np.float32)
    for note in piece.notes:
        start = int(note.start * whole * RATE)
        tone = string(440 * 2 ** ((note.pitch - 69) / 12), note.length * whole + 0.3)[: max(0, len(found) - start)]
        found[start : start + len(tone)] += tone
    return found / max(1.0, float(np.abs(found).max()) / 0.9) if len(found) else found


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


def rolls(pieces: Sequence[Piece], title: str, legend: str) -> Image.Image:
    """Piano rolls below a title: time to the right, pitch upwards; a piece without notes is its title, in red."""
    margin, top = 14, 56
    wide, high = CELL
    canvas = Image.new("RGB", (COLUMNS * wide + 2 * margin, top + -(-len(pieces) // COLUMNS) * high + margin), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, 28), fitting(title, font(15), COLUMNS * wide), "#222222", font(15), anchor="ls")
    draw.text((margin, 46), fitting(legend, font(11), COLUMNS * wide), "#666666", font(11), anchor="ls")
    for i, piece in enumerate(pieces):
        left, above = margin + i % COLUMNS * wide, top + i // COLUMNS * high
        colour = "#333333" if piece.notes else "#d1495b"
        draw.text((left, above + 12), fitting(piece.title, font(11), wide - 10), colour, font(11), anchor="ls")
        if piece.notes:
            roll(draw, piece, left, above + 18, wide - 12, high - 28)
    return canvas


def roll(draw: ImageDraw.ImageDraw, piece: Piece, left: int, top: int, wide: int, high: int) -> None:
    pitches = [note.pitch for note in piece.notes]
    low, span = min(pitches) - 1, max(12, max(pitches) - min(pitches) + 2)
    across = wide / max(1e-9, piece.end)
    draw.rectangle((left, top, left + wide, top + high), outline="#dddddd")
    for bar in piece.bars:
        draw.line((left + bar * across, top, left + bar * across, top + high), "#e6e6e6")
    for note in piece.notes:
        y = top + high - (note.pitch - low) / span * high
        start, end = left + note.start * across, left + (note.start + note.length) * across - 1
        draw.rectangle((start, y - 1, max(start, end), y + 1), VOICES[note.voice % len(VOICES)])
