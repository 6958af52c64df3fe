"""Arrays and `.npz` files: what is read as what, what is refused, and that every entrance of the API does so."""

import zipfile

import numpy as np
import pytest
import torch

from data_files import notes, pixels
from fabulate import GenerativeOverSampler, Images, OutlierDetector, family, load_data, metrics
from fabulate.data import cache
from fabulate.data.arrays import npz
from fabulate.errors import ConfigError, DarkError, DataError
from fabulate.types import ImageShape
from fabulate.uses.augment import filters

pytestmark = pytest.mark.usefixtures("own_cache")


def stack(n: int, channels: int = 1, first: int = 0) -> np.ndarray:
    return np.stack([pixels(i, channels=channels) for i in range(first, first + n)])


X = stack(9)


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (X, X, ""),
        (X > 127, (X > 127) * 255, "true and false"),
        (X / 255, X, "floats in [0, 1]"),
        ((X / 255).astype(np.float32), X, "floats in [0, 1]"),
        (X.astype(np.float32) / 127.5 - 1, X, "floats in [-1, 1]"),
        (np.where(X > 127, 1.2, -1.2), (X > 127) * 255, "floats in [-1, 1]"),  # samples overshoot
        (X.astype(np.uint16) * 257, X, "16-bit integers divided by 257"),
    ],
)
def test_one_reading_for_each_kind_of_numbers(given, expected, words):
    data = load_data(given)
    assert (data.train.x[:, 0] == expected).all() and words in notes(data)


def test_the_three_layouts_of_an_array_are_one(own_cache):
    x = stack(9, channels=3)
    last, first = load_data(x), load_data(x.transpose(0, 3, 1, 2))
    assert (last.train.x == first.train.x).all() and last.train.x.shape == (9, 3, 8, 8)
    assert last.fingerprint == first.fingerprint != load_data(x[::-1]).fingerprint
    assert load_data(x, size=4, channels=1).train.x.shape == (9, 1, 4, 4)
    assert last.name == "array" and not own_cache.exists()  # an array in memory is not written to the disk


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 8, 8), np.int64), "given: int64 of shape .2, 8, 8., values 0..0"),
        (np.full((2, 8, 8), 200.0), "given: float64 of shape .*values 200..200"),
        (np.full((2, 8, 8), np.nan), "given: float64 .*values nan..nan"),
        (np.full((2, 8, 8), 9, np.uint16), "16-bit integers above 255; given: uint16"),
        (np.zeros((2, 64), np.uint8), r"must have the shape \(N, H, W\).*given: uint8 of shape \(2, 64\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), "C 1 to 4"),
        (np.zeros((0, 8, 8), np.uint8), "holds no images"),
        (np.full((2, 8, 8), "a"), "given: <U1"),
        (np.zeros((2, 3, 8, 3), np.uint8), "first or last"),
        (np.zeros((2, 1, 8, 1), np.uint8), "first or last"),
        (np.zeros((2, 4, 4, 4), np.uint8), "first or last"),
    ],
)
def test_other_numbers_are_refused_rather_than_guessed(x, words):
    with pytest.raises(DataError, match=words):
        load_data(x)


def test_16_bit_integers_that_would_be_black_are_refused():
    x = np.random.default_rng(0).integers(290, 675, (20, 8, 8)).astype(np.uint16)
    with pytest.raises(DarkError, match=r"--range 29\d:67\d"):
        load_data(x)
    data = load_data(x, range="auto")
    assert data.train.x.max() == 255 and data.spec.range == f"{x.min()}:{x.max()}"


# Detectors


def normals(n: int = 60) -> np.ndarray:
    """Dark images with a bright spot, channels last: uint8 (N, H, W, C)."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 30, (n, 8, 8, 3))
    x[:, 2:5, 2:5] += rng.integers(150, 200, (n, 1, 1, 1))
    return x.astype(np.uint8)


def test_a_detector_reads_every_kind_of_numbers_as_the_same_images():
    x = normals()
    first = x.transpose(0, 3, 1, 2)
    settings = {"scores": "mahalanobis", "random_state": 0}
    expected = OutlierDetector(**settings).fit(first).score_samples(first)
    for given in (x, first / 255, (first / 127.5 - 1).astype(np.float32), first.astype(np.uint16) * 257):
        detector = OutlierDetector(**settings).fit(given)
        assert detector.shape_ == (3, 8, 8)
        assert np.allclose(detector.score_samples(given), expected, atol=1e-3)
        assert np.allclose(detector.score_samples(x), expected, atol=1e-3)  # pixels are always plain


def test_a_detector_refuses_what_it_used_to_cut_to_8_bits():
    first = normals().transpose(0, 3, 1, 2)
    detector = OutlierDetector(scores="mahalanobis", image_shape=(3, 8, 8))
    for given in (first.astype(np.int64), first.astype(np.int16), first.astype(np.float32), first - 300.0):
        with pytest.raises(DataError, match=r"values|given"):
            detector.fit(given)
        with pytest.raises(DataError, match=r"values|given"):
            detector.fit(given.reshape(len(given), -1))
    detector.fit(first)
    with pytest.raises(DataError, match=r"may be of \[0, 1\] or of \[-1, 1\]"):
        detector.predict(first[:2] / 255)
    with pytest.raises(DataError, match="as those before them"):
        OutlierDetector(scores="mahalanobis").fit(first / 255).predict(first / 127.5 - 1)
    with pytest.raises(DataError, match=r"must have the shape \(3, 8, 8\)"):
        detector.predict(np.zeros((2, 3, 9, 8), np.uint8))


@pytest.mark.filterwarnings("ignore:class 1")  # how many samples pass the rules is not asked here
def test_an_over_sampler_gives_back_the_numbers_it_was_given(monkeypatch):
    monkeypatch.setattr(filters, "STEPS", 5)
    x, y = stack(40).reshape(40, -1), np.array([0] * 30 + [1] * 10)
    sampler = GenerativeOverSampler(image_shape=(1, 8, 8), hyperparameters={"steps": 2})
    made, _ = sampler.fit_resample(x / 255, y)
    assert made.dtype == np.float64 and (made[:40] == x / 255).all()
    assert made[40:].min() >= 0 and 0.5 < made[40:].max() <= 1
    with pytest.raises(DataError, match=r"0\.\.255"):
        sampler.fit_resample(x.astype(np.float64), y)
    with pytest.raises(DataError, match=r"values 0\.\.255"):
        sampler.fit_resample(x.astype(np.int16), y)


# Models


@pytest.fixture(scope="module")
def model():
    cls = family("vae")
    made = cls(cls.presets["default"].model, ImageShape(1, 8, 8), ("cats", "dogs"))
    return made.eval()


def test_models_take_pixels_however_they_come(model):
    x = stack(4)
    expected = model.encode(torch.from_numpy(x[:, None]), "cats")
    for given in (
        x[:, None],
        x[..., None],
        x,
        torch.from_numpy(x[..., None]),
        x[:, None].astype(np.float32) / 127.5 - 1,
    ):
        assert torch.allclose(model.encode(given, "cats"), expected, atol=1e-5)
    samples = model.sample(4, "cats")
    assert model.reconstruct(samples * 1.3, "cats").shape == (4, 1, 8, 8)  # a little outside of [-1, 1]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.arange(64.0).reshape(1, 1, 8, 8), r"x / 127.5 - 1"),
        (torch.arange(64.0).reshape(1, 1, 8, 8) / 63, r"x \* 2 - 1"),
        (torch.arange(64).reshape(1, 1, 8, 8), r"to\(torch.uint8\)"),
        (torch.full((1, 1, 8, 8), torch.nan), "a NaN or an infinity"),
        (np.arange(64).reshape(1, 1, 8, 8), "astype"),
    ],
)
def test_models_refuse_numbers_that_are_no_images(model, x, words):
    with pytest.raises(DataError, match=words):
        model.encode(x, "cats")


@pytest.mark.parametrize("y", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), np.str_("dogs"), "dogs"])
def test_labels_of_numpy_are_labels(model, y):
    expected = model.sample(2, 1, seed=3)
    assert model.class_number(y if not isinstance(y, np.ndarray) else y[()]) == 1
    assert torch.equal(model.sample(2, y, seed=3), expected)
    for several in ([y, y], np.array([1, 1]), np.array(["dogs", "dogs"]), torch.tensor([1, 1]), (1, "dogs")):
        assert torch.equal(model.sample(2, several, seed=3), expected)
        assert torch.equal(model.encode(stack(2), several), model.encode(stack(2), 1))


@pytest.mark.parametrize("y", [2, np.int64(-1), 1.0, np.float32(1), "cat", True])
def test_what_is_no_class_is_refused(model, y):
    with pytest.raises(ConfigError, match="there is no class"):
        model.sample(1, y)


def test_images_and_metrics_pass_the_gate():
    x = stack(4, 3)
    assert (Images(x).x == Images(x.transpose(0, 3, 1, 2)).x).all() and Images(
        x / 255, [0, 1, 0, 1]
    ).y.dtype == np.int64
    with pytest.raises(DataError, match="as many integers"):
        Images(x, np.array([0.5] * 4))
    with pytest.raises(DataError, match=r"0\.\.255"):
        Images(np.arange(256).reshape(1, 1, 16, 16))
    pair = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    assert metrics.psnr(pair, pair).isinf().all()
    with pytest.raises(DataError, match=r"127\.5"):
        metrics.psnr(pair.float(), pair)


# .npz


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "shapes.npz", **arrays)
    return tmp_path / "shapes.npz"


Y = np.arange(20) % 3
TRAIN, TEST = stack(20), stack(6, first=50)
NPZ = {
    "plain": {"x": TRAIN, "y": Y},
    "images": {"images": TRAIN, "labels": Y},
    "arr_0": {"arr_0": TRAIN, "y": Y},
    "one-hot": {"x_train": TRAIN, "y_train": np.eye(3)[Y], "x_test": TEST, "y_test": np.eye(3, dtype=bool)[Y[:6]]},
    "floats": {"x_train": TRAIN, "y_train": Y / 1.0, "x_test": TEST, "y_test": Y[:6].astype(np.float32)},
    "letters": {"X_train": TRAIN, "Y_train": Y, "X_test": TEST, "Y_test": Y[:6]},
    "keras": {"train_images": TRAIN, "train_labels": Y[:, None], "test_images": TEST, "y_test": Y[:6]},
    "bytes": {"train_x": TRAIN, "train_y": Y.astype("S1"), "test_x": TEST, "test_y": Y[:6].astype("U1")},
    "medmnist": {"train_images": TRAIN, "train_labels": Y[:, None], "val_images": TEST, "val_labels": Y[:6, None]},
}


@pytest.mark.parametrize("kind", NPZ)
def test_npz_of_every_kind(tmp_path, kind):
    data = load_data(saved(tmp_path, **NPZ[kind]))
    assert data.name == "shapes" and data.classes == ("0", "1", "2") and data.report.warning is None
    assert ("val_images is the test part" in notes(data)) == (kind == "medmnist")
    if len(NPZ[kind]) == 2:
        assert (len(data.train), len(data.test)) == (18, 2)
        return
    assert data.train.y.tolist() == Y.tolist() and data.test.y.tolist() == Y[:6].tolist()
    assert (data.train.x[:, 0] == TRAIN).all() and (data.test.x[:, 0] == TEST).all()


def test_classes_of_an_npz_by_words_by_names_and_by_halves(tmp_path):
    words = {"x_train": TRAIN, "y_train": np.array([["dog"], ["cat"]] * 10), "x_test": TEST[:2]}
    data = load_data(saved(tmp_path, **words, y_test=np.array(["cat", "dog"])))
    assert data.classes == ("cat", "dog") and data.test.y.tolist() == [0, 1]
    data = load_data(saved(tmp_path, images=TRAIN, labels=Y, x_test=TEST))
    assert data.classes == ("0", "1", "2") and data.test.y is None and "6 of 6 have none" in data.report.warning
    named = saved(tmp_path, images=TRAIN, labels=Y, classes=np.array(["cat", "dog", "ant"]))
    assert load_data(named).classes == ("cat", "dog", "ant")  # as `fabulate sample --npz` writes them
    data = load_data(saved(tmp_path, **NPZ["medmnist"], test_images=TEST[:2]))
    assert len(data.test) == 2 and "val_images is not used" in data.report.warning


def test_npz_without_labels_with_many_per_image_and_with_unknown_classes(tmp_path):
    assert load_data(saved(tmp_path, x=X)).classes == ()
    data = load_data(saved(tmp_path, x=X, y=np.zeros((9, 14), int)))
    assert data.classes == () and "14 labels per image" in notes(data)
    with pytest.raises(DataError, match=r"one class per image, 9 integers or words; given: int64 of shape \(8,\)"):
        load_data(saved(tmp_path, x=X, y=np.zeros(8, int)))
    data = load_data(saved(tmp_path, x_train=X, y_train=np.zeros(9, int), x_test=X[:1], y_test=np.array([5])))
    assert data.classes == ("0",) and data.test.y is None and "training lacks some of them: 5 (1)" in notes(data)


@pytest.mark.parametrize("content", ["text", "empty", "cut", "single", "strange", "objects"])
def test_npz_that_is_none(tmp_path, content):
    path = saved(tmp_path, x=TRAIN)
    whole, words = path.read_bytes(), r"cannot be read as an .npz file"
    if content == "single":
        with path.open("wb") as file:
            np.save(file, X)
        words = "is a single array"
    elif content == "strange":
        saved(tmp_path, pictures=X)
        words = r"no images under a known name; given: pictures uint8\[9, 8, 8\]"
    elif content == "objects":  # pickled objects are never loaded
        saved(tmp_path, x=np.array([{}, {}], object))
        words = "a zip of plain arrays.*: x: "
    else:
        path.write_bytes({"text": b"a text", "empty": b"", "cut": whole[: len(whole) // 2]}[content])
    with pytest.raises(DataError, match=words):
        load_data(path)


def test_both_parts_of_a_data_set_have_one_scale(tmp_path):
    train, test = np.linspace(-1, 1, 9 * 64).reshape(9, 8, 8), np.full((2, 8, 8), 0.5)  # alone it would be of [0, 1]
    assert (load_data(saved(tmp_path, x_train=train, x_test=test)).test.x == 191).all()


def test_of_an_npz_only_what_is_used_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=stack(20), y=np.arange(20) % 2, huge=np.zeros((64, 1024, 1024), np.uint8))
    opened = []
    read = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda self, name, *a: opened.append(str(name)) or read(self, name, *a)
    )
    assert len(load_data(path).train) == 18
    assert {name for name in opened if "huge" in name} == set()


def test_an_npz_that_does_not_fit_is_refused_by_its_header_or_mapped(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((3, 1024, 1024), np.uint8))
    monkeypatch.setattr(cache, "in_memory", lambda nbytes: nbytes < 1 << 20)
    usage = cache.shutil.disk_usage
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda place: usage(place)._replace(free=1 << 20))
    with pytest.raises(DataError, match=r"bomb\.npz: x \[3, 1024, 1024\] need 0\.0 GiB, too much"):
        load_data(path)
    monkeypatch.setattr(cache.shutil, "disk_usage", usage)
    with npz(path).open() as contents:
        assert isinstance(contents.train.raws, np.memmap) and not contents.train.raws.flags.writeable
        assert contents.train.raws.shape == (3, 1, 1024, 1024)
    assert [place.name for place in (tmp_path / "cache" / "data").iterdir()] == []


def test_a_header_that_promises_more_than_there_is_is_damage(tmp_path):
    path = tmp_path / "lies.npz"
    np.savez(path, x=stack(3))
    with zipfile.ZipFile(path) as file:
        data = file.read("x.npy")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", data.replace(b"(3, 8, 8)", b"(3, 8, 9)"))
    with pytest.raises(DataError, match=r"x: its header promises 216 bytes, and there are 192"):
        load_data(path)
