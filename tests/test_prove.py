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
from fabulate.uses.augment import FREE, NAMES, Proof, augment, filters, pipeline, prove, read, splits, verdict
from fabulate.uses.augment.filters import Synthetic, Tally
from fabulate.uses.augment.folder import digests, joined, split
from fabulate.uses.augment.page import to_json
from fabulate.uses.augment.proof import Recipe, choose, over_classes, smote, validation
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
    right = {name: torch.rand(3, 100, generator=chance) < 0.5 for name in NAMES}
    proof = Proof(tuple("0123456789"), right, y, dict.fromkeys(NAMES, 1), 1)
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
    ways = Recipe(0.5, "randaugment").baselines()
    for name, way in ways.items():
        images = way.images(real, synthetic, 0)
        np.testing.assert_array_equal(images.x[: len(real)], real.x)
        more = np.bincount(images.y, minlength=10) - np.bincount(real.y, minlength=10)
        own = np.bincount(synthetic.y, minlength=10)
        expected = {"smote": own, "synthetic": own, "both": -(-own // 2)}.get(name, 0 * own)
        assert (more == expected).all()
        drawn = np.bincount(images.batch(torch.arange(len(images))).y, minlength=10)
        assert (len(np.unique(drawn)) == 1) == (name in ("balanced", "randaugment", "both"))
    assert {name for name, way in ways.items() if way.weights} == {"weights"}
    assert {name for name, way in ways.items() if way.change is None} == {"real", "smote", "synthetic"}
    assert ways["both"].change is ways["randaugment"].change is not ways["balanced"].change


def test_the_recipe_is_chosen_on_images_that_its_classifiers_did_not_see(data: Data) -> None:
    real = split(data).train
    held, y = validation(real), real.class_numbers
    assert all((held & (y == k)).sum() == (y == k).sum() // 5 for k in range(10))
    seen = []

    def found(way: Any, rest: Images, shown: Images, seed: int) -> torch.Tensor:
        assert not set(digests(rest)) & set(digests(shown))
        seen.append(way.words)
        return torch.rand(len(shown), generator=torch.Generator().manual_seed(0)) < (
            0.9 if "50 %" in way.words else 0.5
        )

    assert choose(real, found).share == 0.5 and len(seen) == 5
    few = Images(real.x[:3], np.zeros(3, np.int64))
    assert choose(few, found) == Recipe() and len(seen) == 5  # nothing to choose by


def test_smote_draws_on_lines_between_images_of_a_class() -> None:
    line = np.array([0, 100, 200], np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    real = Images(np.concatenate([line, 255 - line[:1]]), np.array([0, 0, 0, 1]))
    synthetic = Images(np.zeros((30, 1, 8, 8), np.uint8), np.repeat([0, 1], [20, 10]))
    grown = smote(real, synthetic, 0)
    assert np.bincount(grown.y).tolist() == [23, 11]
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


def proof_of(n: int = 600, **right: torch.Tensor) -> Proof:
    """Every way finds two thirds of the images, except those that are given."""
    y = torch.arange(n) % 2
    rows = dict.fromkeys(NAMES, (torch.arange(n) % 3 > 0).expand(3, n)) | right
    return Proof(("a", "b"), rows, y, dict.fromkeys(NAMES, 1), 1)


BASE = (torch.arange(600) % 3 > 0).expand(3, 600)
BETTER, WORSE = BASE | (torch.arange(600) % 4 == 0), BASE & (torch.arange(600) % 4 > 0)


@pytest.mark.parametrize(
    ("right", "word", "first", "advice"),
    [
        ({"both": BETTER}, "yes", "better than in every way without", "both"),
        ({"both": BETTER, "smote": BETTER}, "only a little", "on top of balanced, but smote may do as well", "smote"),
        (
            {"both": BETTER, "weights": BETTER | (torch.arange(600) % 5 == 0)},
            *("no", "did not help: weights without them is better", "weights"),
        ),
        ({"both": WORSE}, "no", "did harm: balanced without them is better", "the real images as they are"),
        ({"synthetic": BETTER}, "only a little", "only where nothing else was done", "the real images as they are"),
        ({}, "no", "or by less than this test can see", "the real images as they are"),
        ({"real": WORSE, "synthetic": WORSE}, "no", "or by less than this test can see", "classic"),
    ],
)
def test_the_verdict_says_what_the_intervals_say(right: Any, word: str, first: str, advice: str) -> None:
    said = verdict(proof_of(**right))
    assert said.word == word and first in said.sentences[0]
    assert said.sentences[1].startswith(f"Recommended: {advice}")
    assert (said.grade == "good") == (word == "yes")


def test_where_nothing_differs_help_is_claimed_hardly_ever() -> None:
    """The same chances in all ways, each seed and image with luck of its own."""
    chance, trials, helped = torch.Generator().manual_seed(5), 50, 0
    for _ in range(trials):
        p = (0.7 + 0.2 * (torch.rand(1, 300, generator=chance) < 0.5)).expand(5, 300)
        rows = {name: torch.rand(5, 300, generator=chance) < p for name in NAMES}
        helped += verdict(proof_of(300, **rows)).word == "yes"
    assert helped <= 2


def test_a_gain_that_the_test_can_see_is_found_eight_times_in_ten() -> None:
    chance, trials, found = torch.Generator().manual_seed(6), 50, 0
    n, gain = 2000, 0.03

    def rows(p: float) -> torch.Tensor:
        """Images that are easy for all seeds and ways or for none, and a tenth that luck decides."""
        hard, open_ = torch.arange(n) % 10 == 0, torch.arange(n) % 10 == 1
        of_seed = p + 0.02 * torch.randn(5, 1, generator=chance)
        return ~hard & (~open_ | (torch.rand(5, n, generator=chance) < of_seed))

    said = []
    for _ in range(trials):
        proof = proof_of(n, balanced=rows(0.4), both=rows(0.4 + 10 * gain))
        same = dict.fromkeys([*FREE, "synthetic"], proof.right["balanced"])
        proof = proof._replace(right={**proof.right, **same})
        found += verdict(proof).word == "yes"
        said.append(next(line for line in verdict(proof).sentences if "8 times in 10" in line))
    seen = np.median([float(line.split()[3]) for line in said])
    assert found / trials > 0.8 - 3 * (0.8 * 0.2 / trials) ** 0.5 and seen < 100 * gain  # what it says it sees, it sees


def test_it_says_what_one_point_would_take() -> None:
    chance = torch.Generator().manual_seed(7)
    few = proof_of(40, **{name: torch.rand(2, 40, generator=chance) < 0.7 for name in NAMES})
    assert "times as many test images" in " ".join(verdict(few).sentences)
    n = 40_000
    of_seed = 0.7 + torch.tensor([[-0.01], [0.01], [0.0]])
    many = proof_of(n, **{name: torch.rand(3, n, generator=chance) < of_seed for name in (*FREE, "synthetic")})
    many = many._replace(right={**many.right, "both": torch.rand(3, n, generator=chance) < of_seed.flip(0)})
    assert "for one point it takes some" in " ".join(verdict(many).sentences)


@pytest.mark.slow
def test_images_of_a_class_that_was_nearly_absent_are_found_to_help() -> None:
    """Two dogs of one kind, and then 40 as they are: nothing done to the two can make up for them."""
    waves = pictures(SMALL, 200, ("cat", "dog"))
    x, y = waves.x.numpy(), waves.y.numpy()
    cats, dogs = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    odd = x[dogs[:2]] // 2  # as dark as cats are
    real = Images(np.concatenate([x[cats[:40]], odd]), np.repeat([0, 1], [40, 2]))
    test = np.concatenate([cats[40:], dogs[42:]])
    proof = prove(
        real, Images(x[dogs[2:42]], y[dogs[2:42]]), Images(x[test], y[test]), ("cat", "dog"), seeds=3, steps=20
    )
    assert verdict(proof).word == "yes" and proof.difference("both", "balanced").by_class[1].low > 0


@pytest.mark.slow
def test_images_that_add_nothing_are_found_not_to_help(data: Data) -> None:
    """Copies of real images in the place of synthetic ones, of a common class: nothing to learn from them."""
    cut = split(data)
    own = np.flatnonzero(cut.train.y == 9)[:20]
    proof = prove(cut.train, Images(cut.train.x[own], cut.train.y[own]), cut.test, data.classes, seeds=2, steps=8)
    assert verdict(proof).word in ("no", "only a little")
    told = json.loads(json.dumps(to_json(proof), allow_nan=False))
    used = -(-20 * told["recipe"]["share"] // 1)
    assert told["baselines"]["both"]["images"] == len(cut.train) + used and len(told["differences"]) == 12


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
