"""Music for several voices: chorales as JSON, MIDI files; a chord has one spelling, files are read as written."""

import json
import wave
from contextlib import suppress
from fractions import Fraction

import mido
import numpy as np
import pytest
import torch

from fabulate.config import override
from fabulate.data import load_data
from fabulate.data.media import medium
from fabulate.data.media.chords import KEYS, ChordMedium, MidiError, chords_of, read_midi, write_midi
from fabulate.data.media.notes import RATE
from fabulate.errors import ConfigError, DataError
from fabulate.models import family
from fabulate.nets.tokens import Transformer
from fabulate.types import Batch
from tiny import ends


def piece(i, length=8):
    """Thirds that climb, in different keys."""
    return [[60 + i % 5 + 2 * (t % 4), 64 + i % 5 + 2 * (t % 4)] if t % 5 else [48 + i % 5] for t in range(length)]


@pytest.fixture
def chorales(tmp_path):
    path = tmp_path / "songs.json"
    parts = {"train": [piece(i) for i in range(20)], "valid": [piece(1)], "test": [piece(i, 6) for i in range(25)]}
    path.write_text(json.dumps(parts))
    return path


def test_a_piano_roll_is_chords_from_the_highest_note_down(chorales):
    data = load_data(chorales)
    assert (len(data.train), len(data.test)) == (20, 25)
    assert data.shape.voices == 2 and data.shape.dims == (9, 2) and data.shape.symbols[:2] == ("", "r4")
    its = medium(data.shape)
    item = its.items(data.train.stored(torch.tensor([0])).x, data.shape)[0]
    assert item == "L:1/4 C3 | F#4 D4 | G#4 E4 | A#4 F#4 | E4 C4 | C3 | G#4 E4 | A#4 F#4"
    assert torch.equal(its.given([item], data.shape)[0], torch.from_numpy(data.train.x[0]))
    assert any("1 pieces of the part 'valid' are left out" in note for note in data.report.notes)
    cut = load_data(chorales, window=4)
    assert len(cut.train) == 40 and len(cut.test) == 50 and cut.shape.length == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ('{"notes": []}', "is no piano roll"),
        ("[[[60, 200]], [[60]]]", r"train\[0\]: is no list of chords"),
        ("[[[]]]", "there is nothing in it"),
        (json.dumps([[[*range(40, 50)]]]), "has 10 notes at once"),
    ],
)
def test_a_json_that_is_none_is_told(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / "x.json")


def test_transpositions_move_all_notes_alike_and_no_rest(chorales):
    shape = load_data(chorales).shape
    its = medium(shape)
    tables = its.alike(shape)
    x = its.given(["D4 C4 | r4 | ~C3"] if "~C3" in shape.symbols else ["D4 C4 | r4 | C3"], shape).long()
    assert its.items(tables[KEYS.index(0)][x], shape) == its.items(x, shape)
    assert its.items(tables[KEYS.index(3)][x], shape) == ["L:1/4 F4 D#4 | r4 | D#3"]
    assert all(len({*row.tolist()}) >= len(row) - 6 for row in tables)  # only what leaves the alphabet stays


def test_training_hears_all_keys_and_tests_hear_the_piece_as_it_is(chorales):
    data, cls = load_data(chorales), family("ar")
    small = {"transformer": Transformer(width=16, layers=1), "counts": 4}
    model = cls(override(cls.presets["default"].model, small), data.shape)
    model.init_from_data(data.train)
    batch = Batch(data.train.stored(torch.arange(20)).x)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = {float(model.train().loss(batch)["loss"]) for _ in range(3)}
        assert len(losses) == 3 and len({float(model.eval().loss(batch)["loss"]) for _ in range(3)}) == 1
        every = [model.counts.of_symbols(table[model.tokens(batch.x)])[0][:, :16].sum() for table in model.alike]
    assert min(every) / max(every) < 3  # of nats: counts know each key; of those of one key it is 9


@pytest.mark.parametrize("step", [Fraction(1, 4), Fraction(1, 16)])
def test_midi_is_read_as_it_was_written(tmp_path, step):
    chords = [(), ((64, False), (60, False)), ((64, True), (57, False)), (), ((64, False),), ((64, False),), ()]
    with (tmp_path / "a.mid").open("wb") as file:
        write_midi(file, step, chords, 2.4)
    assert read_midi(tmp_path / "a.mid") == (step, chords)


def midi(path, *messages, ticks=480):
    mido.MidiFile(ticks_per_beat=ticks, tracks=[mido.MidiTrack(messages)] if messages else []).save(path)


def on(note, time, velocity=64, channel=0):
    return mido.Message("note_on", note=note, velocity=velocity, time=time, channel=channel)


def test_notes_of_other_programs_are_rounded_to_the_grid_and_drums_left_out(tmp_path):
    # A quarter that comes 5 ticks late, an eighth beside a drum, a short grace note that keeps a step.
    played_notes = [
        on(60, 965),
        on(60, 475, 0),
        on(62, 0),
        on(36, 0, channel=9),
        on(62, 240, 0),
        on(64, 0),
        on(64, 20, 0),
    ]
    midi(tmp_path / "x.mid", *played_notes)
    step, chords = read_midi(tmp_path / "x.mid")
    assert step == Fraction(1, 16) and [chord[0][0] for chord in chords] == [60] * 4 + [62] * 2 + [64]
    assert [chord[0][1] for chord in chords] == [False, True, True, True, False, True, False]


def test_midi_files_that_cannot_be_used_are_set_aside_with_their_reasons(tmp_path):
    for i in range(30):
        (tmp_path / ("slow", "fast")[i % 2]).mkdir(exist_ok=True)
        midi(tmp_path / ("slow", "fast")[i % 2] / f"{i:02}.mid", on(60 + i % 7, 0), on(60 + i % 7, 480, 0))
    midi(tmp_path / "slow" / "none.mid")
    midi(tmp_path / "slow" / "drums.mid", on(36, 0, channel=9))
    (tmp_path / "slow" / "empty.mid").write_bytes(b"")
    (tmp_path / "slow" / "text.mid").write_text("no music at all")
    whole = (tmp_path / "slow" / "00.mid").read_bytes()
    (tmp_path / "slow" / "cut.mid").write_bytes(whole[:-5])
    with pytest.raises(DataError, match="5 of 35 pieces cannot be used"):
        load_data(tmp_path)
    data = load_data(tmp_path, limit_broken=0.2)
    assert data.classes == ("fast", "slow") and len(data.train) + len(data.test) == 30
    reasons = {name.split("/")[1]: why for name, why in data.report.set_aside}
    assert reasons == {
        "none.mid": "is a MIDI file of 0 tracks",
        "drums.mid": "has no notes but those of drums",
        "empty.mid": "is empty",
        "text.mid": "is no MIDI file that can be read: MThd not found. Probably not a MIDI file",
        "cut.mid": "is no MIDI file that can be read: it ends early",
    }
    with pytest.raises(DataError, match="is one piece; give a folder"):
        load_data(tmp_path / "slow" / "00.mid")


def test_damaged_midi_files_are_never_a_crash(tmp_path):
    with (tmp_path / "a.mid").open("wb") as file:
        write_midi(file, Fraction(1, 4), [((60, False),), ((62, False), (55, False))], 2.4)
    whole, rng, read = (tmp_path / "a.mid").read_bytes(), np.random.default_rng(0), 0
    for i in range(300):
        raw = bytearray(whole[: rng.integers(1, len(whole))] if i % 2 else whole)
        for place in rng.integers(len(raw), size=3):
            raw[place] = rng.integers(256)
        (tmp_path / "b.mid").write_bytes(raw)
        with suppress(MidiError):
            read += bool(read_midi(tmp_path / "b.mid")[1])
    assert read


def test_samples_are_midi_with_sound_and_a_page(chorales, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    small = ("--transformer.width", 16, "--transformer.layers", 1)
    assert ends("train", "ar", chorales, "--out", run, "--steps", 8, *small) == 0
    assert ends("sample", run, "--out", out, "-n", 5, "--begin", "F4 D4 | r4") == 0
    its = ChordMedium()
    for i in range(5):
        item = its.read(out / f"{i:05}.mid")
        assert item.startswith("L:1/4 F4 D4 | r4")
        with wave.open(str(out / f"{i:05}.wav")) as file:
            frames = np.frombuffer(file.readframes(RATE // 2), "<i2")
        spectrum = np.abs(np.fft.rfft(frames))
        peaks = {round(69 + 12 * np.log2(k * RATE / len(frames) / 440)) for k in np.argsort(spectrum)[-2:]}
        assert peaks <= {62, 65}
    assert (out / "index.html").read_text().count('<div class="sound">') == 5
    assert ends("evaluate", run, "-n", 20) == 0
    assert ends("sample", run, "--out", tmp_path / "bad", "--begin", "H4") == 2


def test_notes_are_named_and_told_where_they_are_none():
    assert ChordMedium().played("L:1/16 C4 | ~C4 | C4").notes[0][:3] == (0, 1 / 8, 60)
    with pytest.raises(ConfigError, match="'Q4' is no note such as C4"):
        chords_of("Q4 | C4")
    with pytest.raises(ConfigError, match="no length of a step"):
        chords_of("L:1/x C4")
