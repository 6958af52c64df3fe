"""Every example runs, in a small way, and does what it says."""

import math
import sys
import warnings
from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.models.base import GenerativeModel
from fabulate.models.capabilities import HasLikelihood
from fabulate.models.contract import examine
from fabulate.models.families import import_families
from fabulate.seeds import generator

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def test_examples_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert lengths
    assert max(lengths.values()) <= 60, lengths


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import quickstart

    quickstart.main(tmp_path, steps=60)
    assert (tmp_path / "digits.png").exists()
    assert (tmp_path / "sevens.png").exists()
    assert "8 images, 32 numbers each" in capsys.readouterr().out


def test_icons_are_a_folder_of_classes(tmp_path: Path) -> None:
    import draw_icons

    draw_icons.main(tmp_path / "icons", side=16, n=24)
    data = fabulate.load_data(tmp_path / "icons")
    assert data.classes == draw_icons.KINDS and data.shape == (3, 16, 16)
    assert len(data.train) + len(data.test) == 24 and data.report.duplicates == 0


def test_own_loop_learns() -> None:
    import own_loop

    assert own_loop.main(200) < own_loop.main(1)


@pytest.fixture
def own_family() -> type[GenerativeModel]:
    """The example's class, registered only as long as the test runs: other tests go over the registry."""
    assert import_families(EXAMPLES / "own_family.py") == ["ppca"]
    yield GenerativeModel.families["ppca"]
    del GenerativeModel.families["ppca"], sys.modules["own_family"]


def test_own_family_keeps_the_laws_trains_saves_and_loads(own_family: type[GenerativeModel], tmp_path: Path) -> None:
    assert all(not problems for _, problems in examine("ppca"))
    model = fabulate.train("ppca", "digits", out=tmp_path, steps=40, quiet=True)
    assert isinstance(model, own_family)
    assert isinstance(model, HasLikelihood)
    assert torch.equal(fabulate.load(tmp_path).sample(40), model.sample(40))


def test_own_family_reaches_its_exact_optimum(own_family: type[GenerativeModel]) -> None:
    """Tipping, Bishop 1999: at the optimum the noise is the mean of the discarded eigenvalues of the covariance."""
    x = torch.randn(500, 1, 2, 3, generator=generator(0, "data")) * torch.tensor([2.0, 1, 0.5]) + 0.3
    values = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T, correction=0)).flip(0)
    noise, kept = values[2:].mean(), values[:2]
    optimum = -(6 * math.log(2 * math.pi) + kept.log().sum() + 4 * noise.log() + 6) / 2

    torch.manual_seed(0)
    model = own_family(own_family.Config(latent_dim=2), fabulate.ImageShape(1, 2, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss(fabulate.Batch(x))["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(-model.loss(fabulate.Batch(x))["loss"].detach()) == pytest.approx(float(optimum), abs=1e-3)


def test_count_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import count_modes

    fabulate.train("ae", "digits", out=tmp_path, steps=20, quiet=True)
    shares = count_modes.main(tmp_path, n=100, references=200)
    assert shares.sum() == pytest.approx(1)
    assert "smallest share" in capsys.readouterr().out


def test_outliers_finds_most_strays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import outliers

    assert outliers.main(tmp_path / "strays.png") >= 0.75
    assert (tmp_path / "strays.png").exists()
    assert "strays called outliers" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_augment_says_whether_it_helped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import augment

    from fabulate.uses.augment import filters, proof

    monkeypatch.setattr(proof, "FEWEST_STEPS", 5)
    monkeypatch.setattr(proof, "MOST_STEPS", 5)
    monkeypatch.setattr(filters, "STEPS", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a model of few steps makes few images that pass
        found = augment.main(steps=30, seeds=2)
    assert found.sizes["both"] == found.sizes["smote"] == found.sizes["real"] + 136
    assert "ynthetic images" in capsys.readouterr().out


@pytest.mark.slow
def test_debias(capsys: pytest.CaptureFixture[str]) -> None:
    import debias

    found = debias.main(steps=400, classifier_steps=100)
    assert found["recolour"] > found["plain"] + 0.1
    assert "by weight" in capsys.readouterr().out
