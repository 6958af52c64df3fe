"""Precision, recall, density, coverage: another implementation, samplers with known faults, and the seven together."""

from math import sqrt

import pytest
import torch
from prdc import compute_prdc
from torch import Tensor

from fabulate.errors import DataError
from fabulate.metrics import (
    density_coverage,
    fidelity,
    frechet_interval,
    kernel_distance,
    manifold,
    monge_distance,
    precision_recall,
)
from fabulate.metrics.manifold import nearest_rows, radii
from fabulate.seeds import generator

FOUR = ("precision", "recall", "density", "coverage")


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "manifold"), dtype=torch.float64)


def four(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    found = {**precision_recall(real, fake, k)._asdict(), **density_coverage(real, fake, k)._asdict()}
    return {name: estimate.value for name, estimate in found.items()}


def clusters(n: int, kept: int = 10, seed: int = 0) -> Tensor:
    """n rows of `kept` of 10 clusters, far apart for their width."""
    which = torch.randint(kept, (n,), generator=generator(seed, "clusters"))
    return 20 * normal(10, 5, seed=99)[which] + normal(n, 5, seed=seed)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "shift"), [(80, 80, 0.0), (60, 130, 0.5), (130, 60, 2.0)])
def test_all_four_are_those_of_prdc(k, n, m, shift):
    real, fake = normal(n, 6), normal(m, 6, seed=1) * 0.8 + shift
    assert four(real, fake, k) == pytest.approx(compute_prdc(real.numpy(), fake.numpy(), k), abs=1e-12)


def test_a_ball_holds_its_border():
    """Copies of one image k + 1 times over have balls of radius 0, which hold their copies; prdc, with <, says not."""
    real = torch.ones(6, 3)
    assert four(real, torch.ones(4, 3), 3) == pytest.approx({**dict.fromkeys(FOUR, 1.0), "density": 2.0})
    assert four(real, torch.ones(4, 3) + 1e-3, 3) == dict.fromkeys(FOUR, 0.0)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equal_sets_lie_in_each_others_balls(offset):
    """And each real ball holds k neighbours and its centre, however far from 0 the features are."""
    real = normal(50, 4) + offset
    assert four(real, real.clone(), 4) == pytest.approx({**dict.fromkeys(FOUR, 1.0), "density": 5 / 4})


def test_rounding_does_not_push_what_is_on_a_border_out_of_the_ball():
    """40 points as far from one as its nearest neighbour; without slack about half would fall out."""
    far = 1e4 + 100 * torch.arange(3)[:, None] * torch.ones(5).double()
    around = far[0] + 10 * torch.nn.functional.normalize(normal(40, 5), dim=1)
    apart = torch.cat([far, far[:1] + 10 * torch.eye(5)[:1]])
    assert precision_recall(apart, around, 1).precision.value == 1
    assert precision_recall(around, apart, 1).recall.value == 1


def test_all_four_do_not_depend_on_where_zero_is():
    real, fake = normal(60, 5), normal(70, 5, seed=1) + 0.5
    assert four(real + 1e6, fake + 1e6, 3) == four(real, fake, 3)


def test_equal_distributions_have_the_density_and_coverage_that_theory_gives():
    """Density 1; coverage 1 - (M's chance to miss all of the first k of N + M neighbours), for N = M about 1 - 2^-k.

    20 draws of 300; five standard errors.
    """
    draws = [four(normal(300, 2, seed=2 * i), normal(300, 2, seed=2 * i + 1), 3) for i in range(20)]
    for name, expected in (("density", 1.0), ("coverage", 1 - 299 * 298 * 297 / (599 * 598 * 597))):
        values = torch.tensor([draw[name] for draw in draws])
        assert abs(values.mean() - expected) < 5 * values.std() / sqrt(20)


def test_a_sampler_that_drops_three_of_ten_modes_loses_recall_and_coverage_but_not_precision():
    """600 rows; five standard errors of a share over 600."""
    real, honest, dropping = clusters(600), clusters(600, seed=1), clusters(600, kept=7, seed=2)
    before, after = (four(real, fake, 3) for fake in (honest, dropping))
    error = 5 * sqrt(0.25 / 600)
    assert abs(after["precision"] - before["precision"]) < error
    assert before["recall"] - after["recall"] > 0.3 * before["recall"] - error
    assert before["coverage"] - after["coverage"] > 0.3 * before["coverage"] - error


def test_one_image_again_and_again_is_precise_and_covers_nothing():
    real = normal(200, 4)
    found = four(real, real[:1].repeat(200, 1), 3)
    assert found["precision"] == 1 and found["recall"] == 1 / 200 and found["coverage"] < 0.1


@pytest.mark.parametrize("cells", [1, 100, 1000])
def test_blocks_of_any_size_give_the_same(monkeypatch, cells):
    real, fake = normal(60, 5).round(), normal(45, 5, seed=1).round()  # rounded: many distances are equal
    whole = fidelity(real, fake), nearest_rows(real, fake), radii(real, 3)
    monkeypatch.setattr(manifold, "CELLS", cells)
    assert fidelity(real, fake) == whole[0]
    assert torch.equal(nearest_rows(real, fake)[1], whole[1][1])
    torch.testing.assert_close(radii(real, 3), whole[2])


def test_the_nearest_row_is_that_of_all_distances_and_equal_rows_are_exactly_zero_apart():
    a, b = normal(40, 7) + 100, normal(70, 7, seed=1) + 100
    b[5] = a[3]
    indices, found = nearest_rows(a, b)
    every = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(indices, every.argmin(1))
    torch.testing.assert_close(found, every.amin(1))
    assert indices[3] == 5 and found[3] == 0
    others, apart = nearest_rows(a, a, but=torch.arange(40))
    assert (others != torch.arange(40)).all() and (apart > 0).all()


def test_six_numbers_at_once_are_those_of_each_function_in_their_order():
    real, fake = normal(90, 6), normal(70, 6, seed=1) + 0.3
    assert fidelity(real, fake, seed=4) == {
        "frechet_distance": frechet_interval(real, fake, seed=4),
        "kernel_distance": kernel_distance(real, fake, seed=4),
        "monge_distance": monge_distance(real, fake, seed=4),
        **precision_recall(real, fake)._asdict(),
        **density_coverage(real, fake)._asdict(),
    }
    assert list(fidelity(real, fake)) == ["frechet_distance", "kernel_distance", "monge_distance", *FOUR]


@pytest.mark.parametrize(("compute", "k"), [(precision_recall, 3), (density_coverage, 5), (fidelity, 5)])
def test_fewer_rows_than_neighbours_are_refused(compute, k):
    compute(normal(k + 1, 2), normal(k + 1, 2, seed=1))
    with pytest.raises(DataError, match=f"fake: {k} rows of features are too few here; give {k + 1} or more"):
        compute(normal(k + 1, 2), normal(k, 2))
