"""Densities against torch.distributions, closed forms and integrals, in float64."""

from math import log

import pytest
import torch
from torch import distributions

from fabulate.models.capabilities import HasLikelihood
from fabulate.prob import (
    LEAD,
    LIKELIHOODS,
    Bernoulli,
    DiscretisedLogistic,
    Gaussian,
    kl_to_standard_normal,
    log_mean_exp,
    log_normal,
)
from fabulate.seeds import generator
from fabulate.types import to_float, unit
from tiny import SMALL, cases, make, pictures

VALUES = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(-1, 1, 1, 1)  # every pixel value as one image


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "prob"), dtype=torch.float64)


MEAN, LOGVAR, X = 3 * normal(50), normal(50, seed=1), 3 * normal(50, seed=2)


def test_kl_is_that_of_torch():
    q = distributions.Normal(MEAN, torch.exp(LOGVAR / 2))
    standard = distributions.Normal(torch.zeros_like(MEAN), torch.ones_like(MEAN))
    torch.testing.assert_close(kl_to_standard_normal(MEAN, LOGVAR), distributions.kl_divergence(q, standard))


def test_kl_is_positive_but_at_the_standard_normal():
    assert (kl_to_standard_normal(MEAN, LOGVAR) > 0).all()
    assert kl_to_standard_normal(torch.tensor(0.0), torch.tensor(0.0)) == 0


def test_log_normal_is_that_of_torch():
    q = distributions.Normal(MEAN, torch.exp(LOGVAR / 2))
    torch.testing.assert_close(log_normal(X, MEAN, LOGVAR), q.log_prob(X))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_log_mean_exp_moves_with_its_input_and_never_overflows(dim, shift):
    x = normal(4, 5)
    torch.testing.assert_close(log_mean_exp(x + shift, dim), x.exp().mean(dim).log() + shift)


def test_log_mean_exp_lies_between_the_mean_and_the_maximum():
    x = normal(100, 7)
    result = log_mean_exp(x, 1)
    assert ((x.mean(1) < result) & (result < x.max(1).values)).all()
    torch.testing.assert_close(log_mean_exp(x[:, :1].expand(100, 7), 1), x[:, 0])  # of equal numbers: that number
    one = torch.tensor([0.0, -torch.inf, -torch.inf])  # a single term, a third of the mean
    torch.testing.assert_close(log_mean_exp(one, 0), torch.tensor(-log(3)))


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_an_images_log_probability_is_the_sum_over_its_numbers_and_its_mean_an_image(likelihood):
    p, x, raw = likelihood().double(), normal(4, 3, 2, 5).clamp(-1, 1), normal(4, 3, 2, 5, seed=1)
    single = p.log_prob(x.reshape(-1, 1, 1, 1), raw.reshape(-1, 1, 1, 1)).view(4, -1).sum(1)
    torch.testing.assert_close(p.log_prob(x, raw), single)
    assert p.mean(100 * raw).abs().max() <= 1
    assert torch.equal(p.mean(torch.zeros_like(raw)), torch.zeros_like(raw))


@pytest.mark.parametrize("pixels", [(VALUES > 0).double(), unit(VALUES)], ids=["binary", "gray"])
def test_bernoulli_is_that_of_torch(pixels):
    raw = 5 * normal(*pixels.shape)
    expected = distributions.Bernoulli(logits=raw, validate_args=False).log_prob(pixels).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(2 * pixels - 1, raw), expected)


@pytest.mark.parametrize("logvar", [-6.0, -2.0, 1.0])
@pytest.mark.parametrize("raw", [-4.0, 0.0, 1.5])
def test_gaussian_integrates_to_one(raw, logvar):
    p = Gaussian().double()
    p.level.data.fill_(logvar / LEAD)
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)  # 1000 points to a pixel range, 18 deviations at least
    density = p.log_prob(x.view(-1, 1, 1, 1), torch.full((1, 1, 1, 1), raw).double()).exp()
    torch.testing.assert_close(torch.trapezoid(density, x).item(), 1.0)


def test_the_best_noise_level_is_the_mean_squared_error():
    p, x, raw = Gaussian().double(), normal(20, 1, 4, 4).clamp(-1, 1), normal(20, 1, 4, 4, seed=1)
    best = (x - p.mean(raw)).square().mean().log()
    p.level.data.copy_(best / LEAD)
    at_best = p.log_prob(x, raw).sum()
    (slope,) = torch.autograd.grad(at_best, p.level)
    assert slope.abs() < 1e-9
    for step in (-0.1, 0.1):
        p.level.data.copy_((best + step) / LEAD)
        assert p.log_prob(x, raw).sum() < at_best


def logistic(log_scale: float) -> DiscretisedLogistic:
    p = DiscretisedLogistic().double()
    p.level.data.fill_(log_scale / LEAD)
    return p


LOG_SCALES = [-6.0, -4.0, -2.0, 0.0, 2.0]
RAWS = [-20.0, -3.0, 0.0, 0.01, 5.0]


@pytest.mark.parametrize("log_scale", LOG_SCALES)
@pytest.mark.parametrize("raw", RAWS)
def test_discretised_logistic_sums_to_one_over_the_pixel_values(raw, log_scale):
    log_prob = logistic(log_scale).log_prob(VALUES, torch.full_like(VALUES, raw))
    torch.testing.assert_close(log_prob.exp().sum().item(), 1.0)


@pytest.mark.parametrize("log_scale", LOG_SCALES)
@pytest.mark.parametrize("raw", RAWS)
def test_discretised_logistic_is_the_logistic_density_integrated_over_each_pixels_bin(raw, log_scale):
    p = logistic(log_scale)
    inner = VALUES[1:-1]  # the outermost bins reach to infinity; that all sum to one fixes the two
    nodes = torch.linspace(-1 / 255, 1 / 255, 2001, dtype=torch.float64)
    a = (inner.flatten()[:, None] + nodes - p.mean(torch.tensor(raw).double())) * torch.exp(-p.log_scale)
    density = torch.exp(-a.abs() - 2 * torch.log1p(torch.exp(-a.abs()))) * torch.exp(-p.log_scale)
    expected = torch.trapezoid(density, nodes, dim=1)
    kept = expected > 1e-300  # of what float64 can hold
    assert kept.sum() > 40
    computed = p.log_prob(inner, torch.full_like(inner, raw))
    torch.testing.assert_close(computed[kept], expected[kept].log(), rtol=1e-5, atol=1e-5)  # the trapezoids' error


@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 7.0])
def test_discretised_logistic_has_finite_gradients_in_float32_however_wrong_the_mean(log_scale):
    p = logistic(log_scale).float()
    raw = torch.tensor([-30.0, 0.0, 30.0]).view(3, 1, 1, 1).repeat(256, 1, 1, 1).requires_grad_()
    log_prob = p.log_prob(VALUES.float().repeat_interleave(3, 0), raw)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad.isfinite().all()
    assert p.level.grad.isfinite()


@pytest.mark.parametrize(
    "case",
    [case for case in cases(HasLikelihood) if not case.classes and make(case).measure == "density"],
    ids=str,
)
def test_the_bits_of_an_image_are_those_of_its_pixels_with_a_bin_of_noise(case):
    model, x = make(case), pictures(SMALL, 2).x
    bits = model.bits_per_dim(x, seed=1)
    noise = torch.rand(2, *SMALL, generator=generator(1, "dequantise"))
    noisy = to_float(x) + (noise - 0.5) * 2 / 255
    torch.testing.assert_close(bits, -(model.log_prob(noisy).detach() / SMALL.size + log(2 / 255)) / log(2))
    assert torch.equal(bits, model.bits_per_dim(to_float(x), seed=1))
    assert not torch.equal(bits, model.bits_per_dim(x, seed=2))
