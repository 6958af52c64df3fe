"""What the folders around images mean, labels from metadata files, and tables that lie beside images."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_files import encoded, fill, lines, notes, parquet, picture, save
from fabulate.data import image_names, load_data
from fabulate.data.folder import lay_out
from fabulate.errors import ConfigError, DataError
from fabulate.models import family
from fabulate.training import train
from fabulate.types import ImageShape
from fabulate.uses.augment.folder import split
from fabulate.uses.outliers.detector import OutlierDetector
from fabulate.uses.outliers.ranking import rank
from tiny import ends

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


def make(folder, tree: dict[str, int]) -> None:
    """A folder of different images: how many in each sub-folder."""
    for i, (name, n) in enumerate(tree.items()):
        fill(folder / name, n, first=100 * i)


def counts(data) -> dict[str, int]:
    """Images of each class, of both parts together."""
    return {
        name: n + data.report.test_classes.get(name, 0) for name, n in data.report.train_classes.items()
    }  # without a test part a tenth was held out


# Parts or classes


def test_a_class_may_be_called_train(folder):
    make(folder, {"bus": 4, "car": 5, "train": 6})
    data = load_data(folder)
    assert counts(data) == {"bus": 4, "car": 5, "train": 6} and data.report.warning is None
    assert "train/ is a class like bus/, as there is no test or validation part beside it" in notes(data)
    fill(folder / "train" / "steam", 1, first=900)  # so it might have been meant as a part: every verb tells
    assert "Warning: train/ is a class like bus/" in load_data(folder).report.warning
    make(folder, {"test": 2})
    data = load_data(folder)
    assert len(data.train) == 7 and len(data.test) == 2
    assert "images left out: 9 in bus, car (the parts are train/ and test/)" in data.report.warning


@pytest.mark.parametrize(
    ("tree", "train", "test", "classes"),
    [
        ({"training_set/a": 3, "training_set/b": 3, "test_set/a": 1}, 6, 1, ("a", "b")),
        (
            {"training_set/training_set/a": 3, "training_set/training_set/b": 2, "test_set/test_set/b": 1},
            5,
            1,
            ("a", "b"),
        ),
        ({"train_images": 3, "test_images": 2}, 3, 2, ()),
        ({"seg_train/seg_train/a": 3, "seg_test/seg_test/a": 2}, 3, 2, ("a",)),
        ({"Train/a": 3, "VALID/a": 2}, 3, 2, ("a",)),
        ({"train2017": 3, "val2017": 2}, 3, 2, ()),
        ({"train/a": 3, "dev/a": 2}, 3, 2, ("a",)),
        ({"train/a": 3, "train/b": 3}, 6, 0, ("a", "b")),
        ({"flowers/flowers/rose": 3, "flowers/flowers/lily": 2}, 5, 0, ("lily", "rose")),
        ({"set/train/a": 3, "set/test/a": 2}, 3, 2, ("a",)),
        ({"images/train": 3, "images/val": 2}, 3, 2, ()),  # YOLO, with labels/*.txt
        ({"train/images": 3, "valid/images": 2}, 3, 2, ()),
        ({"images": 3}, 3, 0, ()),
        ({"cats": 3}, 3, 0, ("cats",)),
        ({"one/two/three/a": 2, "one/two/three/b": 2}, 4, 0, ("a", "b")),
        ({"test": 3, "good": 2}, 5, 0, ("good", "test")),  # nothing is called train
        ({"valid": 3, "expired": 2}, 5, 0, ("expired", "valid")),
    ],
)
def test_layouts(folder, tree, train, test, classes):
    make(folder, tree)
    data = load_data(folder)
    assert (len(data.train), len(data.test) if data.test else 0, data.classes) == (train, test, classes)
    assert data.report.warning is None  # nothing was left out
    names = image_names(data)
    assert len(names) == train + test and all((folder / name).is_file() for name in names)


def test_what_a_folder_was_taken_for_is_said(folder):
    make(folder, {"set/images/train": 3, "set/images/val": 2, "set/labels": 0})
    for part in ("train", "val"):
        (folder / "set" / "labels" / part).mkdir(parents=True)
        (folder / "set" / "labels" / part / "000.txt").write_text("0 0.5 0.5 1 1")
    data = load_data(folder)
    assert len(data.train) == 3 and len(data.test) == 2
    told = notes(data)
    assert "all images of set/ lie in set/images/, which is no class" in told
    assert "no test folder: set/images/val/ is the test part" in told
    assert "folders without images, not counted as classes: set/labels" in told
    assert data.report.warning == "Note: 2 files ignored, which are no images by their ending: .txt (2)."


def test_mvtec(folder):
    make(folder, {"train/good": 12, "test/good": 3, "test/crack": 4, "ground_truth/crack": 4})
    data = load_data(folder)
    assert (len(data.train), len(data.test), data.classes, data.test.y) == (12, 7, ("good",), None)
    assert data.report.warning.splitlines() == [
        "Warning: images left out: 4 in ground_truth/crack (masks or labels of other images).",
        "Warning: the test images are used without their classes, as training lacks some of them: crack (4).",
    ]
    assert any("good" in line and "12 train" in line and "test" not in line for line in lines(data.report))
    assert set(image_names(data)) == {name for name in image_names(data) if "ground_truth" not in name}


def test_all_of_mvtec_at_once_leaves_the_masks_out(folder):
    for kind in ("bottle", "cable"):
        make(folder / kind, {"train/good": 3, "test/crack": 2, "ground_truth/crack": 2})
    data = load_data(folder)
    assert counts(data) == {"bottle": 5, "cable": 5}
    assert "4 in bottle/ground_truth/crack, cable/ground_truth/crack (masks" in data.report.warning


def test_masks_beside_images(folder):
    make(folder, {"images": 3, "masks": 3})
    data = load_data(folder)
    assert len(data.train) == 3 and "3 in masks (masks or labels of other images)" in data.report.warning
    layout = lay_out(
        ["a/x (1).png", "a/x (1)_mask.png", "a/x (1)_mask_1.png", "a/lone_mask.png", "b/y.jpg", "b/y-seg.png"]
    )
    assert layout.train == {"a/x (1).png": "a", "a/lone_mask.png": "a", "b/y.jpg": "b"}
    faces = lay_out(["mask/1.png", "no_mask/1.png"])  # classes of people
    assert not faces.left_out and set(faces.train.values()) == {"mask", "no_mask"}


def test_what_systems_keep_among_images_is_skipped_and_said(folder):
    make(folder, {"cats": 5, "dogs": 5, "cats/@eaDir/000.png": 2, "__MACOSX/cats": 3})
    (folder / "cats" / "Thumbs.db").write_text("x")
    (folder / "desktop.ini").write_text("x")
    data = load_data(folder)
    assert counts(data) == {"cats": 5, "dogs": 5} and data.report.warning is None
    assert "folders of the system, skipped: __MACOSX, cats/@eaDir" in notes(data)


def test_files_ignored_are_counted_by_their_ending(folder):
    make(folder, {"cats": 5})
    for name in ("a.txt", "b.TXT", "c.xml", "README"):
        (folder / "cats" / name).write_text("x")
    warning = load_data(folder).report.warning
    assert warning == "Note: 4 files ignored, which are no images by their ending: .txt (2), without one (1), .xml (1)."
    assert load_data(folder).report.warning == warning  # from the cache too
    texts = folder.parent / "texts"
    texts.mkdir()
    (texts / "a.doc").write_text("x")
    with pytest.raises(DataError, match=r"no images in .* \(1 file ignored, which is no image by its ending: .doc"):
        load_data(texts)


def test_the_report_says_once_what_was_left_out(folder, capsys):
    make(folder, {"cats": 5})
    (folder / "a.txt").write_text("x")
    (folder / "cats/broken.png").write_text("x")
    assert ends("data", folder, "--limit-broken", 1) == 0
    shown = "".join(capsys.readouterr())
    assert [shown.count(what) for what in ("1 file ignored", "1 set aside", "broken.png")] == [1, 1, 1]


def test_an_empty_training_folder(folder):
    make(folder, {"test/a": 3})
    (folder / "train").mkdir()
    with pytest.raises(DataError, match=r"no images in train/: put the training images there"):
        load_data(folder)


# Test images without classes


def test_labelled_training_images_keep_their_classes_beside_unlabelled_test_images(folder):
    make(folder, {"train/a": 3, "train/b": 3, "test": 2})
    data = load_data(folder)
    assert data.classes == ("a", "b") and data.train.y.tolist() == [0, 0, 0, 1, 1, 1] and data.test.y is None
    assert "the test images are used without classes: 2 of 2 have none" in data.report.warning
    make(folder, {"train/c": 0})
    make(folder.parent / "other", {"train": 3, "test/a": 2})
    data = load_data(folder.parent / "other")
    assert data.classes == () and "only the test images have labels" in data.report.warning


# Metadata files


def write_rows(path, rows: list[dict]) -> None:
    if path.suffix == ".csv":
        text = "\n".join(",".join(map(str, values)) for values in [list(rows[0]), *(row.values() for row in rows)])
        path.write_text(text + "\n", encoding="utf-8-sig")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_labels_from_metadata(folder, ending):
    make(folder, {"pictures": 6})
    rows = [{"file_name": f"pictures/{i:03}.png", "size": i, "label": "odd" if i % 2 else "even"} for i in range(6)]
    write_rows(folder / f"metadata.{ending}", rows)
    data = load_data(folder)
    assert data.classes == ("even", "odd") and data.train.y.tolist() == [0, 1] * 3
    assert f"classes come from metadata.{ending}" in notes(data) and data.report.warning is None
    rows[0]["label"] = "odd"  # no pixel changed, and yet it is another data set
    write_rows(folder / f"metadata.{ending}", rows)
    again = load_data(folder)
    assert again.fingerprint != data.fingerprint and again.train.y.tolist() == [1, 1, 0, 1, 0, 1]
    write_rows(folder / f"metadata.{ending}", rows[1:])
    data = load_data(folder)
    assert data.classes == () and "no classes: 1 of 6 training images have no label" in data.report.warning


def test_metadata_in_each_part_and_what_it_may_lack(folder):
    make(folder, {"train": 4, "test": 2})
    write_rows(folder / "train" / "metadata.csv", [{"file_name": f"{i:03}.png", "label": i % 2} for i in range(5)])
    write_rows(folder / "test" / "metadata.csv", [{"file_name": f"{i}.png", "label": 1} for i in (100, 101)])
    data = load_data(folder)
    assert data.classes == ("0", "1") and data.test.y.tolist() == [1, 1]
    assert "train/metadata.csv names 1 file that is not there, or is no image, such as 004.png" in data.report.warning
    write_rows(folder / "train" / "metadata.csv", [{"file_name": "000.png", "text": "a cat"}])
    (folder / "test" / "metadata.csv").unlink()
    data = load_data(folder)
    assert data.classes == () and data.report.ignored == {".csv": 1}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "file_name,label\n000.png,a\n000.png,b\n", r"gives 000.png two labels, a and b"),
        ("metadata.csv", b"file_name,label\n\xff\xfe,a\n", r"cannot be read as a table with commas, in UTF-8"),
        ("metadata.jsonl", "{", r"cannot be read as one JSON object a line"),
        ("metadata.jsonl", "[1]", r"must hold one JSON object a line; given: \[1\]"),
        ("metadata.parquet", "none", r"metadata.parquet cannot be read: .*Is it whole"),
    ],
)
def test_metadata_that_cannot_be_believed_is_refused(folder, name, text, words):
    make(folder, {".": 3})
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        load_data(folder)


# Tables beside images


def table(path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("place", ["features.parquet", "cats/features.parquet", "cats/deep/features.parquet"])
def test_a_table_beside_images_hides_nothing_and_changes_are_seen(folder, place):
    make(folder, {"cats": 5, "dogs": 5})
    table(folder / place, score=[0.5, 1.5])
    data = load_data(folder)
    assert counts(data) == {"cats": 5, "dogs": 5} and data.report.ignored == {".parquet": 1}
    save(picture(999), folder / "cats" / "000.png")
    replaced = load_data(folder)
    assert (replaced.train.x != data.train.x).any() or (replaced.test.x != data.test.x).any()
    save(picture(1000), folder / "cats" / "new.png")
    assert counts(load_data(folder)) == {"cats": 6, "dogs": 5}
    (folder / place).write_bytes(b"PAR1 and nothing more")
    assert counts(load_data(folder)) == {"cats": 6, "dogs": 5}


def test_images_in_files_and_in_tables_the_more_are_taken_and_the_others_told(folder):
    make(folder, {"cats": 5})
    parquet(folder / "cats" / "few.parquet", [encoded(picture(i)) for i in range(3)], [0, 1, 0])
    data = load_data(folder)
    assert counts(data) == {"cats": 5} and "images in parquet files left out: 3" in data.report.warning
    parquet(folder / "data" / "train.parquet", [encoded(picture(i)) for i in range(30)], [0, 1] * 15)
    (folder / "README.md").write_text("pictures of cats")
    data = load_data(folder)
    assert data.classes == ("0", "1") and len(data.train) + len(data.test) == 33
    assert "image files left out: 5, beside parquet files that hold more images" in data.report.warning


def test_a_table_without_images_beside_parquet_files_with_images(folder):
    parquet(folder / "train.parquet", [encoded(picture(i)) for i in range(9)], [0, 1, 0] * 3)
    table(folder / "stats.parquet", mean=[0.5])
    for i in range(3):
        (folder / f"{i}.csv").write_text("a,b\n1,2\n")  # more of them than parquet files
    data = load_data(folder)
    assert len(data.train) == 9 and data.classes == ("0", "1") and "not used: stats.parquet" in notes(data)


def test_parquet_files_far_down_count(folder):
    parquet(folder / "a" / "b" / "train.parquet", [encoded(picture(i)) for i in range(9)], [0, 1, 0] * 3)
    first = load_data(folder)
    parquet(folder / "a" / "b" / "train.parquet", [encoded(picture(i)) for i in range(1, 10)], [0, 1, 0] * 3)
    assert load_data(folder).fingerprint != first.fingerprint


@pytest.mark.parametrize("read", ["", "stream:"])
def test_labels_of_every_kind_of_column(folder, read):
    images = [{"bytes": encoded(picture(i)), "path": None} for i in range(6)]
    words = pa.array(["a", "b"] * 3)
    kinds = {
        "large": words.cast(pa.large_string()),
        "dictionary": words.dictionary_encode(),
        "view": words.cast(pa.string_view()),
    }
    for name, labels in kinds.items():
        table(folder / name / "train.parquet", image=images, label=labels)
        data = load_data(f"{read}{folder / name}")
        assert data.classes == ("a", "b") and data.train.y.tolist() == [0, 1] * 3, name
    table(folder / "float" / "train.parquet", image=images, label=pa.array([0.0, 1.0] * 3))
    assert load_data(f"{read}{folder / 'float'}").classes == ("0", "1")


# Many classes


def test_five_thousand_classes_take_no_time_of_their_own(folder):
    names = [f"{part}/class {i}/{j}.png" for part in ("train", "test") for i in range(5_000) for j in range(2)]
    layout = lay_out(names)
    assert len(set(layout.train.values())) == 5_000 and len(layout.test) == 10_000
    x = np.zeros((5_000, 1, 1), np.uint8)
    folder.mkdir()
    np.savez(folder / "many.npz", x=x, y=np.arange(5_000))
    data = load_data(folder / "many.npz")
    assert len(data.classes) == 5_000 and len(lines(data.report)) < 60


# Through the product


def test_whoever_needs_the_classes_of_test_images_says_so_and_nobody_else(folder, tmp_path):
    make(folder, {"train/a": 12, "train/b": 12, "test/a": 3, "test/crack": 3})
    data = load_data(folder)
    assert len(data.test) == 6 and data.test.y is None
    with pytest.raises(DataError, match=r"has test images without classes, or of classes that training lacks"):
        split(data)
    model = train("vae", data, out=tmp_path / "run", conditional=True, steps=2, quiet=True)
    assert model.classes == ("a", "b") and model.record["test"] == {}  # it cannot be asked about them
    free = train("vae", data, out=tmp_path / "free", steps=2, quiet=True)
    assert "loss" in free.record["test"]
    for source, images in ((model, data.train), (free, data.test)):
        assert data.unseen(labelled=bool(source.classes)) is images
    ranked = rank(OutlierDetector(["mahalanobis"], false_alarm=0.2, random_state=0).fit(data.train.x), data)
    assert ranked.classes == ("a",) * 12 + ("b",) * 12 + ("",) * 6 and len(ranked.names) == 30


def test_a_class_is_found_by_its_name_at_once_among_many(folder):
    model = family("vae")(family("vae").Config(), ImageShape(1, 8, 8), [f"class {i}" for i in range(1000)])
    assert model.labels(["class 999", 3], 2).tolist() == [999, 3]
    with pytest.raises(ConfigError, match=r"there is no class 'class 1000'.*classes: class 0, .*class 19, \.\.\.\)"):
        model.class_number("class 1000")
