"""Proofs: intervals hold what they should, ways to train differ in one thing, and no test image was learnt from."""

import json
from collections.abc import Iterator
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fabulate.data import Data, Images, load_data
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.metrics.classes import balanced_accuracy
from fabulate.uses.augment import BASELINES, Proof, augment, filters, pipeline, prove, read, splits, verdict
from fabulate.uses.augment.filters import Synthetic, Tally
from fabulate.uses.augment.folder import digests, joined, split
from fabulate.uses.augment.page import to_json
from fabulate.uses.augment.proof import BEST, over_classes, smote
from pages import loads
from tiny import SMALL, ends, pictures

QUICK = {"preset": "default", "steps": 1}


def rare_digits() -> Data:
    """Digits of which three are rare; the test part is as it was."""
    data = load_data("digits")
    y = data.train.y
    assert y is not None
    rows = np.concatenate([np.flatnonzero(y == k)[: 12 if k < 3 else 50] for k in range(10)])
    return replace(data, train=Images(np.array(data.train.x[rows]), y[rows]), fingerprint="rare")


def other_digits(_: Any, __: Any, lacking: dict[str, int], classes: tuple[str, ...], **___: Any) -> Synthetic:
    """Real digits that the rare ones above do not hold, in the place of a model's samples: what none could better."""
    data = load_data("digits")
    x, y, seeds, tallies = [], [], {}, {}
    for name, n in lacking.items():
        x.append(data.train.x[np.flatnonzero(data.train.y == int(name[-1]))[150 - n : 150]])
        y += [classes.index(name)] * n
        seeds[name], tallies[name] = 0, Tally(n, n, n)
    images = Images(np.concatenate(x), np.array(y, np.int64))
    return Synthetic(images, np.arange(len(images)), seeds, tallies)


@pytest.fixture(scope="module", autouse=True)
def no_model() -> Iterator[None]:
    """Proofs are of images, whoever made them: nothing is trained for long here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "STEPS", 1)
        patch.setattr(pipeline, "rejection_sampling", other_digits)
        yield


@pytest.fixture(scope="module")
def data() -> Data:
    return rare_digits()


@pytest.fixture(scope="module")
def made(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    augment(data, out, to="25", hyperparameters=QUICK)
    return out


# Intervals


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Seeds and images with chance of their own, crossed: r_si = [p_k + a_s + b_i > u_si]."""
    chance, inside, trials, seeds = torch.Generator().manual_seed(0), 0, 300, 5
    y = torch.arange(120) % 3
    truth = torch.tensor([0.5, 0.7, 0.8]).mean()
    for _ in range(trials):
        of_seed = 0.06 * torch.randn(seeds, 1, generator=chance)
        of_image = 0.2 * (torch.rand(1, len(y), generator=chance) < 0.5) - 0.1
        p = torch.tensor([0.5, 0.7, 0.8])[y] + of_image + of_seed
        found = over_classes(torch.rand(seeds, len(y), generator=chance) < p, y, 0.0)
        inside += found.low <= truth <= found.high
    # They are meant to be a little too wide, never too narrow.
    assert inside / trials > 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5


def test_one_seed_repeated_is_the_plain_balanced_accuracy() -> None:
    chance = torch.Generator().manual_seed(1)
    y = torch.arange(400) % 4
    right = torch.rand(400, generator=chance) < 0.8
    found = over_classes(right.expand(30, 400), y, 0.0)
    plain = balanced_accuracy(y, torch.where(right, y, (y + 1) % 4), 4)
    assert found.value == pytest.approx(plain.value)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.05)
    assert isnan(over_classes(right[None], y, 0.0).low)


def test_pairing_takes_out_what_both_share() -> None:
    chance = torch.Generator().manual_seed(2)
    y = torch.zeros(500, dtype=torch.int64)
    hard = torch.rand(1, 500, generator=chance) < 0.5
    first = hard | (torch.rand(5, 500, generator=chance) < 0.1)
    difference = over_classes(first.double() - hard.expand(5, 500).double(), y, -1.0)
    single = over_classes(first, y, 0.0)
    assert difference.low > 0 and difference.high - difference.low < 0.7 * (single.high - single.low)


def test_a_way_against_itself_differs_by_nothing_and_swapping_turns_the_sign() -> None:
    chance = torch.Generator().manual_seed(3)
    y = torch.arange(100) % 10
    right = {name: torch.rand(3, 100, generator=chance) < 0.5 for name in BASELINES}
    proof = Proof(tuple("0123456789"), right, y, dict.fromkeys(BASELINES, 1), 1)
    own = proof.difference("both", "both")
    assert own.value.value == 0 and own.value.low == -own.value.high < 0
    there, back = proof.difference("both", "real"), proof.difference("real", "both")
    assert there.value.value == -back.value.value and there.value.low == pytest.approx(-back.value.high)
    by_class = np.mean([d.value for d in there.by_class])
    assert there.value.value == pytest.approx(by_class)


# The ways to train


def test_ways_learn_from_what_they_say(data: Data, made: Path) -> None:
    found = splits(data, read(made))
    real, synthetic = found.real, found.synthetic
    assert real.y is not None and synthetic.y is not None
    for name, way in BASELINES.items():
        images = way.images(real, synthetic, 0)
        assert images.y is not None
        np.testing.assert_array_equal(images.x[: len(real)], real.x)
        more = np.bincount(images.y, minlength=10) - np.bincount(real.y, minlength=10)
        expected = np.bincount(synthetic.y, minlength=10)
        assert (more == (expected if name in ("smote", "synthetic", "both") else 0)).all()
    assert {name for name, way in BASELINES.items() if way.augment} == {"classic", "both"}


def test_smote_draws_on_lines_between_images_of_a_class() -> None:
    line = np.array([0, 100, 200], np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    real = Images(np.concatenate([line, 255 - line[:1]]), np.array([0, 0, 0, 1]))
    synthetic = Images(np.zeros((30, 1, 8, 8), np.uint8), np.repeat([0, 1], [20, 10]))
    grown = smote(real, synthetic, 0)
    assert grown.y is not None and np.bincount(grown.y).tolist() == [23, 11]
    new = grown.x[4:24]
    assert (new == new[:, :1, :1, :1]).all() and len(np.unique(new[:, 0, 0, 0])) > 5
    assert (grown.x[24:] == real.x[3]).all()  # the only image of its class
    np.testing.assert_array_equal(smote(real, synthetic, 0).x, grown.x)
    assert (smote(real, synthetic, 1).x != grown.x).any()


# No test image was learnt from


def test_the_parts_are_those_the_model_was_made_with(data: Data, made: Path) -> None:
    found, cut = splits(data, read(made)), split(data)
    np.testing.assert_array_equal(found.real.x, cut.train.x)
    assert not set(digests(found.test)) & read(made).learnt_from
    assert len(found.test) + found.repeated == len(cut.test)


def test_a_source_is_refused_if_its_test_images_were_seen_and_else_taken(data: Data, made: Path) -> None:
    cut = split(data)
    some = Images(cut.train.x[::7], cut.train.class_numbers[::7])
    with pytest.raises(RunError, match="would prove nothing"):
        splits(replace(data, fingerprint="another", test=some), read(made))
    other = replace(data, fingerprint="another", train=cut.train, test=cut.test)
    assert len(splits(other, read(made)).test) == len(cut.test)
    again = replace(data, test=joined(cut.test, some))  # of the very source: what equals a training image is left out
    assert splits(again, read(made)).repeated >= len(some)


def test_other_classes_and_too_few_seeds_are_refused(data: Data, made: Path) -> None:
    with pytest.raises(ConfigError, match="images of 0, 1"):
        splits(replace(data, classes=(*data.classes[:-1], "ten")), read(made))
    with pytest.raises(ConfigError, match="two seeds"):
        prove(data.train, data.train, data.train, data.classes, seeds=1)
    with pytest.raises(DataError, match="no class"):
        splits(replace(data, train=Images(data.train.x), classes=()), read(made))


# What is said


@pytest.mark.parametrize(("shifted", "plain"), BEST)
def test_the_verdict_says_what_the_intervals_say(shifted: int, plain: int) -> None:
    y = torch.arange(600) % 2
    base = torch.arange(600)[None].expand(3, 600) % 3 > 0
    right = dict.fromkeys(BASELINES, base)
    better, worse = base | (torch.arange(600) % 4 == 0), base & (torch.arange(600) % 4 > 0)
    right = {**right, "both": (base, better, worse)[shifted], "synthetic": (base, better, worse)[plain]}
    proof = Proof(("a", "b"), right, y, dict.fromkeys(BASELINES, 1), 1)
    said = verdict(proof)
    assert (said.word, said.grade, said.sentences[0]) == BEST[shifted, plain]
    assert said.word == "yes" if shifted > 0 else said.word != "yes"
    if shifted < 0 or (shifted == 0 and plain < 1):
        assert "did not help" in said.sentences[0] or "did harm" in said.sentences[0]


def test_help_is_no_help_where_something_without_it_does_better() -> None:
    y = torch.arange(600) % 2
    base = torch.arange(600)[None].expand(3, 600) % 3 > 0
    better = base | (torch.arange(600) % 4 == 0)
    right = {**dict.fromkeys(BASELINES, base), "both": better, "weights": better | (torch.arange(600) % 5 == 0)}
    said = verdict(Proof(("a", "b"), right, y, dict.fromkeys(BASELINES, 1), 1))
    assert said.word == "no" and "weights without them is better" in said.sentences[0]


def test_images_of_a_class_that_was_nearly_absent_are_found_to_help() -> None:
    """Two dogs of one kind, and then 40 as they are: nothing done to the two can make up for them."""
    waves = pictures(SMALL, 200, ("cat", "dog"))
    assert waves.y is not None
    x, y = waves.x.numpy(), waves.y.numpy()
    cats, dogs = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    odd = x[dogs[:2]] // 2  # as dark as cats are
    real = Images(np.concatenate([x[cats[:40]], odd]), np.repeat([0, 1], [40, 2]))
    test = np.concatenate([cats[40:], dogs[42:]])
    proof = prove(
        real, Images(x[dogs[2:42]], y[dogs[2:42]]), Images(x[test], y[test]), ("cat", "dog"), seeds=3, steps=20
    )
    assert verdict(proof).word == "yes" and proof.difference("both", "classic").by_class[1].low > 0


def test_images_that_add_nothing_are_found_not_to_help(data: Data) -> None:
    """Copies of real images in the place of synthetic ones, of a common class: nothing to learn from them."""
    cut = split(data)
    assert cut.train.y is not None
    own = np.flatnonzero(cut.train.y == 9)[:20]
    proof = prove(cut.train, Images(cut.train.x[own], cut.train.y[own]), cut.test, data.classes, seeds=2, steps=8)
    assert verdict(proof).word in ("no", "only a little")
    told = json.loads(json.dumps(to_json(proof), allow_nan=False))
    assert told["baselines"]["both"]["images"] == len(cut.train) + 20 and len(told["differences"]) == 8


# The command


def test_the_command_proves_what_the_folder_of_a_user_holds(tmp_path: Path, capsys: Any) -> None:
    data = rare_digits()
    y = data.train.y
    assert y is not None
    for i in range(0, len(data.train), 2):
        place = tmp_path / "own" / f"digit {y[i]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.train.x[i][0]).save(place / f"{i}.png")
    out = tmp_path / "out"
    assert ends("augment", tmp_path / "own", "--to", "20", "--steps", "1", "--out", out) == 0
    assert ends("prove", tmp_path / "own", out, "--seeds", "2", "--steps", "4") == 0
    said = capsys.readouterr().out
    assert "Synthetic images" in said and "Few test images" in said
    loaded = loads(out / "proof" / "proof.html")
    assert len(loaded) == 3 and all(load.startswith("data:image/png") for load in loaded)
    numbers = json.loads((out / "proof" / "proof.json").read_text())
    assert numbers["made_from"]["fingerprint"] and numbers["helped"]
    assert sum(numbers["test_images"]) == len(list((out / "test").rglob("*.png")))
    assert ends("prove", tmp_path / "own", out, "--seeds", "2", "--steps", "10") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert ends("prove", tmp_path / "own", tmp_path / "own") == 2
    assert "does not say which images it was made from" in capsys.readouterr().err
