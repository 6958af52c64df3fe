"""Music for several voices on a grid: chorales as JSON piano rolls, MIDI files; samples are .mid files that sound.

A piece is a chord for each step of time, written from its highest note down:

    L:1/4 E5 C5 G4 C4 | D5 B4 G4 G3 | r4            steps of a quarter note, the last one a rest

`~C4` is a C4 that is held from the step before. To a model a step is V symbols, V the most notes at once; chords of
fewer have rests below. A chord has one spelling, so the likelihood of the symbols is that of the chords.

    chorales.json     {"train": [...], "test": [...]}, or a list, of pieces; a piece is a list of chords, a chord a list
                      of MIDI numbers (-1 is silence); a step is a quarter, in which each note is struck
    FOLDER/**/*.mid   each file is a piece; sub-folders are classes

Music in another key is the same music. So `alike` names the twelve transpositions by up to half an octave, and the
alphabet goes that far beyond the pitches that were met.

`chorales` is the file `jsb-chorales-quarter.json` in `$FABULATE_DATA/music`.

MIDI files are read by mido (https://mido.readthedocs.io). Times are rounded to a grid of a 16th note; a note lasts a
step at least. A chord is what sounds in a step; a note is struck where it begins, and held in the steps after it. All
tracks and instruments sound together, drums (channel 10) do not. Loudness, tempo and pedals are left out. Files that
fabulate writes name their step in a text, `L:1/4`, as ABC does; they are read back on that grid.
"""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, ClassVar

import mido  # type: ignore[import-untyped]  # has no stubs
import torch
from torch import Tensor

from fabulate.config import DataSpec
from fabulate.data.images import Data
from fabulate.data.media.base import Heard
from fabulate.data.media.notes import Note, Piece, SoundingMedium
from fabulate.data.media.sequences import MOST, Found, Speller
from fabulate.data.media.texts import bytes_of, walked
from fabulate.errors import ConfigError, DataError
from fabulate.files import place_file
from fabulate.types import SequenceShape

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
HELD = "~"
KEYS = range(-6, 6)  # transpositions, in semitones
AT_ONCE = 8  # notes of a chord, at most
QUARTER = Fraction(1, 4)
UNUSED = ("valid", "validation", "val")
SIXTEENTH = Fraction(1, 16)
DRUMS = 9  # the channel that people call 10
LONGEST = 100_000  # steps
TICKS = 480  # in a quarter note
STEP = re.compile(r"L:1/([0-9]{1,3})")
Chord = tuple[tuple[int, bool], ...]  # pitches as MIDI numbers, the highest first, and whether each is held


class ChordMedium(SoundingMedium):
    """Music for several voices."""

    name = "pieces"
    ending = ".mid"
    sources: ClassVar = {"chorales": "music/jsb-chorales-quarter.json"}
    whole = 2.4
    separator = " "
    unit = "steps"
    symbols_told = "a step is its notes from the highest down, and rests below chords of fewer"

    def load(self, spec: DataSpec) -> Data | None:
        place = self.found(spec.source)
        if spec.tokens is not None and (place.suffix.lower() == ".json" or spec.source in self.sources):
            raise DataError("--tokens is for texts and tunes; the symbols of pieces are notes")
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

    def alphabet(self, strings: Sequence[str], tokens: int | None = None) -> list[str]:
        steps, pieces = zip(*map(chords_of, strings), strict=True)
        notes = {note for piece in pieces for chord in piece for note in chord}
        pitches = [pitch for pitch, _ in notes] or [60]
        reach = range(max(0, min(pitches) + KEYS[0]), min(127, max(pitches) + KEYS[-1] + 1) + 1)
        kinds = ("", HELD) if any(held for _, held in notes) else ("",)
        return [rest(steps[0]), *(kind + name_of(pitch) for kind in kinds for pitch in reach)]

    def speller(self, symbols: Sequence[str], voices: int) -> Speller:
        def spelled(string: str) -> list[str]:
            step, chords = chords_of(string)
            silent = rest(step)
            rows = [[(HELD if held else "") + name_of(pitch) for pitch, held in chord] for chord in chords]
            return [symbol for row in rows for symbol in [*row, *[silent] * (voices - len(row))]]

        return spelled

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

    def write(self, item: str, path: Path) -> None:
        step, chords = chords_of(item)
        place_file(path, lambda file: write_midi(file, step, chords, self.whole))

    def read(self, path: Path) -> str:
        return text_of(*read_midi(path))

    def played(self, item: str) -> Piece:
        step, chords = chords_of(item)
        notes = [Note(start * float(step), n * float(step), pitch, v) for start, n, pitch, v in spans(chords)]
        return Piece("", notes, range(int(len(chords) * step) + 1))

    def heard(self, item: str, name: str) -> Heard:
        step, chords = chords_of(item)
        about = f"{name}: {len(chords)} steps of {step}"
        return Heard(name, about, f"{name.removesuffix(self.ending)}.wav", item)


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
    silent = rest(step)
    told = [" ".join((HELD if held else "") + name_of(pitch) for pitch, held in chord) or silent for chord in chords]
    return f"L:1/{step.denominator} {' | '.join(told)}"


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


# MIDI files


class MidiError(ValueError):
    """What cannot be read, with the reason."""


def read_midi(path: Path) -> tuple[Fraction, list[Chord]]:
    """The length of a step in whole notes, and the chord at each step, from the first note to the last.

    Errors: `MidiError` for what is no MIDI file, and for one without notes.
    """
    if not path.stat().st_size:
        raise MidiError("is empty")
    try:
        file = mido.MidiFile(path, clip=True)
    except (OSError, EOFError, ValueError, LookupError, TypeError, mido.KeySignatureError) as error:
        why = "it ends early" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise MidiError(f"is no MIDI file that can be read: {why}") from error
    if not file.tracks:
        raise MidiError("is a MIDI file of 0 tracks")
    if file.ticks_per_beat <= 0 or file.ticks_per_beat >= 1 << 15:
        raise MidiError("counts time in film frames, not in notes")
    texts = [getattr(message, "text", "") for track in file.tracks for message in track]
    told = [found for text in texts if (found := STEP.fullmatch(text))]
    step = Fraction(1, int(told[0][1])) if told and int(told[0][1]) else SIXTEENTH
    grid = 4 * step * file.ticks_per_beat  # ticks of a step
    spans, drums = spans_of(file, grid)
    if told:  # of ours: from its beginning to its end, silent or not
        first, last = 0, round(max(sum(message.time for message in track) for track in file.tracks) / grid)
    elif spans:
        first, last = min(start for start, _, _ in spans), max(end for _, end, _ in spans)
    else:
        raise MidiError("has no notes but those of drums" if drums else "has no notes")
    if last - first > LONGEST:
        raise MidiError(f"lasts {last - first:,} steps of {step}, more than {LONGEST:,}")
    sounding: list[dict[int, bool]] = [{} for _ in range(first, last)]
    for start, end, pitch in sorted(spans):
        for t in range(start, min(end, last)):
            # Where a note is struck again before it ends, it is struck.
            sounding[t - first][pitch] = t > start and sounding[t - first].get(pitch, True)
    return step, [tuple(sorted(chord.items(), reverse=True)) for chord in sounding]


def spans_of(file: mido.MidiFile, grid: Fraction) -> tuple[list[tuple[int, int, int]], bool]:
    """Each note's first step, the one after its last, and its pitch; and whether there are drums beside them."""
    found, drums = [], False
    for track in file.tracks:
        now, open_notes = 0, dict[tuple[int, int], int]()
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            if message.channel == DRUMS:
                drums = True
                continue
            key = message.channel, message.note
            if key in open_notes:
                start = open_notes.pop(key)
                found.append((start, max(start + 1, round(now / grid)), message.note))
            if message.type == "note_on" and message.velocity:
                open_notes[key] = round(now / grid)
        found += [(start, max(start + 1, round(now / grid)), pitch) for (_, pitch), start in open_notes.items()]
    return found, drums


def write_midi(file: IO[bytes], step: Fraction, chords: Sequence[Chord], seconds: float) -> None:
    """Write chords as a MIDI file of one track. `seconds`: of a whole note."""
    events: list[tuple[int, int, int]] = []  # tick, 1 where a note begins and 0 where it ends, pitch
    for start, length, pitch, _ in spans(chords):
        begin, end = (int(t * step * 4 * TICKS) for t in (start, start + length))
        events += [(begin, 1, pitch), (end, 0, pitch)]
    track = mido.MidiTrack([mido.MetaMessage("text", text=f"L:1/{step.denominator}")])
    track.append(mido.MetaMessage("set_tempo", tempo=round(seconds / 4 * 1e6)))
    now = 0
    for tick, begins, pitch in sorted(events):
        track.append(mido.Message("note_on", note=pitch, velocity=80 * begins, time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=int(len(chords) * step * 4 * TICKS) - now))
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(file=file)


def spans(chords: Sequence[Chord]) -> list[tuple[int, int, int, int]]:
    """Each note of chords: its first step, how many it lasts, its pitch, and its place in the chord it begins in.

    >>> spans([((60, False),), ((60, True), (55, False))])
    [(0, 2, 60, 0), (1, 1, 55, 1)]
    """
    found: list[tuple[int, int, int, int]] = []
    going: dict[int, int] = {}  # of each pitch that sounds, its number in `found`
    for t, chord in enumerate(chords):
        still = {}
        for voice, (pitch, held) in enumerate(chord):
            if held and pitch in going:
                start, length, *rest = found[going[pitch]]
                found[going[pitch]] = (start, length + 1, rest[0], rest[1])
                still[pitch] = going[pitch]
            else:  # what is held and was not struck begins here all the same
                still[pitch] = len(found)
                found.append((t, 1, pitch, voice))
        going = still
    return found
