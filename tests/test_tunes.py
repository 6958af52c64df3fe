"""Tunes: ABC is parsed to the note, what does not parse is set aside, and samples sound at the right pitch."""

import wave
from fractions import Fraction

import numpy as np
import pytest
import torch

from fabulate.data import load_data
from fabulate.data.media.notes import RATE, sound, string
from fabulate.data.media.tunes import AbcError, TuneMedium, parse
from fabulate.errors import DataError
from tiny import ends

HEAD = "M:4/4\nL:1/8\nK:D\n"


def tune(i):
    return (
        f"X:{i}\nT:Tune {i}\nR:{('reel', 'jig')[i % 2]}\nZ: a note\n{HEAD}D2{'EFGA'[i % 4]}2 A4|d4 f{1 + i % 3}z4|!\n"
    )


@pytest.fixture
def tunes(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text("\n".join(tune(i) for i in range(40)) + f"\nX:99\nT:broken\n{HEAD}DE?F|\n\nX:100\n{HEAD}")
    return path


def pitches(body, head=HEAD):
    return [note.pitches for bar in parse(head + body).bars for note in bar]


def lengths(body):
    return [note.length * 8 for bar in parse(HEAD + body).bars for note in bar]


def test_pitches_follow_key_accidentals_and_octaves():
    assert pitches("CDEFGABc") == [(61,), (62,), (64,), (66,), (67,), (69,), (71,), (73,)]  # D major: F and C sharp
    assert pitches("=F F|F") == [(65,), (65,), (66,)]  # an accidental holds for its bar
    assert pitches("D, D d d' ^G _A") == [(50,), (62,), (74,), (86,), (68,), (68,)]
    assert pitches("[DFA]2 z") == [(62, 66, 69), ()]
    assert pitches("FB", "K:Gm\n") == [(65,), (70,)]
    assert pitches('"Am"~{g}A!trill!(B-B)[K:C]F') == [(69,), (71,), (71,), (65,)]


def test_lengths_are_as_written():
    assert lengths("A2 A A/2 A/ A// A3/2") == [2, 1, Fraction(1, 2), Fraction(1, 2), Fraction(1, 4), Fraction(3, 2)]
    assert lengths("A>B c<d") == [Fraction(3, 2), Fraction(1, 2), Fraction(1, 2), Fraction(3, 2)]
    assert lengths("(3ABc d") == [Fraction(2, 3)] * 3 + [1]
    assert lengths("[AC]3 z2") == [3, 2]


def test_bars_are_full_or_not():
    assert parse(HEAD + "A|A8|A4 B4|A7|").full == (2, 2)  # an upbeat, and a last bar that it completes
    assert parse(HEAD + "A8|A5|A8|A8|").full == (3, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ABc|", "line 1: 'ABc|' stands before K:"),
        ("T:x\nM:6/8", "there is no K:"),
        (HEAD + "AB?c", r"line 4: '\?c' is no note"),
        (HEAD + "A/0", "'/0' is no length"),
        (HEAD + "| z |", "no notes"),
        ("K:H\nA", "line 1: 'H' is no key"),
    ],
)
def test_what_does_not_parse_is_told_with_its_line(text, words):
    with pytest.raises(AbcError, match=words):
        parse(text)


def test_a_file_of_tunes(tunes):
    data = load_data(tunes)
    assert data.shape.medium == "tunes" and data.classes == ("jig", "reel") and len(data.train) == 36
    reasons = dict(data.report.set_aside)
    assert len(reasons) == 2 and any("'?F|' is no note" in why for why in reasons.values())
    its = TuneMedium()
    for item in its.items(data.train.stored(torch.arange(36)).x, data.shape):
        assert (
            "X:" not in item and "Z:" not in item and "!" not in item and its.judge(item)["Tunes that parse"] == (1, 1)
        )
    with pytest.raises(DataError, match="tunes are whole"):
        load_data(tunes, window=8)


def test_a_string_sounds_at_its_pitch_and_does_not_clip():
    for pitch in (220.0, 440.0, 987.77):
        spectrum = np.abs(np.fft.rfft(string(pitch, 1.0)))
        assert abs(np.argmax(spectrum) * RATE / (2 * (len(spectrum) - 1)) - pitch) < 2
    its = TuneMedium()
    whole = sound(its.played(HEAD + "[DFAdf]8|[DFAdf]8|"), its.whole)
    assert 0.3 < np.abs(whole).max() <= 1


def test_samples_are_tunes_with_sound_and_a_page(tunes, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    small = ("--transformer.width", 16, "--transformer.layers", 1, "--conditional")
    assert ends("train", "ar", tunes, "--out", run, "--steps", 8, *small) == 0
    assert ends("sample", run, "--out", out, "-n", 6, "--temperature", 0.2) == 0
    drawn = sorted(out.rglob("*.abc"))
    assert len(drawn) == 6 and {path.parent.name for path in drawn} == {"jig", "reel"}
    assert all(path.read_text().startswith("X:") for path in drawn)
    page = (out / "index.html").read_text()
    assert page.count('<div class="sound">') == 6 and "http" not in page
    for sounds in out.rglob("*.wav"):
        with wave.open(str(sounds)) as file:
            assert file.getframerate() == RATE and file.getnframes() > RATE
        assert f'src="{sounds.parent.name}/{sounds.name}"' in page


def test_a_tune_is_written_and_read_back(tmp_path):
    its, text = TuneMedium(), HEAD + "ABc d|"
    its.place(text, tmp_path / "00007.abc")
    assert (tmp_path / "00007.abc").read_text() == f"X:8\n{text}\n" and its.read(tmp_path / "00007.abc") == text
    its.copy(tmp_path / "00007.abc", tmp_path / "00009.abc")
    with wave.open(str(tmp_path / "00009.wav")) as file:
        frames = np.frombuffer(file.readframes(RATE // 8), "<i2")
    spectrum = np.abs(np.fft.rfft(frames))
    assert abs(np.argmax(spectrum) * RATE / len(frames) - 440) < 10  # an eighth of A comes first


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no tunes: there is nothing in it"),
        (b"X:1\nT:Silence\nM:4/4\nK:C\n", "silent.abc:1: there are no notes in it"),
        (b"X:1\nK:C\nz4|z4|\n", "there are no notes in it"),
        (b"MThd\0\0\0\6", "zero bytes"),
    ],
    ids=["empty", "a header alone", "rests alone", "binary"],
)
def test_an_abc_without_notes_is_told(tmp_path, content, words):
    (tmp_path / "silent.abc").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / "silent.abc")
