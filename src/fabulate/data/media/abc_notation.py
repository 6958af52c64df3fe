"""ABC: tunes as letters (https://abcnotation.com/wiki/abc:standard:v2.1), parsed as far as a melody needs.

A tune is a header of fields (`M:` metre, `L:` length of a note without a number, `K:` key) and a body of notes, rests,
chords and bar lines. What a melody does not sound by is passed over: slurs, ornaments, chord names, words. What is
neither known nor passed over is an error with its line.

    C D e f'     pitches: c is an octave above C, ' and , go up and down     ^C _B =F   sharp, flat, natural
    A2 A/2 A3/2  lengths                     (3ABC  three in the time of two     A>B  long and short
    | || |: :|   bars; |1 and |2 endings     z2     a rest                       [CEG]2  a chord
"""

import re
from fractions import Fraction
from typing import NamedTuple

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


class Note(NamedTuple):
    """Pitches that sound together, as MIDI numbers (none: a rest), and for how long, in whole notes."""

    pitches: tuple[int, ...]
    length: Fraction


class Tune(NamedTuple):
    """A parsed tune."""

    title: str
    metre: Fraction | None
    bars: list[list[Note]]

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
        self.bars: list[list[Note]] = []
        self.bar: list[Note] = []
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
            self.bar[-1] = Note(last.pitches, last.length * first)
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
        self.bar.append(Note(pitches, own))


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
