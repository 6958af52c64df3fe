"""Samplers on denoisers known exactly: a Gaussian, whose flow has a closed form, and a mixture of Gaussians.

All in float64. u is the image scaled as in `samplers.py`, s the noise level.
"""

from itertools import pairwise
from math import log, pi

import pytest
import torch

from fabulate.paths import DATA_STD, PATHS
from fabulate.samplers import (
    HIGHEST,
    LOWEST,
    SOLVERS,
    estimated_divergence,
    euler,
    exact_divergence,
    grid,
    heun,
    log_density,
    slope,
    steps_within,
    transport,
)
from fabulate.seeds import generator

STD = 0.7
DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.random]


def normal(*size, seed=0):
    return torch.randn(*size, generator=generator(seed, "samplers"), dtype=torch.float64)


def gaussian(u, s):
    """E[x | u] for x ~ N(0, STD^2)."""
    return STD**2 / (STD**2 + s**2) * u


def flow(u, s, below):
    """The exact flow of that Gaussian: its standard deviation shrinks."""
    return u * ((STD**2 + below**2) / (STD**2 + s**2)) ** 0.5


def no_noise():
    raise AssertionError("a deterministic solver asked for noise")


def error(name, steps):
    u, levels = normal(100, 1, 2, 2), torch.linspace(3, 0.1, steps + 1, dtype=torch.float64)
    return float(
        (SOLVERS[name].walk(gaussian, u, list(levels), no_noise) - flow(u, levels[0], levels[-1])).abs().mean()
    )


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpm2", 2)])
def test_errors_fall_with_the_solvers_order(name, order):
    errors = [error(name, steps) for steps in (50, 100, 200)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(("name", "other"), [("dpm3", "dpm2"), ("ipndm", "heun")])
def test_higher_orders_are_better_with_many_steps(name, other):
    assert error(name, 100) < error(other, 100) / 3


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_solver_ends_at_the_denoised_image_when_there_is_one_step(name):
    u = normal(3, 1, 2, 2)
    found = SOLVERS[name].walk(gaussian, u, [torch.tensor(2.0), torch.tensor(0.0)], no_noise)
    torch.testing.assert_close(found, gaussian(u, 2.0))


@pytest.mark.parametrize("path", PATHS)
def test_euler_is_ddim_on_every_path(path):
    """x_t' = alpha' x + sigma' eps (Song, Meng, Ermon 2021, equation 12 with no noise), in the path's own scale."""
    times = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    alpha, sigma, *_ = PATHS[path].level(times)
    x_t = normal(4, 1, 3, 3)
    found = euler(gaussian, x_t / alpha[0], list(sigma / alpha), no_noise) * alpha[-1]
    for i in range(2):
        x = gaussian(x_t / alpha[i], sigma[i] / alpha[i])
        eps = (x_t - alpha[i] * x) / sigma[i]
        x_t = alpha[i + 1] * x + sigma[i + 1] * eps
    torch.testing.assert_close(found, x_t)


@pytest.mark.parametrize(("name", "steps"), [("ancestral", 400), ("sde", 60)])
def test_random_samplers_keep_the_gaussian(name, steps):
    """From the exact marginal at each level to the exact marginal at the next, whatever the step: a Gaussian's
    posterior is Gaussian, and only its mean is the denoiser's, so the variance is short of the prior's share."""
    n, chance = 40_000, generator(0, "noise")
    levels = grid(steps)
    u = (STD**2 + HIGHEST**2) ** 0.5 * normal(n, 1, 1, 1)
    x = SOLVERS[name].walk(gaussian, u, list(levels), lambda: torch.randn(u.shape, generator=chance).double())
    error = STD**2 * (2 / n) ** 0.5  # of a variance from n samples
    assert abs(float(x.var()) - STD**2) < 5 * error + 0.02 * STD**2  # so many steps are short of infinitely many
    assert abs(float(x.mean())) < 5 * STD / n**0.5


def mixture(u, s, means, std=0.2):
    """E[x | u] for an even mixture of N(mean, std^2)."""
    flat, variance = u.flatten(1), std**2 + s**2
    weights = torch.softmax(-(flat[:, None] - means).square().sum(2) / (2 * variance), dim=1)  # (N, K)
    posterior = means + std**2 / variance * (flat[:, None] - means)
    return (weights[:, :, None] * posterior).sum(1).view_as(u)


def test_with_ten_evaluations_solvers_rank_as_published():
    """Zhang, Chen 2023 and Lu et al. 2022: multistep solvers far below Euler, Heun (5 steps) above it."""
    means = 0.5 * normal(10, 16, seed=1)
    noise = HIGHEST * normal(300, 1, 4, 4)

    def exact(u, s):
        return mixture(u, s, means)

    best = heun(exact, noise, list(grid(500)), no_noise)
    errors = {}
    for name in DETERMINISTIC:
        solver = SOLVERS[name]
        levels = grid(steps_within(solver, 10), rho=solver.rho)
        errors[name] = float((solver.walk(exact, noise, list(levels), no_noise) - best).flatten(1).norm(dim=1).mean())
    assert errors["heun"] > 2 * errors["euler"]
    assert errors["ipndm"] < errors["euler"] / 2
    assert errors["dpm3"] < errors["euler"] / 2
    assert errors["dpm2"] < errors["euler"] / 1.4


@pytest.mark.parametrize(("name", "evaluations"), [(name, n) for name in SOLVERS for n in (1, 2, 5, 20)])
def test_solvers_evaluate_the_denoiser_as_often_as_they_may(name, evaluations):
    calls = 0

    def counted(u, s):
        nonlocal calls
        calls += 1
        return gaussian(u, s)

    solver = SOLVERS[name]
    levels = grid(steps_within(solver, evaluations))
    solver.walk(counted, normal(2, 1, 2, 2), list(levels), lambda: normal(2, 1, 2, 2))
    assert calls == evaluations - (solver.evaluations == 2 and evaluations % 2 == 0)


def test_the_grid_falls_from_the_highest_level_to_the_lowest_and_then_to_zero():
    levels = grid(7)
    assert levels[0] == pytest.approx(HIGHEST)
    assert levels[-2] == pytest.approx(LOWEST)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    root = levels[:-1] ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff()[:1].expand(6))


def test_transport_is_the_flow_up_and_down():
    x, levels = normal(5, 1, 2, 2), grid(30)[:-1]
    up = transport(gaussian, x, [*reversed(levels)])
    torch.testing.assert_close(up, flow(x, levels[-1], levels[0]), rtol=5e-3, atol=0)
    torch.testing.assert_close(transport(gaussian, up, list(levels)), x, rtol=1e-3, atol=1e-3)


def test_transport_is_exact_for_images_of_the_spread_d():
    x, levels = normal(5, 1, 2, 2), list(torch.tensor([0.002, 80.0], dtype=torch.float64))  # one step
    there = transport(lambda u, s: DATA_STD**2 / (DATA_STD**2 + s**2) * u, x, levels)
    torch.testing.assert_close(there, x * ((DATA_STD**2 + levels[1] ** 2) / (DATA_STD**2 + levels[0] ** 2)) ** 0.5)


# Likelihood


def test_the_log_density_of_a_gaussian_is_the_gaussians():
    x, d = STD * normal(20, 1, 2, 3), 6
    levels = [*reversed(grid(200)[:-1])]
    # What the flow knows is the image with the lowest level's noise.
    exact = -(x**2).flatten(1).sum(1) / (2 * (STD**2 + LOWEST**2)) - d * log(2 * pi * (STD**2 + LOWEST**2)) / 2
    tolerance = d * STD**2 / HIGHEST**2 + 2e-3  # the end taken for N(0, HIGHEST^2); Heun's error
    for divergence in (exact_divergence, estimated_divergence(torch.ones_like(x))):
        found = log_density(gaussian, x, levels, divergence)
        assert (found - exact).abs().max() < tolerance


def test_the_log_density_of_a_mixture_is_the_mixtures():
    means, std, d = 0.5 * normal(3, 4, seed=2), 0.2, 4
    x = means[torch.arange(30) % 3].view(-1, 1, 2, 2) + std * normal(30, 1, 2, 2)
    variance = std**2 + LOWEST**2
    parts = -(x.flatten(1)[:, None] - means).square().sum(2) / (2 * variance) - d * log(2 * pi * variance) / 2
    exact = parts.logsumexp(1) - log(3)
    found = log_density(lambda u, s: mixture(u, s, means, std), x, [*reversed(grid(200)[:-1])], exact_divergence)
    off = (
        float(means.norm(dim=1).max()) * 5 / HIGHEST
    )  # the end, five standard deviations out, taken for N(0, HIGHEST^2)
    assert (found - exact).abs().max() < off


def test_the_estimated_divergence_is_right_on_average():
    n, d = 4000, 4
    matrix = normal(d, d, seed=3)

    def field(u):
        return (u.flatten(1) @ matrix.T).view_as(u)

    u = normal(1, 1, 2, 2).expand(n, 1, 2, 2)
    probe = 2 * torch.randint(2, (n, 1, 2, 2), generator=generator(0, "probe")).double() - 1
    _, estimates = estimated_divergence(probe)(field, u)
    value, exact = exact_divergence(field, u[:2])
    torch.testing.assert_close(exact, matrix.trace().expand(2))
    torch.testing.assert_close(value, field(u[:2]))
    assert abs(float(estimates.mean() - matrix.trace())) < 5 * float(estimates.std()) / n**0.5


def test_slope_is_the_noise_the_denoiser_sees():
    u = normal(2, 1, 2, 2)
    torch.testing.assert_close(gaussian(u, 0.5) + 0.5 * slope(gaussian, u, 0.5), u)
