"""Looks at the samples during training: what they choose, what they cost, and what they must not change."""

import pytest
import torch

import fabulate
from fabulate.errors import ConfigError
from fabulate.features import features_for
from fabulate.metrics import Moments, frechet_distance
from fabulate.seeds import generator
from fabulate.stats import reference
from fabulate.training import best_look, judge, read_log
from fabulate.training.judge import Judge
from tiny import cases, in_two, make, small

STEPS = {"steps": 40, "batch_size": 32}


@pytest.fixture
def patient(monkeypatch):
    """Looks may take all the time they need."""
    monkeypatch.setattr(judge, "SHARE", 1e9)
    monkeypatch.setattr(judge, "SAMPLES", 100)


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_the_best_step_is_kept_and_looking_changes_no_weight(family, digits, tmp_path, patient):
    options = {**small(family), **STEPS, "quiet": True}
    model = fabulate.train(family, digits, out=tmp_path / "looked", evaluate_every=10, **options)
    plain = fabulate.train(family, digits, out=tmp_path / "plain", **options)
    for (name, weight), other in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    log = read_log(tmp_path / "looked")
    looks = {row["step"]: row["samples"]["frechet_distance"] for row in log if "samples" in row}
    assert [*looks] == [10, 20, 30, 40]
    best = best_look(log)
    assert looks[best["step"]] == min(looks.values())

    kept = fabulate.load(tmp_path / "looked" / "best")
    assert kept.record["steps"] == best["step"]
    features = features_for(digits)
    real = reference(digits, "train", features=features, n=len(digits.train)).moments
    assert frechet_distance(Moments.of(features(kept.sample(100))), real) == pytest.approx(min(looks.values()))
    assert not (tmp_path / "plain" / "best").exists()


def test_looks_stay_below_their_share_of_the_time(digits):
    model = make(cases()[0])
    features = features_for(digits)
    seen = Judge(10, features, Moments.of(features(torch.from_numpy(digits.train.x[:200]))))
    assert not seen.due(11, 1e9, lambda: model)  # not its turn
    assert not seen.due(10, 0.0, lambda: model) and seen.put_off == 1  # nothing has been trained yet
    assert seen.due(20, 1e9, lambda: model)
    seen.look(model.sample)
    assert not seen.due(30, seen.spent / judge.SHARE, lambda: model)  # a second one would double what was spent
    assert seen.due(40, 2.01 * seen.spent / judge.SHARE, lambda: model)
    assert seen.words(100.0).startswith("1 looks at the samples took") and "2 more were put off" in seen.words(100.0)


def test_a_look_is_not_better_for_samples_that_are_not(digits):
    features = features_for(digits)
    real = reference(digits, "train", features=features, n=len(digits.train)).moments
    x = torch.from_numpy(digits.train.x[:500])
    noise = torch.randint(256, x.shape, generator=generator(0, "noise")).to(torch.uint8)
    assert frechet_distance(Moments.of(features(x)), real) < frechet_distance(Moments.of(features(noise)), real)


@pytest.mark.parametrize("flag", ["save_every", "evaluate_every"])
def test_steps_between_are_at_least_one(flag, digits, tmp_path):
    with pytest.raises(ConfigError, match=f"{flag} is a number of steps, at least 1; given 0"):
        fabulate.train("vae", digits, out=tmp_path / "run", **{flag: 0}, **STEPS)
    assert not (tmp_path / "run").exists()


def looked(folder, name, accumulate):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "SHARE", 1e9)
        patch.setattr(judge, "SAMPLES", 100)
        patch.setattr("fabulate.training.loop.TEST_BATCH", 100)
        options = {"steps": 12, "batch_size": 32, "accumulate": accumulate, "evaluate_every": 4, "quiet": True}
        fabulate.train("ae", "digits", out=f"{folder}/{name}", **options, **small("ae"))


def looked_by_two(folder, processes):
    looked(folder, "two", 1)


def test_two_processes_look_at_the_samples_and_test_as_one(cache, tmp_path):
    looked(tmp_path, "one", 2)
    in_two(looked_by_two, tmp_path)
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    for what, times in (("samples", 3), ("test", 8)):
        rows, others = ([(row["step"], row[what]) for row in log if what in row] for log in (one, two))
        assert len(rows) == times
        for (step, values), (other_step, other) in zip(rows, others, strict=True):
            assert step == other_step
            assert other == pytest.approx(values, rel=1e-4)  # the weights differ by rounding
