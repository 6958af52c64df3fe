"""What media of symbols share: from strings and their labels to `Data`, checked first, and back to strings.

A symbol is a character. Strings are brought to the Unicode normal form NFC, so that an accented letter is one symbol
however it was typed. What cannot be learnt from is set aside with its reason: bytes that are no UTF-8, control
characters, strings that are too long for one item. The alphabet is that of the training part, saved with the shape as
class names are; test items with other symbols are left out and counted. Symbol 0 is the end.

Legend: N items, T places.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec, spec
from fabulate.data.cache import in_memory
from fabulate.data.images import Data, Sequences
from fabulate.data.intake import check_broken, held_out, per_class
from fabulate.data.listing import Label, Labels, number
from fabulate.data.media.base import Medium
from fabulate.data.report import Report, counted
from fabulate.errors import ConfigError, DataError
from fabulate.files import key
from fabulate.types import SequenceShape

MOST = 4096  # symbols of an item
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of surrogate pairs
RARE = 400  # symbols of an alphabet, above which it is said that rare ones cost
_PAIRS = 5  # duplicates that are named
FORM: Literal["NFC"] = "NFC"
HELD_OUT = "every tenth of them, picked at random, is held out"


@spec
class SequenceReport(Report):
    """The intake report of texts or tunes."""

    noun: str
    """What the items are called."""
    shape: str
    """Of an item, in words."""
    lengths: str
    """Of the items, in words."""
    alphabet: str
    """The symbols, in words."""

    @property
    def medium(self) -> str:
        return self.noun

    @property
    def shape_told(self) -> str:
        return self.shape

    def details(self) -> Iterator[tuple[str, str]]:
        yield "lengths", self.lengths
        yield "symbols", self.alphabet


@dataclass
class Found:
    """Items of one part of a source before they are symbols: names, strings, and labels, None where there are none."""

    names: list[str] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    labels: list[Label | None] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    empty: int = 0

    def add(self, name: str, raw: bytes | str, label: Label | None = None, most: int | None = MOST) -> None:
        """Take one item in, or set it aside; nothing but white space counts as empty, and nobody misses it."""
        try:
            string = unicodedata.normalize(FORM, raw.decode("utf-8") if isinstance(raw, bytes) else raw)
        except UnicodeDecodeError as error:
            self.set_aside.append((name, f"no UTF-8 at byte {error.start} (is it Latin-1? `iconv` converts it)"))
            return
        if not string.strip():
            self.empty += 1
            return
        reason = unfit(string, most)
        if reason:
            self.set_aside.append((name, reason))
            return
        self.names.append(name)
        self.strings.append(string)
        self.labels.append(label)


def unfit(string: str, most: int | None) -> str | None:
    """Why a string cannot be an item; None where it can."""
    if most is not None and len(string) > most:
        return f"has {len(string):,} characters, more than {most:,}; --window N cuts running text into items of N"
    found = CONTROL.search(string)
    return found and f"has the control character U+{ord(found[0]):04X} at place {found.start():,}"


Speller = Callable[[str], Sequence[str]]
"""Gives the symbols of a string."""


class SequenceMedium(Medium):
    """Sequences of symbols, written as strings; the symbols are characters unless a medium says otherwise."""

    sources: ClassVar[Mapping[str, str]] = {}
    """Names of sources, and their files in `$FABULATE_DATA`."""
    separator: ClassVar[str] = ""
    """What symbols are told apart by, where they are listed."""
    unit: ClassVar[str] = "characters"
    """What the length of an item counts."""
    symbols_told: ClassVar[str] = f"characters are symbols, in the Unicode normal form {FORM}"

    def found(self, source: str) -> Path:
        """Where a source lies, by its name or its path. Errors: `DataError` where a known name has no file."""
        if source not in self.sources:
            return Path(source).expanduser()
        around = os.environ.get("FABULATE_DATA")
        place = Path(around or os.devnull).expanduser() / self.sources[source]
        if not place.is_file():
            raise DataError(
                f"there is no {source}: put the file {place.name} into the folder {place.parent.name} of "
                f"$FABULATE_DATA ({around or 'which is not set'}), or try proverbs, texts that come along"
            )
        return place

    def speller(self, symbols: Sequence[str], voices: int) -> Speller:
        """What gives the symbols of a string in their order, as many at each place as there are voices.

        Where symbols have several characters, the longest one that fits is next; a character that no symbol begins with
        stands for itself.
        """
        longest, known = max(map(len, symbols)), {*symbols}

        def spelled(string: str) -> list[str]:
            found, at = [], 0
            while at < len(string):
                pieces = (string[at : at + length] for length in range(longest, 0, -1))
                found.append(next((piece for piece in pieces if piece in known), string[at]))
                at += len(found[-1])
            return found

        return spelled if longest > 1 else str

    def written(self, symbols: Sequence[str], shape: SequenceShape) -> str:
        """The string of symbols, up to the end."""
        return "".join(symbols)

    def voices(self, strings: Sequence[str]) -> int:
        """How many symbols stand at each place of these strings."""
        return 1

    def alphabet(self, strings: Sequence[str], tokens: int | None = None) -> Sequence[str]:
        """The symbols for these strings, without the end; `tokens`: so many, pieces of words among them."""
        characters = sorted({character for string in strings for character in string})
        return characters if tokens is None else vocabulary(strings, characters, tokens)

    def given(self, x: Any, shape: SequenceShape) -> Tensor:
        """Symbols (N, T), of strings or of such symbols. Errors: `ConfigError` for symbols the model does not know."""
        if isinstance(x, str):
            x = [x]
        if isinstance(x, Sequence):
            return torch.from_numpy(self.encoded([unicodedata.normalize(FORM, string) for string in x], shape))
        tokens = torch.as_tensor(x)
        if tokens.is_floating_point() or tuple(tokens.shape[1:]) != shape.dims:
            raise ConfigError(
                f"the model takes strings, or their symbols (N, {', '.join(map(str, shape.dims))}) as integers, given "
                f"{tokens.dtype} {tuple(tokens.shape)}"
            )
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(shape.symbols):
            raise ConfigError(f"symbols are 0 to {len(shape.symbols) - 1}, given {int(tokens.min())} to {tokens.max()}")
        return tokens.to(torch.int16)

    def encoded(self, strings: Sequence[str], shape: SequenceShape) -> npt.NDArray[np.int16]:
        """Strings as symbols (N, T) or (N, T, V). Errors: `ConfigError` for what the shape has no symbol or room."""
        known = {symbol: i for i, symbol in enumerate(shape.symbols)}
        spell = self.speller(shape.symbols, shape.voices)
        x = np.zeros((len(strings), shape.size), np.int16)
        for row, string in zip(x, strings, strict=True):
            symbols = spell(string)
            if strange := sorted({*symbols} - known.keys()):
                raise ConfigError(f"the model has not learnt {', '.join(map(repr, strange[:5]))} (in {string[:40]!r})")
            if len(symbols) > shape.size:
                places = len(symbols) // shape.voices
                raise ConfigError(f"{string[:40]!r} has {places:,} {self.unit}; the model takes {shape.length:,}")
            row[: len(symbols)] = [known[symbol] for symbol in symbols]
        return x.reshape(-1, *shape.dims)

    def items(self, x: Tensor, shape: SequenceShape) -> list[str]:
        """Strings (N), up to the end of each."""
        rows = x.flatten(1).tolist()
        return [self.written([shape.symbols[k] for k in row[: (*row, 0).index(0)]], shape) for row in rows]

    def file_size(self, shape: SequenceShape) -> int:
        return 4 * shape.length + 1

    # From strings to data

    def data(
        self, name: str, asked: DataSpec, parts: Sequence[Found], notes: Sequence[str] = (), running: bool = False
    ) -> Data:
        """Data of the items of a training part and of a test part, if there is one; else a tenth is held out.

        `running`: items are the windows of one text in its order, whose last tenth is held out.
        Errors: `DataError` when nothing can be used, or more than the share `limit_broken` cannot.
        """
        aside = [one for part in parts for one in part.set_aside]
        n = sum(len(part.names) for part in parts) + len(aside)
        check_broken(aside, n, asked.limit_broken, f"{self.name} cannot be used")
        if not parts[0].names:
            raise DataError(f"{asked.source} has no {self.name}: there is nothing in it but white space")
        about = (self.name, FORM, [(part.strings, part.labels) for part in parts], running, asked.window)
        fingerprint = key(about if asked.tokens is None else (*about, asked.tokens))
        empty = sum(part.empty for part in parts)
        said = [*notes, *([f"{counted(empty, 'empty item')} left out"] if empty else [])]
        said += [self.symbols_told] if asked.tokens is None else []
        train, test = parts[0], parts[1] if len(parts) > 1 else Found()
        if not test.names:
            train, test, sentence = split(train, running)
            said.append(sentence)
            if not running:  # what has symbols that no other item has is learnt from, or it would be lost
                own, voices = self.alphabet(train.strings), self.voices(train.strings)
                spell, characters = self.speller(own, voices), {*own}
                known = [characters.issuperset(spell(string)) for string in test.strings]
                rare = pick(test, [i for i, are in enumerate(known) if not are])
                train, test = joined(train, rare), pick(test, [i for i, are in enumerate(known) if are])
        numbered = number(train.labels, test.labels)
        symbols, voices = ("", *self.alphabet(train.strings, asked.tokens)), self.voices(train.strings)
        if asked.tokens is not None and running and asked.window is not None:
            train, test = (self.windows(part, symbols, asked.window) for part in (train, test))
            numbered = number(train.labels, test.labels)
        if asked.tokens is not None:
            said.append(
                f"symbols are the {len(symbols) - 1:,} pieces that byte-pair merging finds; the longest fits first"
            )
        elif len(symbols) > RARE:
            said.append(f"an alphabet of {len(symbols) - 1:,} symbols makes the network's last layer large")
        test, test_y, strange = self.known_to(symbols, voices, test, numbered.test)
        if strange:
            told = ", ".join(f"{symbol!r} ({times:,})" for symbol, times in strange.most_common(10))
            said.append(f"test items with symbols that training lacks are left out: {told}")
        spell = self.speller(symbols, voices)
        lengths = sorted(len(spell(string)) // voices for string in (*train.strings, *test.strings))
        longest, unit = lengths[-1], self.unit if asked.tokens is None else "tokens"
        shape = SequenceShape(longest if running else longest + 1, symbols, voices, self.name)
        if not in_memory(2 * shape.size * (len(train.names) + len(test.names))):
            raise DataError(f"{n:,} {self.name} of up to {longest:,} {unit} do not fit the memory; see --window")
        both = [
            Sequences(self.encoded(part.strings, shape), y, symbols, self.name, running, tuple(part.names))
            for part, y in ((train, numbered.train), (test, test_y))
        ]
        pairs, shared = duplicates(train, test)
        report = SequenceReport(
            noun=self.name,
            shape=str(shape),
            lengths=f"{lengths[0]:,} to {longest:,} {unit}, half of them up to {lengths[len(lengths) // 2]:,}",
            alphabet=f"{len(symbols) - 1}" + (f": {self.separator.join(symbols)!r}" if len(symbols) < 120 else ""),
            found=n,
            kept=n - len(aside),
            set_aside=tuple(aside),
            train=len(both[0]),
            test=len(both[1]),
            train_classes=per_class(both[0].y, numbered.classes),
            test_classes=per_class(both[1].y, numbered.classes),
            duplicates=len(pairs),
            duplicate_pairs=tuple(pairs[:_PAIRS]),
            shared=shared,
            notes=tuple(said),
            warnings=numbered.warnings,
        )
        images: Any = both  # where most rooms have images
        return Data(
            train=images[0],
            test=images[1] if len(both[1]) else None,
            classes=numbered.classes,
            spec=asked,
            fingerprint=fingerprint,
            report=report,
            name=name,
        )

    def windows(self, found: Found, symbols: Sequence[str], window: int) -> Found:
        """One text's windows anew, of so many symbols each; what is left at the end is left out."""
        spelled, cut = self.speller(symbols, 1)("".join(found.strings)), Found()
        for start in range(0, len(spelled) - window + 1, window):
            cut.names.append(f"{found.names[0].partition('@')[0]}@{start}")
            cut.strings.append("".join(spelled[start : start + window]))
            cut.labels.append(None)
        return cut

    def known_to(
        self, symbols: Sequence[str], voices: int, test: Found, y: Labels | None
    ) -> tuple[Found, Labels | None, Counter[str]]:
        """The test items whose symbols are all known, their labels, and how often others occur."""
        known, spell = {*symbols}, self.speller(symbols, voices)
        strange: Counter[str] = Counter()
        rows = []
        for i, string in enumerate(test.strings):
            others = [symbol for symbol in spell(string) if symbol not in known]
            strange.update(others)
            rows += [] if others else [i]
        return pick(test, rows), None if y is None else y[rows], strange


def vocabulary(strings: Sequence[str], characters: Sequence[str], tokens: int) -> list[str]:
    """So many pieces of strings, their characters among them, by merging the most frequent pair again and again.

    Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016,
    https://arxiv.org/abs/1508.07909. No piece goes beyond a word and the space before it.
    Errors: `ConfigError` for fewer than there are characters, or where the package `tokenizers` is missing.
    """
    if tokens < len(characters):
        raise ConfigError(f"--tokens {tokens:,} are fewer than the {len(characters):,} characters of these texts")
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ConfigError("--tokens needs the package tokenizers: pip install 'fabulate[tokens]'") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=tokens, initial_alphabet=[*characters], show_progress=False)
    tokenizer.train_from_iterator(strings, trainer)
    return sorted({*tokenizer.get_vocab(), *characters})


def split(found: Found, running: bool) -> tuple[Found, Found, str]:
    """The training part, the part held out, and a sentence on that."""
    n = len(found.names)
    if running:
        cut = n - n // 10
        return pick(found, range(cut)), pick(found, range(cut, n)), "no test part: the last tenth is held out"
    kept, held = held_out(n)
    sentence = f"no test part: {HELD_OUT} ({len(held):,} of {n:,})" if held else "no test part, and too few to hold any"
    return pick(found, kept), pick(found, held), sentence


def pick(found: Found, rows: Sequence[int]) -> Found:
    return Found([found.names[i] for i in rows], [found.strings[i] for i in rows], [found.labels[i] for i in rows])


def joined(a: Found, b: Found) -> Found:
    return Found([*a.names, *b.names], [*a.strings, *b.strings], [*a.labels, *b.labels])


def duplicates(train: Found, test: Found) -> tuple[list[tuple[str, str]], int]:
    """The names of each item and of an earlier one that it repeats, and how many test items training has too."""
    first: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for part in (train, test):
        for name, string in zip(part.names, part.strings, strict=True):
            earlier = first.setdefault(string, name)
            pairs += [(earlier, name)] if earlier != name else []
    known = {*train.strings}
    return pairs, sum(string in known for string in test.strings)
