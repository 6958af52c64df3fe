"""The normalizing flow against what is known: inverses, autograd's Jacobians, integrals that are one, entropies.

Maths in float64. A statistic says its n and is allowed five standard errors.

Legend: N images or samples, D numbers of an image.
"""

from itertools import islice
from math import e, log, pi

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from fabulate.config import Training, override
from fabulate.errors import ConfigError
from fabulate.models.families.nf import NF, NFConfig
from fabulate.nets.flows import (
    EDGE,
    STEEPEST,
    WHOLE,
    Chain,
    Coupling,
    CouplingNetwork,
    Invertible,
    Logit,
    Mix,
    MultiScale,
    Scale,
    Squeeze,
    channels,
    checkerboard,
)
from fabulate.prob import BIN, bits_per_dim, log_normal
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import Batch, ImageShape, to_float
from tiny import CLASSES, SHAPES, SMALL, Tensors, pictures

SHAPE = ImageShape(3, 4, 6)
PAIR = ImageShape(1, 1, 2)  # an image of two numbers: its density can be summed on a grid
SLIM = {"width": 4, "hidden": 8, "depth": 2}
VARIANTS = {name: override(preset.model, {"width": 4}) for name, preset in NF.presets.items()}
VARIANTS |= {"checkerboards": NFConfig(**SLIM, checkerboards=2), "swap": NFConfig(**SLIM, mixing="swap")}

over = pytest.mark.parametrize


pytestmark = pytest.mark.usefixtures("float64")


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed, "nf"), dtype=torch.float64)


def shaken(module: torch.nn.Module, size: float = 0.2) -> torch.nn.Module:
    """The module with weights that no initialisation would give: laws hold for all weights."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p += size * normal(*p.shape, seed=i)
    return module.eval()


def flow(config: NFConfig, shape: ImageShape, classes: tuple[str, ...] = ()) -> NF:
    """A model that has seen its first batch, which sets its scales."""
    with seeded(0):
        model = NF(config, shape, classes).train()
        model.loss(Batch(images(shape, 6, seed=1), torch.arange(6) % len(classes) if classes else None))
    return model.eval()


def images(shape: ImageShape, n: int = 3, seed: int = 0) -> Tensor:
    """Images (N, C, H, W) with all values of [-1, 1]."""
    return 2 * torch.rand(n, *shape, generator=generator(seed, "images"), dtype=torch.float64) - 1


LAYERS: dict[str, Invertible] = {}
torch.set_default_dtype(torch.float64)
with seeded(0):
    LAYERS["logit"] = Logit(0.01)
    LAYERS["squeeze"] = Squeeze()
    LAYERS["scale"] = Scale(SHAPE)
    LAYERS["mix"] = Mix(SHAPE)
    for parity in (0, 1):
        LAYERS[f"channels-{parity}"] = Coupling(channels(SHAPE, parity), 4, 8, len(CLASSES))
        LAYERS[f"checkerboard-{parity}"] = Coupling(checkerboard(SHAPE, parity), 4, 0, len(CLASSES))
    LAYERS["chain"] = Chain([Scale(SHAPE), Mix(SHAPE), Coupling(channels(SHAPE, 0), 4, 8, 0)])
    LAYERS["multiscale"] = MultiScale(ImageShape(1, 16, 8), 2, 1, 4, 8, "rotate", len(CLASSES))
    for name, layer in LAYERS.items():
        shaken(layer, 0.05 if name == "multiscale" else 0.2)  # twenty layers multiply their stretches
torch.set_default_dtype(torch.float32)


def log_determinant(f, x: Tensor) -> Tensor:
    """log |det df/dx| at one image (1, ...), by autograd."""
    jacobian = torch.autograd.functional.jacobian(f, x, vectorize=True)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet


# Layers


def given(name: str, n: int) -> tuple[Tensor, Tensor]:
    shape = ImageShape(1, 16, 8) if name == "multiscale" else SHAPE
    return images(shape, n), torch.arange(n) % len(CLASSES)


@over("name", LAYERS)
def test_each_layer_is_undone_by_its_inverse(name):
    layer, (x, y) = LAYERS[name], given(name, 5)
    z, _ = layer(x, y)
    assert z.numel() == x.numel()
    torch.testing.assert_close(layer.inverse(z, y), x, rtol=0, atol=1e-10)
    if name != "logit":  # which takes images only
        codes = 2 * normal(*z.shape)
        torch.testing.assert_close(layer(layer.inverse(codes, y), y)[0], codes, rtol=0, atol=1e-10)


@over("name", LAYERS)
def test_each_layers_log_determinant_is_that_of_its_jacobian(name):
    layer, (x, y) = LAYERS[name], given(name, 3)
    _, logdet = layer(x, y)
    for i in range(len(x)):
        exact = log_determinant(lambda image, c=y[i : i + 1]: layer(image, c)[0], x[i : i + 1])
        torch.testing.assert_close(logdet.expand(len(x))[i], exact, rtol=1e-9, atol=1e-9)


def test_the_logit_treats_black_and_white_alike():
    logit, x = Logit(1e-3), images(SHAPE)
    (z, logdet), (minus_z, same) = logit(x), logit(-x)
    torch.testing.assert_close(z, -minus_z)
    torch.testing.assert_close(logdet, same)


def test_the_first_training_batch_sets_a_scale_and_no_other_does():
    scale, x = Scale(SHAPE), 5 + 3 * normal(8, *SHAPE)
    torch.testing.assert_close(scale.eval()(x)[0], x)  # not in evaluation
    z, _ = scale.train()(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3))
    before = scale.shift.clone()
    scale(7 * x)
    assert torch.equal(scale.shift, before)
    again = Scale(SHAPE)
    again.load_state_dict(scale.state_dict())
    again.train()(7 * x)
    assert torch.equal(again.shift, before)  # a run that continues does not begin anew


def test_a_channel_that_does_not_vary_is_shifted_only():
    z, logdet = Scale(SHAPE).train()(torch.full((4, *SHAPE), 2.5))
    assert not z.any()
    assert logdet == 0


def test_channels_begin_to_mix_by_a_rotation():
    with seeded(0):
        mix = Mix(ImageShape(6, 1, 1))
    lower, upper = mix.factors()
    weight = mix.permutation @ lower @ upper
    torch.testing.assert_close(weight @ weight.T, torch.eye(6))
    assert (weight - torch.eye(6)).abs().max() > 0.1


def test_a_couplings_scale_is_bounded_and_depends_on_what_passes_alone():
    coupling = shaken(Coupling(checkerboard(SHAPE, 0), 4, 8, 0), size=3.0)
    x = images(SHAPE, 5)
    s, t = coupling.scale_and_shift(x, None)
    assert s.abs().max() <= STEEPEST
    assert not (coupling.mask * s).any() and not (coupling.mask * t).any()
    others = x + (1 - coupling.mask) * normal(5, *SHAPE)
    assert all(map(torch.equal, coupling.scale_and_shift(others, None), (s, t)))
    assert not torch.equal(coupling.scale_and_shift(x + coupling.mask, None)[0], s)


@over("mask", [channels, checkerboard])
@over("shape", [ImageShape(3, 9, 11), ImageShape(4, 7, 7), ImageShape(12, 2, 2)], ids=str)
def test_the_two_parities_of_a_mask_share_out_the_numbers(mask, shape):
    first, second = mask(shape, 0), mask(shape, 1)
    assert first.shape == shape
    assert torch.equal(first + second, torch.ones(shape))
    assert 0 < first.sum() < shape.size


def test_only_small_images_are_seen_as_a_whole():
    assert CouplingNetwork(ImageShape(WHOLE // 64, 8, 8), 4, 8, 0).whole is not None
    assert CouplingNetwork(ImageShape(WHOLE // 64 + 1, 8, 8), 4, 8, 0).whole is None
    assert CouplingNetwork(SMALL, 4, 0, 0).whole is None


# The whole


@over("classes", [(), CLASSES], ids=["one", "classes"])
@over("shape", [*SHAPES[:3], ImageShape(1, 12, 20), PAIR], ids=str)
@over("variant", VARIANTS)
def test_the_model_is_undone_by_its_inverse(variant, shape, classes):
    n = 2
    model, x = flow(VARIANTS[variant], shape, classes), images(shape, n)
    y = torch.arange(n) if classes else None
    with torch.no_grad():
        z, _ = model.code_and_log_prob(x, y)
        assert z.shape == (n, shape.size)
        torch.testing.assert_close(model.logit.inverse(model.flow.inverse(z, y)), x, rtol=0, atol=1e-10)
        torch.testing.assert_close(model.reconstruct(x, y), x, rtol=0, atol=1e-10)
        assert torch.equal(model.encode(x, y), z)


@over("shape", [SMALL, ImageShape(3, 5, 3), ImageShape(1, 16, 16)], ids=str)
@over("variant", VARIANTS)
def test_the_log_density_is_that_of_the_code_plus_the_jacobians(variant, shape):
    model, x = flow(VARIANTS[variant], shape), images(shape, 1)
    z = model.encode(x)
    log_p_z = MultivariateNormal(torch.zeros(shape.size), torch.eye(shape.size)).log_prob(z)
    exact = log_p_z + log_determinant(lambda image: model.code_and_log_prob(image, None)[0], x)
    torch.testing.assert_close(model.log_prob(x), exact)


def test_a_sample_has_the_density_that_its_code_and_the_stretch_on_the_way_give_it():
    model = flow(VARIANTS["checkerboards"], SMALL, CLASSES)
    y = torch.tensor([1])
    z = model.prior(1, y, generator(3))

    def image(code: Tensor) -> Tensor:
        return model.logit.inverse(model.flow.inverse(code, y))

    log_p_z = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    torch.testing.assert_close(model.log_prob(image(z), y), log_p_z - log_determinant(image, z))
    torch.testing.assert_close(model.decode(z, y), image(z).clamp(-1, 1))


def integral(model: NF, n: int = 150) -> float:
    """The integral of p(x) over all images of two numbers, by the midpoint rule on n x n points."""
    edge = 0.5 / model.logit.slope  # where the logit is infinite
    points = edge * (2 * (torch.arange(n) + 0.5) / n - 1)
    x = torch.cartesian_prod(points, points).view(-1, *PAIR)
    with torch.no_grad():
        return float(model.log_prob(x).exp().sum() * (2 * edge / n) ** 2)


def test_the_density_over_images_of_two_numbers_integrates_to_one_before_and_after_training():
    with seeded(0):
        model = NF(NFConfig(**SLIM, margin=0.02), PAIR)
    assert integral(model) == pytest.approx(1, abs=1e-5)
    x = to_float(torch.tensor([[60, 90], [200, 150], [150, 100], [90, 180]], dtype=torch.uint8))
    learner = Learner(model, Training(steps=30, batch_size=64, lr=5e-3, warmup=0), Tensors(x.view(-1, *PAIR)))
    terms = list(learner.steps())
    assert terms[-1]["loss"] < terms[0]["loss"] - 0.3
    assert integral(model.eval()) == pytest.approx(1, abs=1e-5)


def test_uniform_noise_over_all_images_costs_eight_bits_and_the_bins_tile_the_interval(monkeypatch):
    model, n = NF(NFConfig(**SLIM), SMALL), 5
    assert bits_per_dim(torch.tensor(-SMALL.size * log(2 * EDGE)), SMALL.size).item() == pytest.approx(8, abs=1e-12)
    centres = to_float(torch.arange(256).to(torch.uint8))
    torch.testing.assert_close(centres.diff(), torch.full((255,), BIN))
    torch.testing.assert_close(centres[[0, -1]] + torch.tensor([-BIN, BIN]) / 2, torch.tensor([-EDGE, EDGE]))
    seen: list[Tensor] = []

    def uniform(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return x.flatten(1), torch.full((len(x),), -SMALL.size * log(2 * EDGE))

    monkeypatch.setattr(model, "code_and_log_prob", uniform)
    x = images(SMALL, n)
    terms = model.loss(Batch(x))
    assert terms["bits_per_dim"].item() == pytest.approx(8, abs=1e-12)
    noise = (seen[0] - x) / BIN  # n D = 320 numbers, uniform: variance 1 / 12
    assert noise.abs().max() <= 0.5
    assert noise.mean().abs() <= 5 * (12 * noise.numel()) ** -0.5
    torch.testing.assert_close(noise.var(), torch.tensor(1 / 12), atol=5 * (180 * noise.numel()) ** -0.5, rtol=0)


def test_the_loss_is_minus_the_mean_log_probability_of_noisy_images():
    model = flow(NFConfig(**SLIM), SMALL)
    batch = pictures(SMALL, 6).batch(torch.arange(6))
    with seeded(1):
        terms = model.loss(batch)
    with seeded(1):
        noisy = batch.x + (torch.rand_like(batch.x) - 0.5) * 2 / 255
    torch.testing.assert_close(terms["loss"], -model.log_prob(noisy).mean())
    torch.testing.assert_close(terms["bits_per_dim"], bits_per_dim(-terms["loss"], model.shape.size))


def test_a_flow_that_learns_a_gaussian_comes_within_a_hundredth_of_its_entropy():
    covariance, n = torch.tensor([[1.0, 0.9], [0.9, 2.0]]), 20_000
    exact = MultivariateNormal(torch.tensor([1.0, -2.0]), covariance)
    entropy = 0.5 * torch.logdet(2 * pi * e * covariance)
    with seeded(0):
        model = MultiScale(PAIR, 1, 0, 1, 16, "swap", 0).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
        for _ in range(150):
            optimizer.zero_grad()
            cost(model, exact.sample((256,))).mean().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            costs = cost(model.eval(), exact.sample((n,)))
    error = 5 * costs.std() / n**0.5  # 0.035
    assert entropy - error < costs.mean() < entropy + 0.01 + error


def cost(model: MultiScale, x: Tensor) -> Tensor:
    """-log p of pairs (N, 2): (N,)."""
    z, logdet = model(x.view(-1, *PAIR))
    return -log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1) - logdet


def test_a_run_that_continues_gives_the_weights_of_one_that_never_stopped():
    def learner() -> Learner:
        with seeded(0, "weights"):
            model = NF(NFConfig(**SLIM), SMALL)
        return Learner(model, Training(steps=6, batch_size=8), pictures(SMALL, 24))

    whole, half, rest = learner(), learner(), learner()
    assert len(list(whole.steps())) == 6
    assert len(list(islice(half.steps(), 3))) == 3
    rest.restore(half.state())
    assert len(list(rest.steps())) == 3
    for one, other in ((whole.model, rest.model), (whole.sampler(), rest.sampler())):
        assert one.weights_hash() == other.weights_hash()


# Sizes, presets, sampling


@over(
    ("shape", "leaving"),
    [
        (ImageShape(1, 28, 28), [(2, 14, 14), (8, 7, 7)]),
        (SMALL, [(4, 4, 4)]),
        (ImageShape(3, 64, 64), [(6, 32, 32), (12, 16, 16), (24, 8, 8), (96, 4, 4)]),
        (ImageShape(1, 9, 11), [(1, 9, 11)]),
        (ImageShape(3, 8, 11), [(3, 8, 11)]),
        (ImageShape(1, 36, 12), [(4, 18, 6)]),
    ],
    ids=str,
)
def test_images_are_halved_while_both_sides_are_even_and_stay_at_least_four(shape, leaving):
    model = MultiScale(shape, 1, 0, 1, 0, "rotate", 0)
    assert model.leaving == leaving
    assert sum(ImageShape(*code).size for code in leaving) == shape.size


def test_the_last_coupling_before_channels_leave_moves_just_them():
    model = MultiScale(ImageShape(1, 28, 28), 3, 0, 1, 0, "rotate", 0)
    last = [layer for layer in model.levels[0].layers if isinstance(layer, Coupling)][-1]
    staying, leaving = last.mask.chunk(2)
    assert staying.all() and not leaving.any()


def test_the_tutorial_couples_as_realnvp_does():
    """At each size three checkerboards, squeeze, three halves of channels; four at the last (section 3.6)."""
    model = NF(NF.presets["tutorial"].model, ImageShape(1, 28, 28))
    names = {Coupling: "c", Squeeze: "s", Mix: "m"}
    order = ["".join(names.get(type(layer), "") for layer in level.layers) for level in model.flow.levels]
    assert order == ["cccsccc", "cccsccc", "cccc"]
    assert model.flow.leaving == [(2, 14, 14), (4, 7, 7), (4, 7, 7)]


@over("temperature", [0.5, 2.0])
def test_temperature_is_the_standard_deviation_of_the_codes(temperature):
    model = flow(NFConfig(**SLIM), SMALL)
    codes = model.prior(7, None, generator(0))
    with model.drawing({"temperature": temperature}):
        torch.testing.assert_close(model.prior(7, None, generator(0)), temperature * codes)
    spread = [model.sample(32, temperature=t).std(0).mean() for t in (1e-3, 0.5, 1.0)]
    assert spread[0] < 0.01 < spread[1] < spread[2]
    with pytest.raises(ConfigError, match="temperature"):
        model.sample(1, temperature=0)
