"""Outliers among sequences: what no model of normals expects is found, at the promised rate, and marked."""

import json
import re

import numpy as np
import pytest
import torch

from fabulate.data import load_data
from fabulate.errors import DataError, RunError
from fabulate.uses.outliers import sequences
from fabulate.uses.outliers.sequences import SequenceDetector, load, save, strings_of
from tiny import ends


def words(n, seed=0):
    """Syllables of a consonant and a vowel."""
    rng = np.random.default_rng(seed)
    return [
        "".join("bdklm"[rng.integers(5)] + "aiou"[rng.integers(4)] for _ in range(rng.integers(2, 5))) for _ in range(n)
    ]


def slip(word, rng):
    """With a consonant where a vowel belongs."""
    place = 2 * rng.integers(len(word) // 2) + 1
    return word[:place] + "bdklm"[rng.integers(5)] + word[place + 1 :]


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(words(400)))
    return path


@pytest.fixture(scope="module")
def detector(normals):
    data = load_data(normals)
    return SequenceDetector(0.05, steps=10).fit(torch.from_numpy(data.train.x), data.shape)


def test_slips_are_found_at_the_promised_rate(detector):
    rng = np.random.default_rng(1)
    others = [word for word in words(300, seed=2) if len(word) < detector.model.shape.length]
    normal, _ = detector.judge(others)
    strange, symbols = detector.judge([slip(word, rng) for word in others])
    low, high = detector.false_alarm_.low, detector.false_alarm_.high
    reach = 2 * np.sqrt(high * (1 - high) / len(normal))
    assert low - reach < (normal < detector.threshold_).mean() < high + reach
    assert (strange < detector.threshold_).mean() > 0.9
    assert all(max(nats for _, nats in each) > sequences.LIKELY for each in symbols)


def test_a_symbol_that_no_normal_has_is_stranger_than_all(detector):
    scores, symbols = detector.judge(["bado", "ba?o", "bado" * 9])
    assert scores[1] < detector.threshold_ and symbols[0][-1][0] == sequences.END
    assert symbols[1][2] == ("?", sequences.STRANGE)
    assert np.isfinite(scores).all()


def test_long_sequences_are_no_stranger_than_short_ones(detector):
    """The log-likelihood alone would call the longest ones outliers, and its mean the shortest."""
    scores, _ = detector.judge(words(600, seed=3))
    lengths = np.array([len(word) for word in words(600, seed=3)])
    means = [scores[lengths == n].mean() for n in (4, 6, 8)]
    assert max(means) - min(means) < scores.std()


def test_a_detector_comes_back_and_a_changed_one_is_refused(detector, normals, tmp_path):
    data = load_data(normals)
    save(detector, tmp_path / "d", data={"source": str(normals)})
    assert sequences.of_sequences(tmp_path / "d")
    back = load(tmp_path / "d")
    some = strings_of(data)[:9]
    assert (back.judge(some)[0] == detector.judge(some)[0]).all() and back.threshold_ == detector.threshold_
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(json.dumps({**config, "model_sha256": "0"}))
    with pytest.raises(RunError, match="of different fits"):
        load(tmp_path / "d")
    with pytest.raises(DataError, match="at least 10 normal texts"):
        SequenceDetector().fit(torch.zeros(3, 4), data.shape)


def test_from_a_file_to_a_page_with_marks(normals, tmp_path, capsys):
    (tmp_path / "others.txt").write_text("\n".join([*words(30, seed=4), "bbbb", "<b>é"]))
    out = tmp_path / "normal"
    assert ends("outliers", "fit", normals, "--steps", 10, "--out", out) == 0
    assert "texts" in capsys.readouterr().out
    assert ends("outliers", "score", out, tmp_path / "others.txt") == 0
    rows = (out / "others" / "outliers.csv").read_text().splitlines()
    assert {row.split(",")[1] for row in rows[1:3]} == {"others.txt:31", "others.txt:32"} and len(rows) == 33
    page = (out / "others" / "outliers.html").read_text()
    assert "&lt;" in page and "<b>é" not in page and re.search(r"rgb\(209 73 91 / 1\.00\)\">é", page)
    assert ends("outliers", "fit", normals, "--scores", "knn", "--out", tmp_path / "x") == 2
    assert "texts are judged by their likelihood: leave out --scores" in capsys.readouterr().err


def test_two_models_of_sequences_are_compared(normals, tmp_path, capsys):
    small = ("--transformer.width", 16, "--transformer.layers", 1)
    for counts in (0, 4):
        out = tmp_path / f"c{counts}"
        assert ends("train", "ar", normals, "--out", out, "--steps", 8, "--counts", counts, *small) == 0
    assert ends("compare", tmp_path / "c0", tmp_path / "c4", "-n", 20, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "c4 is better than c0 by how well it predicts what it never saw" in " ".join(told.split())
    assert (tmp_path / "out" / "index.html").exists()
