"""Tunes in ABC notation: `.abc` files of one tune or many, sub-folders or rhythms as classes; samples sound.

A tune is learnt as its letters, without what is no music: its number, the fields for notes and sources, and the `!` by
which old files end a line. The rhythm, `R:` or what a collection's id says (`Z: id:dc-reel-3`), is its class. Each
sample is an .abc file with a .wav beside it; a page plays them. `irish` is the file `irish.abc` in
`$FABULATE_DATA/music`.

ABC is tunes as letters (https://abcnotation.com/wiki/abc:standard:v2.1), parsed as far as a melody needs. A tune is a
header of fields (`M:` metre, `L:` length of a note without a number, `K:` key) and a body of notes, rests, chords and
bar lines. What a melody does not sound by is passed over: slurs, ornaments, chord names, words. What is neither known
nor passed over is an error with its line, and the tune is set aside.

    C D e f'     pitches: c is an octave above C, ' and , go up and down     ^C _B =F   sharp, flat, natural
    A2 A/2 A3/2  lengths                     (3ABC  three in the time of two     A>B  long and short
    | || |: :|   bars; |1 and |2 endings     z2     a rest                       [CEG]2  a chord
"""

import re
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, NamedTuple

from fabulate.config import DataSpec
from fabulate.data.images import Data
from fabulate.data.media.base import Heard
from fabulate.data.media.notes import Note, Piece, SoundingMedium
from fabulate.data.media.sequences import Found
from fabulate.data.media.texts import bytes_of, walked
from fabulate.errors import DataError
from fabulate.files import place_file

DROPPED = "XRZNSBDFHOIVWw"  # fields that are no music
KIND = re.compile(r"id:[a-z]+-([a-z]+)-[0-9]+")

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHARPS, FLATS = "FCGDAEB", "BEADGCF"
FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F#": 6, "C#": 7, "F": -1, "BB": -2, "EB": -3, "AB": -4}
FIFTHS |= {"DB": -5, "GB": -6, "CB": -7, "G#": 8, "D#": 9, "A#": 10}
MODES = {"": 0, "MAJ": 0, "ION": 0, "M": -3, "MIN": -3, "AEO": -3, "DOR": -2, "MIX": -1, "PHR": -4, "LYD": 1, "LOC": -5}
TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # p notes in the time of so many; 5, 7 and 9 follow the metre
MIDDLE_C = 60

FIELD = re.compile(r"^([A-Za-z]):(.*)$")
TOKEN = re.compile(
    r"""(?P<bar>:*\|[\]:|]*[0-9]*|\[\||\[[0-9]+|::|:+(?=\|))      # bar lines and endings
      | (?P<field>\[[A-Za-z]:[^\]]*\])
      | (?P<tuplet>\([2-9](?::[0-9]*){0,2})
      | (?P<chord>\[(?:[\^_=]*[A-Ga-gz][,']*[0-9]*/*[0-9]*)+\])(?P<chord_length>[0-9]*/*[0-9]*)
      | (?P<accidental>\^{1,2}|_{1,2}|=)?(?P<pitch>[A-Ga-g])(?P<octave>[,']*)(?P<length>[0-9]*/*[0-9]*)
      | (?P<rest>[zxZ])(?P<rest_length>[0-9]*/*[0-9]*)
      | (?P<broken>>+|<+)
      | (?P<passed>"[^"]*"|\{[^}]*\}|![^!\n]*!|\+[^+\n]*\+|[-~.()uvTHLMOPSy\s\\`&!*$])""",
    re.X,
)
NOTE = re.compile(r"(\^{1,2}|_{1,2}|=)?([A-Ga-gz])([,']*)([0-9]*/*[0-9]*)")


class AbcError(ValueError):
    """What cannot be parsed, with its line."""


class Sound(NamedTuple):
    """Pitches that sound together, as MIDI numbers (none: a rest), and for how long, in whole notes."""

    pitches: tuple[int, ...]
    length: Fraction


class Tune(NamedTuple):
    """A parsed tune."""

    title: str
    metre: Fraction | None
    bars: list[list[Sound]]

    @property
    def full(self) -> tuple[int, int]:
        """How many bars add up to the metre, and of how many; upbeats and the bars that end a part may be short.

        >>> parse("X:1\\nM:3/4\\nL:1/4\\nK:C\\nG|ABc|AB|ABc|").full
        (2, 3)
        """
        if self.metre is None:
            return 0, 0
        lengths = [sum((note.length for note in bar), Fraction(0)) for bar in self.bars]
        inner = lengths[1:] if lengths and lengths[0] < self.metre else lengths
        inner = inner[:-1] if inner and inner[-1] < self.metre else inner
        fits = 0
        for i, length in enumerate(inner):
            # A bar and the upbeat of the next part make one together.
            beside = [inner[k] for k in (i - 1, i + 1) if 0 <= k < len(inner)]
            fits += length == self.metre or any(length + other == self.metre for other in beside)
        return fits, len(inner)


def parse(text: str) -> Tune:
    """The notes of one tune.

    >>> [note.pitches for bar in parse("X:1\\nL:1/8\\nK:G\\nGAf|").bars for note in bar]
    [(67,), (69,), (78,)]

    Errors: `AbcError` naming the line and what stands there.
    """
    title, metre, unit, key = "", None, None, None
    reader: Reader | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.split("%")[0].rstrip()
        field = FIELD.match(line)
        if field is None and reader is None:
            if line:
                raise AbcError(f"line {number}: {line[:20]!r} stands before K:, the key, which ends the header")
            continue
        if field is None:
            assert reader is not None
            reader.line(line, number)
            continue
        name, value = field[1], field[2].strip()
        if name == "T":
            title = title or value
        elif name == "M":
            metre = metre_of(value, number)
        elif name == "L":
            unit = fraction(value, number)
        elif name == "K":
            key = key_of(value, number)
        if name in "KLM" and key is not None:
            # Without L: the note is an eighth where a bar is three quarters of a whole note or more.
            short = metre is not None and metre < Fraction(3, 4)
            length = unit or Fraction(1, 16 if short else 8)
            reader = Reader(metre) if reader is None else reader
            reader.unit, reader.key = length, key
    if reader is None:
        raise AbcError("there is no K:, the key, which ends the header")
    bars = [bar for bar in [*reader.bars, reader.bar] if bar]
    if not any(note.pitches for bar in bars for note in bar):
        raise AbcError("there are no notes in it")
    return Tune(title, metre, bars)


class Reader:
    """The body of a tune, a line at a time."""

    def __init__(self, metre: Fraction | None) -> None:
        self.metre, self.unit, self.key = metre, Fraction(1, 8), dict[str, int]()
        self.bars: list[list[Sound]] = []
        self.bar: list[Sound] = []
        self.own: dict[str, int] = {}  # accidentals of this bar
        self.tuplet = (Fraction(1), 0)  # how much shorter, and for how many notes more
        self.next = Fraction(1)  # what a > or < before makes of the next note

    def line(self, line: str, number: int) -> None:
        """Read a line. Errors: `AbcError`."""
        at = 0
        while at < len(line):
            token = TOKEN.match(line, at)
            if token is None or token.end() == at:
                raise AbcError(f"line {number}: {line[at : at + 12]!r} is no note, rest or bar")
            at = token.end()
            self.take(token, number)

    def take(self, token: re.Match[str], number: int) -> None:
        """Read one token."""
        if token["bar"] is not None:
            self.bars.append(self.bar)
            self.bar, self.own = [], {}
        elif token["tuplet"] is not None:
            p, *rest = [int(word) if word else 0 for word in token["tuplet"][1:].split(":")]
            compound = self.metre is not None and self.metre.numerator % 3 == 0
            q = (rest[0] if rest else 0) or TUPLETS.get(p, 3 if compound else 2)
            self.tuplet = Fraction(q, p), (rest[1] if len(rest) > 1 else 0) or p
        elif token["pitch"] is not None:
            self.sound((self.pitch(token["accidental"], token["pitch"], token["octave"]),), token["length"], number)
        elif token["chord"] is not None:
            notes = NOTE.findall(token["chord"])
            pitches = tuple(self.pitch(accidental, letter, octave) for accidental, letter, octave, _ in notes)
            times = factor(notes[0][3], number)
            self.sound(pitches, token["chord_length"], number, times)
        elif token["rest"] is not None:
            self.sound((), token["rest_length"], number)
        elif token["broken"] is not None and self.bar:
            by = Fraction(1, 2 ** len(token["broken"]))
            longer, shorter = 2 - by, by
            last = self.bar[-1]
            first, self.next = (longer, shorter) if token["broken"][0] == ">" else (shorter, longer)
            self.bar[-1] = Sound(last.pitches, last.length * first)
        elif token["field"] is not None and token["field"][1] == "K":
            self.key = key_of(token["field"][3:-1].strip(), number)

    def pitch(self, accidental: str | None, letter: str, octave: str) -> int:
        """The MIDI number of a note; an accidental holds for its bar."""
        place = letter + octave
        if accidental:
            self.own[place] = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}[accidental]
        shift = self.own.get(place, self.key.get(letter.upper(), 0))
        height = MIDDLE_C + STEPS[letter.upper()] + 12 * letter.islower()
        return height + 12 * (octave.count("'") - octave.count(",")) + shift

    def sound(self, pitches: tuple[int, ...], length: str, number: int, times: Fraction = Fraction(1)) -> None:
        """Take in a note, a chord or a rest."""
        shorter, left = self.tuplet
        own = self.unit * factor(length, number) * times * self.next * (shorter if left else 1)
        self.tuplet, self.next = (shorter, max(0, left - 1)), Fraction(1)
        self.bar.append(Sound(pitches, own))


def factor(length: str, number: int) -> Fraction:
    """What is written behind a note.

    >>> [str(factor(word, 1)) for word in ("", "2", "/", "3/2", "//")]
    ['1', '2', '1/2', '3/2', '1/4']
    """
    above, slashes, below = re.fullmatch(r"([0-9]*)(/*)([0-9]*)", length).groups()  # type: ignore[union-attr]
    under = int(below) if below else 2 ** len(slashes)
    over = int(above or 1)
    if not under or not over or max(under, over) > 1024:
        raise AbcError(f"line {number}: {length!r} is no length")
    return Fraction(over, under)


def fraction(value: str, number: int) -> Fraction:
    """A fraction such as 1/8. Errors: `AbcError`."""
    match = re.match(r"([0-9]{1,3})/([0-9]{1,3})", value)
    if match is None or not int(match[1]) * int(match[2]):
        raise AbcError(f"line {number}: {value!r} is no fraction such as 1/8")
    return Fraction(int(match[1]), int(match[2]))


def metre_of(value: str, number: int) -> Fraction | None:
    """The length of a bar in whole notes; None for free metre."""
    if value in ("C", "C|"):
        return Fraction(1)
    return None if value.lower() in ("", "none") else fraction(value, number)


def key_of(value: str, number: int) -> dict[str, int]:
    """The sharps (1) and flats (-1) of a key.

    >>> key_of("D Major", 1), key_of("Gm", 1), key_of("Ador", 1)
    ({'F': 1, 'C': 1}, {'B': -1, 'E': -1}, {'F': 1})
    """
    match = re.match(r"([A-Ga-g])([#b]?)\s*([A-Za-z]*)", value)
    if match is None:
        if value in ("", "none", "HP", "Hp"):
            return {}
        raise AbcError(f"line {number}: {value!r} is no key")
    mode = match[3][:3].upper()
    fifths = FIFTHS.get((match[1] + match[2]).upper())
    if fifths is None or mode not in MODES:
        raise AbcError(f"line {number}: {value!r} is no key")
    fifths += MODES[mode]
    order = SHARPS if fifths > 0 else FLATS
    return dict.fromkeys(order[: abs(fifths)], 1 if fifths > 0 else -1)


# Tunes as a medium


class TuneMedium(SoundingMedium):
    """Tunes."""

    name = "tunes"
    ending = ".abc"
    sources: ClassVar = {"irish": "music/irish.abc"}
    whole = 1.4

    def load(self, spec: DataSpec) -> Data | None:
        place = self.found(spec.source)
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

    def write(self, item: str, path: Path) -> None:
        number = int(path.stem) if path.stem.isdecimal() else 0
        place_file(path, lambda file: file.write(f"X:{number + 1}\n{item}\n".encode()))

    def read(self, path: Path) -> str:
        return path.read_text("utf-8").split("\n", 1)[1].removesuffix("\n")

    def played(self, item: str) -> Piece:
        tune = parsed(item)
        if isinstance(tune, str):
            return Piece(f"does not parse: {tune}", ())
        notes, bars, at = [], [], 0.0
        for bar in tune.bars:
            bars.append(at)
            for note in bar:
                length = float(note.length)
                notes += [Note(at, length, pitch) for pitch in note.pitches]
                at += length
        return Piece(tune.title, notes, bars)

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
