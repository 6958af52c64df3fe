"""Texts: what is read, what is set aside and why, and the whole way from a file to samples as .txt."""

import json
import sys

import pytest
import torch

import fabulate
from fabulate.data import load_data
from fabulate.data.media import medium
from fabulate.errors import ConfigError, DataError
from fabulate.pictures import from_image
from fabulate.types import SequenceShape
from tiny import ends


def words(n):
    return [f"{'abc'[i % 3] * (1 + i % 4)} {'xy'[i % 2]}{i}" for i in range(n)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words(100)) + "\n")
    return path


def test_lines_are_items_and_a_tenth_is_held_out(lines):
    data = load_data(lines)
    assert (len(data.train), len(data.test), data.name) == (90, 10, "words")
    its, shape = medium(data.shape), data.shape
    every = [*its.items(torch.from_numpy(data.train.x), shape), *its.items(torch.from_numpy(data.test.x), shape)]
    assert sorted(every) == sorted(words(100))
    assert shape.symbols == ("", *sorted({*"".join(words(100))}))
    assert load_data(lines).fingerprint == data.fingerprint != load_data(lines, window=4).fingerprint


def test_strings_are_symbols_and_back_in_one_normal_form():
    shape = SequenceShape(5, ("", "a", "é"))
    its = medium(shape)
    x = its.given(["ae\u0301", "éaaaa"], shape)
    assert x.tolist() == [[1, 2, 0, 0, 0], [2, 1, 1, 1, 1]]
    assert its.items(x, shape) == ["aé", "éaaaa"]
    for strange in (["aq"], ["aaaaaa"], torch.zeros(1, 5), torch.full((1, 5), 3)):
        with pytest.raises(ConfigError):
            its.given(strange, shape)


def test_what_cannot_be_learnt_from_is_set_aside_with_its_reason(tmp_path):
    good = [f"line {i}" for i in range(60)]
    raw = [*(line.encode() for line in good), b"caf\xe9", b"bell\x07", b"", b"  ", b"x" * 5000, b"line 3"]
    (tmp_path / "all.txt").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(raw))
    report = load_data(tmp_path / "all.txt").report
    aside = dict(report.set_aside)
    assert aside.keys() == {"all.txt:61", "all.txt:62", "all.txt:65"}
    assert "no UTF-8 at byte 3" in aside["all.txt:61"] and "U+0007" in aside["all.txt:62"]
    assert "--window" in aside["all.txt:65"]
    assert report.duplicate_pairs in ((("all.txt:4", "all.txt:66"),), (("all.txt:66", "all.txt:4"),))
    assert report.kept == 61 and any("2 empty items" in note for note in report.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing in it but white space"),
        (b"\x89PNG\0\0\0\x01" * 50, "zero bytes"),
        ("é\nä\nö\nü\n".encode("latin-1"), "Latin-1"),
        (b"x" * 50_000_000, "50,000,000 characters, more than 4,096; --window N"),
    ],
    ids=["empty", "binary", "latin-1", "one long line"],
)
def test_bad_files_are_told_in_one_error(tmp_path, content, words):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / "bad.txt")


def test_windows_are_one_text_whose_last_tenth_is_held_out(tmp_path):
    text = "".join(chr(97 + i * i % 26) for i in range(1005))
    (tmp_path / "book.txt").write_text(text)
    data = load_data(tmp_path / "book.txt", window=10)
    assert data.train.running and (len(data.train), len(data.test)) == (90, 10)
    its = medium(data.shape)
    assert "".join(its.items(torch.from_numpy(data.train.x), data.shape)) == text[:900]
    assert "".join(its.items(torch.from_numpy(data.test.x), data.shape)) == text[900:1000]
    with pytest.raises(DataError, match="too few for windows of 100"):
        load_data(tmp_path / "book.txt", window=100)


def test_folders_are_classes_and_parts(tmp_path):
    for part in ("train", "test"):
        for name in ("odd", "even"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                (tmp_path / part / name / f"{i}.txt").write_text(f"{name}\n{i}")
    data = load_data(tmp_path)
    assert data.classes == ("even", "odd") and (len(data.train), len(data.test)) == (6, 6)
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.txt").write_text("a\nb\n")
    (tmp_path / "lines" / "test.txt").write_text("a\nq\n")
    data = load_data(tmp_path / "lines")
    assert len(data.train) == 2 and len(data.test) == 1  # q is no symbol of the training part
    assert any("'q' (1)" in note for note in data.report.notes)


def test_tables_give_a_column_and_its_labels(tmp_path):
    rows = "\n".join(f'"{word}, {i}",{"ab"[i % 2]}' for i, word in enumerate(words(30)))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}\n")
    data = load_data(tmp_path / "t.csv")
    assert data.classes == ("a", "b") and len(data.train) == 27
    (tmp_path / "two.csv").write_text("one,two\nx,y\n")
    with pytest.raises(DataError, match=r"2 columns that may be texts \('one', 'two'\): say which, --column NAME"):
        load_data(tmp_path / "two.csv")
    with pytest.raises(DataError, match="no column 'three'"):
        load_data(tmp_path / "two.csv", column="three")


def test_a_parquet_of_texts(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"text": words(30), "label": [i % 2 for i in range(30)]}), tmp_path / "t.parquet")
    data = load_data(tmp_path / "t.parquet")
    assert data.classes == ("0", "1") and len(data.train) == 27


def test_from_a_file_to_samples(lines, tmp_path, capsys):
    """The whole way by the command line; the same command again continues, and a stranger is refused."""
    run, out = tmp_path / "run", tmp_path / "out"
    small = ("--transformer.width", 16, "--transformer.layers", 1)
    assert ends("train", "ar", lines, "--out", run, "--steps", 12, *small) == 0
    assert ends("train", "ar", lines, "--out", run, "--steps", 12, *small) == 0
    assert "is finished" in capsys.readouterr().out
    assert ends("sample", run, "--out", out, "-n", 5, "--begin", "a") == 0
    texts = [path.read_text() for path in sorted(out.glob("*.txt"))]
    assert len(texts) == 5 and all(text.startswith("a") and text.endswith("\n") for text in texts)
    assert json.loads((out / "manifest.json").read_text())["images"] == [f"{i:05}.txt" for i in range(5)]
    assert ends("sample", run, "--npz", tmp_path / "x.npz") == 2
    assert "an .npz holds images, and these are texts" in capsys.readouterr().err
    assert ends("evaluate", run, "-n", 20) == 0
    told = capsys.readouterr().out
    assert "Counting alone, order 6" in told and "Is it copied?" in told
    assert ends("augment", lines, "--out", tmp_path / "more") == 2
    assert "this works on images, and words has texts" in capsys.readouterr().err
    assert ends("train", "gan", lines, "--out", tmp_path / "gan") == 2
    assert "gan does not learn texts; families that can: ar, vae" in capsys.readouterr().err


def test_parts_are_joined(lines, tmp_path):
    run = tmp_path / "run"
    assert ends("train", "ar", lines, "--out", run, "--steps", 2, "--transformer.width", 16) == 0
    parts = [("a", 0, 3), ("b", 3, 4)]
    for name, start, n in parts:
        assert ends("sample", run, "--out", tmp_path / name, "--start", start, "-n", n) == 0
    assert ends("join", *(tmp_path / name for name, _, _ in parts), "--out", tmp_path / "all") == 0
    assert ends("sample", run, "--out", tmp_path / "whole", "-n", 7, "--compile", "off") == 0
    for path in (tmp_path / "whole").glob("*.txt"):
        assert (tmp_path / "all" / path.name).read_text() == path.read_text()


def test_a_picture_shows_texts(lines):
    picture = from_image(load_data(lines).show(20).convert("RGB"))
    assert picture.shape[0] == 3 and (picture < 128).any()


def test_a_long_line_is_no_trouble_in_windows(tmp_path):
    (tmp_path / "book.txt").write_text("abcde " * 50_000)
    data = load_data(tmp_path / "book.txt", window=1000)
    assert len(data.train) + len(data.test) == 300 and not data.report.set_aside


# Pieces of words

ANIMALS = ("cat", "dog", "fish", "horse", "tiger", "zebra")
VERSES = [f"the {one} {verb} the {other}" for one in ANIMALS for verb in ("sees", "hears") for other in ANIMALS]


def pieces(tmp_path, tokens, **options):
    pytest.importorskip("tokenizers", reason="tokenizers is not here: pip install 'fabulate[tokens]'")
    (tmp_path / "verses.txt").write_text("\n".join(VERSES))
    return load_data(tmp_path / "verses.txt", tokens=tokens, **options)


def test_pieces_are_so_many_as_asked_for_spell_every_text_and_make_it_shorter(tmp_path):
    data, characters = pieces(tmp_path, 40), load_data(tmp_path / "verses.txt")
    symbols = data.shape.symbols
    assert len(symbols) == 41 and {*characters.shape.symbols} <= {*symbols} and " the" in symbols
    short, long = (each.train.stored(torch.arange(len(each.train))).x for each in (data, characters))
    assert medium(data.shape).items(short, data.shape) == medium(data.shape).items(long, characters.shape)
    assert (short > 0).sum() < 0.5 * (long > 0).sum()
    assert data.fingerprint != characters.fingerprint
    again = pieces(tmp_path, 40)
    assert again.shape == data.shape and again.fingerprint == data.fingerprint


def test_the_longest_piece_that_fits_is_next_and_a_strange_character_is_one():
    its = medium(SequenceShape(9, ("", "a", "ab", "abc", "b", "c")))
    assert its.speller(("", "a", "ab", "abc", "b", "c"), 1)("abcabx") == ["abc", "ab", "x"]
    with pytest.raises(ConfigError, match="has not learnt 'x'"):
        its.encoded(["abcabx"], SequenceShape(9, ("", "a", "ab", "abc", "b", "c")))


def test_running_text_is_cut_into_windows_of_so_many_pieces(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "book.txt").write_text(" ".join(VERSES * 4))
    data = load_data(tmp_path / "book.txt", tokens=60, window=16)
    x = data.train.stored(torch.arange(len(data.train))).x
    assert data.shape.length == 16 and (x > 0).all()  # no window ends early
    text = "".join(medium(data.shape).items(x, data.shape))
    assert " ".join(VERSES * 4).startswith(text) and len(text) > 0.8 * len(" ".join(VERSES * 4))


def test_pieces_that_cannot_be_are_refused_in_words(tmp_path, monkeypatch):
    (tmp_path / "verses.txt").write_text("\n".join(VERSES))
    with pytest.raises(ConfigError, match=r"--tokens 3 are fewer than the \d+ characters"):
        load_data(tmp_path / "verses.txt", tokens=3)
    with pytest.raises(DataError, match="digits has no texts, so it takes no --window, no --column and no --tokens"):
        load_data("digits", tokens=50)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'fabulate\[tokens\]'"):
        load_data(tmp_path / "verses.txt", tokens=50)


def test_a_report_on_pieces_counts_characters_too(tmp_path):
    data = pieces(tmp_path, 40)
    small = {"steps": 3, "batch_size": 8, "transformer": {"width": 16, "layers": 1}}
    model = fabulate.train("ar", data, out=tmp_path / "run", quiet=True, **small)
    rows = fabulate.evaluate(tmp_path / "run", data).rows
    own = -model.log_prob(data.test.stored(torch.arange(len(data.test))).x).double()
    texts = medium(data.shape).items(data.test.stored(torch.arange(len(data.test))).x, data.shape)
    characters = sum(len(text) + 1 for text in texts)
    assert rows["Nats per character"].value.value == pytest.approx(float(own.sum()) / characters, rel=1e-4)
    assert rows["Nats per symbol"].value.value > rows["Nats per character"].value.value
    assert model.sample(2, begin="the cat").shape == (2, *data.shape.dims)
