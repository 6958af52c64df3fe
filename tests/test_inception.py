"""The Inception of Fréchet distances: the published layers and ways, and what is said of wrong files."""

from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fabulate.errors import ConfigError
from fabulate.features import features_for
from fabulate.features.inception import SIDE, URL, Inception, enlarge, inception
from fabulate.seeds import generator, seeded
from fabulate.types import ImageShape, to_float
from tiny import pictures


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file with the keys and shapes of the published one, and random weights."""
    with seeded(0, "inception"):
        state = Inception().state_dict()
        for name, value in state.items():
            if name.endswith("conv.weight"):
                nn.init.kaiming_normal_(value, nonlinearity="relu")
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


def test_inception_has_the_published_networks_layers(published):
    state = torch.load(published, weights_only=True)
    weights = {name: tuple(value.shape) for name, value in state.items() if name.endswith("conv.weight")}
    assert len(weights) == 94
    assert sum(value.numel() for name, value in state.items() if name.endswith("conv.weight")) == 21_751_136
    assert weights["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert weights["Mixed_6b.branch7x7dbl_5.conv.weight"] == (192, 128, 1, 7)
    assert weights["Mixed_6e.branch7x7_3.conv.weight"] == (192, 192, 7, 1)
    assert weights["Mixed_7a.branch7x7x3_4.conv.weight"] == (192, 192, 3, 3)
    assert weights["Mixed_7b.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert weights["Mixed_7c.branch3x3_1.conv.weight"] == (384, 2048, 1, 1)


def test_inception_gives_2048_features_of_each_image_alone(digits, published):
    features = features_for(digits, f"inception:{published}")
    x = pictures(ImageShape(3, 20, 30), 2).x
    together = features(x)
    assert together.shape == (2, 2048) and together.std(0).mean() > 0
    torch.testing.assert_close(features(x[1:2]), together[1:2], rtol=1e-4, atol=1e-5 * float(together.abs().max()))
    assert features.describe()["dimension"] == 2048


def test_inception_sees_gray_as_colour_and_floats_as_pixels(published):
    network = inception(published)
    gray = pictures(ImageShape(1, 8, 8), 1).x
    with torch.no_grad():
        expected = network(gray)
        assert torch.equal(network(gray.repeat(1, 3, 1, 1)), expected)
        assert torch.equal(network(to_float(gray) + 0.001), expected)


@pytest.mark.parametrize("size", [(8, 8), (32, 48), (299, 299), (400, 310)])
def test_images_are_enlarged_as_tensorflow_1_did_it(size):
    x = torch.rand(1, 1, *size, generator=generator(0, "image"), dtype=torch.float64)
    result = enlarge(x)[0, 0]
    places = [np.arange(SIDE) * (side / SIDE) for side in size]
    rows = np.stack([np.interp(places[1], np.arange(size[1]), row) for row in x[0, 0].numpy()])  # flat beyond the end
    expected = np.stack([np.interp(places[0], np.arange(size[0]), column) for column in rows.T]).T
    np.testing.assert_allclose(result, expected, atol=1e-4)  # the places are float32, as TensorFlow's
    if size != (299, 299):
        assert not torch.allclose(result, F.interpolate(x, (SIDE, SIDE), mode="bilinear")[0, 0], atol=0.01)


def test_a_file_that_is_not_inceptions_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "pickle.pth")  # would run code when it is read
    for name, words in {
        "text": "no weights could be read",
        "list": "holds a list",
        "other": "does not hold the weights of the Inception.*Missing key",
        "pickle": "no weights could be read",
        "absent": "no weights could be read",
    }.items():
        with pytest.raises(ConfigError, match=words):
            inception(tmp_path / f"{name}.pth")


def test_without_a_network_inception_says_how_to_name_a_file(digits, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ConfigError, match=f"could not be downloaded.*{URL}.*inception:PATH"):
        features_for(digits, "inception")
