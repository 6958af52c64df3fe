"""The Fréchet and the kernel distance: closed forms, another implementation, invariances, and honest intervals."""

from math import sqrt

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from fabulate.errors import DataError
from fabulate.metrics import (
    Estimate,
    Moments,
    frechet_distance,
    frechet_interval,
    frechet_warning,
    kernel_distance,
)
from fabulate.metrics.distances import kernel_distances, mmd2
from fabulate.seeds import generator


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "frechet"), dtype=torch.float64)


def uniform(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=generator(seed, "kernel"), dtype=torch.float64)


def turned(n: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed)).Q


def test_it_is_the_closed_form_for_covariances_with_common_axes():
    axes, a, b = turned(6), torch.linspace(0, 2, 6).double(), torch.linspace(3, 0.5, 6).double()
    mean = normal(6, seed=1)
    first = Moments(100, torch.zeros(6).double(), axes @ a.diag() @ axes.T)
    second = Moments(100, mean, axes @ b.diag() @ axes.T)
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-7)


def test_it_is_the_closed_form_for_any_two_covariances_in_the_plane():
    a, b = normal(2, 2, seed=2), normal(2, 2, seed=3)
    a, b = a @ a.T, b @ b.T
    root = sqrt((a @ b).trace() + 2 * sqrt(torch.linalg.det(a @ b)))  # tr M^(1/2), M with eigenvalues above 0
    zero = torch.zeros(2).double()
    distance = frechet_distance(Moments(9, zero, a), Moments(9, zero, b))
    assert distance == pytest.approx(float(a.trace() + b.trace()) - 2 * root, rel=1e-9)


@pytest.mark.parametrize("dimensions", [1, 5, 40])
def test_it_is_that_of_torchmetrics(dimensions):
    a, b = normal(200, dimensions), 0.5 * normal(300, dimensions, seed=1) @ turned(dimensions) + 0.3
    expected = _compute_fid(
        *(f(x) for x in (a, b) for f in (lambda x: x.mean(0), lambda x: x.T.cov().reshape(2 * [dimensions])))
    )
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("n", [5, 200])  # 5 rows of 12 features: a covariance without full rank
def test_it_is_symmetric_zero_for_equal_sets_and_the_same_from_any_side(n):
    a, b, turn = normal(n, 12) + 5, normal(2 * n, 12, seed=1) * 2, turned(12)
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(a @ turn - 7, b @ turn - 7) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(Moments.of(a), b) == distance
    assert 0 <= frechet_distance(a, a) < 1e-9 * distance
    assert 0 <= frechet_distance(a.float(), a[torch.randperm(n)]) < 1e-5


@pytest.mark.parametrize(("shift", "least", "most"), [(1.0, 0.6, 1.6), (0.0, 0.8, 2.5)])
def test_its_interval_is_as_wide_as_repeated_draws_are_spread(shift, least, most):
    """40 draws know a spread to 11 %. Without a shift the bootstrap doubles the chance, as the docstring says."""
    intervals = [
        frechet_interval(normal(300, 4, seed=2 * i), normal(200, 4, seed=2 * i + 1) + shift, seed=i) for i in range(40)
    ]
    spread = float(torch.tensor([interval.value for interval in intervals]).std())
    told = sum(interval.high - interval.low for interval in intervals) / 40 / (2 * 1.96)
    assert least < told / spread < most


def test_its_interval_is_about_the_plain_value_and_repeats():
    a, b = normal(50, 3), normal(40, 3, seed=1)
    interval = frechet_interval(a, b, resamples=5)
    assert interval.value == frechet_distance(a, b) and interval == frechet_interval(a, b, resamples=5)
    assert interval != frechet_interval(a, b, resamples=5, seed=1)


def test_few_rows_are_told_in_words():
    assert frechet_warning(1280, 128) == ""
    assert "5%" in frechet_warning(1279, 128) and "1,280" in frechet_warning(1279, 128)
    assert "full rank" in frechet_warning(128, 128)


def test_moments_of_unequal_lengths_are_refused():
    with pytest.raises(DataError, match="a has 3 features a row and b has 4"):
        frechet_distance(Moments.of(normal(9, 3)), normal(9, 4))


def test_the_kernel_estimate_is_that_of_torchmetrics():
    a, b = normal(30, 5), 2 * normal(30, 5, seed=1) + 1
    torch.testing.assert_close(mmd2(a, b), poly_mmd(a, b))


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    values = torch.tensor(
        [kernel_distance(normal(50, 3, seed=2 * i), normal(60, 3, seed=2 * i + 1)).value for i in range(300)]
    )
    assert abs(values.mean()) < 5 * values.std() / sqrt(300)
    assert (values < 0).any()


@pytest.mark.slow
def test_its_interval_holds_the_truth_in_95_of_100_repeats():
    """Of one feature, MMD^2 is 3 d_1^2 + 3 d_2^2 + d_3^2, d_i the differences of raw moments; 5 sigma of 600 repeats.

    Uniform in (-1, 1) has moments 0, 1/3, 0, uniform in (0, 1) has 1/2, 1/3, 1/4.
    """
    truth = 3 / 4 + 1 / 16
    found = [kernel_distance(2 * uniform(100, 1, seed=2 * i) - 1, uniform(100, 1, seed=2 * i + 1)) for i in range(600)]
    held = sum(estimate.low < truth < estimate.high for estimate in found) / 600
    assert abs(held - 0.95) < 5 * sqrt(0.95 * 0.05 / 600)
    values = torch.tensor([estimate.value for estimate in found])
    assert abs(values.mean() - truth) < 5 * values.std() / sqrt(600)


@pytest.mark.parametrize(
    ("n", "m", "subsets"), [(100, 100, 10), (1000, 3000, 20), (30, 30, 7), (8, 9, 2), (7, 9, 1), (2, 2, 1)]
)
def test_subsets_are_disjoint_and_ten_where_they_can_be(n, m, subsets):
    a, b = normal(n, 2), normal(m, 2, seed=1)
    values = kernel_distances(a, b, size=50)
    assert len(values) == subsets
    estimate = kernel_distance(a, b, size=50)
    assert estimate.value == float(values.mean()) and (estimate.low == estimate.low) == (subsets > 1)
    assert estimate == Estimate.of_mean(values) or subsets == 1
    # With equal size per subset, all rows of a that are used are used once: doubling a row changes one subset at most.
    changed = kernel_distances(torch.cat([a[:1] * 2, a[1:]]), b, size=50)
    assert int((changed != values).sum()) <= 1
