"""Features: what networks learn, that calls agree however they are split, and what is kept in the cache."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from fabulate import features as room
from fabulate.data import Data, Images, cache
from fabulate.errors import ConfigError, DataError
from fabulate.features import NetworkFeatures, accuracy, features_for, predict, train_classifier
from fabulate.features.base import Pixels
from fabulate.features.trained import Trunk, train_encoder, vicreg
from fabulate.nets import transforms
from fabulate.seeds import generator, seeded
from fabulate.types import ImageShape, to_float
from tiny import SHAPES, pictures


def images_of(shape: ImageShape, n: int, classes: int = 0, seed: int = 0) -> Images:
    made = pictures(shape, n, "abc"[:classes], seed)
    return Images(made.x.numpy(), None if made.y is None else made.y.numpy())


def some(digits: Data, n: int) -> Data:
    """The first n digits, all test digits: other data, so with a cache entry of its own."""
    train = Images(digits.train.x[:n], digits.train.y[:n])
    return replace(digits, train=train, fingerprint=f"{digits.fingerprint}-{n}")


def unlabelled(data: Data) -> Data:
    return replace(data, train=Images(data.train.x), test=Images(data.test.x), classes=(), fingerprint="unlabelled")


@pytest.fixture
def brief(monkeypatch):
    """Trainings of a few steps, and the number of them."""
    count = []

    def shortened(train):
        def call(*args, **kwargs):
            count.append(train.__name__)
            return train(*args, **{**kwargs, "steps": 10})

        return call

    monkeypatch.setattr(room, "train_classifier", shortened(train_classifier))
    monkeypatch.setattr(room, "train_encoder", shortened(train_encoder))
    return count


@pytest.fixture(scope="module")
def learned(digits, tmp_path_factory):
    """The features of the digits, trained for a third of the steps they would get; other tests keep poorer ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FABULATE_CACHE", str(tmp_path_factory.mktemp("learned")))
        patch.setattr(room, "train_classifier", partial(train_classifier, steps=170))
        return features_for(digits)


# --- training


def test_the_classifier_of_the_digits_is_right_on_digits_it_never_saw(digits, learned):
    told = learned.describe()["accuracy"]
    assert told["low"] >= 0.95
    assert told["n"] == len(digits.test)
    assert accuracy(learned.classifier, digits.test) == pytest.approx((told["value"], told["low"], told["high"]))


@pytest.mark.parametrize("shape", [*SHAPES[:-1], pytest.param(SHAPES[-1], marks=pytest.mark.slow)], ids=str)
def test_a_classifier_learns_images_of_every_shape(shape):
    images = images_of(shape, 48, classes=3)
    classifier = train_classifier(images, "abc", steps=40, change=transforms.shifts)
    assert accuracy(classifier, images).value > 0.6  # of brightness at three levels; by chance 1/3
    assert not classifier.training


def test_training_repeats_exactly_and_depends_on_the_seed(digits):
    images = some(digits, 300).train
    one, again, other = (
        train_classifier(images, digits.classes, seed=seed, steps=5, change=transforms.shifts).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["last.weight"], other["last.weight"])
    encoders = [train_encoder(images, seed=seed, steps=5).state_dict()["layers.0.weight"] for seed in (1, 1, 2)]
    assert torch.equal(encoders[0], encoders[1]) and not torch.equal(encoders[0], encoders[2])


def test_training_leaves_the_global_generator_alone(digits):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    train_classifier(some(digits, 50).train, digits.classes, steps=2, change=transforms.shifts)
    train_encoder(some(digits, 50).train, steps=2)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.slow
def test_class_weights_trade_the_recall_of_common_classes_for_that_of_rare_ones():
    chance = generator(0, "overlap")
    y = (torch.arange(2000) % 20 == 0).long()  # one in twenty
    level = 110 + 20 * y[:, None, None, None] + 15 * torch.randn(2000, 1, 1, 1, generator=chance)
    images = Images(level.expand(2000, 1, 8, 8).clamp(0, 255).to(torch.uint8).numpy().copy(), y.numpy())
    rare = {}
    for weights in (None, torch.tensor([1.0, 19.0])):
        predicted = predict(train_classifier(images, ("common", "rare"), steps=60, weights=weights), images)
        rare[weights is not None] = float((predicted[y == 1] == 1).double().mean())
    assert rare[True] > rare[False] + 0.2  # by Bayes' rule 0.75 and about 0.15


def test_class_weights_leave_images_alone_that_are_plainly_of_a_class():
    y = (torch.arange(400) % 20 == 0).long()
    x = (40 + 160 * y[:, None, None, None]).expand(400, 1, 8, 8).to(torch.uint8)
    images = Images(x.numpy().copy(), y.numpy())
    classifier = train_classifier(images, ("common", "rare"), steps=40, weights=torch.tensor([1.0, 19.0]))
    with torch.no_grad():
        sure = classifier(to_float(x)).softmax(1)[torch.arange(400), y]
    assert sure.min() > 0.8  # of 0.95, which the smoothed targets ask for


def test_progress_is_told_of_every_step(digits):
    told = []
    train_classifier(some(digits, 50).train, digits.classes, steps=3, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("weights", [torch.ones(2), torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), torch.ones(3, 3)])
def test_class_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match="class weights are 3 numbers"):
        train_classifier(images_of(SHAPES[0], 10, classes=3), "abc", weights=weights)


def test_what_no_classifier_can_learn_is_refused(digits):
    with pytest.raises(DataError, match="needs the classes"):
        train_classifier(Images(digits.train.x), digits.classes)
    with pytest.raises(ConfigError, match="at least two classes"):
        train_classifier(digits.train, ("all",))
    with pytest.raises(ConfigError, match="--size"):
        train_classifier(images_of(ImageShape(3, 8, 257), 4, classes=3), "abc")
    with pytest.raises(DataError, match="at least two images"):
        train_encoder(Images(digits.train.x[:1]))
    with pytest.raises(DataError, match="have none"):
        accuracy(train_classifier(digits.train, digits.classes, steps=1), Images(digits.test.x))


# --- without classes


@pytest.mark.slow
def test_an_encoder_without_classes_tells_the_digits_apart_by_a_linear_probe(digits):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def probe(trunk):
        features = NetworkFeatures(trunk, "trunk")
        train, test = (features(torch.from_numpy(images.x)).numpy() for images in (digits.train, digits.test))
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, digits.train.y)
        return linear.score(test, digits.test.y)

    with seeded(0, "untrained"):
        untrained = Trunk(digits.shape)
    # with seeds 0 to 2: 0.98, 0.97, 0.98; untrained 0.93
    assert probe(train_encoder(unlabelled(digits).train, steps=50)) > max(0.92, probe(untrained))


def test_the_loss_without_classes_is_least_for_codes_that_agree_vary_and_say_different_things():
    z = torch.randn(20_000, 6, generator=generator(0, "codes"), dtype=torch.float64) * 1.1
    best = vicreg(z, z)
    assert best < 0.01
    assert vicreg(z, z.roll(1, 0)) > 1  # do not agree
    assert vicreg(0.1 * z, 0.1 * z) > 20  # hardly vary
    assert vicreg(z[:, :1].expand(-1, 6), z[:, :1].expand(-1, 6)) > 5  # all say the same


# --- changes


@pytest.mark.parametrize("change", [transforms.shift, transforms.flip])
def test_shifts_and_flips_only_move_pixels(change):
    x = torch.zeros(200, 3, 16, 24)
    x[:, :, 8, 12] = torch.arange(1, 601).view(200, 3).float()  # one pixel, unlike any other, far from the border
    moved = change(x, generator(0, "change"))
    assert torch.equal(moved.amax((2, 3)), x.amax((2, 3)))
    assert torch.equal((moved != 0).sum((1, 2, 3)), torch.full((200,), 3))
    assert len((moved[:, 0] != 0).nonzero()[:, 1:].unique(dim=0)) == {"shift": 5 * 7, "flip": 2}[change.__name__]


@pytest.mark.parametrize(
    "change", [transforms.shift, transforms.flip, transforms.zoom, transforms.light, transforms.noise]
)
def test_changes_are_addressed_and_each_images_own(change):
    wave = to_float(pictures(ImageShape(3, 12, 16), 1).x) + torch.linspace(0, 0.5, 16)
    x = wave.expand(64, -1, -1, -1)
    one, again = (change(x, generator(7, "change")) for _ in range(2))
    assert torch.equal(one, again) and one.shape == x.shape
    assert len(one.flatten(1).unique(dim=0)) >= 2


# --- calls


def test_features_of_an_image_do_not_depend_on_the_images_beside_it(digits, learned):
    x = torch.from_numpy(digits.test.x)
    together = learned(x)
    assert together.dtype == torch.float32 and together.shape == (len(x), learned.dim)
    for chunk in (1, 7, 1000):
        apart = NetworkFeatures(learned.network, "again", chunk=chunk)(x)
        torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(learned(x[3:5]), together[3:5], rtol=1e-5, atol=1e-6)


def test_pixels_and_floats_of_them_have_the_same_features(digits, learned):
    x = torch.from_numpy(digits.test.x[:20])
    for features in (learned, Pixels()):
        torch.testing.assert_close(features(to_float(x)), features(x))


def test_a_call_leaves_the_networks_mode_and_builds_no_graph(digits):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5), nn.Dropout(0.5))
    network.train()
    network[1].eval()
    before = network[1].running_mean.clone()
    features = features_for(digits, network)
    x = torch.from_numpy(digits.test.x)
    assert torch.equal(features(x), features(x)) and not features(x).requires_grad
    assert [layer.training for layer in network] == [True, False, True, True]
    assert torch.equal(network[1].running_mean, before)


class Returns(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return self.result(x)


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (lambda x: x, ConfigError, r"must return features \(N, D\).*\(179, 1, 8, 8\)"),
        (lambda x: x.flatten(1)[1:], ConfigError, r"it returned torch.float32 \(178, 64\)"),
        (lambda x: x.flatten(1).long(), ConfigError, "torch.int64"),
        (lambda x: (x.flatten(1),), ConfigError, "returned a tuple"),
        (lambda x: x.flatten(1).log(), DataError, "not finite for .* the first of them image 0"),
    ],
)
def test_a_users_module_that_gives_no_features_is_told_what_it_must_give(digits, result, error, words):
    with pytest.raises(error, match=words):
        features_for(digits, Returns(result))(torch.from_numpy(digits.test.x))


def test_images_that_are_none_are_refused(learned):
    with pytest.raises(ConfigError, match=r"given \(8, 8\)"):
        learned(torch.zeros(8, 8))


# --- pixels


@pytest.mark.parametrize("shape", [*SHAPES, ImageShape(3, 33, 50)], ids=str)
def test_pixels_are_averages_over_squares_and_few(shape):
    x = pictures(shape, 3).x
    features = Pixels()(x)
    assert features.shape[1] <= 1024 and features.min() >= 0 and features.max() <= 1
    if shape.size <= 1024:
        assert torch.equal(features, (x.flatten(1) / 127.5 - 1 + 1) / 2)
    flat = torch.full((1, *shape), 51, dtype=torch.uint8)
    torch.testing.assert_close(Pixels()(flat), torch.full((1, features.shape[1]), 0.2))  # at the borders too


# --- the cache


def test_a_second_call_reads_what_the_first_one_kept(digits, brief):
    data = some(digits, 100)
    first, second = features_for(data), features_for(data, "classifier")
    assert brief == ["train_classifier"]
    x = torch.from_numpy(data.test.x)
    assert torch.equal(first(x), second(x)) and first.describe() == second.describe() and first.key == second.key
    features_for(some(digits, 101))
    assert len(brief) == 2


@pytest.mark.parametrize("damage", ["cut", "bit", "text"])
def test_a_damaged_entry_is_made_anew(digits, brief, damage):
    data = some(digits, 110)
    whole = features_for(data).key
    (place,) = cache.root().glob(f"features/{room._place('classifier', data).name}")
    kept = bytearray(place.read_bytes())
    if damage == "cut":
        kept = kept[: len(kept) // 2]
    elif damage == "bit":
        kept[-100] ^= 1
    else:
        kept = bytearray(b"no tensors")
    place.write_bytes(kept)
    brief.clear()
    assert features_for(data).key == whole
    assert brief == ["train_classifier"]
    features_for(data)
    assert len(brief) == 1
    place.unlink()


def test_a_cache_that_cannot_be_written_is_done_without(digits, brief, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FABULATE_CACHE", str(tmp_path / "file"))
    assert features_for(some(digits, 100))(torch.from_numpy(digits.test.x)).shape == (179, 64)


def test_data_without_classes_gets_an_encoder(digits, brief):
    data = unlabelled(digits)
    features = features_for(data)
    assert brief == ["train_encoder"] and "accuracy" not in features.describe()
    assert torch.equal(features(torch.from_numpy(digits.test.x)), features_for(data)(torch.from_numpy(digits.test.x)))
    assert brief == ["train_encoder"]
    with pytest.raises(DataError, match="'encoder' or 'pixels'"):
        features_for(data, "classifier")


def test_without_test_images_there_is_no_accuracy(digits, brief):
    assert "accuracy" not in features_for(replace(some(digits, 120), test=None)).describe()


@pytest.mark.parametrize("kind", ["pixel", "inception", "pixels:x", ""])
def test_features_that_do_not_exist_are_refused_and_named(digits, kind):
    with pytest.raises(ConfigError, match=r"no features .*auto, classifier, encoder, pixels"):
        features_for(digits, kind)


def test_features_that_are_given_are_taken(digits, learned):
    assert features_for(digits, learned) is learned
