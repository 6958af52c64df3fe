"""May samples be handed out: copies that are planted are found, honest images are not, and members are told apart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

import fabulate
from fabulate.data import Data, Images
from fabulate.errors import ConfigError, DataError
from fabulate.files import digest
from fabulate.metrics.membership import auc, tpr_at
from fabulate.training import configure
from fabulate.training.train import fresh
from fabulate.uses import audit
from fabulate.uses.audit import examine
from fabulate.uses.audit.examine import chance_of
from fabulate.uses.audit.near_copies import Copies, nearness, planted, thumbnails
from pages import loads
from tiny import ends, small

KINDS = ["exact", "noise", "brightness", "mirrored", "shifted", "cropped", "JPEG"]


def blobs(n: int, seed: int, side: int = 24) -> torch.Tensor:
    """Images of three coloured spots each, of which no two are alike."""
    chance = np.random.default_rng(seed)
    places = np.arange(side)
    x = np.zeros((n, 3, side, side))
    for _ in range(3):
        up, across = chance.uniform(0, side, (2, n, 1, 1))
        width = chance.uniform(2, 6, (n, 1, 1))
        spot = np.exp(-((places[:, None] - up) ** 2 + (places - across) ** 2) / (2 * width**2))
        x += spot[:, None] * chance.uniform(40, 200, (n, 3, 1, 1))
    return torch.from_numpy(x.clip(0, 255).astype(np.uint8))


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float()


# Near copies


def test_the_ratio_is_that_of_the_nearest_to_the_median_of_the_next() -> None:
    train = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    found = nearness([torch.tensor([[0.1], [3.0]])], train)
    assert found.nearest.tolist() == [0, 2]
    assert found.ratios.tolist() == pytest.approx([0.1 / 1.9, 1.0 / 2.0], rel=1e-6)


def test_thumbnails_know_neither_brightness_nor_contrast() -> None:
    x = blobs(5, 0) // 2
    other = (x.double() * 1.4 + 30).round().to(torch.uint8)
    assert torch.allclose(thumbnails(x), thumbnails(other), atol=0.02)
    assert not torch.allclose(thumbnails(x), thumbnails(x.flip(3)), atol=0.1)
    assert not thumbnails(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)).isnan().any()


def test_honest_images_are_flagged_as_often_as_the_level_says() -> None:
    copies = Copies(Images(blobs(300, 1).numpy()), blobs(400, 2), pixels)
    p = copies.judge(blobs(600, 3)).p_values
    for level in (0.01, 0.05, 0.5):  # the level is itself known by 400 images only
        error = (level * (1 - level) * (1 / 600 + 1 / 400)) ** 0.5
        assert abs(float((p <= level).double().mean()) - level) < 4 * error


def test_one_copy_in_a_hundred_is_found_whatever_was_done_to_it() -> None:
    train = blobs(400, 1)
    source = np.random.default_rng(0).permutation(400)[:20]
    made = planted(train[source].numpy(), np.random.default_rng(1))
    assert [*made] == KINDS
    copies = Copies(Images(train.numpy()), blobs(300, 2), pixels)
    found = copies.judge(torch.from_numpy(np.concatenate([*made.values()])))
    for kind, p, nearest in zip(KINDS, found.p_values.split(20), found.nearest.split(20), strict=True):
        assert (p <= 0.01).double().mean() >= 0.95, kind
        assert (nearest == torch.from_numpy(source)).double().mean() >= 0.95, kind


def test_more_flagged_samples_than_chance_gives_are_few_times_as_many() -> None:
    chance = np.random.default_rng(0)
    false = 0
    for _ in range(500):  # honest samples: uniform p-values of ranks among 1,000
        held_out, samples = chance.normal(size=1000), chance.normal(size=500)
        p = (1 + np.searchsorted(np.sort(held_out), samples, side="right")) / 1001
        false += chance_of(int((p <= 0.01).sum()), 500, 1000) < 0.05
    assert false <= 40  # 25 in the mean, and a discrete count gives fewer
    assert chance_of(25, 500, 1000) < 0.01 < chance_of(8, 500, 1000)


# Membership


def test_the_area_and_the_rate_are_scikit_learns() -> None:
    chance = torch.Generator().manual_seed(0)
    members, others = torch.randn(300, generator=chance) + 0.7, torch.randn(400, generator=chance)
    y, numbers = np.r_[np.ones(300), np.zeros(400)], torch.cat([members, others]).numpy()
    assert auc(members, others).value == pytest.approx(roc_auc_score(y, numbers))
    false, true, _ = roc_curve(y, numbers, drop_intermediate=False)
    assert tpr_at(members, others, 0.05).value == pytest.approx(true[false <= 0.05].max())


def test_intervals_hold_the_truth_95_times_in_100() -> None:
    chance = torch.Generator().manual_seed(1)
    truth = float(torch.special.ndtr(torch.tensor(0.5 / 2**0.5)))
    held = 0
    for _ in range(300):
        found = auc(torch.randn(200, generator=chance) + 0.5, torch.randn(200, generator=chance))
        held += found.low <= truth <= found.high
    assert 270 <= held <= 297


@pytest.mark.parametrize("bad", [torch.tensor([1.0]), torch.tensor([1.0, float("nan")]), torch.ones(2, 2)])
def test_numbers_that_judge_nothing_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(DataError):
        auc(bad, torch.ones(3))


# The whole


@pytest.fixture(scope="module")
def run(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "run"
    fabulate.train("vae", digits, out=out, steps=60, quiet=True)
    return out


def test_held_out_images_as_samples_may_be_handed_out_and_copies_not(digits: Data, run: Path, tmp_path: Path) -> None:
    train, test = (Images(digits.train.x[rows], digits.train.y[rows]) for rows in (slice(1000), slice(1000, 1400)))
    half = replace(digits, train=train, test=test)
    model = fabulate.load(run)
    honest = torch.from_numpy(np.concatenate([digits.train.x[1400:], digits.test.x]))
    done = audit.run(model, half, tmp_path / "honest", samples=honest, features="pixels", device="cpu")
    assert done.cards[1].grade == "good", done.cards[1]
    mixed = honest.clone()
    mixed[::10] = torch.from_numpy(planted(half.train.x[: len(mixed[::10])], np.random.default_rng(0))["noise"])
    done = audit.run(model, half, tmp_path / "copied", samples=mixed, features="pixels", device="cpu")
    assert done.cards[0].verdict == "no" and done.cards[1].verdict == "yes, nearly"
    told = json.loads((tmp_path / "copied" / "audit.json").read_text())
    found = {row["sample"]: row["training_image"] for row in told["near"]}
    planted_at = range(0, len(mixed), 10)
    assert sum(found.get(i) == f"train[{k}]" for k, i in enumerate(planted_at)) >= 0.9 * len(planted_at)
    assert [row["digest"] for row in told["near"]] == [digest(mixed[i].numpy().tobytes()) for i in found]
    mixed[3] = torch.from_numpy(half.train.x[7])
    done = audit.run(model, half, tmp_path / "equal", samples=mixed, features="pixels", device="cpu")
    assert done.cards[1].verdict == "yes" and "1 samples equal" in done.cards[1].because
    assert json.loads((tmp_path / "equal" / "audit.json").read_text())["exact"][0]["sample"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_model_that_memorised_gives_its_images_away(digits: Data, tmp_path: Path) -> None:
    """An autoencoder trained for long on few images knows them by its error; one of few steps does not."""
    few = replace(digits, train=Images(digits.train.x[:60], digits.train.y[:60]))
    grades = []
    for steps in (5, 500):
        options: dict[str, Any] = {"validation": 0, "latent_dim": 64, "quiet": True}
        model = fabulate.train("ae", few, out=tmp_path / str(steps), steps=steps, **options)
        done = audit.run(tmp_path / str(steps), few, tmp_path / f"audit-{steps}", n=40, features="pixels")
        told = json.loads((tmp_path / f"audit-{steps}" / "audit.json").read_text())
        grades.append(told["attacks"]["the model's score"]["auc"][0])
        assert done.files == ("audit.html", "audit.json") and model.family == "ae"
    assert grades[0] < 0.6 and grades[1] > 0.8


@pytest.mark.parametrize("family", ["flow", "gan"])
def test_families_without_a_quick_score_are_audited(
    family: str, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "FEW", 20)
    config, schedule = configure(family, "default", {**small(family), "steps": 1})
    model = fresh(family, config, schedule, digits.shape, (), "cpu")
    audit.run(model, digits, tmp_path / "audit", n=40, features="pixels")
    told = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert ("the model's loss" in told["attacks"]) == (family == "flow")


def test_too_few_images_held_out_are_refused(digits: Data, run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 100 of them, and digits has 0 test images"):
        audit.run(run, replace(digits, test=None), tmp_path)
    with pytest.raises(ConfigError, match="the samples are of"):
        audit.run(run, digits, tmp_path, samples=torch.zeros(3, 1, 4, 4, dtype=torch.uint8))


def test_the_command_audits_samples_of_a_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--features", "pixels", "--out", tmp_path / "a")
    assert ends("sample", run, "-n", 40, "--out", tmp_path / "drawn") == 0
    assert ends("audit", run, "--samples", tmp_path / "drawn", *words) == 0
    out = capsys.readouterr().out
    assert "May these images be handed out?" in out and "nearest sample, by thumbnails" in out
    assert loads(tmp_path / "a" / "audit.html")
    told = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert told["samples"]["n"] == 40 and told["kind"] == "audit"
    assert ends("audit", run, "-n", 8, *words) == 2  # what is there stays
    assert json.loads((tmp_path / "a" / "audit.json").read_text()) == told
    assert ends("audit", run, "-n", 8, *words, "--overwrite") == 0
    assert json.loads((tmp_path / "a" / "audit.json").read_text())["samples"]["n"] == 8
