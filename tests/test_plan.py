"""What `fabulate plan` foresees: times measured here, worth read off curves that were measured before."""

import re
import shlex

import pytest

from fabulate.cli import main
from fabulate.config import Training
from fabulate.data import load_data
from fabulate.errors import ConfigError
from fabulate.training import plan as planning
from fabulate.training.plan import CANDIDATES, Measured, at, by_data, plan, read_table
from tiny import ends


def row(seen: int, coverage: float, family: str = "vae", data: str = "a", channels: int = 1) -> Measured:
    return Measured(family, data, channels, 8, 8, 100, 1.0, 1.0, seen, 1.0, 0.1, 9.0, coverage, 0.8, 0.0)


def test_worth_lies_on_a_line_over_the_logarithm_of_the_images_seen():
    curve = [row(100, 0.2), row(10_000, 0.6)]
    assert at(curve, 1000) == pytest.approx(0.5)
    assert at(curve, 1) == pytest.approx(0.25) and at(curve, 10**9) == pytest.approx(0.75)


def test_the_table_has_each_family_on_gray_and_on_colour_images_more_than_once():
    rows = read_table()
    for family in CANDIDATES:
        for colours in (1, 3):
            curves = by_data(one for one in rows if one.family == family and one.channels == colours)
            assert len(curves) >= 2 and all(len(curve) >= 2 for curve in curves)
    assert all(0 <= one.worth <= 1 and one.images_seen > 0 for one in rows)
    assert all(one.frechet_perfect < one.frechet_noise for one in rows)


def test_the_best_is_what_its_curves_say_for_as_many_images_as_fit_into_the_minutes(monkeypatch):
    better, worse = (0.6, 0.7), (0.2, 0.3)
    rows = [
        row(seen, coverage, family, data, channels)
        for family, gray, colour in (("vae", worse, better), ("gan", better, worse))
        for channels, values in ((1, gray), (3, colour))
        for seen in (1, 10**9)
        for data, coverage in zip("ab", values, strict=True)
    ]
    monkeypatch.setattr(planning, "read_table", lambda: rows)
    monkeypatch.setattr(planning, "seconds_of_a_step", lambda model, training: 0.5)
    first, second = plan(load_data("digits"), 10, families=("vae", "gan"), device="cpu")
    assert (first.family, second.family) == ("gan", "vae")
    assert first.worth == pytest.approx((0.75, 0.875)) and first.sets == ("a", "b")
    assert first.steps == 1200 and first.images_seen == 1200 * first.batch
    assert first.epochs == pytest.approx(first.images_seen / len(load_data("digits").train))
    assert not first.beyond


def test_a_step_is_timed_with_the_whole_batch():
    from fabulate.training.estimate import seconds
    from fabulate.training.train import fresh

    digits = load_data("digits")
    config, schedule = planning.configure("vae", "default", {"epochs": None, "steps": None, "minutes": 1})
    assert isinstance(schedule, Training)
    model = fresh("vae", config, schedule, digits.shape, (), "cpu")
    taken = planning.seconds_of_a_step(model, schedule)
    assert 0 < taken < 100 * seconds(model, schedule, 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"minutes": 0.0}, "positive"), ({"families": ("nf",)}, "no learning curves were measured of nf")],
)
def test_what_cannot_be_planned_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        plan(load_data("digits"), **{"minutes": 1.0, **given})  # type: ignore[arg-type]  # the bad ones are meant


def test_sequences_have_no_curves(tmp_path):
    with pytest.raises(ConfigError, match="of images only"):
        plan(load_data("proverbs"), 1)


def test_the_command_names_another_that_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "seconds_of_a_step", lambda model, training: 0.5)
    main(["plan", "digits", "--minutes", "0.01"])
    command = re.search(r"Take \w+:  (.+)", capsys.readouterr().out)
    assert command is not None
    _, verb, family, *words = shlex.split(command[1])
    assert verb == "train" and family in CANDIDATES and words == ["digits", "--minutes", "0.01"]
    assert ends(verb, "vae", "--plan", *words) == 2
    assert "--plan chooses the family: leave out vae" in capsys.readouterr().err
    main([verb, "--plan", *words])
    assert (tmp_path / f"runs/{family}-digits/model").exists() and "coverage" in capsys.readouterr().out
    main([verb, "--plan", *words])  # the run that was begun, without a new plan
    assert "coverage" not in capsys.readouterr().out
