"""How long a training will take is told before it begins, where images are large, and changes nothing of it."""

import time

import pytest
import torch

import fabulate
from fabulate.config import Training
from fabulate.errors import ConfigError
from fabulate.models import small
from fabulate.models.families.vqvae import VQVAE
from fabulate.seeds import generator
from fabulate.training import estimate as estimating
from fabulate.training import read_log
from fabulate.training.estimate import estimate, foresee
from fabulate.types import ImageShape

BIG = ImageShape(4, 48, 64)
EACH, START = 4e-6, 0.25  # seconds that a number of an image takes in the clock below, and a step by itself


def make(shape: ImageShape) -> fabulate.models.GenerativeModel:
    return small.make(small.Case("ae", "conv"), shape)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[ImageShape]:
    """A machine on which a step of n images takes START + n * EACH * their numbers; the shapes it was asked for."""
    asked: list[ImageShape] = []

    def seconds(model: fabulate.models.GenerativeModel, training: Training, batch: int) -> float:
        asked.append(model.shape)
        return START + EACH * model.shape.size * batch

    monkeypatch.setattr(estimating, "seconds", seconds)
    return asked


def test_small_images_are_not_measured(clock):
    assert estimate(make, Training(steps=10**9), ImageShape(1, 64, 64), 100) == [] and not clock


def test_what_takes_its_time_and_no_more_is_not_told(clock):
    assert estimate(make, Training(steps=100), BIG, 100) == [] and set(clock) == {BIG}


def test_a_long_training_is_told_with_a_size_that_was_measured_to_fit(clock):
    training = Training(steps=5000, batch_size=16)
    step = START + 16 * EACH * BIG.size
    (told, fits) = estimate(make, training, BIG, 100)
    found = foresee(make, training, BIG, 100)
    assert found.pace.step == pytest.approx(step) and found.seconds > 5000 * step
    assert f"48x64 colour with alpha a step of 16 images takes about {step:.2g} s" in told and "5,000" in told
    assert f"about {found.seconds / 60:,.0f} minutes" in told
    assert fits == "What fits is --size 32x48: about 54 minutes."  # three quarters of the sides, in multiples of 8
    assert not foresee(make, training, ImageShape(4, 40, 48), 100).fits
    assert estimate(make, training, ImageShape(4, 32, 48), 100) == []


def test_epochs_are_turned_into_steps_of_the_images(clock):
    assert foresee(make, Training(epochs=2, steps=None), BIG, 100).steps == 13
    assert foresee(make, Training(epochs=2, steps=7, minutes=60), BIG, 100).steps == 7


@pytest.mark.parametrize(("minutes", "steps"), [(3, 174), (1, 58)])
def test_minutes_that_are_over_too_soon_are_told(clock, minutes, steps):
    told = " ".join(estimate(make, Training(steps=None, minutes=minutes), BIG, 100))
    assert f"about {steps} fit into {minutes} minutes" in told


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (Training(steps=None, minutes=0.1), "about 6 fit into 0.1 minutes"),
        (Training(steps=10**6), "No smaller size that was tried fits either"),
    ],
)
def test_what_cannot_be_meant_is_refused(clock, training, words):
    with pytest.raises(ConfigError, match=words):
        estimate(make, training, BIG, 100)


def test_few_steps_that_were_asked_for_are_taken(clock, monkeypatch):
    """Where something else takes long, it is told and not refused."""
    monkeypatch.setattr(estimating, "SLOW", 0.1)
    (slow, *_) = estimate(make, Training(steps=6), BIG, 100)
    assert "The fewest samples that are drawn together" in slow


def test_the_pace_is_measured_and_leaves_chance_alone():
    for case in (small.Case("gan", "conv"), small.Case("vae", "conv", small.CLASSES)):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        found = foresee(lambda shape, case=case: small.make(case, shape), Training(), ImageShape(3, 40, 40), 100)
        assert 0 < found.pace.step < 60 and (torch.get_rng_state() == before).all()


def test_the_pace_is_that_of_all_spans(monkeypatch):
    """A player of which a step takes ten times as long has half the budget."""
    clock = [0.0]

    class Staged(VQVAE):
        def players(self):
            def slow(player, seconds, span):
                def loss(batch):
                    clock[0] += seconds
                    return player.loss(batch)

                return player._replace(loss=loss, span=span)

            first, second = super().players().values()
            return {"first": slow(first, 10.0, (0, 0.5)), "second": slow(second, 1.0, (0.5, 1))}

    model = Staged(small.make(small.Case("vqvae", None)).config, small.SMALL)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    assert estimating.seconds(model, Training(), 2) == pytest.approx(5.5)


def test_a_run_is_the_same_whether_it_was_measured_or_not(tmp_path, monkeypatch):
    x = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator(0, "images")).numpy()
    runs = []
    for name, large in (("measured", 0), ("not", 10**9)):
        monkeypatch.setattr(estimating, "LARGE", large)
        model = fabulate.train("vae", x, out=tmp_path / name, steps=4, batch_size=8, quiet=True)
        runs.append((read_log(tmp_path / name), model.state_dict()))
    (log, weights), (other_log, others) = runs
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    losses = [[row["train"] for row in rows if "train" in row] for rows in (log, other_log)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert log[-1]["finished"] and 50e6 < log[-1]["peak_memory"] < 1e11  # bytes; torch alone holds more
