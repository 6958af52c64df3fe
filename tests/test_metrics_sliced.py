"""MIND: closed forms for shifts and for Gaussians, invariances, and an error that is the error."""

import pytest
import torch
from torch import Tensor

from fabulate.metrics import frechet_distance, monge_distance
from fabulate.metrics.sliced import MOST
from fabulate.seeds import generator


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "monge test"), dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_a_shift_is_three_times_its_square(dim: int) -> None:
    a, shift = normal(60, dim), normal(dim, seed=1)
    assert monge_distance(a, a + shift).value == pytest.approx(3 * float(shift.square().sum()), rel=1e-10)
    assert monge_distance(a, a[torch.randperm(60)]).value == pytest.approx(0, abs=1e-12)


def test_of_gaussians_it_is_what_theory_says() -> None:
    """On every line N(0, 1) and N(0, s^2) are (s - 1)^2 apart, so MIND is 3 D (s - 1)^2."""
    dim, scale, n = 4, 1.5, 4000
    found = monge_distance(normal(n, dim), scale * normal(n, dim, seed=1))
    error = (found.high - found.value) / 1.96
    assert abs(found.value - 3 * dim * (scale - 1) ** 2) < 5 * error and error < 0.2


def test_it_is_symmetric_scales_as_a_square_and_compares_equal_numbers() -> None:
    a, b = normal(80, 5), normal(90, 5, seed=1) + 1
    there, back = monge_distance(a, b), monge_distance(b, a)
    assert there == pytest.approx(back, rel=1e-9) and there.value > 0
    assert monge_distance(3 * a, 3 * b).value == pytest.approx(9 * there.value, rel=1e-9)
    assert monge_distance(a, b[:80]) == there != monge_distance(a, b, seed=1)
    many = normal(MOST + 10, 1)
    assert monge_distance(many, many[:MOST] + 1) == monge_distance(many[:MOST], many[:MOST] + 1)


def test_it_sees_what_means_and_covariances_do_not() -> None:
    """A cloud in two lumps, and a Gaussian of the same moments: the Fréchet distance is that of another sample."""
    n = 2000
    lumps = torch.sign(normal(n, 1)) + 0.1 * normal(n, 1, seed=1)
    lumps = (lumps - lumps.mean()) / lumps.std()
    same, other = [(x - x.mean()) / x.std() for x in (normal(n, 1, seed=2), normal(n, 1, seed=3))]
    assert frechet_distance(same, lumps) < 1e-9
    assert monge_distance(same, lumps).value > 20 * monge_distance(same, other).value


def test_its_error_is_that_of_other_images() -> None:
    shift = torch.tensor([0.5, 0.0, 0.0])
    runs = [monge_distance(normal(200, 3, seed=2 * i), normal(200, 3, seed=2 * i + 1) + shift) for i in range(60)]
    told = sum((run.high - run.value) / 1.96 for run in runs) / len(runs)
    seen = float(torch.tensor([run.value for run in runs]).std())
    assert 0.6 < told / seen < 1.6  # 60 runs know a deviation to 9 %, so five times that and some bias
