"""Reports and comparisons: what they measure is so, they survive JSON, and their pages stand alone."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fabulate
from fabulate.data import Data, Images
from fabulate.errors import ConfigError, DataError
from fabulate.evaluation import Report, compare, evaluate
from fabulate.evaluation.classes import SCORE, classes, score
from fabulate.evaluation.compare import difference, widening
from fabulate.evaluation.compare import page as comparison_page
from fabulate.evaluation.evaluate import check, sampled
from fabulate.evaluation.fidelity import LEVEL, POWER, fidelity, least_noticed, memorisation
from fabulate.evaluation.report import page, write
from fabulate.evaluation.subject import Subject
from fabulate.features import Features, features_for
from fabulate.features.base import Pixels
from fabulate.metrics import copies
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import HasLikelihood
from fabulate.models.families import families
from fabulate.report import Row
from fabulate.seeds import generator, permutation
from pages import Page
from tiny import SMALL, Case, ends, make, pictures, small


@pytest.fixture(scope="module")
def few(digits: Data) -> Data:
    """The digits with fewer images: 400 to train on, 30 held out."""
    train = Images(digits.train.x[:400].copy(), digits.train.y[:400].copy())
    test = Images(digits.test.x[:30].copy(), digits.test.y[:30].copy())
    return replace(digits, train=train, test=test, fingerprint="few")


@pytest.fixture(scope="module")
def seeing(few: Data, cache: None) -> Features:
    """A classifier's features, trained once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabulate.features.trained.FEWEST_STEPS", 120)
        return features_for(few)


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers learn for 30 steps."""
    monkeypatch.setattr("fabulate.features.trained.FEWEST_STEPS", 30)
    monkeypatch.setattr("fabulate.features.trained.EPOCHS", 1)


@pytest.fixture(scope="module")
def models(few: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, GenerativeModel]:
    """Every family after a few steps."""
    folder = tmp_path_factory.mktemp("families")
    return {
        name: fabulate.train(name, few, out=folder / name, steps=3, batch_size=16, quiet=True, **small(name))
        for name in families()
    }


@pytest.fixture(scope="module")
def told_classes(few: Data, tmp_path_factory: pytest.TempPathFactory) -> GenerativeModel:
    """A class-conditional model."""
    out = tmp_path_factory.mktemp("told")
    return fabulate.train("vae", few, out=out, steps=3, batch_size=16, conditional=True, quiet=True, **small("vae"))


@pytest.fixture(scope="module")
def reports(models: dict[str, GenerativeModel], few: Data) -> dict[str, Report]:
    """Every family's report."""
    return {name: evaluate(model, few, n=60, features="pixels") for name, model in models.items()}


def subject(data: Data, samples: torch.Tensor, features: Features, y: torch.Tensor | None = None) -> Subject:
    """Samples that no model drew."""
    model = families()["ae"](families()["ae"].Config(), data.shape)
    return Subject(model=model, data=data, samples=samples, y=y, features=features, seed=0)


# Every family


def test_every_family_has_a_report_that_goes_through_json(reports: dict[str, Report]) -> None:
    assert reports.keys() == families().keys()
    for report in reports.values():
        told = report.to_json()
        again = Report.from_json(json.loads(json.dumps(told, allow_nan=False)))
        assert again.to_json() == told
        assert again.rows.keys() == report.rows.keys()
        assert again.cards == report.cards


def test_what_is_not_measured_has_a_reason(reports: dict[str, Report]) -> None:
    for name, report in reports.items():
        absent = {what: why for section in report.sections for what, why in section.absent.items()}
        assert SCORE in absent
        assert all(len(why) > 20 for why in absent.values())
        if issubclass(families()[name], HasLikelihood):
            assert "likelihood" not in absent
    assert "likelihood" in {what for section in reports["gan"].sections for what in section.absent}


def test_pages_are_well_formed_and_stand_alone(reports: dict[str, Report], tmp_path: Path) -> None:
    for report in reports.values():
        _, path = write(report, tmp_path / report.name)
        found = Page(path.read_text())
        assert found.loads
        assert all(load.startswith("data:image/png;base64,") for load in found.loads)
        assert not found.links and not found.styles
        assert "url(" not in path.read_text()
        assert "@import" not in path.read_text()


def test_names_cannot_break_a_page(reports: dict[str, Report]) -> None:
    nasty = replace(reports["vae"], name='<script>alert("x")</script>', warnings=("a < b & c",))
    for made in (page(nasty), comparison_page(compare({nasty.name: nasty, "b": nasty}), {}, {})):
        html = made.to_html()
        assert "<script" not in html and "&lt;script&gt;" in html
        Page(html)


def test_equal_calls_give_equal_numbers(
    models: dict[str, GenerativeModel], few: Data, reports: dict[str, Report]
) -> None:
    again = evaluate(models["vae"], few, n=60, features="pixels")
    assert again.to_json()["sections"] == reports["vae"].to_json()["sections"]


# Fidelity


def test_training_images_in_the_place_of_samples_reach_the_floor_and_noise_the_other_end(
    few: Data, seeing: Features
) -> None:
    perfect = subject(few, torch.zeros(100, *few.shape, dtype=torch.uint8), seeing).perfect
    section = fidelity(subject(few, torch.from_numpy(few.train.pixels(perfect)), seeing))
    assert all(row.value.value == row.floor for row in section.rows)
    assert [card.verdict for card in section.cards] == ["yes", "yes"]
    noise = torch.randint(256, (100, *few.shape), dtype=torch.uint8, generator=generator(1, "noise"))
    section = fidelity(subject(few, noise, seeing))
    assert [card.verdict for card in section.cards] == ["no", "no"]


def test_without_test_images_the_report_says_so_and_compares_with_others_than_the_anchor(
    few: Data, models: dict[str, GenerativeModel]
) -> None:
    bare = replace(few, test=None)
    report = evaluate(models["vae"], bare, n=60, features="pixels")
    assert "no test part" in report.warnings[0]
    assert report.reference == "training images"
    assert "held out" in next(s.absent["Memorisation"] for s in report.sections if "Memorisation" in s.absent)
    for n in (60, 10_000):
        asked = subject(bare, torch.zeros(n, *few.shape, dtype=torch.uint8), features_for(bare, "pixels"))
        assert not {*asked.real.tolist()} & {*asked.perfect.tolist()}
        assert len(asked.real) == len(asked.perfect) == min(n, 200)


# Classes


@pytest.mark.usefixtures("briefly")
def test_real_images_as_samples_teach_what_real_images_teach(few: Data, seeing: Features) -> None:
    perfect = subject(few, torch.zeros(400, *few.shape, dtype=torch.uint8), seeing).perfect
    y = torch.from_numpy(few.train.y[perfect.numpy()])
    section = classes(subject(few, torch.from_numpy(few.train.pixels(perfect)), seeing, y))
    rows = {row.name: row for row in section.rows}
    assert rows[SCORE].value.value == rows[SCORE].floor > 0.2
    assert rows["Class-conditional accuracy"].value.value > 0.95  # the classifier saw these very images
    assert rows["Classes present"].value.value == 10
    shares = [row.value.value for name, row in rows.items() if name.startswith("Share of ")]
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(1)
    assert rows["Class-share distance"].value.value < 0.05
    assert section.cards[0].verdict == "yes"


def test_a_collapsed_generator_is_told_which_classes_are_gone(few: Data, seeing: Features) -> None:
    sevens = torch.from_numpy(few.train.x[few.train.y == 7])
    section = classes(subject(few, sevens, seeing))
    assert section.cards[0].verdict == "no"
    assert "1 of 10" in section.cards[0].because
    assert SCORE in section.absent


@pytest.mark.slow
@pytest.mark.usefixtures("briefly")
def test_samples_teach_a_classifier_of_sides_beyond_64(few: Data) -> None:
    def wide(images: Images) -> Images:
        return Images(np.pad(images.x, ((0, 0), (0, 0), (0, 0), (0, 58))), images.y)

    data = replace(few, train=wide(few.train), test=wide(few.test), fingerprint="wide")
    assert max(data.shape) == 66
    rows, _, absent = score(subject(data, torch.from_numpy(data.train.x), Pixels(), torch.from_numpy(data.train.y)))
    assert [row.name for row in rows] == [SCORE] and not absent


def test_a_classifier_is_not_believed_about_what_it_does_not_know(few: Data, seeing: Features) -> None:
    """Gray images with a hint of the digits, of which it has seen none."""
    dim = torch.from_numpy(few.train.x // 4 + 96)
    believed, doubted = (
        classes(subject(few, images, seeing)).sentences[0] for images in (torch.from_numpy(few.train.x), dim)
    )
    assert "what the features' classifier sees" in believed
    assert "not believed" in doubted


def test_a_conditional_model_is_asked_for_classes_as_often_as_they_are(
    few: Data, told_classes: GenerativeModel
) -> None:
    _, y = sampled(told_classes, few, len(few.train), seed=0)
    assert y is not None
    assert torch.equal(torch.bincount(y), torch.from_numpy(np.bincount(few.train.y)))


@pytest.mark.usefixtures("briefly")
def test_a_conditional_model_has_a_score(few: Data, told_classes: GenerativeModel) -> None:
    report = evaluate(told_classes, few, n=100, features="pixels")
    assert 0 <= report.rows[SCORE].value.value <= 1
    assert not any(SCORE in section.absent for section in report.sections)


# Memorisation


def test_a_copier_is_told_so_and_an_honest_model_is_not(digits: Data) -> None:
    x = torch.from_numpy(digits.train.pixels(permutation(1600, "writers")))  # of all writers in each part
    data = replace(digits, train=Images(x[:600].numpy()), test=Images(x[600:1200].numpy()), classes=())
    pixels = features_for(data, "pixels")
    honest, copied = x[1200:1600], x[:400]
    section = memorisation(subject(data, honest, pixels))
    assert section.cards[0].verdict in ("no sign of it", "cannot tell")
    section = memorisation(subject(data, copied, pixels))
    assert section.cards[0].verdict == "yes"
    rows = {row.name: row for row in section.rows}
    assert rows["Copied share"].value.value == rows["Exact copies"].value.value == 1
    half = memorisation(subject(data, torch.cat([honest[:200], copied[:200]]), pixels))
    rows = {row.name: row for row in half.rows}
    assert half.cards[0].verdict == "yes"
    assert rows["Copied share"].value.low < 0.5 < rows["Copied share"].value.high
    assert rows["Exact copies"].value.value == 0.5


def test_the_power_told_is_the_power_had() -> None:
    """60 repeats: a share of about 0.8, within five of its standard errors of 0.052."""
    noticed, shares = 0, []
    for repeat in range(60):
        train, held_out, honest = torch.randn(3, 300, 4, generator=generator(repeat, "power")).double()
        share = least_noticed(copies.memorisation(honest, train, held_out))
        mixed = torch.cat([honest[: round(300 * (1 - share))], train[: 300 - round(300 * (1 - share))]])
        noticed += copies.memorisation(mixed, train, held_out).p_value < LEVEL
        shares.append(share)
    assert 0.05 < np.mean(shares) < 0.5
    assert abs(noticed / 60 - POWER) < 5 * (POWER * (1 - POWER) / 60) ** 0.5


def test_images_a_model_was_not_trained_on_are_not_called_copied(tmp_path: Path, digits: Data, few: Data) -> None:
    fabulate.train("vae", digits, out=tmp_path / "run", steps=2, quiet=True, **small("vae"))
    report = evaluate(tmp_path / "run", few, n=30, features="pixels")
    assert "not those the model was trained on" in report.sections[2].absent["Memorisation"]
    assert "not the images" in report.warnings[0]


# What cannot be evaluated


def test_what_cannot_be_evaluated_is_said(few: Data, models: dict[str, GenerativeModel]) -> None:
    with pytest.raises(ConfigError, match="at least 20 samples; given n=5"):
        evaluate(models["vae"], few, n=5)
    with pytest.raises(ConfigError, match="does not say what images"):
        evaluate(models["vae"])
    with pytest.raises(ConfigError, match="images of 8x8 gray and digits has images of 7x8 gray"):
        evaluate(models["vae"], replace(few, train=Images(few.train.x[:, :, :7])))
    with pytest.raises(DataError, match="10 of its 410 images are held out"):
        evaluate(models["vae"], replace(few, test=Images(few.train.x[:10])))


# Comparisons


def test_a_model_compared_with_itself_is_no_different(reports: dict[str, Report]) -> None:
    comparison = compare({"a": reports["vae"], "b": reports["vae"]})
    judged = [verdict for verdict in comparison.verdicts if verdict.best is not None]
    assert len(judged) > 6
    assert {verdict.words for verdict in judged} == {"no difference"}
    assert comparison.overall.startswith("No difference")


def with_distances(report: Report, frechet: Estimate, kernel: Estimate) -> Report:
    rows = [
        Row(name="Fréchet distance", value=frechet, better="lower"),
        Row(name="Kernel distance", value=kernel, better="lower"),
        Row(name="Recall", value=Estimate(0.1, 0.09, 0.11) if frechet.value < 2 else Estimate(0.9), better="higher"),
    ]
    return replace(report, sections=(replace(report.sections[0], rows=tuple(rows)),))


def test_the_distances_decide_over_all(reports: dict[str, Report]) -> None:
    near, far = Estimate(1, 0.8, 1.2), Estimate(9, 8, 10)
    wide = Estimate(5, -20, 30)

    def overall(a: tuple[Estimate, Estimate], b: tuple[Estimate, Estimate]) -> str:
        both = {"a": with_distances(reports["vae"], *a), "b": with_distances(reports["vae"], *b)}
        return compare(both).overall

    assert overall((near, near), (far, far)).startswith("a is better than b")
    assert overall((far, wide), (near, wide)).startswith("b is better than a")
    assert overall((wide, wide), (near, near)).startswith("No difference")
    assert overall((near, far), (far, near)).startswith("Undecided")


def test_reports_of_other_settings_are_not_compared(reports: dict[str, Report]) -> None:
    other = replace(reports["gan"], settings=replace(reports["gan"].settings, n=61))
    with pytest.raises(ConfigError, match="evaluate both with the same images, n, seed and features"):
        compare({"vae": reports["vae"], "gan": other})
    with pytest.raises(ConfigError, match="at least two models"):
        compare({"vae": reports["vae"]})


def test_the_interval_of_a_difference_of_normals_is_theirs_and_changes_sides() -> None:
    a, b = Estimate.about(5.0, 3.0), Estimate.about(1.0, 4.0)
    assert difference(a, b) == pytest.approx(Estimate.about(4.0, 5.0))
    gap, back = difference(a, b, 1.3), difference(b, a, 1.3)
    assert (gap.value, gap.low, gap.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_equal_models_are_called_different_five_times_in_a_hundred() -> None:
    """Ten numbers of two equal models, 4,000 times: by five binomial standard errors of 0.0034."""
    draws = torch.randn(4000, 10, 2, generator=generator(0, "equal"))
    widest = (draws[..., 0] - draws[..., 1]).abs().amax(1)
    called = float(
        (widest > widening(10) * difference(Estimate.about(0, 1), Estimate.about(0, 1)).high).double().mean()
    )
    assert called == pytest.approx(0.05, abs=5 * 0.0034)


# The verbs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the digits, and one of other images."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("vae", "ae"):
        fabulate.train(name, "digits", out=folder / name, steps=2, quiet=True, **small(name))
    chance = np.random.default_rng(0)
    for i in range(30):
        path = folder / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(chance.integers(256, size=(8, 8), dtype=np.uint8)).save(path)
    fabulate.train("vae", folder / "images", out=folder / "other", steps=2, batch_size=8, quiet=True, **small("vae"))
    return folder


QUICK = ("-n", 40, "--features", "pixels")


def test_evaluate_writes_a_page_and_numbers_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("evaluate", runs / "vae", *QUICK) == 0
    shown = capsys.readouterr().out
    assert "Fréchet distance" in shown
    assert "Did it memorise?" in shown
    assert str(runs / "vae" / "report" / "index.html") in shown
    report = Report.from_json(json.loads((runs / "vae" / "report" / "metrics.json").read_text()))
    assert (report.name, report.settings.n, report.settings.features) == ("vae", 40, "pixels")
    assert ends("evaluate", runs / "vae", *QUICK) == 2
    assert "is not empty; give --overwrite" in capsys.readouterr().err
    assert ends("evaluate", runs / "vae", *QUICK, "--seed", 1, "--overwrite") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "vea"], "there is no run or model folder"),
        (["evaluate", "vae", "-n", "3"], "at least 20 samples; given n=3"),
        (["evaluate", "vae", "--features", "pixel"], "did you mean 'pixels'?"),
        (["evaluate", "vae/model"], "give --data, the images it was trained on"),
        (["evaluate", "vae", "--data", "digits", "--size", "16"], "the model makes images of 8x8 gray"),
        (["compare", "vae"], "at least two runs"),
        (["compare", "vae", "vea"], "there is no run or model folder"),
        (["compare", "vae", "other"], "trained on different images"),
    ],
)
def test_mistakes_are_told_before_work_is_done(
    words: list[str], message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words
    named = [str(runs / word) if word.split("/")[0] in ("vae", "vea", "other") else word for word in rest]
    assert ends(verb, *named, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_compare_makes_a_page_and_uses_reports_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "both"
    assert ends("compare", runs / "vae", runs / "ae", *QUICK, "--out", out) == 0
    assert "1,000 samples" in capsys.readouterr().out
    found = Page((out / "index.html").read_text())
    assert sum(load.startswith("data:") for load in found.loads) == len(found.loads) == 2
    assert {"ae/index.html"} <= {*found.links}
    assert all((out / link).exists() for link in found.links)
    monkeypatch.setattr(import_module("fabulate.evaluation.compare"), "evaluate", None)  # nothing is evaluated again
    assert ends("compare", runs / "vae", runs / "ae", *QUICK, "--out", out) == 2
    assert ends("compare", runs / "vae", runs / "ae", *QUICK, "--out", out, "--overwrite") == 0
    numbers = json.loads((out / "metrics.json").read_text())
    assert numbers["overall"]
    assert Report.from_json(numbers["reports"]["ae"]).family == "ae"


def test_too_few_images_are_refused_with_what_to_do() -> None:
    few = fabulate.load_data(pictures(SMALL, 120).x.numpy())
    with pytest.raises(DataError, match=r"12 of its 120 images are held out: give --data .* test/ of 20 or more"):
        check(make(Case("ae", "mlp")), few, 60)
