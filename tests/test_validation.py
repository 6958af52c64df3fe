"""What chooses the weights that are kept: validation images and samples, never test images; minutes by the clock."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fabulate
from fabulate.config import Training
from fabulate.data import Data, Images
from fabulate.features import features_for
from fabulate.metrics import Moments, frechet_distance
from fabulate.models.families import families
from fabulate.models.families.vae import VAE
from fabulate.stats import reference
from fabulate.training import best_samples, read_log, validation
from fabulate.training.loop import Learner
from fabulate.training.train import configure, parts
from fabulate.training.validation import FEWEST, MOST, PATIENCE, SampleQuality, Validation, split
from fabulate.types import Selected
from tiny import Case, make, small


def images(n: int, y: np.ndarray | None = None) -> Images:
    return Images(np.arange(n, dtype=np.uint32).view(np.uint8).reshape(n, 1, 2, 2), y)


def test_every_image_is_in_one_part_and_rare_classes_lose_none():
    y = np.repeat([0, 1, 2], [700, 290, 9]).astype(np.int64)
    found = split(images(len(y), y), 0.1, seed=3)
    assert found is not None
    learnt, held = found
    assert sorted([*learnt.tolist(), *held.tolist()]) == list(range(len(y)))
    assert np.bincount(y[held.numpy()], minlength=3).tolist() == [70, 29, 0]
    again, other = split(images(len(y), y), 0.1, seed=3), split(images(len(y), y), 0.1, seed=4)
    assert again is not None and torch.equal(again[1], held)
    assert other is not None and not torch.equal(other[1], held)


@pytest.mark.parametrize("times", [2, 5, 30])
def test_copies_of_an_image_are_on_one_side(times):
    """Whole data sets that repeat each image, and one with a single image that outnumbers the rest of its class."""
    generator = np.random.default_rng(times)
    for each in (np.full(200, times), np.where(np.arange(200) == 0, times * 10, 1)):
        numbers = generator.permutation(np.repeat(np.arange(200), each))
        x, y = numbers.astype(np.uint8).reshape(-1, 1, 1, 1), numbers % 3
        found = split(Images(x, y), 0.1, seed=1)
        assert found is not None
        learnt, held = (part.numpy() for part in found)
        assert sorted([*learnt, *held]) == list(range(len(x)))
        assert not set(numbers[learnt]) & set(numbers[held])
        counts, wanted = np.bincount(y[held], minlength=3), 0.1 * np.bincount(y)
        assert (counts <= wanted).all() and (counts > wanted - times).all()
    two_classes = np.arange(len(x)) % 2  # of copies
    both = split(Images(x, two_classes), 0.1, seed=1)
    assert both is None or not set(numbers[both[0]]) & set(numbers[both[1]])


def test_too_few_images_are_not_split_and_of_many_no_more_than_needed():
    assert split(images(10 * FEWEST - 1), 0.1, seed=0) is None
    assert split(images(1000), 0.0, seed=0) is None
    many = split(images(100 * MOST), 0.1, seed=0)
    assert many is not None and len(many[1]) == MOST


@pytest.mark.parametrize("name", families())
def test_families_that_have_a_loss_to_compare_steps_by_hold_images_out(name, digits):
    model = make(Case(name, None))
    learnt, held = parts(model, Training(), digits)
    comparable = "loss" in model.eval().test_terms(digits.train.batch(torch.arange(8)))
    assert (held is not None) == comparable
    assert len(learnt) + (len(held) if held is not None else 0) == len(digits.train)
    assert parts(model, Training(validation=0), digits) == (digits.train, None)


def test_selected_images_are_those_of_their_numbers():
    whole = images(50, np.arange(50))
    chosen = Selected(whole, torch.tensor([40, 3, 7])).stored(torch.tensor([2, 0]))
    assert chosen.x[:, 0, 0, 0].tolist() == [7, 40]
    assert chosen.y is not None and chosen.y.tolist() == [7, 40]


def losses(values: list[float]) -> tuple[Validation, int | None]:
    """The state after these losses, and the validation at which training stops."""
    model, validation = torch.nn.Linear(1, 1, bias=False), Validation()
    for step, value in enumerate(values):
        torch.nn.init.constant_(model.weight, step)
        validation.record(step, value, model)  # type: ignore[arg-type]
        if validation.should_stop:
            return validation, step
    return validation, None


def test_the_best_weights_are_kept_and_a_steady_rise_ends_training():
    falls = [10.0 - i for i in range(8)]
    validation, end = losses([*falls, *(3.0 + 0.2 * i for i in range(1, 40))])
    assert validation.best is not None
    step, loss, weights = validation.best
    assert (step, loss, float(weights["weight"])) == (7, 3.0, 7.0)
    assert end == 7 + PATIENCE
    assert losses([*falls, *[3.0 + 1e-4] * 39])[1] is None, "a level loss is no rise"
    began_badly = losses([float("nan"), float("inf"), *falls])[0].best
    assert began_badly is not None and began_badly[:2] == (9, 3.0)
    assert losses([*falls, *([4.0] * (PATIENCE - 1)), 2.9, *[3.5] * (PATIENCE - 1)])[1] is None, "it fell again"


def overfitting(digits: Data, out: Path, **options: object) -> fabulate.GenerativeModel:
    """A training that memorises 120 images."""
    few = fabulate.load_data(digits.train.x[:130])
    return fabulate.train(
        "vae", few, out=out, **{"network": "mlp", "steps": 600, "lr": 5e-3, "batch_size": 32, "ema": 0.9, **options}
    )


def test_a_run_that_overfits_keeps_the_best_weights_and_says_so(digits, tmp_path, capsys):
    model = overfitting(digits, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    log = read_log(tmp_path)
    looks = {row["step"]: row["validation"]["loss"] for row in log if "validation" in row}
    best = min(looks, key=lambda step: looks[step])
    assert f"The validation loss rose since step {best:,}" in said
    assert f"the weights of step {best:,} are kept" in said
    assert log[-1]["step"] < 600, "it would have gone on in vain"
    assert model.record["steps"] == best
    assert torch.equal(fabulate.load(tmp_path).sample(4), model.sample(4))
    again = overfitting(digits, tmp_path)
    assert torch.equal(again.sample(4), model.sample(4)), "a finished run gives the chosen weights"


def test_a_run_is_judged_by_validation_images_only(digits, tmp_path):
    """With other test images the same weights are chosen."""
    other = fabulate.Data(**{**vars(digits), "test": images_like(digits)})
    first = fabulate.train("ae", digits, out=tmp_path / "a", quiet=True, **{**small("ae"), "steps": 40})
    second = fabulate.train("ae", other, out=tmp_path / "b", quiet=True, **{**small("ae"), "steps": 40})
    assert torch.equal(first.sample(4), second.sample(4))
    assert read_log(tmp_path / "a")[-2]["test"] != read_log(tmp_path / "b")[-2]["test"]


def images_like(data: Data) -> Images:
    assert data.test is not None
    return Images(255 - data.test.x, data.test.y)


def test_a_resumed_validation_is_what_it_was(digits):
    model = make(Case("vae", "mlp"))
    lesson = Learner(model, Training(steps=10), digits.train)
    next(lesson.steps())
    lesson.validation.record(1, 5.0, lesson.sampler())
    lesson.validation.record(2, 6.0, lesson.sampler())
    other = Learner(make(Case("vae", "mlp"), seed=1), Training(steps=10), digits.train)
    other.restore(lesson.state())
    assert other.validation.best is not None and lesson.validation.best is not None
    assert other.validation.best[:2] == lesson.validation.best[:2]
    assert (other.validation.since, other.validation.latest) == (1, 6.0)


@pytest.mark.slow
def test_minutes_are_by_the_clock(digits, tmp_path, monkeypatch):
    """Pictures that take long are few, and the end is in time."""
    honest = VAE.sample

    def sample(self: VAE, *args: object, **options: object) -> torch.Tensor:
        time.sleep(0.3)
        return honest(self, *args, **options)

    monkeypatch.setattr(VAE, "sample", sample)
    budget = 0.15  # minutes
    began = time.perf_counter()
    fabulate.train("vae", digits, out=tmp_path, quiet=True, **{**small("vae"), "steps": None, "minutes": budget})
    taken = time.perf_counter() - began
    log = read_log(tmp_path)
    looks = [row for row in log if "test" in row]
    assert taken < 1.35 * 60 * budget
    assert log[-1]["seconds"] > 0.7 * 60 * budget
    assert len(looks) <= 3, "each takes 0.6 s, and a tenth of 9 s is theirs, and the last"


def test_warm_up_is_a_twentieth_of_the_clock(digits):
    training = configure("vae", "default", {"minutes": 10, "warmup": 500, "lr": 1e-3, "batch_size": 128})[1]
    lesson = Learner(make(Case("vae", "mlp")), training, digits.train)
    assert lesson.total is None
    rates = {}
    for seconds in (0.0, 15.0, 30.0, 60.0):
        lesson.seconds = seconds
        rates[seconds] = lesson.rate("model") / training.lr
    assert rates[0.0] < 0.05
    assert rates[15.0] == pytest.approx(0.5, abs=0.01)
    assert 0.99 < rates[30.0] <= 1
    assert rates[60.0] < rates[30.0]


STEPS = {"steps": 20, "batch_size": 32, "quiet": True}


@pytest.mark.parametrize("family", ["vae", pytest.param("gan", marks=pytest.mark.slow)])
def test_the_best_samples_are_kept_and_measuring_changes_no_weight(family, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "SHARE", 1e9)
    monkeypatch.setattr(validation, "SAMPLES", 100)
    model = fabulate.train(family, digits, out=tmp_path / "measured", evaluate_every=5, **small(family), **STEPS)
    plain = fabulate.train(family, digits, out=tmp_path / "plain", **small(family), **STEPS)
    for (name, weight), other in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    log = read_log(tmp_path / "measured")
    distances = {row["step"]: row["samples"]["frechet_distance"] for row in log if "samples" in row}
    assert [*distances] == [5, 10, 15, 20]
    best = best_samples(log)
    assert best is not None and distances[best["step"]] == min(distances.values())
    kept = fabulate.load(tmp_path / "measured" / "best")
    assert kept.record["steps"] == best["step"]
    features = features_for(digits)
    real = reference(digits, "train", features=features, n=len(digits.train)).moments
    found = frechet_distance(Moments.of(features(kept.sample(100))), real)
    assert found == pytest.approx(min(distances.values()))
    assert not (tmp_path / "plain" / "best").exists()


def test_measuring_samples_stays_below_its_share_of_the_time(digits):
    model, features = make(Case("vae", "mlp")), features_for(digits)
    quality = SampleQuality(10, features, Moments.of(features(torch.from_numpy(digits.train.x[:200]))))
    assert not quality.due(11, 1e9, lambda: model)
    assert not quality.due(10, 0.0, lambda: model) and quality.skipped == 1, "nothing has been trained yet"
    assert quality.due(20, 1e9, lambda: model)
    quality.measure(model)
    assert not quality.due(30, quality.spent / validation.SHARE, lambda: model), "a second one would double the time"
    assert quality.due(40, 2.01 * quality.spent / validation.SHARE, lambda: model)
    words = quality.summary(100.0)
    assert words.startswith("Measuring samples 1 times took") and "2 more were skipped" in words
