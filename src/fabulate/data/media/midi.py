"""MIDI files as chords on a grid, and back, by mido (https://mido.readthedocs.io).

Times are rounded to a grid of a 16th note; a note lasts a step at least. A chord is what sounds in a step, from the
highest note down; a note is struck in the step where it begins, and held in those after it. All tracks and instruments
sound together, drums (channel 10) do not. Loudness, tempo and pedals are left out.

Files that fabulate writes name their step in a text, `L:1/4`, as ABC does; they are read back on that grid.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

import mido  # type: ignore[import-untyped]  # has no stubs

SIXTEENTH = Fraction(1, 16)
DRUMS = 9  # the channel that people call 10
LONGEST = 100_000  # steps
TICKS = 480  # in a quarter note
STEP = re.compile(r"L:1/([0-9]{1,3})")
Chord = tuple[tuple[int, bool], ...]  # pitches as MIDI numbers, the highest first, and whether each is held


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
