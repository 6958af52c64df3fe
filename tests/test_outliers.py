"""Outlier detectors: scikit-learn's contract, the promised rate of false alarms, and that strange things are found."""

import csv
import warnings
from html import escape
from math import sqrt
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fabulate.cli import main
from fabulate.config import override
from fabulate.data import image_names, load_data
from fabulate.errors import CapabilityError, ConfigError, DataError, RunError
from fabulate.models.families import families
from fabulate.nets import MLP
from fabulate.nets.transforms import with_variants
from fabulate.seeds import seeded
from fabulate.training import configure, fit
from fabulate.uses.outliers import OutlierDetector, conformal, distances, groups, load_detector, save_detector
from fabulate.uses.outliers.distances import SHRUNK, fit_mahalanobis, mahalanobis
from fabulate.uses.outliers.features import scattering
from fabulate.uses.outliers.heat import gallery, painted
from fabulate.uses.outliers.scores import SCORES, bound, code_length, regret
from pages import loads
from tiny import SMALL, ends, pictures, small

FEW = "ignore:a false-alarm rate of"  # tiny data sets, where the warning is right
SIDE = 12
HYPERPARAMETERS = {"steps": 30, "batch_size": 32}


def rows(n: int, seed: int = 0, dim: int = 4) -> np.ndarray[Any, Any]:
    """Correlated and skewed rows (n, dim); the law is the same for every seed."""
    mixing = np.random.default_rng(1).normal(size=(dim, dim))
    x = np.random.default_rng([2, seed]).normal(size=(n, dim)) @ mixing
    x[:, 0] = np.exp(x[:, 0] / 2)
    return x


def waves(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Smooth uint8 images (n, 1, SIDE, SIDE)."""
    phase, slope = np.random.default_rng([3, seed]).random((2, n, 1, 1))
    place = np.arange(SIDE)
    images = np.sin((0.3 + 0.3 * slope) * place[:, None] + 0.2 * place + 2 * phase)
    return np.rint((images[:, None] + 1) * 100).astype(np.uint8)


def spoilt(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same with a square painted: rows 2 to 5, columns 6 to 9."""
    images = images.copy()
    images[:, :, 2:6, 6:10] = 255 - images[:, :, 2:6, 6:10]
    return images


@pytest.mark.filterwarnings(FEW)
@parametrize_with_checks([OutlierDetector(folds=3), OutlierDetector("mahalanobis", false_alarm=0.1)])
def test_scikit_learns_contract(estimator: OutlierDetector, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(("rate", "folds"), [(0.1, 5), (0.05, None)])
def test_the_rate_of_false_alarms_is_the_rate_asked_for(rate: float, folds: int | None) -> None:
    n, fresh, splits = 250, 400, 12
    found = []
    for seed in range(splits):
        detector = OutlierDetector(false_alarm=rate, folds=folds, random_state=seed).fit(rows(n, seed))
        found.append(np.mean(detector.predict(rows(fresh, seed + 100)) == -1))
    held = len(detector.normals_)
    k = conformal.rank(held, rate)
    expected = k / (held + 1)
    assert detector.false_alarm_.value == pytest.approx(expected)
    # The rate of one detector follows a beta distribution, and what is counted of it a binomial one.
    error = sqrt((stats.beta(k, held + 1 - k).var() + rate * (1 - rate) / fresh) / splits)
    assert abs(np.mean(found) - expected) < 5 * error


def test_p_values_of_normals_are_uniform() -> None:
    values = [OutlierDetector(random_state=s).fit(rows(300, s)).p_values(rows(50, s + 100)) for s in range(10)]
    assert stats.kstest(np.concatenate(values), "uniform").pvalue > 1e-4
    assert np.min(values) > 0 and np.max(values) <= 1


def test_a_calibrated_normal_has_its_rank_as_p_value_and_a_threshold_needs_enough_of_them() -> None:
    normals = np.array([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(conformal.p_values(np.array([0.0, 1.0, 2.0, 9.0]), normals), [0.2, 0.4, 0.8, 1.0])
    ranks = [conformal.rank(n, rate) for n, rate in ((99, 0.01), (98, 0.01), (19, 0.05), (999, 0.1))]
    assert ranks == [1, 0, 1, 100]  # one over alpha less one normals at least
    smooth = conformal.log_tails(np.array([-9.0, -1.0, 1.0, 1.5, 3.0, 4.0, 5.0]), normals)
    assert (np.diff(smooth) > 0).all() and smooth[-1] <= 0


def test_the_interval_holds_the_rate_as_often_as_it_says() -> None:
    """For uniform scores the rate below the k-th lowest of n is that value itself."""
    n, k, trials = 200, 10, 2000
    lowest = np.sort(np.random.default_rng(0).random((trials, n)), axis=1)[:, k - 1]
    about = conformal.false_alarms(k, n)
    inside = np.mean((about.low <= lowest) & (lowest <= about.high))
    assert abs(inside - 0.95) < 5 * sqrt(0.95 * 0.05 / trials)


def test_too_few_normals_are_told_and_the_strictest_threshold_taken() -> None:
    with pytest.warns(UserWarning, match=r"rate of 0\.01 needs 99 held-out normals, and there are 40: .* about 0\.024"):
        detector = OutlierDetector(false_alarm=0.01).fit(rows(40))
    assert detector.threshold_ == detector.normals_.min()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OutlierDetector(false_alarm=0.01).fit(rows(99))


def test_outliers_are_found_among_rows_and_units_do_not_matter() -> None:
    normals, others = rows(200), rows(30, 1)
    strange = others + 30
    detector = OutlierDetector().fit(normals)
    assert (detector.predict(strange) == -1).all()
    assert detector.score_samples(strange).max() < detector.score_samples(others).min()
    units = np.array([1e-3, 1.0, 1e4, 7.0])
    again = OutlierDetector().fit(normals * units + 5)
    np.testing.assert_allclose(again.score_samples(others * units + 5), detector.score_samples(others), rtol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_outliers_are_found_among_images_of_either_form(flat: bool) -> None:
    normals, others = waves(150), waves(40, 1)
    x, good, bad = (part.reshape(len(part), -1) if flat else part for part in (normals, others, spoilt(others)))
    detector = OutlierDetector(image_shape=(1, SIDE, SIDE) if flat else None).fit(x)
    assert (detector.predict(bad) == -1).all()
    assert detector.score_samples(bad).max() < detector.score_samples(good).min()
    floats = good.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(detector.score_samples(floats), detector.score_samples(good), atol=1e-4)


@pytest.mark.parametrize("scores", [None, "reconstruction"])
def test_heat_maps_point_where_a_square_was_painted(scores: str | None) -> None:
    budget = {**HYPERPARAMETERS, "steps": 300, "network": MLP(hidden=(64,)), "latent_dim": 8, "components": 1}
    detector = OutlierDetector(scores, hyperparameters=budget).fit(waves(150))
    images = waves(20, 1)
    heat = detector.heat_maps(spoilt(images))
    assert heat.shape == (20, SIDE, SIDE)
    inside = heat[:, 2:6, 6:10].mean((1, 2))
    outside = (heat.sum((1, 2)) - heat[:, 2:6, 6:10].sum((1, 2))) / (SIDE * SIDE - 16)
    assert (inside > 1.3 * outside).all() and inside.mean() > 2 * outside.mean()
    assert (inside > 2 * detector.heat_maps(images)[:, 2:6, 6:10].mean((1, 2))).all()


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.needs is not None])
def test_every_score_of_a_model_finds_noise(name: str) -> None:
    normals, noise = waves(120), np.random.default_rng(0).integers(0, 256, (10, 1, SIDE, SIDE)).astype(np.uint8)
    budget = {**HYPERPARAMETERS, "steps": 150, **small("vae")}
    detector = OutlierDetector(name, family="vae", hyperparameters=budget).fit(normals)
    if name != "likelihood:complexity":  # which forgives noise for being complex
        assert detector.score_samples(noise).max() < np.median(detector.normals_)
    assert len(detector.normals_) == 24  # one fold of five
    assert np.isfinite(detector.score_samples(noise)).all()


def test_scores_of_a_model_judge_rows_too() -> None:
    detector = OutlierDetector(["reconstruction", "latent"], hyperparameters=HYPERPARAMETERS).fit(rows(100))
    assert detector.score_samples(rows(20, 1) + 50).max() < detector.score_samples(rows(20, 1)).mean()


def test_the_mahalanobis_distance_is_that_of_a_known_gaussian() -> None:
    scale = torch.tensor([1.0, 2.0, 0.5, 4.0]).double()
    normals = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 4))) * scale
    x = torch.eye(4).double() * scale * 3
    # A deviation is known to one part in the root of 2 n; the covariance is shrunk by less than that here.
    torch.testing.assert_close(
        mahalanobis(fit_mahalanobis(normals), x), torch.full((4,), -1.5).double(), rtol=0.1, atol=0
    )


def test_directions_in_which_normals_do_not_move_count_for_so_much_and_no_more() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 3))) @ torch.tensor(
        [[1.0, 0, 1], [0, 1, 0], [0, 0, 1e-3]], dtype=torch.float64
    )  # the third number repeats the first, nearly
    state = fit_mahalanobis(x, equal=True)
    apart = torch.stack([state["mean"], state["mean"] + torch.tensor([0.0, 0, 1]).double() * x.std(0)])
    # (1 - s) C + s I has on (0, 0, 1) at most 1 / s, where C alone would have a million
    assert 0.25 / SHRUNK < (mahalanobis(state, apart)[1] * 3**0.5) ** 2 < 1 / SHRUNK


def test_variants_are_near_their_images_which_come_first() -> None:
    x = torch.from_numpy(waves(20)).float() / 127.5 - 1
    both = with_variants(x, 2, seed=3)
    assert both.shape == (60, 1, SIDE, SIDE)
    torch.testing.assert_close(both[:20], x)
    apart = (both[20:40] - x).flatten(1).norm(dim=1)
    between = (x[1:] - x[:-1]).flatten(1).norm(dim=1).mean()
    assert apart.min() > 0 and apart.mean() < between / 2 and (both[20:40] != both[40:]).any()
    assert both.min() >= -1 and both.max() <= 1
    torch.testing.assert_close(with_variants(x, 2, seed=3), both)
    assert (with_variants(x, 1, seed=4)[20:] != both[20:40]).any()
    flat = torch.full((3, 3, SIDE, SIDE), 0.25)  # the border goes on
    torch.testing.assert_close(with_variants(flat, 1, seed=0), torch.full((6, 3, SIDE, SIDE), 0.25))


def test_a_detector_that_learnt_variants_bears_another_hand() -> None:
    normals, others = waves(100), waves(100, 1)
    moved = with_variants(torch.from_numpy(others).float() / 127.5 - 1, 1, seed=9)[100:].numpy()
    plain, bearing = (OutlierDetector(variants=n).fit(normals) for n in (0, 2))
    assert np.median(bearing.p_values(moved)) > 2 * np.median(plain.p_values(moved))
    assert (bearing.predict(spoilt(others)) == -1).all()


def test_likelihood_regret_is_never_negative_and_larger_for_what_was_not_learnt() -> None:
    images = pictures(SMALL, 200)
    normals = images.batch(torch.arange(200)).x
    config, training = configure("vae", "default", {**small("vae"), "steps": 200, "seed": 0})
    model = fit("vae", config, training, images, SMALL)
    noise = 2 * torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    strange, usual = regret(model, noise), regret(model, normals[:20])  # type: ignore[arg-type]
    assert (strange >= 0).all() and (usual >= 0).all()
    assert strange.median() > usual.median()  # a few normals have bad codes as well
    torch.testing.assert_close(regret(model, noise[3:4]), strange[3:4], rtol=1e-3, atol=1e-2)  # type: ignore[arg-type]


@pytest.mark.parametrize("centre", ["gray", "mean"])
def test_the_bound_of_regret_at_the_encoders_posterior_is_the_elbo(centre: str, float64: None) -> None:
    images = pictures(SMALL, 40)
    cls: Any = families()["vae"]
    model = cls(override(cls.Config(), {**small("vae"), "centre": centre}), SMALL)
    model.init_from_data(images)
    batch = images.batch(torch.arange(20))
    with torch.no_grad(), seeded(0, "score"):
        mean, logvar = model.posterior(batch)
        found = bound(model, batch, mean, logvar, torch.randn_like(mean)[None])
    exact = model.evidence(batch.x, seed=0)  # with the same noise
    torch.testing.assert_close(found, exact.bound)


def test_noise_takes_all_its_nats_in_the_code_and_plain_images_few() -> None:
    chance = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, 1, 64, 64), generator=chance).to(torch.uint8)
    plain = torch.full((1, 1, 64, 64), 90, dtype=torch.uint8)
    full = 64 * 64 * np.log(256)
    assert (code_length(noise) >= 0.98 * full).all()
    assert code_length(plain).item() < 0.1 * full
    torch.testing.assert_close(code_length(noise.flip(0)), code_length(noise).flip(0))


def test_scattering_of_a_constant_has_its_average_only_and_forgets_small_shifts() -> None:
    level = scattering(torch.full((1, 1, 28, 28), 0.5))
    size = 7 * 7  # the average's places
    torch.testing.assert_close(level[:, :size], torch.full((1, size), 0.75), rtol=1e-4, atol=1e-4)
    assert level[:, size:].abs().max() < 1e-4
    x = torch.from_numpy(waves(20)).float() / 127.5 - 1
    x = torch.nn.functional.pad(x, (8, 8, 8, 8), value=-1)
    apart = (x[1:] - x[:-1]).flatten(1).norm(dim=1).mean()
    moved = x.roll(1, dims=3)
    features = scattering(x)
    kept = (scattering(moved) - features).norm(dim=1).mean() / (features[1:] - features[:-1]).norm(dim=1).mean()
    assert kept < (moved - x).flatten(1).norm(dim=1).mean() / apart


def test_the_same_random_state_gives_the_same_detector() -> None:
    x, others = rows(60), rows(20, 1)
    first, again, other = (OutlierDetector(folds=3, random_state=s).fit(x).score_samples(others) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("scores", [None, "reconstruction"])
@pytest.mark.parametrize("data", [rows, waves])
def test_a_detector_comes_back_from_the_disk_as_it_was(tmp_path: Path, data: Any, scores: str | None) -> None:
    detector = OutlierDetector(scores, hyperparameters=HYPERPARAMETERS).fit(data(60))
    save_detector(detector, tmp_path / "run")
    back = load_detector(tmp_path / "run")
    np.testing.assert_allclose(back.decision_function(data(20, 1)), detector.decision_function(data(20, 1)), rtol=1e-6)
    assert back.false_alarm_ == detector.false_alarm_
    if data is waves:
        np.testing.assert_allclose(back.heat_maps(data(5, 1)), detector.heat_maps(data(5, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"scores": "likelihod"}, ConfigError, "no score 'likelihod'; did you mean 'likelihood'?"),
        ({"scores": []}, ConfigError, "a detector needs a score"),
        ({"scores": "mahalanobis:scattering"}, ConfigError, "is of images, and these are rows"),
        ({"scores": "likelihood", "family": "gan"}, CapabilityError, "cannot be had from the family 'gan'; families"),
        ({"scores": "likelihood:regret"}, CapabilityError, "families that can: vae"),
        ({"scores": "latent", "family": "vea"}, ConfigError, "did you mean 'vae'?"),
        ({"false_alarm": 1.0}, ConfigError, "0 to 1; given 1.0"),
        ({"folds": 1}, ConfigError, "at least 2 folds"),
        ({"strays": 0.7}, ConfigError, "0 to 0.5, or 'auto'; given 0.7"),
        (
            {"variants": 1},
            ConfigError,
            "variants are slightly moved copies of each image, 0 or more, none of rows; given 1",
        ),
        ({"image_shape": (1, 3, 3)}, DataError, "has 9 numbers, and rows of X have 4"),
    ],
)
def test_mistakes_are_told(parameters: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("?", r"\?")):
        OutlierDetector(**parameters).fit(rows(30))


def test_what_was_not_fitted_or_is_no_detector_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        OutlierDetector().predict(rows(5))
    with pytest.raises(RunError, match="holds no detector"):
        load_detector(tmp_path)
    detector = clone(OutlierDetector()).fit(rows(30))
    with pytest.raises(DataError, match="heat maps are of images"):
        detector.heat_maps(rows(5))
    with pytest.raises(DataError, match="all normals are equal"):
        OutlierDetector().fit(np.ones((30, 4)))
    with pytest.raises(DataError, match="images must have the shape"):
        OutlierDetector().fit(waves(30)).predict(waves(5)[..., 1:])


@pytest.fixture(scope="module")
def digits() -> np.ndarray[Any, Any]:
    """All digits inside scikit-learn, in no order: uint8 (N, 1, 8, 8)."""
    x = load_data("digits").train.x
    return x[np.random.default_rng(4).permutation(len(x))]


def grain(x: np.ndarray, seed: int) -> np.ndarray:
    """Images with a little noise, as another file format would leave it."""
    noise = np.random.default_rng(seed).normal(0, 1.5, x.shape)
    return np.clip(np.rint(x + noise), 0, 255).astype(np.uint8)


COPIES = "ignore:.*look like several pictures of one thing"


@pytest.mark.filterwarnings(COPIES)
@pytest.mark.parametrize("scores", [None, "knn"])
def test_normals_that_are_there_several_times_break_no_promise(digits: np.ndarray, scores: str | None) -> None:
    normals, others = digits[:300], digits[300:1500]
    detector = OutlierDetector(scores).fit(np.concatenate([normals, normals, *(grain(normals, s) for s in range(3))]))
    assert 280 <= len(set(detector.groups_)) <= 310
    assert 0.02 < np.mean(detector.predict(others) < 0) < 0.08  # 5 % are promised; it was 9 to 80


@pytest.mark.filterwarnings(COPIES)
def test_rows_that_are_there_several_times_break_no_promise() -> None:
    chance = np.random.default_rng(5)
    normals, others = chance.normal(size=(200, 6)), chance.normal(size=(4000, 6))
    near = normals + 1e-4 * chance.normal(size=normals.shape)
    for given in (np.concatenate([normals] * 5), np.concatenate([normals, near, near])):
        detector = OutlierDetector().fit(given * np.array([1, 1e3, 1, 1, 1e-3, 1]))
        assert 190 <= len(set(detector.groups_)) <= 200
        assert 0.02 < np.mean(detector.predict(others * np.array([1, 1e3, 1, 1, 1e-3, 1])) < 0) < 0.09


def exposures(x: np.ndarray, times: int, seed: int) -> np.ndarray:
    """Each image several times, lighter and darker and with noise."""
    chance = np.random.default_rng(seed)
    shown = x.repeat(times, 0) * np.exp(chance.uniform(-0.6, 0.6, (len(x) * times, 1, 1, 1)))
    return np.clip(np.rint(shown + chance.normal(0, 2, shown.shape)), 0, 255).astype(np.uint8)


@pytest.mark.filterwarnings(COPIES)
@pytest.mark.parametrize("given", [True, False])
def test_exposures_of_one_thing_are_left_out_together(digits: np.ndarray, given: bool) -> None:
    normals, others = exposures(digits[:150], 4, 0), exposures(digits[150:550], 4, 1)
    one, plain = np.arange(150).repeat(4), np.arange(600)
    rates = [
        np.mean(OutlierDetector(false_alarm=0.1).fit(normals, groups=labels).predict(others) < 0)
        for labels in (one if given else None, plain)
    ]
    assert 0.06 < rates[0] < 0.16  # of 150 groups
    assert rates[1] > 0.25  # taken for single images


def test_a_normal_of_a_group_calibrates_by_its_share() -> None:
    """Groups of equal scores are as single scores; p-values and threshold agree."""
    normals = np.random.default_rng(0).normal(size=40)
    four, weight = normals.repeat(4), np.full(160, 0.25)
    x = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(conformal.p_values(x, four, weight), conformal.p_values(x, normals))
    assert conformal.threshold(four, 0.1, weight) == pytest.approx(conformal.threshold(normals, 0.1))
    uneven = conformal.weights(np.random.default_rng(1).integers(0, 60, 200))
    scores = np.random.default_rng(2).normal(size=200)
    p, bound = conformal.p_values(x, scores, uneven), conformal.threshold(scores, 0.1, uneven)[0]
    np.testing.assert_array_equal(p <= 0.1 + 1e-12, x < bound)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize(("n", "d", "equal"), [(90, 4, False), (60, 100, True)])
def test_what_a_fit_says_of_those_left_out_is_what_a_fit_without_them_says(n: int, d: int, m: int, equal: bool) -> None:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).double() * torch.linspace(0.1, 3, d)
    group = torch.arange(n) // m
    parts = [(x[group != g], x[group == g]) for g in range(n // m)]

    def near(found: torch.Tensor, anew: list[torch.Tensor], most: float) -> None:
        # What a fit without them shrinks, and what it divides by, is a little other than that of all.
        assert (found / torch.cat(anew) - 1).abs().max() < most

    found = distances.mahalanobis_left_out(fit_mahalanobis(x, equal=equal), x, group)
    near(found, [mahalanobis(fit_mahalanobis(rest, equal=equal), left) for rest, left in parts], 0.06)
    found = distances.knn_left_out(distances.fit_knn(x), x, group)
    near(found, [distances.knn(distances.fit_knn(rest), left) for rest, left in parts], 1e-9)


@pytest.mark.parametrize("d", [1, 3, 40])
def test_rows_that_repeat_nothing_are_hardly_ever_grouped(d: int) -> None:
    chance = np.random.default_rng(d)
    for x in (chance.normal(size=(1500, d)), chance.random((1500, d)), np.sinh(2 * chance.normal(size=(1500, d)))):
        assert groups.alike(groups.of_rows(torch.from_numpy(x))) < 0.02


def test_rows_of_few_values_that_are_equal_by_chance_are_no_groups() -> None:
    chance = np.random.default_rng(0)
    for x in (chance.integers(0, 3, (400, 4)), chance.random((400, 6)) < 0.3):
        assert groups.alike(groups.of_rows(torch.from_numpy(x).double())) < 0.05


def test_images_that_show_different_things_are_no_groups(digits: np.ndarray) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (1, 1, 16, 16)).repeat(200, 0)  # one camera, one place
    for images in (digits[:500], grain(scene, 1)):
        assert groups.alike(groups.of_images(torch.from_numpy(images).float() / 127.5 - 1)) < 0.1


def test_beside_one_far_normal_what_is_farther_out_still_scores_lower() -> None:
    normals = np.random.default_rng(0).normal(size=(300, 3))
    normals[7] = 1e9
    near, far = OutlierDetector().fit(normals).score_samples([[10.0, 0, 0], [40.0, 0, 0]])
    assert far < near - 0.5


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_the_rate_holds_for_few_rows_of_many_numbers(rate: float) -> None:
    chance, found = np.random.default_rng(7), []
    for _ in range(6):
        x = np.exp(chance.normal(size=(460, 80)) / 2)
        found.append(np.mean(OutlierDetector(false_alarm=rate).fit(x[:60]).predict(x[60:]) < 0))
    assert rate / 3 < np.mean(found) < 1.8 * rate


def test_normals_that_are_none_are_told_and_left_out() -> None:
    good, fresh = rows(500), rows(2000, 5)
    bad = np.random.default_rng(3).uniform(-20, 20, (30, 4))
    both = np.concatenate([good, bad])
    with pytest.warns(UserWarning, match=r"about [456]% of the normals lie farther out than is usual"):
        kept = OutlierDetector().fit(both)
    left = OutlierDetector(strays=30 / 530).fit(both)
    assert left.strays_.sum() == 30 and left.strays_[500:].mean() > 0.9
    assert np.mean(kept.predict(fresh) < 0) < 0.02  # the promise is of normals that are as mixed
    assert 0.03 < np.mean(left.predict(fresh) < 0) < 0.09


def test_normals_that_lie_together_elsewhere_are_left_out() -> None:
    x = np.abs(np.random.default_rng(1).normal(size=600))
    assert conformal.strays(np.append(x, np.linspace(8, 10, 30)))[600:].mean() > 0.9


@pytest.mark.parametrize("law", ["normal", "standard_cauchy", "exponential"])
def test_heavy_tails_are_no_strays(law: str) -> None:
    chance = np.random.default_rng(8)
    assert sum(conformal.strays(np.abs(getattr(chance, law)(size=400))).sum() for _ in range(40)) < 40


@pytest.mark.parametrize("scores", [["mahalanobis"], ["reconstruction"]])
def test_a_fitted_detector_can_be_dumped(scores: list[str], tmp_path: Path) -> None:
    detector = OutlierDetector(scores, hyperparameters={"steps": 3}, false_alarm=0.2).fit(waves(60))
    joblib.dump(detector, tmp_path / "detector.joblib")
    again = joblib.load(tmp_path / "detector.joblib")
    assert np.array_equal(again.score_samples(waves(9, 1)), detector.score_samples(waves(9, 1)))
    assert clone(again).get_params() == detector.get_params()


def written(folder: Path, images: np.ndarray[Any, Any], names: list[str] | None = None) -> None:
    """Images as PNGs of a folder."""
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / (names[i] if names else f"{i:03}.png"))


def test_the_page_names_each_image_and_escapes_it_and_the_table_holds_no_formula(tmp_path: Path) -> None:
    names = ["=1+1.png", "@b.png", "-c.png", "<b>.png", *(f"{i}.png" for i in range(8))]
    written(tmp_path / "normal", waves(60))
    written(tmp_path / "others", waves(len(names), 1), names)
    assert ends("outliers", "fit", tmp_path / "normal", "--out", tmp_path / "run") == 0
    assert ends("outliers", "score", tmp_path / "run", tmp_path / "others") == 0
    page = (tmp_path / "run" / "others" / "outliers.html").read_text()
    assert page.count("<figure>") == len(names) + 1 and "Threshold: score" in page
    assert "<b>.png" not in page and all(page.count(escape(name)) >= 2 for name in names)
    with (tmp_path / "run" / "others" / "outliers.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["image"] for row in table} >= {"'=1+1.png", "'@b.png", "'-c.png", "<b>.png"}
    assert all(float(row["score"]) <= 0 for row in table)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Normal images, and a folder of others with a spoilt one among them, and a file that is none."""
    written(tmp_path / "normal", waves(120))
    written(tmp_path / "others", waves(30, 1))
    Image.fromarray(spoilt(waves(1, 2))[0, 0]).save(tmp_path / "others" / "007-spoilt.png")
    (tmp_path / "others" / "003.png").write_bytes(b"no image")
    return tmp_path


def test_the_command_learns_ranks_and_shows(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folders / "run"
    main(["outliers", "fit", str(folders / "normal"), "--false-alarm", "0.1", "--variants", "1", "--out", str(run)])
    assert "108 normal images, 108 of them held out" in capsys.readouterr().out
    main(["outliers", "score", str(run), str(folders / "others"), "-n", "10"])
    assert "of 30 images are outliers; of normal images 9.17 %" in capsys.readouterr().out
    with (run / "others" / "outliers.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in table] == list(range(1, 31))
    assert table[0]["image"] == "007-spoilt.png" and table[0]["outlier"] == "yes"
    assert {row["image"] for row in table} == {path.name for path in (folders / "others").iterdir()} - {"003.png"}
    scores = [float(row["score"]) for row in table]
    assert scores == sorted(scores)
    detector = load_detector(run)
    with Image.open(folders / "others" / "012.png") as image:
        own = detector.score_samples(np.array(image)[None, None])
    assert float(next(row["score"] for row in table if row["image"] == "012.png")) == pytest.approx(own[0], rel=1e-4)
    loaded = loads(run / "others" / "outliers.html")
    assert loaded and all(load.startswith("data:image/png;base64,") for load in loaded)


def test_names_of_files_say_what_belongs_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "normal", waves(120), [f"tile{i // 3:02}_exp{i % 3}.png" for i in range(120)])
    fit = ["outliers", "fit", tmp_path / "normal", "--false-alarm", "0.1", "--out"]
    assert ends(*fit, tmp_path / "run", "--groups", "(.*)_exp") == 0
    assert "108 in 39 groups" in capsys.readouterr().out
    assert load_detector(tmp_path / "run").weights_.sum() == pytest.approx(39)
    for pattern, message in (("(.*", "is none"), ("tile", "has none"), ("(x+)y", "fits none of 108 names")):
        assert ends(*fit, tmp_path / "other", "--groups", pattern) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ftt"], "outliers takes fit or score, and not 'ftt'; did you mean 'fit'?"),
        (["fit", "digits", "--normal", "eleven"], "digits has no class eleven (classes: 0, 1"),
        (["score", "nowhere", "digits"], "nowhere holds no detector"),
        (["fit", "digits", "--scores", "likelihood:regret"], "families that can: vae"),
    ],
)
def test_mistakes_in_the_command_end_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["outliers", *words])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("test_part", ["none", "broken"])
def test_the_images_of_a_folder_have_the_names_of_their_files(tmp_path: Path, test_part: str) -> None:
    parts = {"none": ["."], "broken": ["train", "test"]}[test_part]
    for i, image in enumerate(waves(44)):
        part = tmp_path / parts[0 if i < 30 else -1]
        part.mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(part / f"{i}.png")
        if i == 7 or (test_part == "broken" and i >= 30):
            (part / f"{i}.png").write_bytes(b"no image")
    data = load_data(tmp_path, limit_broken=0.5)
    assert data.test is not None and len(data.test) == {"none": 4, "broken": 2}[test_part]
    named, pixels = image_names(data), np.concatenate([data.train.x, data.test.x])
    assert len(set(named)) == len(pixels)
    for name, image in zip(named, pixels, strict=True):
        with Image.open(tmp_path / name) as file:
            np.testing.assert_array_equal(np.array(file), image[0])


def test_a_warning_at_scoring_is_a_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "few", np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8), dtype=np.uint8))
    assert ends("outliers", "fit", tmp_path / "few", "--out", tmp_path / "run") == 0
    capsys.readouterr()
    assert ends("outliers", "score", tmp_path / "run", tmp_path / "few", "--out", tmp_path / "ranking") == 0
    told = capsys.readouterr().err
    assert "Warning: a false-alarm rate of 0.05 needs 19" in told and "UserWarning" not in told


def test_images_of_a_list_are_not_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, words = (
        tmp_path / "some",
        ("--false-alarm", "0.2", "--without", tmp_path / "reject.txt", "--out", tmp_path / "run"),
    )
    written(folder, np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    data = load_data(folder)
    names = image_names(data)
    (tmp_path / "reject.txt").write_text(f"{names[2]}\n{names[5]}\n")
    assert ends("outliers", "fit", folder, *words) == 0
    assert capsys.readouterr().out.startswith(f"{len(data.train) - 2} normal images")
    (tmp_path / "reject.txt").write_text("none.png\n")
    assert ends("outliers", "fit", folder, *words, "--overwrite") == 2
    assert "there is no image 'none.png' to leave out" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_heat_maps_are_drawn_over_images_of_any_channels(channels: int) -> None:
    images = np.full((2, channels, 9, 11), 60, np.uint8)
    assert painted(images, np.zeros((2, 9, 11))).shape == (2, 3, 9, 11)
    height = gallery(images, np.zeros((2, 9, 11))).height
    assert height == gallery(images[:, :1], np.zeros((2, 9, 11))).height
