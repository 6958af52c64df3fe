"""Products of half as many bits: the weights stay float32, the losses near, and a run keeps what it began with."""

import copy

import pytest
import torch

import fabulate
from fabulate.config import Training, override
from fabulate.errors import ConfigError, RunError
from fabulate.models import family
from fabulate.nets import UNet
from fabulate.seeds import seeded
from fabulate.training import configure, read_config
from fabulate.training.devices import precision_on
from fabulate.training.loop import Learner
from fabulate.training.train import fresh

NARROW = {"network": UNet(width=16), "batch_size": 16}


@pytest.fixture(scope="module")
def digits():
    return fabulate.load_data("digits")


@pytest.mark.parametrize("name", ["flow", "consistency"])
def test_half_the_bits_move_the_weights_nearly_as_all_do_and_leave_them_float32(digits, name):
    config, training = configure(name, "default", {**NARROW, "steps": 3})
    weights, losses = {}, {}
    for precision in ("float32", "bfloat16"):
        schedule = override(training, {"precision": precision})
        learner = Learner(fresh(name, config, schedule, digits.shape, (), "cpu"), schedule, digits.train)
        losses[precision] = [float(terms["loss"]) for terms in learner.steps()]
        weights[precision] = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
        assert learner.average.precision == learner.model.precision == torch.float32  # but in steps
    assert weights["bfloat16"].dtype == torch.float32
    begun = fresh(name, config, training, digits.shape, (), "cpu")
    start = torch.cat([p.detach().flatten() for p in begun.parameters()])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]
    moves = [weights[precision] - start for precision in weights]
    assert torch.cosine_similarity(*moves, dim=0) > 0.9


def test_only_products_within_the_network_lose_bits(digits):
    """The answer is a number of 8 bits of precision, in float32, and what is made of it is not rounded again."""
    with seeded(0, "weights"):
        model = family("flow")(family("flow").presets["default"].model, digits.shape)
    half = copy.deepcopy(model)
    half.precision = torch.bfloat16
    x, t = torch.randn(8, *digits.shape), torch.linspace(0.1, 0.9, 8)
    whole, rounded = model.answer(x, t, None), half.answer(x, t, None)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, rounded.bfloat16().float())
    assert 0 < (rounded - whole).norm() / whole.norm() < 0.03


def test_without_an_average_the_model_of_a_training_draws_in_float32_too(digits):
    """Half the bits are for steps; ema=0 gives back the very model that took them."""
    config, training = configure("flow", "default", {**NARROW, "steps": 1, "ema": 0.0, "precision": "bfloat16"})
    learner = Learner(fresh("flow", config, training, digits.shape, (), "cpu"), training, digits.train)
    asked = []
    loss = learner.model.loss
    learner.players["model"] = learner.players["model"]._replace(
        loss=lambda batch: (asked.append(learner.model.precision), loss(batch))[1]
    )
    assert [*learner.steps()] and asked == [torch.bfloat16]
    assert learner.sampler() is learner.model and learner.model.precision == torch.float32


def test_a_run_tells_its_precision_and_keeps_it(tmp_path, digits):
    options = {**NARROW, "out": tmp_path / "run", "quiet": True, "save_every": 2}
    fabulate.train("flow", digits, steps=2, precision="bfloat16", **options)
    assert read_config(tmp_path / "run")["arithmetic"]["precision"] == "bfloat16"
    with pytest.raises(RunError, match=r'training\.precision was "bfloat16", now "auto"'):
        fabulate.train("flow", digits, steps=2, **options)


def test_a_cpu_computes_in_float32_unless_asked_and_other_families_always_do(digits):
    flow = fresh("flow", family("flow").presets["default"].model, Training(), digits.shape, (), "cpu")
    assert precision_on(flow, Training()) == "float32"
    assert precision_on(flow, Training(precision="bfloat16")) == "bfloat16"
    vae = fresh("vae", family("vae").presets["default"].model, Training(), digits.shape, (), "cpu")
    assert precision_on(vae, Training(precision="float32")) == "float32"
    with pytest.raises(ConfigError, match="vae computes in float32 alone; leave out --precision bfloat16"):
        precision_on(vae, Training(precision="bfloat16"))
