"""Parquet folders and the hub, and what is known about the real data sets."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_files import bomb, encoded, fill, notes, parquet, picture, pixels
from fabulate.data import load_data
from fabulate.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


def stack(n: int, first: int = 0) -> np.ndarray:
    return np.stack([pixels(i) for i in range(first, first + n)])


# Parquet in the hub's layout


@pytest.fixture
def hub_folder(tmp_path):
    images = [encoded(picture(i)) for i in range(20)]
    parquet(tmp_path / "shapes" / "train-00000-of-00002.parquet", images[:12], [0, 1] * 6, ["round", "angular"])
    parquet(tmp_path / "shapes" / "train-00001-of-00002.parquet", images[12:18], [0, 1] * 3, ["round", "angular"])
    parquet(tmp_path / "shapes" / "test-00000-of-00001.parquet", images[18:], [1, 0], ["round", "angular"])
    return tmp_path / "shapes"


def test_a_parquet_folder(hub_folder, own_cache):
    data = load_data(hub_folder)
    assert data.name == "shapes" and data.classes == ("round", "angular")  # in the order the file lists them
    assert (data.train.x[:, 0] == stack(18)).all() and (data.test.x[:, 0] == stack(2, first=18)).all()
    assert data.test.y.tolist() == [1, 0]
    again = load_data(hub_folder)
    assert again.report == data.report and (again.train.x == data.train.x).all()
    moved = hub_folder.rename(hub_folder.with_name("moved"))
    assert load_data(moved).fingerprint == data.fingerprint
    assert [path.name for path in own_cache.iterdir()] == ["data"]  # no second copy of the files is kept


def test_broken_images_in_parquet_are_set_aside(tmp_path):
    images = [encoded(picture(i)) for i in range(40)] + [b"", b"a text", bomb()]
    parquet(tmp_path / "shapes" / "train.parquet", images, [0, 1] * 21 + [0])  # plain labels: no names
    data = load_data(tmp_path / "shapes")
    assert dict(data.report.set_aside).keys() == {"train[40]", "train[41]", "train[42]"}
    assert data.report.kept == 40 and data.classes == ("0", "1") and len(data.test) == 4


def test_parquet_without_images_with_hidden_labels_and_damaged(tmp_path):
    images = [encoded(picture(i)) for i in range(10)]
    folder = tmp_path / "hidden"
    parquet(folder / "train.parquet", images, [0, 1] * 5, ["a", "b"])
    parquet(folder / "test.parquet", images[:2], [-1, -1], ["a", "b"])
    data = load_data(folder)
    assert data.classes == ("a", "b") and data.train.y.tolist() == [0, 1] * 5 and data.test.y is None
    assert "the test images are used without classes: 2 of 2 have none" in data.report.warning
    import pyarrow.parquet as pq

    (tmp_path / "words").mkdir()
    pq.write_table(pq.read_table(folder / "train.parquet").select(["label"]), tmp_path / "words" / "train.parquet")
    with pytest.raises(DataError, match=r"no column of images .*; given: label"):
        load_data(tmp_path / "words")
    (folder / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"train.parquet cannot be read: .*Is it whole\?"):
        load_data(folder)


def test_fabulate_data_holds_named_sets(hub_folder, monkeypatch, tmp_path):
    hub_folder.rename(tmp_path / "mnist")
    monkeypatch.setenv("FABULATE_DATA", str(tmp_path))
    data = load_data("mnist")
    assert data.name == "mnist" and data.classes == ("round", "angular")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("FABULATE_DATA", tmp_path.name)  # relative
    assert load_data("mnist").fingerprint == data.fingerprint
    fill(tmp_path / "cifar10", 9)  # a folder of images serves as well
    assert len(load_data("cifar10").train) == 9


# The hub


@pytest.fixture
def pretend_hub(hub_folder, monkeypatch):
    """A hub that serves one folder at one revision, and tells what was asked of it."""
    import huggingface_hub

    seen = []

    class Files:
        def glob(self, pattern, detail):
            root, _, ending = pattern.partition("/**/*")
            found = hub_folder.rglob(f"*{ending}") if ending else ()
            return {
                f"{root}/{path.relative_to(hub_folder).as_posix()}": {"size": path.stat().st_size} for path in found
            }

        def open(self, path, mode, cache_type):
            seen.append(path)
            return (hub_folder / path.split("@abc/")[1]).open(mode)

    def info(self, name, revision=None, timeout=None):
        seen.append((name, revision))
        files = ["a.zip"] if name == "someone/zipped" and revision is None else ["train.parquet"]
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=file) for file in files])

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Files)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.delenv("FABULATE_DATA", raising=False)
    return seen


def test_the_hub_is_asked_once(pretend_hub, own_cache):
    data = load_data("hf:someone/shapes")
    assert pretend_hub[0] == ("someone/shapes", None) and len(pretend_hub) == 4  # and each file once
    assert pretend_hub[1].startswith("datasets/someone/shapes@abc/")
    assert data.name == "shapes" and len(data.train) == 18 and data.classes == ("round", "angular")
    assert load_data("hf:someone/shapes").fingerprint == data.fingerprint
    assert load_data("hf:someone/shapes", size=4).shape == (1, 4, 4)
    assert len(pretend_hub) == 4
    load_data("mnist")
    assert pretend_hub[4] == ("ylecun/mnist", None)
    assert len(load_data("stream:hf:someone/shapes").train) == 18


def test_of_other_formats_the_hubs_own_parquet_files_are_read(pretend_hub):
    assert len(load_data("hf:someone/zipped").train) == 18
    assert pretend_hub[:2] == [("someone/zipped", None), ("someone/zipped", "refs/convert/parquet")]


def test_the_hub_without_a_cache(pretend_hub, monkeypatch):
    monkeypatch.setenv("FABULATE_CACHE", os.devnull)
    assert len(load_data("hf:someone/shapes").train) == 18


def test_which_files_are_the_parts_is_said(tmp_path):
    for name in ("test", "validation"):
        parquet(tmp_path / name / f"{name}.parquet", [encoded(picture(i)) for i in range(12)], [0] * 12)
        data = load_data(tmp_path / name)
        assert len(data.train) == 11 and "no parquet file is called train" in notes(data)
    parquet(tmp_path / "test" / "train.parquet", [encoded(picture(i)) for i in range(9)], [0] * 9)
    parquet(tmp_path / "test" / "val.parquet", [encoded(picture(i)) for i in range(3)], [0] * 3)
    data = load_data(tmp_path / "test")
    assert (len(data.train), len(data.test)) == (9, 12) and "validation files are not used" in data.report.warning


def test_a_readme_names_the_classes(tmp_path):
    parquet(tmp_path / "shapes" / "train.parquet", [encoded(picture(i)) for i in range(12)], [0, 1] * 6)
    head = "dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    (tmp_path / "shapes" / "README.md").write_text(
        f"---\n{head}          '0': cat\n          '1': dog\n---\n# Shapes\n"
    )
    assert load_data(tmp_path / "shapes").classes == ("cat", "dog")
    for text in ("no head", "---\na: [\n---\n", "---\ndataset_info: 3\n---\n"):
        (tmp_path / "shapes" / "README.md").write_text(text)
        assert load_data(tmp_path / "shapes").classes == ("0", "1")


@pytest.mark.parametrize("error", [ConnectionError("Name or service not known"), TimeoutError("timed out")])
def test_without_a_connection_the_error_says_what_to_do(monkeypatch, error):
    import huggingface_hub

    def offline(self, name, **_):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    monkeypatch.delenv("FABULATE_DATA", raising=False)
    with pytest.raises(DataError, match=r"fashion_mnist on the Hugging Face hub cannot be loaded: .*FABULATE_DATA"):
        load_data("fashion_mnist")


def test_a_hub_name_has_an_owner():
    with pytest.raises(DataError, match=r"hf:OWNER/NAME.*given: hf:mnist"):
        load_data("hf:mnist")


# The real data sets


def real(name: str, monkeypatch) -> None:
    around = os.environ.get("FABULATE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not (Path(around) / name).is_dir():
        pytest.skip(f"{name} is not in FABULATE_DATA")
    monkeypatch.setenv("FABULATE_DATA", str(around))


@pytest.mark.slow
def test_mnist(monkeypatch):
    real("mnist", monkeypatch)
    data = load_data("mnist")
    assert (len(data.train), len(data.test), str(data.shape)) == (60_000, 10_000, "28x28 gray")
    assert data.train.x.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert data.classes == tuple("0123456789") and data.report.train_classes["1"] == 6742
    code = (
        "import sys; from fabulate.data import load_data; load_data('mnist');"
        "print([name for name in ('sklearn', 'pyarrow', 'matplotlib') if name in sys.modules])"
    )
    again = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "[]"  # from the cache, without their imports


@pytest.mark.slow
def test_cifar10(monkeypatch):
    real("cifar10", monkeypatch)
    data = load_data("cifar10", size=8)
    assert (len(data.train), len(data.test), str(data.shape)) == (50_000, 10_000, "8x8 colour")
    assert set(data.report.train_classes.values()) == {5000} and "airplane" in data.classes
