"""Music for several voices on a grid: chorales as JSON piano rolls, MIDI files; samples are .mid files that sound.

A piece is a chord for each step of time, written from its highest note down:

    L:1/4 E5 C5 G4 C4 | D5 B4 G4 G3 | r4            steps of a quarter note, the last one a rest

`~C4` is a C4 that is held from the step before. To a model a step is V symbols, V the most notes at once; chords of
fewer have rests below. A chord has one spelling, so the likelihood of the symbols is that of the chords.

    chorales.json     {"train": [...], "test": [...]}, or a list, of pieces; a piece is a list of chords, a chord a list
                      of MIDI numbers (-1 is silence); a step is a quarter, in which each note is struck
    FOLDER/**/*.mid   each file is a piece, on a grid of 16ths (`midi.py`); sub-folders are classes

Music in another key is the same music. So `alike` names the twelve transpositions by up to half an octave, and the
alphabet goes that far beyond the pitches that were met.

`chorales` is the file `jsb-chorales-quarter.json` in `$FABULATE_DATA/music`.
"""

import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fabulate.config import DataSpec
from fabulate.data.images import Data
from fabulate.data.media.base import Heard
from fabulate.data.media.midi import Chord, MidiError, read_midi, spans, write_midi
from fabulate.data.media.notes import Note, Piece, rolls, sound, wav
from fabulate.data.media.sequences import MOST, Found, SequenceMedium
from fabulate.data.media.texts import bytes_of, walked
from fabulate.errors import ConfigError, DataError
from fabulate.files import place_file
from fabulate.types import SequenceShape

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
HELD = "~"
WHOLE = 2.4  # seconds of a whole note
KEYS = range(-6, 6)  # transpositions, in semitones
AT_ONCE = 8  # notes of a chord, at most
QUARTER = Fraction(1, 4)
UNUSED = ("valid", "validation", "val")


class ChordMedium(SequenceMedium):
    """Music for several voices."""

    name = "pieces"
    ending = ".mid"
    sources = ("chorales",)
    separator = " "
    unit = "steps"
    symbols_told = "a step is its notes from the highest down, and rests below chords of fewer"

    def load(self, spec: DataSpec) -> Data | None:
        place = Path(spec.source).expanduser()
        if spec.source in self.sources:
            around = os.environ.get("FABULATE_DATA")
            place = Path(around or ".").expanduser() / "music" / "jsb-chorales-quarter.json"
            if not around or not place.is_file():
                raise DataError(f"there are no {spec.source}: put {place.name} into the folder music of $FABULATE_DATA")
        if place.is_file() and place.suffix.lower() == ".json":
            parts, notes = from_json(place, spec.window)
        elif place.is_dir() and (files := [f for f in walked(place) if f.suffix.lower() in (".mid", ".midi")]):
            parts, notes = [from_midi(place, files, spec.window)], [f"times are rounded to a grid of {QUARTER / 4}"]
            notes.append("drums, loudness and tempo are left out")
        elif place.is_file() and place.suffix.lower() in (".mid", ".midi"):
            raise DataError(f"{place} is one piece; give a folder of them")
        else:
            return None
        return self.data(place.stem, spec, parts, notes)

    def voices(self, strings: Sequence[str]) -> int:
        return max(len(chord) for string in strings for chord in chords_of(string)[1])

    def alphabet(self, strings: Sequence[str]) -> list[str]:
        steps, pieces = zip(*map(chords_of, strings), strict=True)
        notes = {note for piece in pieces for chord in piece for note in chord}
        pitches = [pitch for pitch, _ in notes] or [60]
        reach = range(max(0, min(pitches) + KEYS[0]), min(127, max(pitches) + KEYS[-1] + 1) + 1)
        kinds = ("", HELD) if any(held for _, held in notes) else ("",)
        return [rest(steps[0]), *(kind + name_of(pitch) for kind in kinds for pitch in reach)]

    def spelled(self, string: str, voices: int) -> list[str]:
        step, chords = chords_of(string)
        silent = rest(step)
        rows = [[(HELD if held else "") + name_of(pitch) for pitch, held in chord] for chord in chords]
        return [symbol for row in rows for symbol in [*row, *[silent] * (voices - len(row))]]

    def written(self, symbols: Sequence[str], shape: SequenceShape) -> str:
        silent, v = shape.symbols[1], shape.voices
        steps = [symbols[i : i + v] for i in range(0, len(symbols) - v + 1, v)]  # a step that is not whole is none
        told = [" ".join(symbol for symbol in step if symbol != silent) or silent for step in steps]
        return f"L:1/{silent[1:]} {' | '.join(told)}"

    def alike(self, shape: SequenceShape) -> Tensor:
        known = {symbol: i for i, symbol in enumerate(shape.symbols)}
        found = torch.arange(len(shape.symbols)).repeat(len(KEYS), 1)
        for row, shift in zip(found, KEYS, strict=True):
            for symbol, i in known.items():
                if i > 1:
                    mark = HELD if symbol.startswith(HELD) else ""
                    row[i] = known.get(mark + name_of(pitch_of(symbol.removeprefix(HELD)) + shift), i)
        return found

    def place(self, item: str, path: Path) -> None:
        step, chords = chords_of(item)
        place_file(path, lambda file: write_midi(file, step, chords, WHOLE))
        place_file(path.with_suffix(".wav"), lambda file: file.write(wav(sound(played(item), WHOLE))))

    def read(self, path: Path) -> str:
        return text_of(*read_midi(path))

    def copy(self, file: Path, path: Path) -> None:
        self.place(self.read(file), path)

    def heard(self, item: str, name: str) -> Heard:
        step, chords = chords_of(item)
        about = f"{name}: {len(chords)} steps of {step}"
        return Heard(name, about, f"{name.removesuffix(self.ending)}.wav", item)

    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: npt.NDArray[Any] | None = None,
        classes: Sequence[str] = (),
    ) -> Image.Image:
        """Piano rolls, the notes of a chord in colours from the highest down, with a line at each whole note."""
        order = range(len(items)) if y is None else np.argsort(y, kind="stable").tolist()
        kinds = {k: classes[int(y[k])] if y is not None and classes else "" for k in order}
        return rolls([played(items[k], kinds[k] or f"{k}") for k in order], title, legend)


def name_of(pitch: int) -> str:
    """The name of a pitch, a MIDI number.

    >>> name_of(60), name_of(70), pitch_of("A#4")
    ('C4', 'A#4', 70)
    """
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def pitch_of(name: str) -> int:
    """The MIDI number of a pitch's name. Errors: `ConfigError`."""
    letter = name.rstrip("-0123456789")
    try:
        return NAMES.index(letter) + 12 * (int(name[len(letter) :]) + 1)
    except ValueError as error:
        raise ConfigError(f"{name!r} is no note such as C4 or A#3") from error


def rest(step: Fraction) -> str:
    """The symbol of a rest, which tells how long a step is."""
    return f"r{step.denominator}"


def chords_of(string: str) -> tuple[Fraction, list[Chord]]:
    """The length of a step, and the chord of each, of a written piece. Errors: `ConfigError`.

    >>> chords_of("L:1/4 E5 C5 | ~C5 | r4")
    (Fraction(1, 4), [((76, False), (72, False)), ((72, True),), ()])
    """
    head, _, body = string.partition(" ") if string.startswith("L:1/") else ("", "", string)
    number = head.removeprefix("L:1/") or "4"
    if not number.isdecimal() or not int(number):
        raise ConfigError(f"{head!r} is no length of a step such as L:1/4")
    chords = []
    for words in body.split("|"):
        notes = {pitch_of(word.removeprefix(HELD)): word.startswith(HELD) for word in words.split() if word[0] != "r"}
        chords.append(tuple(sorted(notes.items(), reverse=True)))
    return Fraction(1, int(number)), chords


def text_of(step: Fraction, chords: Sequence[Chord]) -> str:
    """The piece, written."""
    silent = rest(step)
    told = [" ".join((HELD if held else "") + name_of(pitch) for pitch, held in chord) or silent for chord in chords]
    return f"L:1/{step.denominator} {' | '.join(told)}"


def played(item: str, title: str = "") -> Piece:
    """A piece's notes in time."""
    step, chords = chords_of(item)
    notes = [Note(start * float(step), n * float(step), pitch, v) for start, n, pitch, v in spans(chords)]
    return Piece(title, notes, range(int(len(chords) * step) + 1))


def take(
    found: Found, name: str, step: Fraction, chords: Sequence[Chord], window: int | None, label: str | None
) -> None:
    """Take in a piece, or pieces of `window` steps of it, or set it aside."""
    most = max(map(len, chords), default=0)
    if not most:
        found.empty += 1
    elif most > AT_ONCE:
        found.set_aside.append((name, f"has {most} notes at once, more than {AT_ONCE}"))
    elif window is None and len(chords) * most > MOST:
        reason = f"has {len(chords):,} steps of {most} notes, more than {MOST:,} together; --window N cuts it"
        found.set_aside.append((name, reason))
    else:
        size = window or len(chords)
        for start in range(0, len(chords), size):
            part = chords[start : start + size]
            if any(part):
                told = name if window is None else f"{name}@{start}"
                found.add(told, text_of(step, part), label, most=None)


def from_midi(place: Path, files: Sequence[Path], window: int | None) -> Found:
    """The pieces of a folder's MIDI files."""
    found = Found()
    for file in files:
        within = file.relative_to(place)
        try:
            step, chords = read_midi(file)
        except (MidiError, OSError) as error:
            found.set_aside.append((within.as_posix(), str(error)))
            continue
        label = within.parts[0] if len(within.parts) > 1 else None
        take(found, within.as_posix(), step, chords, window, label)
    return found


def from_json(place: Path, window: int | None) -> tuple[list[Found], list[str]]:
    """The pieces of a JSON piano roll's training and test part. Errors: `DataError` where it is none."""
    try:
        given = json.loads(bytes_of(place))
    except ValueError as error:
        raise DataError(f"{place} cannot be read as JSON: {error}") from error
    parts = given if isinstance(given, dict) else {"train": given}
    if "train" not in parts or not all(isinstance(pieces, list) for pieces in parts.values()):
        raise DataError(f"{place} is no piano roll: it needs a list of pieces, or {{'train': [...], 'test': [...]}}")
    found = []
    for part in ("train", "test") if parts.get("test") else ("train",):
        found.append(Found())
        for i, piece in enumerate(parts[part]):
            name = f"{part}[{i}]"
            chords = roll_of(piece)
            if chords is None:
                found[-1].set_aside.append((name, "is no list of chords, each a list of MIDI numbers from 0 to 127"))
            else:
                take(found[-1], name, QUARTER, chords, window, None)
    unused = [f"{len(parts[part]):,} pieces of the part {part!r} are left out" for part in UNUSED if parts.get(part)]
    return found, [*unused, "a step is a quarter note, in which each note is struck"]


def roll_of(piece: Any) -> list[Chord] | None:
    """The chords of a piece in a JSON piano roll; None where it is none."""
    if not isinstance(piece, list) or not all(isinstance(chord, list) for chord in piece):
        return None
    if not all(type(note) is int and -1 <= note <= 127 for chord in piece for note in chord):
        return None
    return [tuple((note, False) for note in sorted({*chord} - {-1}, reverse=True)) for chord in piece]
