"""Diffusion and flow matching with networks that are known exactly, in float64: every path, every target.

A stub in the network's place gives the best answer for images that are a Gaussian N(0, STD^2), so samples, codes and
likelihood have closed forms.
"""

from itertools import product
from math import log, pi

import pytest
import torch
from torch import nn

from fabulate.config import Training
from fabulate.errors import ConfigError
from fabulate.models.families import flow as flow_file
from fabulate.models.families.flow import Flow, FlowConfig, FlowSampling
from fabulate.nets import MLP, DiT, UNet
from fabulate.paths import PATHS, TARGETS
from fabulate.samplers import HIGHEST, LOWEST, SOLVERS, grid
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import Batch, ImageShape
from tiny import CLASSES, SMALL, Tensors

STD = 0.3
D = SMALL.size
EVERY = [*product(PATHS, TARGETS)]


pytestmark = pytest.mark.usefixtures("float64", "whole")


def normal(*size, seed=0):
    return torch.randn(*size, generator=generator(seed, "flow"))


class Best(nn.Module):
    """The best prediction for images N(mean, STD^2), a E[x | x_t] + b E[eps | x_t]; classes may have other means."""

    def __init__(self, model, means=(0.0,)):
        super().__init__()
        self.model, self.means = [model], torch.tensor(means)
        self.weight = nn.Parameter(torch.zeros(()))  # a model has a device, which it takes from a parameter

    def forward(self, scaled, t, y=None):
        (model,) = self.model
        level = model.path.level(t.double()[:, None, None, None])
        row = model.row(level)
        mean = self.means[0 if y is None else y].view(-1, 1, 1, 1)
        variance = level.alpha**2 * STD**2 + level.sigma**2
        surprise = scaled / row.scale - level.alpha * mean
        x = mean + level.alpha * STD**2 / variance * surprise
        return row.a * x + row.b * level.sigma / variance * surprise


class Stub(nn.Module):
    """Any function in the network's place."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


def best(path="linear", target="velocity", classes=(), means=(0.0,), **options):
    model = Flow(FlowConfig(path=path, target=target, network=UNet(width=8), **options), SMALL, classes)
    model.network = Best(model, means)
    return model.eval()


@pytest.mark.parametrize(("path", "target"), EVERY)
def test_the_denoiser_is_the_mean_image_whatever_the_network_predicts(path, target):
    model, u = best(path, target), normal(4, *SMALL)
    for s in (0.01, 0.5, 30.0):
        denoised = model.denoiser(None)(u, torch.tensor(s))
        torch.testing.assert_close(denoised, STD**2 / (STD**2 + s**2) * u, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("path", "target"), EVERY)
def test_the_loss_is_least_at_the_best_answer(path, target):
    model = best(path, target)
    batch = Batch(STD * normal(64, *SMALL))
    answer = model.network

    def loss(factor):
        model.network = Stub(lambda *given: factor * answer(*given))
        torch.manual_seed(0)
        return float(model.loss(batch)["loss"])

    assert loss(1.0) < min(loss(0.9), loss(1.1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_have_the_datas_spread(solver):
    model = best()
    # The ancestral sampler adds noise for the mean image only, not for what is uncertain about it: it needs many steps.
    images = model.sample(64, solver=solver, evaluations=1000 if solver == "ancestral" else 60)
    assert abs(float(images.std()) / STD - 1) < 5 / (2 * images.numel()) ** 0.5 + 0.03


def test_the_solver_and_its_evaluations_are_chosen_at_sampling_time():
    model = best()
    few, many = model.sample(4, evaluations=3), model.sample(4, evaluations=30)
    assert not torch.equal(few, many)
    assert torch.equal(model.sample(4, evaluations=20), model.sample(4))  # 20 is the default
    with pytest.raises(ConfigError, match="unknown hyperparameter 'evals'; did you mean 'evaluations'"):
        model.sample(4, evals=3)
    with pytest.raises(ConfigError, match="solver"):
        model.sample(4, solver="magic")


@pytest.mark.parametrize("path", PATHS)
def test_the_code_of_an_image_is_the_noise_it_comes_from(path):
    model, x = best(path), STD * normal(5, *SMALL).clamp(-2, 2)
    exact = x * ((STD**2 + HIGHEST**2) / (STD**2 + LOWEST**2)) ** 0.5 / HIGHEST
    torch.testing.assert_close(model.encode(x), exact.flatten(1), rtol=0.02, atol=0.01)
    torch.testing.assert_close(model.reconstruct(x), x, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("path", PATHS)
def test_the_likelihood_is_the_gaussians(path):
    model, x = best(path), STD * normal(6, *SMALL)
    exact = -(x**2).flatten(1).sum(1) / (2 * STD**2) - D * log(2 * pi * STD**2) / 2
    for trace in ("exact", "estimated"):  # equal here: the Jacobian is a multiple of the identity
        assert (model.log_prob(x, trace=trace) - exact).abs().max() < 0.004 * D


def test_the_estimated_trace_agrees_with_the_exact_one_on_a_network(monkeypatch):
    monkeypatch.setattr(flow_file, "REVERSE", [*reversed(grid(5)[:-1])])
    model = Flow(FlowConfig(network=DiT(width=32, depth=1)), SMALL).eval()
    x = 0.1 * normal(2, *SMALL)
    exact = model.log_prob(x, trace="exact")
    estimates = torch.stack([model.log_prob(x, seed=seed) for seed in range(9)])
    assert ((estimates.mean(0) - exact).abs() < 5 * estimates.std(0) / 3).all()
    assert torch.equal(model.log_prob(x, seed=3), estimates[3])


def test_codes_are_followed_by_an_ode_where_samples_are_drawn_by_chance():
    model, x = best(sampling=FlowSampling(solver="ancestral")), STD * normal(3, *SMALL).clamp(-2, 2)
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0.02, atol=0.02)
    assert not torch.equal(model.sample(2), model.sample(2, solver="ipndm"))


def test_a_random_walk_goes_straight_to_the_image_from_the_level_asked_for_and_an_ode_goes_on():
    levels: list[float] = []
    model = best(sampling=FlowSampling(sigma_min=0.125))
    answer = model.denoiser(None)
    model.denoiser = lambda y, guidance: lambda u, s: (levels.append(float(s)), answer(u, s))[1]
    for sampling, last in (({}, 0.125), ({"sigma_min": 0.05}, 0.05), ({"solver": "ipndm"}, LOWEST)):
        levels.clear()
        model.sample(2, **sampling)
        assert levels[0] == pytest.approx(HIGHEST) and levels[-1] == pytest.approx(last) and len(levels) == 20
    assert FlowConfig().sampling.sigma_min == LOWEST  # as models from before there was a choice are drawn from


def test_guidance_without_classes_is_refused_in_words():
    with pytest.raises(ConfigError, match="guidance 2 needs a model that learnt classes; train it with --conditional"):
        best().sample(2, guidance=2.0)


# Classes

MEANS = (-0.5, 0.0, 0.5, 0.2)  # of three classes, and of any


def guided(weight):
    model = best(classes=CLASSES, means=MEANS)
    y = torch.tensor([0, 1, 2])
    return model.denoiser(y, weight)(normal(3, *SMALL), torch.tensor(1.0))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 1.0 + 1e-12, 2.0])
def test_guidance_goes_straight_from_no_class_to_the_class_and_beyond(weight):
    model, u, s = best(classes=CLASSES, means=MEANS), normal(3, *SMALL), torch.tensor(1.0)
    without, with_class = (model.denoiser(y)(u, s) for y in (torch.full((3,), len(CLASSES)), torch.tensor([0, 1, 2])))
    torch.testing.assert_close(guided(weight), without + weight * (with_class - without))


def test_images_come_back_from_their_codes_under_guidance_too():
    model, x = best(classes=CLASSES, means=MEANS, sampling=FlowSampling(guidance=2.0)), 0.1 * normal(3, *SMALL)
    y = torch.tensor([0, 1, 2])
    torch.testing.assert_close(model.reconstruct(x, y), x, rtol=0.02, atol=0.02)
    torch.testing.assert_close(model.decode(model.encode(x, y), y), x, rtol=0.05, atol=0.05)


def test_a_share_of_images_is_trained_without_its_class_and_tested_with_it():
    seen = []

    def watch(x, t, y):
        seen.append(y)
        return x

    model = best(classes=CLASSES, means=MEANS, drop_class=0.25)
    n = 4000
    batch = Batch(normal(n, *SMALL), torch.ones(n, dtype=torch.int64))
    model.network = Stub(watch)
    model.train().loss(batch)
    model.eval().loss(batch)
    share = float((seen[0] == len(CLASSES)).double().mean())
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    assert ((seen[0] == 1) | (seen[0] == len(CLASSES))).all()
    assert (seen[1] == 1).all()


# Pairing


def test_optimal_pairing_is_the_best_of_all_orders_on_a_small_batch():
    from itertools import permutations

    x = normal(5, *SMALL, seed=1)
    torch.manual_seed(0)
    eps = best().noise(Batch(x))
    torch.manual_seed(0)
    paired = best(pairing="optimal").noise(Batch(x))
    costs = [float((eps[list(order)] - x).square().sum()) for order in permutations(range(5))]
    assert torch.cdist(paired.flatten(1), eps.flatten(1)).argmin(1).sort().values.tolist() == [0, 1, 2, 3, 4]
    assert float((paired - x).square().sum()) == pytest.approx(min(costs))


def test_optimal_pairing_keeps_to_the_class():
    x, y = normal(30, *SMALL, seed=1), torch.arange(30) % 3
    model = best(pairing="optimal", classes=CLASSES, means=MEANS)
    torch.manual_seed(0)
    eps = torch.randn_like(x)
    torch.manual_seed(0)
    paired = model.noise(Batch(x, y))
    came_from = torch.cdist(paired.flatten(1), eps.flatten(1)).argmin(1)
    assert (y[came_from] == y).all()
    assert (came_from != torch.arange(30)).any()


# Learning


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [pytest.param(UNet(width=16), id="unet"), pytest.param(DiT(width=32, depth=2), id="dit")]
)
def test_a_flow_learns_two_images_and_draws_them_half_and_half(network):
    torch.set_default_dtype(torch.float32)
    two = torch.zeros(2, *SMALL, dtype=torch.uint8)
    two[0, :, :4], two[1, :, :, :4] = 255, 255
    with seeded(0, "weights"):
        model = Flow(FlowConfig(network=network), SMALL)
    training = Training(steps=120, batch_size=32, lr=3e-3, ema=0.9)
    learner = Learner(model, training, Tensors(two.repeat(32, 1, 1, 1)))
    assert len(list(learner.steps())) == 120
    images = learner.sampler().sample(64)
    distances = torch.cdist(images.flatten(1), (two.flatten(1) / 127.5 - 1))
    assert (distances.min(1).values < 0.15 * (4 * D) ** 0.5).double().mean() > 0.9
    share = float((distances.argmin(1) == 0).double().mean())
    assert abs(share - 0.5) < 5 * 0.5 / 64**0.5


# Backbones


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 11), (1, 28, 28), (3, 33, 16), (3, 63, 10)], ids=str)
@pytest.mark.parametrize(
    "network", [UNet(width=8), DiT(width=32, depth=1), UNet(width=8, patch=3), MLP(hidden=(15, 8))], ids=str
)
def test_backbones_take_any_size_and_see_each_image_alone_at_its_time(network, shape, classes):
    with seeded(0):
        denoiser = network.denoiser(ImageShape(*shape), classes).train()
    x, t = normal(3, *shape), torch.tensor([0.1, 0.5, 0.9])
    y = torch.tensor([0, 1, 3]) if classes else None
    with torch.no_grad():
        out = denoiser(x, t, y)
        assert out.shape == x.shape
        torch.testing.assert_close(denoiser(x[1:2], t[1:2], None if y is None else y[1:2]), out[1:2])
        assert (denoiser(x, t.flip(0), y) != out)[[0, 2]].flatten(1).any(1).all()
        if y is not None:
            assert (denoiser(x, t, (y + 1) % 4) != out).flatten(1).any(1).all()


@pytest.mark.parametrize("network", [UNet(), DiT()], ids=lambda network: network.kind)
@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 8, 257)], ids=str)
def test_flows_refuse_other_sides_in_words(network, shape):
    words = f"the {network.kind} network takes sides from 8 to 256, and the images are {ImageShape(*shape)}; use --size"
    with pytest.raises(ConfigError, match=words):
        Flow(FlowConfig(network=network), ImageShape(*shape))


def test_fully_connected_layers_take_noise_off_small_images_too():
    small = Flow(FlowConfig(network=MLP(hidden=(8,))), ImageShape(1, 1, 2))
    assert small.sample(3).shape == (3, 1, 1, 2)
    with pytest.raises(ConfigError, match="the mlp network takes sides up to 128, and the images are 8x129 gray"):
        Flow(FlowConfig(network=MLP(hidden=(8,))), ImageShape(1, 8, 129))


def test_flows_saved_before_there_was_a_choice_of_error_keep_the_sizes_they_had():
    network = {"kind": "unet", "width": None, "blocks": 1, "patch": None}
    for side, width, patch in ((8, 32, 1), (28, 32, 2), (64, 64, 4)):
        current = Flow.current({"target": "velocity", "network": network}, ImageShape(1, side, side))
        assert current["error"] == "target"
        assert current["network"] == {**network, "width": width, "patch": patch}
