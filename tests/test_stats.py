"""Reference statistics: what they are, that they are reused, and that others can read them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fabulate.data import cache
from fabulate.errors import ConfigError, DataError
from fabulate.features import Features, features_for
from fabulate.stats import load, reference


class Counting(Features):
    """Each image's mean and first pixel, counting the images it was asked for."""

    name = "counting"

    def __init__(self, key):
        self.key = key
        self.seen = 0

    def __call__(self, images, progress=None):
        self.seen += len(images)
        flat = images.flatten(1).float()
        return torch.stack([flat.mean(1), flat[:, 20]], 1)


def test_statistics_are_those_of_numpy(digits):
    kept = reference(digits, features=features_for(digits, "pixels"))
    x = digits.test.x.reshape(len(digits.test), -1) / 255
    np.testing.assert_allclose(kept.moments.mean, x.mean(0), atol=1e-7)
    np.testing.assert_allclose(kept.moments.cov, np.cov(x.T), atol=1e-7)
    assert kept.moments.n == 179 and kept.features.shape == (179, 64)


def test_they_are_computed_once(digits):
    features = Counting("once")
    first = reference(digits, "train", features=features, n=100)
    again = reference(digits, "train", features=features, n=100)
    assert features.seen == 100
    assert torch.equal(first.features, again.features) and torch.equal(first.moments.cov, again.moments.cov)
    assert first.about == again.about


@pytest.mark.parametrize(
    "other",
    [{"part": "test"}, {"n": 99}, {"seed": 1}, {"features": Counting("other")}],
    ids=lambda other: next(iter(other)),
)
def test_others_have_statistics_of_their_own(digits, other):
    features = Counting("own")
    first = reference(digits, "train", features=features, n=100)
    second = reference(digits, **{"part": "train", "features": features, "n": 100, **other})
    if "features" in other:
        assert other["features"].seen == 100
    else:
        assert not torch.equal(first.features[:50], second.features[:50]) or len(second.features) == 99
    assert reference(replace(digits, fingerprint="x"), "train", features=features, n=100).about["fingerprint"] == "x"


def test_fewer_images_are_the_first_of_more(digits):
    features = Counting(None)
    few, many = (reference(digits, "train", features=features, n=n).features for n in (10, 50))
    assert torch.equal(few, many[:10])
    everything = reference(digits, "train", features=features).features
    assert torch.equal(everything, features(torch.from_numpy(digits.train.x)))


def test_features_without_a_key_are_never_kept(digits):
    features = Counting(None)
    for _ in range(2):
        reference(digits, features=features)
    assert features.seen == 2 * 179


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "empty"])
def test_damaged_statistics_are_made_anew(digits, damage, monkeypatch, tmp_path):
    monkeypatch.setenv("FABULATE_CACHE", str(tmp_path))
    features = Counting("damaged")
    whole = reference(digits, features=features)
    (place,) = cache.root().glob("features/stats-*.npz")
    kept = bytearray(place.read_bytes())
    kept[200] ^= 255
    place.write_bytes({"cut": kept[:500], "byte": kept, "text": b"no numbers", "empty": b""}[damage])
    again = reference(digits, features=features)
    assert features.seen == 2 * 179 and torch.equal(again.features, whole.features)
    reference(digits, features=features)
    assert features.seen == 2 * 179


def test_progress_counts_images(digits):
    told = []
    reference(digits, "train", features=Counting(None), progress=lambda *done: told.append(done))
    assert told == [(1618, 1618)]


def test_what_is_saved_is_loaded(digits, tmp_path):
    kept = reference(digits, features=features_for(digits, "pixels"))
    path = kept.save(tmp_path / "folder" / "digits")
    read = load(path)
    assert path.name == "digits.npz"
    assert torch.equal(read.moments.mean, kept.moments.mean) and torch.equal(read.moments.cov, kept.moments.cov)
    assert read.moments.n == kept.moments.n and torch.equal(read.features, kept.features)
    assert read.about == kept.about and read.about["part"] == "test" and read.about["name"] == "pixels"


def test_published_statistics_of_others_are_read(tmp_path):
    mean, cov = np.arange(3.0), np.eye(3)
    np.savez(tmp_path / "others.npz", mu=mean, sigma=cov)
    read = load(tmp_path / "others.npz")
    assert read.moments.n == 0 and read.features is None
    np.testing.assert_array_equal(read.moments.mean, mean)
    np.testing.assert_array_equal(read.moments.cov, cov)


def test_what_holds_no_statistics_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no numbers")
    np.savez(tmp_path / "images.npz", x=np.zeros(3))
    np.savez(tmp_path / "shapes.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text.npz", "images.npz", "shapes.npz", "array.npy", "absent.npz"):
        with pytest.raises(DataError, match=f"{name} holds no reference statistics"):
            load(tmp_path / name)


def test_a_file_in_the_way_of_the_folder_is_told(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        reference(digits, features=Counting(None)).save(tmp_path / "file" / "stats.npz")


def test_images_there_are_not_are_refused(digits):
    with pytest.raises(ConfigError, match="asked for 180"):
        reference(digits, features=Counting(None), n=180)
    with pytest.raises(ConfigError, match="asked for 1"):
        reference(digits, features=Counting(None), n=1)
    with pytest.raises(ConfigError, match="has no test images; use part='train'"):
        reference(replace(digits, test=None), features=Counting(None))
    with pytest.raises(ConfigError, match="parts: train, test"):
        reference(digits, "val", features=Counting(None))
