"""Noise paths and prediction targets: derivatives, inverses and limits, in float64."""

from itertools import product

import pytest
import torch

from fabulate.paths import DATA_STD, FIRST, LAST, PATHS, STEPS, TARGETS, TIMES, invert
from fabulate.seeds import generator

TIMES_OF_ALL_STEPS = ((torch.arange(STEPS, dtype=torch.float64) + 1) / (STEPS + 1)).requires_grad_()
VARIANCE_PRESERVING = ["cosine", "ddpm"]


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "paths"), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
def test_derivatives_are_the_derivatives(path):
    t = TIMES_OF_ALL_STEPS
    level = PATHS[path].level(t)
    for value, derivative in ((level.alpha, level.d_alpha), (level.sigma, level.d_sigma)):
        (slope,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        torch.testing.assert_close(derivative.detach(), slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_from_the_image_to_noise_and_never_back(path):
    ends = PATHS[path].level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.alpha[0] == 1
    assert ends.sigma[0] == 0
    assert ends.alpha[1] < 0.01
    assert ends.sigma[1] > 0.99
    level = PATHS[path].level(TIMES_OF_ALL_STEPS)
    assert (level.d_alpha < 0).all()
    assert (level.d_sigma > 0).all()


@pytest.mark.parametrize("path", VARIANCE_PRESERVING)
def test_variance_preserving_paths_keep_the_variance(path):
    level = PATHS[path].level(TIMES_OF_ALL_STEPS)
    torch.testing.assert_close(level.alpha.square() + level.sigma.square(), torch.ones(STEPS, dtype=torch.float64))


def test_the_ddpm_path_is_that_of_the_papers_betas():
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    discrete = torch.cumprod(1 - betas, 0)  # Ho et al. 2020, equation 4
    continuous = PATHS["ddpm"].level(TIMES_OF_ALL_STEPS).alpha.square()
    assert (discrete.log() - continuous.log()).abs().max() < 0.02 * -discrete.log()[-1]


@pytest.mark.parametrize("path", PATHS)
def test_the_time_of_a_ratio_is_the_inverse_of_the_paths_ratio(path):
    t = TIMES_OF_ALL_STEPS.detach()
    level = PATHS[path].level(t)
    torch.testing.assert_close(PATHS[path].time(level.sigma / level.alpha), t, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("path", "target"), [*product(PATHS, TARGETS)])
def test_every_target_on_every_path_gives_image_and_noise_back(path, target):
    t = TIMES_OF_ALL_STEPS.detach()[:, None]
    x, eps = normal(STEPS, 5), normal(STEPS, 5, seed=1)
    level = PATHS[path].level(t)
    row = TARGETS[target](level)
    found = invert(level, row, level.alpha * x + level.sigma * eps, row.a * x + row.b * eps)
    for value, true in zip(found, (x, eps), strict=True):
        torch.testing.assert_close(value, true, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_edms_row_is_karras_preconditioning(path):
    """On x + s n: skip u + out F with Karras et al.'s table 1 gives the x that the row's inversion gives."""
    level = PATHS[path].level(TIMES_OF_ALL_STEPS.detach())
    s, scale = level.sigma / level.alpha, level.alpha
    u, output = normal(STEPS), normal(STEPS, seed=1)
    row = TARGETS["edm"](level)
    x, _ = invert(level, row, scale * u, output)
    total = s.square() + DATA_STD**2
    torch.testing.assert_close(x, DATA_STD**2 / total * u + s * DATA_STD / total.sqrt() * output)
    torch.testing.assert_close(row.scale * scale * u, u / total.sqrt())


@pytest.mark.parametrize("path", PATHS)
def test_edms_input_and_target_have_variance_one(path):
    level = PATHS[path].level(TIMES_OF_ALL_STEPS.detach())
    row = TARGETS["edm"](level)
    one = torch.ones_like(level.alpha)
    torch.testing.assert_close((row.a * DATA_STD).square() + row.b.square(), one)
    torch.testing.assert_close(row.scale.square() * ((level.alpha * DATA_STD) ** 2 + level.sigma**2), one)


def test_velocity_is_the_derivative_of_the_mixture_and_v_its_variance_preserving_form():
    level = PATHS["linear"].level(TIMES_OF_ALL_STEPS.detach())
    assert (TARGETS["velocity"](level).a == -1).all()
    assert (TARGETS["velocity"](level).b == 1).all()
    level = PATHS["cosine"].level(TIMES_OF_ALL_STEPS.detach())
    velocity, v = TARGETS["velocity"](level), TARGETS["v"](level)
    torch.testing.assert_close(velocity.a, torch.pi / 2 * v.a)  # on the circle they differ by the angle's speed
    torch.testing.assert_close(velocity.b, torch.pi / 2 * v.b)


@pytest.mark.parametrize("times", TIMES)
def test_times_are_spread_as_their_distribution_says(times):
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1]
    t = TIMES[times](u)
    assert (t.diff() > 0).all()
    torch.testing.assert_close(t + t.flip(0), torch.ones_like(t))  # symmetric about 1/2
    if times == "logit_normal":
        torch.testing.assert_close(torch.special.ndtr(torch.logit(t)), u)


def test_the_first_and_the_last_time_are_ddpms_first_and_last_step():
    assert TIMES_OF_ALL_STEPS[[0, -1]].tolist() == [FIRST, LAST]
