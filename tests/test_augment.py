"""Augmentation: no test image is learnt from, samples are chosen by the stated rule, the record tells the truth."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import fabulate
from fabulate.cli import main
from fabulate.data import Data, Images, load_data
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.types import to_uint8
from fabulate.uses import normal_scores
from fabulate.uses.augment import augment, filters, read, sampler
from fabulate.uses.augment.filters import COPY, FAR, Filters, Neighbours, Synthetic, rejection_sampling
from fabulate.uses.augment.folder import digests, split, untouched
from fabulate.uses.augment.pipeline import Balanced, cut_of_run, missing
from fabulate.uses.augment.sampler import GenerativeOverSampler
from tiny import CLASSES, SMALL, ends, pictures

COUNTS = {"cat": 60, "dog": 24, "horse": 12}
QUICK = {"preset": "default", "steps": 20, "batch_size": 32, "latent_dim": 4}


def labelled(counts: dict[str, int], seed: int = 0) -> Images:
    """Waves, brighter with each class, so many of each."""
    source = pictures(SMALL, len(counts) * max(counts.values()), CLASSES, seed)
    rows = np.concatenate([np.flatnonzero(source.y.numpy() == k)[:n] for k, n in enumerate(counts.values())])
    return Images(source.x.numpy()[rows], source.y.numpy()[rows])


@pytest.fixture(scope="module", autouse=True)
def quick_referee() -> Iterator[None]:
    """Waves are told apart after fewer steps than photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "STEPS", 60)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: a sub-folder for each class, no test part."""
    own = tmp_path_factory.mktemp("folder") / "own"
    images = labelled(COUNTS)
    for i, (x, k) in enumerate(zip(images.x, images.y, strict=True)):
        (own / CLASSES[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[0]).save(own / CLASSES[k] / f"{i}.png")
    return own


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return load_data(folder)


@pytest.fixture(scope="module")
def finished(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished augmentation by a model of few steps; tests take copies."""
    out = tmp_path_factory.mktemp("finished") / "out"
    augment(data, out, to="40", hyperparameters=QUICK)
    return out


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


# The cut


def test_every_class_keeps_its_share_for_the_test_and_no_image_is_in_both_parts(data: Data) -> None:
    for share in (0.0, 0.1, 0.4):
        cut = split(data, share)
        assert len(cut.train) + len(cut.test) == sum(COUNTS.values())
        for k, n in enumerate(COUNTS.values()):
            assert (cut.test.y == k).sum() >= max(1, share * n)
        # Images of this source are all different, so digests tell them apart.
        assert not set(digests(cut.train)) & set(digests(cut.test))
        assert set(digests(cut.test)) >= set(digests(data.test))
        assert cut.held_out == split(data, share).held_out and len(set(cut.held_out)) == len(cut.held_out)


def test_a_source_that_keeps_enough_is_cut_as_it_is(data: Data) -> None:
    own = replace(data, test=labelled(dict.fromkeys(COUNTS, 30), seed=1))
    cut = split(own)
    assert cut.held_out == () and cut.train is own.train and cut.test is own.test


def test_a_class_of_one_image_cannot_be_cut(data: Data) -> None:
    few = replace(data, train=labelled({"cat": 5, "dog": 5, "horse": 1}), test=None)
    with pytest.raises(DataError, match="class horse has 1 training and 0 test images: too few"):
        split(few)
    with pytest.raises(DataError, match="no class"):
        split(replace(data, train=Images(data.train.x), classes=()))


def test_test_images_that_equal_a_training_image_are_left_out() -> None:
    images = labelled(COUNTS)
    again = Images(images.x[[3, 3, 5]], images.y[[3, 3, 5]])
    left = untouched(again, set(digests(Images(images.x[:4]))))
    np.testing.assert_array_equal(left.x, images.x[[5]])


# How many


@pytest.mark.parametrize(
    ("to", "expected"),
    [("balanced", (0, 36, 48)), ("30", (0, 6, 18)), ("horse=20", (0, 0, 8)), ("dog = 24,horse=13", (0, 0, 1))],
)
def test_amounts_are_what_a_class_lacks(to: str, expected: tuple[int, ...]) -> None:
    assert tuple(missing(to, COUNTS).values()) == expected


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("cats=20", "no class 'cats'; did you mean 'cat'"),
        ("many", "balanced, a number, or name=number"),
        ("cat=-3", "balanced, a number"),
        ("5", "nothing to make"),
        ("dog=24", "has: dog 24"),
    ],
)
def test_wrong_amounts_are_told(to: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        missing(to, COUNTS)


def test_balanced_batches_show_each_class_as_often_and_every_image() -> None:
    images = labelled(COUNTS)
    shown = Balanced(images.x, images.y)
    y = shown.batch(torch.arange(len(shown))).y
    assert torch.bincount(y).tolist() == [60, 60, 60]
    assert set(shown.rows.tolist()) == set(range(len(images)))
    assert torch.bincount(shown.rows).max() == 60 / 12


# The filters


@pytest.fixture(scope="module")
def known() -> Filters:
    return Filters.of(labelled(dict.fromkeys(CLASSES, 60)), CLASSES)


def test_copies_other_classes_and_noise_are_turned_away_and_new_images_of_the_class_kept(known: Filters) -> None:
    images, new = labelled(dict.fromkeys(CLASSES, 60)), labelled(dict.fromkeys(CLASSES, 30), seed=5)
    noise = torch.randint(0, 256, (40, *SMALL), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for k in range(3):
        copies = known.rejected(torch.from_numpy(images.x[images.y == k]), k)
        assert copies.copied.all() and not copies.kept.any()
        fresh = known.rejected(torch.from_numpy(new.x[new.y == k]), k)
        assert fresh.kept.double().mean() > 0.5 and fresh.misread.double().mean() < 0.2
        assert known.rejected(noise, k).kept.double().mean() < 0.1
    x = torch.from_numpy(images.x[images.y == 0])
    assert known.rejected(torch.where(x > 200, x - 1, x + 1), 2).copied.all()  # nearly equal, to any class
    assert known.rejected(torch.from_numpy(new.x[new.y == 0]), 2).misread.double().mean() > 0.8


def test_repeated_images_do_not_change_what_is_usual() -> None:
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    plain, repeated = Neighbours.of(rows), Neighbours.of(torch.cat([rows, rows[:1].expand(30, 5)]))
    assert repeated.usual == pytest.approx(plain.usual, rel=0.1)
    assert np.isnan(Neighbours.of(rows[:1]).usual)
    assert 0 < COPY < 1 < FAR


class Stubborn:
    """Draws one image for ever."""

    def sample(self, n: int, y: str, *, seed: int, start: int) -> torch.Tensor:
        return torch.from_numpy(labelled(COUNTS).x[:1]).float().expand(n, *SMALL) / 127.5 - 1


def test_a_model_that_copies_makes_nothing(known: Filters) -> None:
    with pytest.raises(
        DataError, match=r"no sample passes the filters \(cat: 0 of 5 made from 256 samples; .*, 256 copy"
    ):
        rejection_sampling(Stubborn(), known, {"cat": 5, "dog": 0}, CLASSES)


# The folder


def test_the_folder_holds_three_parts_and_says_where_each_image_came_from(made: Path, data: Data) -> None:
    found, manifest = read(made), json.loads((made / "augment.json").read_text())
    cut = split(data)
    parts = {part: sorted((made / part).rglob("*.png")) for part in ("real", "synthetic", "test")}
    assert len(parts["real"]) == len(cut.train) and len(parts["test"]) == len(cut.test)
    assert len(parts["synthetic"]) == len(found.images) == sum(c.get("kept", 0) for c in manifest["counts"].values())
    assert found.learnt_from == set(digests(cut.train))
    assert not found.learnt_from & set(digests(cut.test))
    model = fabulate.load(made / "run")
    assert manifest["model"]["sha256"] == model.weights_hash()
    image = manifest["images"][-1]
    again = model.sample(1, image["class"], seed=manifest["seeds"][image["class"]], start=image["number"])
    np.testing.assert_array_equal(to_uint8(again)[0].numpy(), found.images.x[-1])
    for count in manifest["counts"].values():
        if "wanted" in count:
            assert count["kept"] <= count["wanted"] == 40 - count["real"]
            assert count["kept"] <= count["drawn"] - max(count["misread"], count["far"], count["copied"])


def test_the_same_call_again_is_refused_and_overwriting_deletes_only_what_it_wrote(made: Path, data: Data) -> None:
    with pytest.raises(RunError, match="--overwrite"):
        augment(data, made, to="40", hyperparameters=QUICK)
    (made / "synthetic" / "mine.txt").write_text("mine")
    before = {path for path in made.rglob("*.png") if path.is_file()}
    augment(data, made, to="30", hyperparameters=QUICK, overwrite=True)
    after = {path for path in made.rglob("*.png") if path.is_file()}
    assert after < before and {path for path in before if "synthetic" not in path.parts} <= after
    assert (made / "synthetic" / "mine.txt").read_text() == "mine"
    other = replace(data, fingerprint="0" * 32)
    with pytest.raises(RunError, match="other data"):
        augment(other, made, to="40", hyperparameters=QUICK, overwrite=True)


def test_an_unfinished_or_foreign_folder_is_not_read(made: Path, data: Data, tmp_path: Path) -> None:
    manifest = json.loads((made / "augment.json").read_text())
    (made / "augment.json").write_text(json.dumps({**manifest, "finished": False}))
    with pytest.raises(RunError, match="not finished"):
        read(made)
    augment(data, made, to="40", hyperparameters=QUICK)  # goes on, without being told to overwrite
    assert len(read(made).images)
    (made / "learnt-from.txt").unlink()
    with pytest.raises(RunError, match="which images the model saw"):
        read(made)
    with pytest.raises(RunError, match="does not say which images"):
        read(tmp_path / "own")


def test_images_that_somebody_removed_are_left_out_and_counted(made: Path) -> None:
    before = read(made)
    sorted((made / "synthetic").rglob("*.png"))[0].unlink()
    after = read(made)
    assert after.gone == 1 and len(after.images) == len(before.images) - 1


def test_a_given_run_must_be_of_the_same_training_images(made: Path, data: Data, tmp_path: Path) -> None:
    again = augment(data, tmp_path / "again", to="40", run=made / "run")
    np.testing.assert_array_equal(again.synthetic.images.x, read(made).images.x)
    fabulate.train("vae", data, out=tmp_path / "plain", conditional=True, quiet=True, **QUICK)
    assert cut_of_run(data, tmp_path / "plain", 0.1).held_out == ()
    with pytest.raises(RunError, match="was not trained on the training part"):
        augment(replace(data, fingerprint="0" * 32), tmp_path / "other", to="40", run=tmp_path / "plain")
    with pytest.raises(RunError, match="not a run folder"):
        augment(data, tmp_path / "other", run=tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"family": "vea"}, ConfigError, "did you mean 'vae'"),
        ({"to": "cow=5"}, ConfigError, "no class 'cow'"),
        ({"share": 1.0}, ConfigError, "0 to 1; given 1.0"),
        ({"hyperparameters": {"latent_dims": 5}}, ConfigError, "did you mean 'latent_dim'"),
        ({"large": True}, ConfigError, "8 to 256 pixels a side, given 264x264 gray: --size"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, data: Data, tmp_path: Path
) -> None:
    if options.pop("large", False):
        data = replace(data, train=Images(np.zeros((30, 1, 264, 264), np.uint8), np.arange(30) % 3))
    with pytest.raises(error, match=message):
        augment(data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert ends("augment", folder, "--to", "horse=30", "--steps", "20", "--out", out) == 0
    assert "fabulate prove" in capsys.readouterr().out
    assert {path.parent.name for path in (out / "synthetic").rglob("*.png")} == {"horse"}
    assert ends("augment", folder, "--to", "30", "--steps", "20", "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["augment", str(folder), "--run", "runs/x", "--steps", "5", "--out", str(out)])
    assert "not both" in capsys.readouterr().err


# The over-sampler


CHECKS = parametrize_with_checks([GenerativeOverSampler(hyperparameters={"steps": 2})])


@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)  # pytest wants a list
def test_imbalanced_learns_contract(estimator: GenerativeOverSampler, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore:.*repeated real images")  # the model has learnt for a second only
def test_the_over_sampler_adds_images_of_rare_classes_and_leaves_the_real_ones_as_they_are() -> None:
    images = labelled(COUNTS)
    rows, names = images.x.reshape(len(images), -1), np.array(CLASSES)[images.y]
    over = GenerativeOverSampler(
        sampling_strategy={"dog": 30, "horse": 30}, image_shape=tuple(SMALL), hyperparameters=QUICK
    )
    x, y = over.fit_resample(rows, names)
    np.testing.assert_array_equal(x[: len(rows)], rows)
    assert x.dtype == np.uint8 and {name: (y == name).sum() for name in CLASSES} == {"cat": 60, "dog": 30, "horse": 30}
    again, _ = clone(over).fit_resample(rows, names)
    np.testing.assert_array_equal(again, x)


def tables() -> dict[str, np.ndarray]:
    """Tables (300, 3) of several kinds, the last 60 rows shifted in their second column."""
    chance = np.random.default_rng(3)
    plain = chance.normal(size=(300, 3))
    shifted = plain + np.array([0, 3, 0]) * (np.arange(300) >= 240)[:, None]
    outlier = shifted.copy()
    outlier[10, 0] = outlier[250, 1] = 1e9
    mixed = shifted.copy()
    mixed[:, 2] = 7.5
    return {
        "Gaussian": shifted * np.array([1e-6, 1e6, 1]),
        "one far row": outlier,
        "heavy tails": np.sinh(2 * mixed),
        "small integers": np.rint(20 * shifted + 120).clip(0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "one far row" else pytest.param(kind, marks=pytest.mark.slow) for kind in tables()],
)
def test_rows_of_any_kind_are_made_as_their_class_is(kind: str) -> None:
    rows, y = tables()[kind], np.repeat([0, 1], [240, 60])
    x, _ = GenerativeOverSampler(hyperparameters={"steps": 250}).fit_resample(rows, y)
    made, real = x[300:].astype(np.float64), rows[240:].astype(np.float64)
    assert x.dtype == rows.dtype and np.isfinite(made).all()
    assert (made >= rows.min(0)).all() and (made <= rows.max(0)).all()
    for column in range(3):
        if np.ptp(real[:, column]) == 0:
            assert (made[:, column] == real[0, column]).all()
            continue
        low, high = np.quantile(real[:, column], [0.1, 0.9])
        assert low < np.median(made[:, column]) < high
        inside = np.mean((made[:, column] > low - (high - low)) & (made[:, column] < high + (high - low)))
        assert inside > 0.9  # with the range for a scale one row of 1e9 throws all others by millions


def test_columns_go_to_normal_scores_and_back() -> None:
    for kind, rows in tables().items():
        x = torch.from_numpy(rows.astype(np.float64))
        state = normal_scores.fit_columns(x)
        scores = normal_scores.normal_scores(state, x)
        assert scores.median(0).values.abs().max() < 0.2, kind
        back = normal_scores.from_normal_scores(state, scores)
        inner = ((x >= state["values"][0]) & (x <= state["values"][-1])).numpy()
        if rows.dtype.kind == "f":
            np.testing.assert_allclose(back.numpy()[inner], rows[inner], atol=0.1 * float(state["width"].max()))
    with_far, without = (
        normal_scores.fit_columns(torch.from_numpy(tables()[kind])) for kind in ("one far row", "Gaussian")
    )
    torch.testing.assert_close(with_far["width"], without["width"] * torch.tensor([1e6, 1e-6, 1]), rtol=0.05, atol=0)


@pytest.mark.parametrize("image_shape", [None, pytest.param((1, 8, 8), marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*repeated real images")
def test_a_fitted_over_sampler_and_its_pipeline_can_be_dumped(
    image_shape: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    images = labelled(COUNTS)
    rows = images.x.reshape(len(images), -1) if image_shape else images.x.reshape(len(images), -1)[:, :5] / 255.0
    over = GenerativeOverSampler(image_shape=image_shape, hyperparameters={"steps": 5})
    pipeline = make_pipeline(over, LogisticRegression(max_iter=1000, tol=1.0)).fit(rows, images.y)
    joblib.dump(pipeline, tmp_path / "pipeline.joblib")
    again = joblib.load(tmp_path / "pipeline.joblib")
    assert np.array_equal(again.predict(rows), pipeline.predict(rows))
    x, _ = clone(over).fit_resample(rows, images.y)
    assert np.array_equal(clone(pickle.loads(pickle.dumps(over))).fit_resample(rows, images.y)[0], x)


def test_too_few_good_samples_are_made_up_for_by_repeated_images_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, few = labelled(COUNTS), labelled({"cat": 0, "dog": 5, "horse": 48}, seed=5)

    def poor(*_: Any, **__: Any) -> Synthetic:
        return Synthetic(few, np.arange(len(few)), {}, {})

    monkeypatch.setattr(sampler, "rejection_sampling", poor)
    monkeypatch.setattr(GenerativeOverSampler, "_learn", lambda *_: None)
    with pytest.warns(
        UserWarning, match="class 1: 5 of 36 samples pass the filters; repeated real images fill the rest"
    ):
        x, y = GenerativeOverSampler(image_shape=tuple(SMALL)).fit_resample(images.x.reshape(96, -1), images.y)
    assert np.bincount(y).tolist() == [60, 60, 60]
    known = set(digests(images))
    repeated = [digest in known for digest in digests(Images(x[96:].reshape(-1, *SMALL)))]
    assert repeated == [False] * 5 + [True] * 31 + [False] * 48


@pytest.mark.parametrize(
    ("parameters", "rows", "message"),
    [
        ({"image_shape": (1, 3, 3)}, np.zeros((20, 4), np.uint8), "has 9 numbers, and rows of X have 4"),
        ({"image_shape": (1, 2, 2)}, np.full((20, 4), 7.0), "uint8, or floats in"),
    ],
)
def test_rows_that_are_no_images_are_told(parameters: dict[str, Any], rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GenerativeOverSampler(**parameters).fit_resample(rows, np.repeat([0, 1], [15, 5]))
