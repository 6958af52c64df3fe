"""The network follows the images, and a run says which it took, and keeps to it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fabulate
from fabulate.config import Training, override
from fabulate.data import load_data
from fabulate.errors import ConfigError
from fabulate.models import family
from fabulate.nets import MLP, Auto, Conv, network_for, reason
from fabulate.training import configure
from fabulate.training.loop import Learner
from fabulate.training.validation import score_images
from fabulate.types import ImageShape
from tiny import ends, pictures

FOLLOW = ("ae", "vae", "gan")  # whose default is left to the images
BRIEF = ["--steps", "2", "--batch-size", "4", "--latent-dim", "4"]

over = pytest.mark.parametrize


def built(name: str, shape: ImageShape, preset: str = "default", **values: object) -> fabulate.GenerativeModel:
    with torch.device("meta"):
        return family(name)(configure(name, preset, values)[0], shape)


@over(
    ("shape", "kind"),
    [
        ((1, 8, 8), "mlp"),
        ((1, 16, 16), "mlp"),
        ((1, 17, 17), "conv"),
        ((1, 8, 33), "conv"),
        ((1, 28, 28), "conv"),
        ((3, 8, 8), "mlp"),
        ((3, 16, 16), "conv"),
        ((3, 33, 47), "conv"),
        ((3, 256, 256), "conv"),
        ((3, 7, 90), "mlp"),  # convolutions do not take it
    ],
)
@over("name", FOLLOW)
def test_the_images_choose_the_network(name, shape, kind):
    shape = ImageShape(*shape)
    config = built(name, shape).config
    assert config.network == family(name).networks[kind], "its hyperparameters name what was chosen, not that it was"
    assert str(shape) in reason(shape)
    assert ("--network mlp" in reason(shape)) == (kind == "conv")


@over("name", FOLLOW)
def test_a_network_that_is_asked_for_is_taken_whatever_the_images_are(name):
    small, large = ImageShape(1, 8, 8), ImageShape(3, 32, 32)
    assert built(name, large, network="mlp").config.network == family(name).networks["mlp"]
    assert built(name, small, network="conv").config.network == family(name).networks["conv"]
    assert built(name, large, network=MLP(hidden=(8,))).config.network == MLP(hidden=(8,))
    assert built(name, large, network="auto").config == built(name, large).config
    wide = built(name, large, network="dcgan", latent_dim=3).config
    assert (wide.network.kind, wide.latent_dim) == ("dcgan", 3)
    assert network_for(Conv(width=3), small, family(name).networks) == Conv(width=3)


@over("shape", [(1, 8, 8), (3, 64, 64)], ids=str)
@over("name", FOLLOW)
def test_the_tutorials_stay_fully_connected_to_the_letter(name, shape):
    preset = family(name).presets["tutorial"]
    assert built(name, ImageShape(*shape), "tutorial").config == preset.model
    assert preset.model.network == MLP(hidden=(128,), activation="relu")
    assert built(name, ImageShape(*shape), "tutorial", network="mlp").config == preset.model


def test_large_images_come_in_smaller_batches_and_a_number_that_is_given_is_kept():
    batches = [Training().batch(3 * side * side) for side in (8, 32, 64, 128, 256)]
    assert batches == [128, 64, 16, 16, 16]
    assert Training(batch_size=128).batch(3 * 256 * 256) == 128
    assert ImageShape(3, 64, 64).together(500) == 170
    with pytest.raises(ConfigError, match="batch_size 128 is not a multiple of accumulate 3"):
        Learner(small_model(ImageShape(1, 8, 8)), Training(accumulate=3), pictures(ImageShape(1, 8, 8), 8))


def test_the_learning_rate_is_the_networks_where_nobody_says():
    images = pictures(ImageShape(1, 8, 8), 8)

    def rate(lr: float | None, **values: object) -> float:
        config, training = configure("vae", "default", {"lr": lr, **values})
        return Learner(family("vae")(config, ImageShape(1, 8, 8)), training, images).lr

    assert [rate(None), rate(None, network="conv"), rate(0.5, network="conv")] == [1e-3, 2e-3, 0.5]


def small_model(shape: ImageShape) -> fabulate.GenerativeModel:
    return family("ae")(configure("ae", "default", {"latent_dim": 2})[0], shape)


@over("shape", [(1, 256, 256), (3, 21, 100)], ids=str)
@over("name", FOLLOW)
def test_large_odd_and_oblong_images_train(name, shape):
    shape = ImageShape(*shape)
    narrow = override(family(name).networks["conv"], {"width": 2})
    config, training = configure(name, "default", {"latent_dim": 2, "network": narrow, "steps": 2, "batch_size": 2})
    model, images = family(name)(config, shape), pictures(shape, 12)
    assert len(list(Learner(model, training, images).steps())) == 2
    assert all(np.isfinite(value) for value in score_images(model, images, seed=0).values())
    assert model.sample(2).shape == (2, *shape)


def test_images_scored_in_parts_have_the_score_of_all_at_once(monkeypatch):
    shape = ImageShape(1, 8, 8)
    model, images = small_model(shape), pictures(shape, 12)
    whole = score_images(model, images, seed=0)
    monkeypatch.setattr("fabulate.types.TOGETHER", 5 * shape.size)
    assert score_images(model, images, seed=0)["loss"] == pytest.approx(whole["loss"], rel=1e-6)


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    x = pictures(ImageShape(3, 18, 18), 24).x.numpy()
    np.savez(tmp_path / "colour.npz", x=x)
    return tmp_path / "colour.npz"


def test_a_run_says_what_it_took_and_why_and_the_same_command_continues(colour, tmp_path, capsys):
    command = ["train", "vae", "--data", colour, *BRIEF, "--out", tmp_path / "run"]
    assert ends(*command) == 0
    told = (
        "network: conv (18x18 colour: fully connected layers blur images above 16x16 gray; --network mlp to have them)"
    )
    assert capsys.readouterr().out.startswith(told)
    for place in ("run/config.json", "run/model/config.json"):
        assert json.loads((tmp_path / place).read_text())["model"]["network"]["kind"] == "conv"
    trained = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (trained["batch_size"], trained["lr"]) == (4, 2e-3), "the run holds what it was trained with"
    assert ends(*command) == 0
    assert "is finished" in capsys.readouterr().out
    assert ends(*command, "--network", "conv") == 0, "what was chosen may be said"
    assert "network:" not in capsys.readouterr().out
    assert ends(*command, "--network", "mlp") == 2
    assert 'model.network.kind was "conv", now "mlp"' in capsys.readouterr().err
    assert fabulate.load(tmp_path / "run").config.network == family("vae").networks["conv"]


def test_options_of_a_network_need_its_kind(colour, tmp_path, capsys):
    command = ["train", "vae", "--data", colour, *BRIEF, "--out", tmp_path / "run"]
    assert ends(*command, "--network.width", "4") == 2
    assert (
        "--network.width is an option of a kind of network; say which, e.g. --network conv" in capsys.readouterr().err
    )
    assert ends(*command, "--network", "conv", "--network.width", "4") == 0
    assert fabulate.load(tmp_path / "run").config.network.width == 4


def test_python_leaves_it_to_the_images_too(tmp_path):
    data = load_data(pictures(ImageShape(1, 8, 8), 24).x.numpy())
    model = fabulate.train("ae", data, out=tmp_path / "run", quiet=True, steps=2, network=Auto())
    assert model.config.network == MLP()
