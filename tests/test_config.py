"""Hyperparameters that do not fit are refused in words that say what was given and what would do."""

from dataclasses import FrozenInstanceError

import pytest
from pydantic import ValidationError

from fabulate.config import DataSpec, Training, from_json, nearest, override, to_json
from fabulate.errors import ConfigError
from fabulate.models import family, names
from fabulate.nets import MLP, NETWORKS
from tiny import cases


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"btach_size": 3}, "unknown hyperparameter 'btach_size'; did you mean 'batch_size'\\?; known: epochs, steps"),
        ({"zzz": 3}, "unknown hyperparameter 'zzz'; known: epochs, steps"),
        ({"lr": -1.0}, "lr: Input should be greater than 0 \\(given: -1.0\\)"),
        ({"lr": float("nan")}, "lr: .*\\(given: nan\\)"),
        ({"lr": float("inf")}, "lr: .*finite.*\\(given: inf\\)"),
        ({"steps": 0}, "steps: .*greater than 0 \\(given: 0\\)"),
        ({"steps": 1.5}, "steps: .*integer.*\\(given: 1.5\\)"),
        ({"ema": 1.0}, "ema: .*less than 1 \\(given: 1.0\\)"),
        ({"betas": (0.5, 1.0)}, "betas.1: .*less than 1"),
        ({"betas": (0.5,)}, "betas.1: Field required"),
        ({"schedule": "cosin"}, "schedule: .*'constant' or 'cosine' \\(given: 'cosin'\\)"),
        ({"lr": 0, "clip": -1}, "lr: .*; clip: "),
        ({"batch_size": 10, "accumulate": 3}, "^batch_size 10 is not a multiple of accumulate 3$"),
    ],
)
def test_values_of_training_that_do_not_fit_are_refused_in_words(values, words):
    with pytest.raises(ConfigError, match=words):
        override(Training(), values)


@pytest.mark.parametrize("values", [{"size": 0}, {"size": 1025}, {"channels": 5}, {"limit_broken": 1.5}])
def test_values_of_data_that_do_not_fit_are_refused_by_name(values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"^{name}"):
        from_json(DataSpec, values)


def test_bounds_are_checked_however_a_spec_is_made():
    with pytest.raises(ValidationError):
        Training(lr=-1)
    with pytest.raises(ValidationError, match="Unexpected positional argument"):
        Training(0.1)
    with pytest.raises(FrozenInstanceError):
        Training().lr = 1.0


@pytest.mark.parametrize("values", [{"lr": 0.5}, {"epochs": 2.5}, {"batch_size": 12, "accumulate": 3}, {}])
def test_override_changes_what_is_named_and_nothing_else(values):
    changed = override(Training(), values)
    assert to_json(changed) == to_json(Training()) | values
    assert Training() == override(changed, {name: getattr(Training(), name) for name in values})


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_in_json_is_known_by_its_kind(kind):
    takes = next(case.family for case in cases() if case.kind == kind)
    config = family(takes).Config(network=NETWORKS[kind]())
    assert to_json(config)["network"]["kind"] == kind
    assert from_json(type(config), to_json(config)) == config


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"kind": "mpl"}, "network: .*'mpl'.*'mlp'"),
        ({"kind": "mlp", "width": 4}, "network.mlp.width: .*\\(given: 4\\)"),
        ({"kind": "mlp", "hidden": [0]}, "network.mlp.hidden.0: .*greater than 0 \\(given: 0\\)"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_words(network, words):
    with pytest.raises(ConfigError, match=words):
        from_json(family("ae").Config, {"network": network})


def test_equal_specs_are_equal_and_hash_alike():
    assert MLP(hidden=[3, 4]) == MLP(hidden=(3, 4)) != MLP()
    assert hash(MLP(hidden=(3, 4))) == hash(MLP(hidden=(3, 4)))


def test_a_family_that_is_not_there_is_refused_with_the_nearest():
    for name in names():
        with pytest.raises(ConfigError, match=f"there is no family '{name}x'; did you mean '{name}'"):
            family(name + "x")


@pytest.mark.parametrize(("word", "hint"), [("mnits", "; did you mean 'mnist'?"), ("qqqqqq", ""), ("", "")])
def test_the_nearest_word_is_named_only_when_it_is_near(word, hint):
    assert nearest(word, ["mnist", "cifar10"]) == hint
