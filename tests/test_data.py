"""Folders through intake and cache: what is kept, what is set aside and why, and that the report tells it."""

import errno
import json
import os
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from data_files import bomb, encoded, fill, lines, notes, picture, pixels, save
from fabulate.config import DataSpec, data_spec, from_json, to_json
from fabulate.data import Images, Resident, cache, intake, load_data, loading, read_image, render, resident
from fabulate.data.images import FileRows
from fabulate.errors import ConfigError, DarkError, DataError
from fabulate.seeds import permutation

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


# Images and batches


def test_batches_are_floats_in_their_range_and_know_their_classes():
    x = np.stack([pixels(i)[None] for i in range(5)])
    images = Images(x, np.arange(5))
    batch = images.batch(torch.tensor([4, 0, 4]))
    assert batch.x.dtype == torch.float32 and batch.y.tolist() == [4, 0, 4]
    assert (((batch.x.numpy() + 1) * 127.5).round() == x[[4, 0, 4]]).all()
    assert batch.x.min() >= -1 and batch.x.max() <= 1
    assert (images.pixels(torch.tensor([2])) == x[[2]]).all()
    assert Images(x).batch(torch.tensor([0])).y is None


@pytest.mark.parametrize("labels", [np.arange(5), None])
def test_images_on_a_device_give_the_same_batches(labels):
    images = Images(np.stack([pixels(i)[None] for i in range(5)]), labels)
    there = Resident(torch.tensor(images.x), None if labels is None else torch.tensor(labels))
    assert len(there) == 5
    for one, other in zip(there.batch(torch.tensor([4, 0])), images.batch(torch.tensor([4, 0])), strict=True):
        assert other is None if one is None else torch.equal(one, other)


def test_without_a_gpu_images_stay_where_they_are():
    images = Images(pixels(0)[None, None])
    assert resident(images, torch.device("cpu")) is images


def test_a_mapped_array_gives_the_same_batches(tmp_path):
    x = np.stack([pixels(i)[None] for i in range(5)])
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    indices = torch.tensor([3, 1, 3])
    for file, held in ((mapped, x), (mapped[1:], x[1:]), (mapped[::-1], x[::-1])):  # a view is not read by position
        assert Images(file).batch(indices).x.equal(Images(held.copy()).batch(indices).x)
        assert (Images(file).pixels(indices) == held[indices]).all()
    for bad in (-1, 5):
        with pytest.raises(IndexError, match="of 5"):
            Images(mapped).pixels(torch.tensor([bad]))


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system maps")
def test_a_mapped_array_does_not_become_resident(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (20_000, 3, 32, 32)).flush()
    images = Images(np.load(tmp_path / "x.npy", mmap_mode="r"))  # 59 MB
    assert FileRows.of(images.x)

    def mapped() -> int:
        """Bytes of mapped files in memory."""
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell what is resident")
    images.batch(torch.arange(100))
    before = mapped()
    for epoch in range(2):
        for indices in permutation(len(images), epoch).split(500):
            images.batch(indices)
    assert mapped() - before < images.x.nbytes / 10
    assert images.x.sum() == 0 and mapped() - before > images.x.nbytes / 2  # numpy's way: what the test would see


def test_a_mapped_file_that_was_cut_is_told(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((50, 1, 32, 32), np.uint8))
    images = Images(np.load(tmp_path / "x.npy", mmap_mode="r"))
    os.truncate(tmp_path / "x.npy", 30_000)
    with pytest.raises(DataError, match=r"x\.npy is shorter than it was"):
        images.batch(torch.tensor([49]))


def test_the_default_is_digits():
    data = load_data()
    assert (data.name, str(data.shape), data.classes) == ("digits", "8x8 gray", tuple("0123456789"))
    assert len(data.train) + len(data.test) == 1797 and len(data.test) == 179
    assert data.train.x.min() == 0 and data.train.x.max() == 255  # 0..16 in scikit-learn
    assert "held out (179 of 1,797)" in notes(data)


# Folders


def test_class_folders_in_natural_order_with_deeper_files(folder):
    for i, name in enumerate(["class 10", "class 9"]):
        fill(folder / name, 3, first=10 * i)
    save(picture(99), folder / "class 9" / "deep" / "down" / "X.PNG")
    data = load_data(folder)
    assert data.classes == ("class 9", "class 10") and data.name == "images"
    assert data.report.train_classes == {"class 9": 4, "class 10": 3}
    assert data.train.y.tolist() == [1, 1, 1, 0, 0, 0, 0]  # files sorted as words, classes numbered naturally


def test_images_outside_class_folders_mean_no_classes(folder):
    fill(folder / "cats", 2)
    fill(folder, 1, first=5)
    data = load_data(folder)
    assert data.classes == () and data.train.y is None
    assert "no classes: 1 image lies outside class folders, such as 005.png" in notes(data)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "TESTING")])
def test_train_and_test_folders(folder, train, test):
    for i, kind in enumerate(["a", "b"]):
        fill(folder / train / kind, 12, first=100 * i)
        fill(folder / test / kind, 2, first=100 * i + 50)
    fill(folder / "val" / "a", 1, first=70)
    fill(folder / "elsewhere", 3, first=80)
    data = load_data(folder)
    assert (len(data.train), len(data.test), data.classes) == (24, 4, ("a", "b"))
    assert data.test.y.tolist() == [0, 0, 1, 1]
    assert (
        f"images left out: 3 in elsewhere (the parts are {train}/ and {test}/); 1 in val/a ({test}/ is the test part)"
        in data.report.warning
    )


def test_test_classes_that_train_lacks_matter_to_those_who_need_them(folder):
    fill(folder / "train" / "a", 3)
    fill(folder / "test" / "a", 1, first=8)
    fill(folder / "test" / "b", 1, first=9)
    data = load_data(folder)
    assert data.classes == ("a",) and data.train.y.tolist() == [0, 0, 0] and len(data.test) == 2 and data.test.y is None
    assert (
        "the test images are used without their classes, as training lacks some of them: b (1)" in data.report.warning
    )
    assert load_data(folder).report == data.report  # from the cache
    assert data.unseen() is data.test and data.unseen(labelled=True) is data.train
    with pytest.raises(DataError, match=r"of classes that training lacks.*needs their classes: put each into"):
        data.tested()


def test_a_tenth_is_held_out_and_the_order_kept(folder):
    fill(folder, 30)
    data = load_data(folder)
    whole = np.stack([pixels(i)[None] for i in range(30)])
    assert len(data.test) == 3
    places = [[int((whole == image).all((1, 2, 3)).argmax()) for image in part.x] for part in (data.train, data.test)]
    assert sorted(places[0] + places[1]) == list(range(30)) and places == [sorted(part) for part in places]


def test_fewer_than_ten_images_fewer_than_a_batch_one_image(folder):
    fill(folder, 9)
    data = load_data(folder)
    assert data.test is None and len(data.train) == 9
    assert "fewer than one batch" in notes(data) and "too few images to hold any out" in notes(data)
    for i in range(1, 9):
        (folder / f"{i:03}.png").unlink()
    data = load_data(folder)
    assert len(data.train) == 1 and "one training image only" in notes(data)


def test_extensions_other_files_hidden_files_and_empty_class_folders(folder):
    for i, name in enumerate(["a.PNG", "b.JpG", "c.jpeg", "d.BMP", "e.Gif", "f.WEBP", "g.tif", "h.TIFF", "i.ppm"]):
        save(picture(i), folder / "cats" / name)
    save(picture(9), folder / "cats" / "j.PGM", format="PPM")
    (folder / "cats" / "notes.txt").write_text("not an image")
    (folder / "cats" / ".hidden.png").write_text("not an image")
    fill(folder / ".hidden", 2)
    (folder / "dogs").mkdir()
    data = load_data(folder)
    assert (data.report.found, data.report.kept, data.report.ignored) == (10, 10, {".txt": 1})
    assert data.classes == ("cats",) and "folders without images, not counted as classes: dogs" in notes(data)


def test_links_are_followed_and_loops_end(folder, tmp_path):
    fill(folder / "cats", 11)
    fill(tmp_path / "elsewhere", 2, first=50)
    (folder / "dogs").symlink_to(tmp_path / "elsewhere")
    (folder / "cats" / "linked.png").symlink_to(tmp_path / "elsewhere" / "050.png")
    (folder / "cats" / "loop").symlink_to(folder)
    (folder / "cats" / "broken.png").symlink_to("nowhere.png")
    (folder / "cats" / "itself.png").symlink_to("itself.png")
    data = load_data(folder, limit_broken=0.2)
    assert data.classes == ("cats", "dogs") and data.report.kept == 14 and data.report.found == 16
    assert dict(data.report.set_aside)["cats/broken.png"] == "broken link to nowhere.png"
    assert "cats/itself.png" in dict(data.report.set_aside)
    assert "not followed again: cats/loop" in notes(data)
    with pytest.raises(DataError, match=r"broken link to nowhere"):
        load_data(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(folder):
    fill(folder, 10)
    os.mkfifo(folder / "pipe.png")
    assert dict(load_data(folder).report.set_aside) == {"pipe.png": "not a regular file"}


# Bad images


def spoil(folder) -> set[str]:
    bad = {
        "bomb.png": bomb(),
        "empty.png": b"",
        "text.png": b"hello, this is a text",
        "truncated.png": encoded(picture(0, 64, 64))[:-300],  # of another size than the rest, and broken
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    return set(bad)


def test_below_the_limit_broken_images_are_set_aside(folder):
    fill(folder, 40)
    bad = spoil(folder)
    data = load_data(folder)
    assert {name for name, _ in data.report.set_aside} == bad
    assert (data.report.found, data.report.kept) == (44, 40) and len(data.train) == 36
    told = "\n".join(lines(data.report))
    assert "44 found, 40 kept, 4 set aside" in told and "empty.png: empty file (0 bytes)" in told


def test_removing_the_broken_images_changes_neither_images_nor_parts(folder):
    fill(folder, 40)
    clean = load_data(folder)
    spoil(folder)
    dirty = load_data(folder)
    assert (clean.train.x == dirty.train.x).all() and (clean.test.x == dirty.test.x).all()
    assert clean.fingerprint != dirty.fingerprint


def test_above_the_limit_they_are_listed(folder):
    fill(folder, 10)
    for i in range(25):
        (folder / f"bad{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"25 of 35 images cannot be read, more than the limit of 10%") as caught:
        load_data(folder)
    words = str(caught.value)
    assert "bad19.png: empty file" in words and "bad20.png" not in words
    assert "... and 5 more" in words and "--limit-broken" in words
    assert load_data(folder, limit_broken=0.8).report.kept == 10
    with pytest.raises(DataError, match=r"--limit-broken"):  # from the cache it is checked again
        load_data(folder)


def test_nothing_readable(folder):
    with pytest.raises(DataError, match=r"no images in .*an image is a file that ends in"):
        load_data(folder)
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be read:\n  a.png: empty file"):
        load_data(folder, limit_broken=1)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"no image can be read:\n  a.png: broken link"):
        load_data(folder, limit_broken=1)


def test_train_unreadable_and_test_readable(folder):
    (folder / "train").mkdir()
    (folder / "train" / "a.png").write_bytes(b"")
    fill(folder / "test", 2)
    with pytest.raises(DataError, match=r"none of the training images"):
        load_data(folder, limit_broken=1)


def test_mixed_sizes_are_refused_with_a_way_out(folder):
    fill(folder, 5, height=20, width=30)
    fill(folder, 3, first=10, height=40, width=40)
    with pytest.raises(DataError, match=r"20x30 \(5\), 40x40 \(3\).*--size N.*--size 16"):
        load_data(folder)
    data = load_data(folder, size=16)
    assert data.train.x.shape == (8, 1, 16, 16)
    assert "8 images resized to 16x16 with antialiasing (Lanczos), centre-cropped" in notes(data)
    assert "5 of them enlarged" in notes(load_data(folder, size=32))
    assert data.report.sizes == {"20x30": 5, "40x40": 3}


def test_gray_stays_gray_and_mixed_becomes_colour(folder):
    fill(folder, 20)
    assert load_data(folder).shape.channels == 1
    save(picture(50, channels=3), folder / "colour.png")  # met after gray rows: they are widened
    data = load_data(folder)
    assert data.shape.channels == 3 and "20 gray, 1 colour" in notes(data)
    everything = np.concatenate([data.train.x, data.test.x])
    for i in range(20):
        assert (everything == pixels(i)).all((1, 2, 3)).sum() == 1
    assert (everything == pixels(50, channels=3).transpose(2, 0, 1)).all((1, 2, 3)).sum() == 1
    assert load_data(folder, channels=1).shape.channels == 1
    save(picture(51, channels=3), folder / "000.png")  # met first: the rows are colour from the start
    assert load_data(folder).shape.channels == 3


def test_conversions_are_told(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(0), folder / "a.png", exif=exif)
    save(picture(1), folder / "b.gif", save_all=True, append_images=[picture(2)])
    save(Image.fromarray(pixels(3).astype(np.uint16) * 257), folder / "c.png")
    save(picture(4).convert("LA"), folder / "d.png")
    data = load_data(folder)
    for words in ("1 image rotated by their EXIF", "first frame taken", "16-bit gray divided by 257", "on white"):
        assert words in notes(data)
    assert data.report.modes["I;16"] == 1 and data.shape.channels == 1


def test_duplicates(folder):
    fill(folder / "train", 12)
    for name in ("train/zz.bmp", "test/same.png"):  # equal pixels, whatever the file
        save(picture(3), folder / name)
    report = load_data(folder).report
    assert report.duplicates == 2 and report.shared == 1
    assert report.duplicate_pairs == (("train/003.png", "train/zz.bmp"), ("train/003.png", "test/same.png"))
    assert "2 images repeat an earlier one; 1 test image also in the training part" in "\n".join(lines(report))


def test_the_report_goes_through_json_and_onto_a_console(folder):
    fill(folder / "[red]cats", 40)
    (folder / "[red]cats" / "[bold]empty.png").write_bytes(b"")
    report = load_data(folder).report
    assert from_json(type(report), json.loads(json.dumps(to_json(report)))) == report
    console = Console(file=StringIO(), width=100)
    console.print(render(report))
    assert "[bold]empty.png" in console.file.getvalue()


def test_progress_reaches_the_end(folder):
    fill(folder, 150)
    seen = []
    load_data(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (150, 150) and seen == sorted(seen) and len(seen) > 1


# Names and options


def test_a_path_that_does_not_exist_and_names_nearly_right(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder 'mnits'; did you mean 'mnist'"):
        load_data("mnits")
    fill(tmp_path / "flowers", 1)
    with pytest.raises(DataError, match=r"did you mean 'flowers'"):
        load_data(tmp_path / "flowrs")
    with pytest.raises(DataError, match=r"no file or folder '[^']*' \(known names: digits"):
        load_data(tmp_path / "something else entirely")
    with pytest.raises(DataError, match=r"is one image: give the folder around it"):
        load_data(tmp_path / "flowers" / "000.png")


def test_the_report_tells_what_a_crop_cuts_away_and_of_which(folder):
    fill(folder, 9, height=20, width=20)
    save(picture(99, 20, 80), folder / "wide.png")
    data = load_data(folder, size=16)
    assert data.report.cut == (pytest.approx(0.075), 0.75, "wide.png")
    assert any(
        line.startswith("cut away 8 % of the area on average, at most 75 % (wide.png)") for line in lines(data.report)
    )
    for options in ({"size": 16, "fit": "pad"}, {"size": 16, "fit": "stretch"}):
        assert load_data(folder, **options).report.cut is None


def test_sizes_of_any_shape_and_channels_with_alpha(folder):
    fill(folder, 20, height=20, width=30)
    for size in ("12x18", (12, 18), "12X18"):
        data = load_data(folder, size=size, channels=4)
        assert (data.shape, data.spec.size, str(data.shape)) == ((4, 12, 18), "12x18", "12x18 colour with alpha")
    found = [load_data(folder, **options) for options in ({"size": 8}, {"size": "8x8"}, {"size": (8, 8)})]
    assert len({data.fingerprint for data in found}) == 1 and {data.spec.size for data in found} == {8}
    options = [{"size": 8, "fit": fit} for fit in ("crop", "pad", "stretch")] + [{"size": 8, "channels": 2}]
    assert len({load_data(folder, **each).fingerprint for each in options}) == 4
    image = read_image(folder / "000.png", data.shape, data.spec)
    assert (image.numpy() == data.train.x).all((1, 2, 3)).any() or (image.numpy() == data.test.x).all((1, 2, 3)).any()


@pytest.mark.parametrize("size", ["0x8", "8x", "x", "8x8x8", "8x1025", "12by8", 8.5, "-8", True, (8,) * 3, ()])
def test_sizes_that_are_none_are_refused_in_words(size):
    with pytest.raises(ConfigError, match=r"^size: must be N or HEIGHTxWIDTH, sides from 1 to 1024, such as .* 96x128"):
        load_data("digits", size=size)


def test_options_out_of_bounds_are_refused():
    for options in ({"size": 0}, {"channels": 5}, {"limit_broken": 1.5}, {"fit": "pad"}):  # which needs a size
        with pytest.raises(ConfigError, match=next(iter(options))):
            load_data("digits", **options)


# Cache


def same(a, b) -> bool:
    return (
        (a.train.x == b.train.x).all()
        and (a.test.x == b.test.x).all()
        and (a.train.y == b.train.y).all()
        and (a.report, a.classes, a.fingerprint) == (b.report, b.classes, b.fingerprint)
    )


@pytest.fixture
def classes(folder):
    fill(folder / "cats", 15)
    fill(folder / "dogs", 15, first=50)
    return folder


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(intake, "decode", refuse)


def test_a_second_load_is_equal_and_decodes_nothing(classes, no_decoding, own_cache):
    first = load_data(classes)
    no_decoding()
    assert same(load_data(classes), first)
    assert [path.name for path in (own_cache / "data").iterdir()] == [first.fingerprint]  # nothing is left over
    with pytest.raises(AssertionError, match=r"decoded again"):
        load_data(classes, size=4)


def test_what_is_not_an_image_changes_the_report_but_not_the_fingerprint(classes, no_decoding):
    first = load_data(classes)
    no_decoding()
    (classes / "readme.txt").write_text("new")
    again = load_data(classes)
    assert again.fingerprint == first.fingerprint and again.report.ignored == {".txt": 1}


def test_a_moved_folder_is_the_same_and_a_changed_file_is_not(classes, no_decoding, tmp_path):
    first = load_data(classes)
    moved = tmp_path / "moved"
    shutil.move(classes, moved)
    os.utime(moved / "cats" / "000.png", (1, 1))
    save(picture(0), moved / "cats" / "000.png")
    no_decoding()
    assert same(load_data(moved), first) and load_data(moved).name == "moved"
    save(picture(77), moved / "cats" / "000.png")
    with pytest.raises(AssertionError, match=r"decoded again"):
        load_data(moved)


def test_fingerprints_tell_data_and_options_apart(classes):
    fingerprints = [load_data(classes, **options).fingerprint for options in ({}, {"size": 4}, {"channels": 3})]
    (classes / "cats" / "000.png").rename(classes / "dogs" / "000.png")  # the same pixels under another label
    fingerprints.append(load_data(classes).fingerprint)
    assert len(set(fingerprints)) == 4
    assert load_data(classes, limit_broken=0.5).fingerprint == fingerprints[-1]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("train_x.npy", lambda data: data[:-100]),
        ("train_x.npy", lambda data: data[:-100] + bytes([data[-100] ^ 255]) + data[-99:]),
        ("train_x.npy", lambda data: b""),
        ("data.json", lambda data: b'{"classes": ['),
        ("data.json", lambda data: None),
        ("data.json", lambda data: b"[]"),
    ],
    ids=["cut", "flip", "empty", "json", "missing", "wrong"],
)
def test_a_corrupt_cache_is_made_anew(classes, own_cache, no_decoding, name, harm):
    first = load_data(classes)
    file = own_cache / "data" / first.fingerprint / name
    harmed = harm(file.read_bytes())
    file.unlink() if harmed is None else file.write_bytes(harmed)
    assert same(load_data(classes), first)
    no_decoding()  # and it was stored again
    assert same(load_data(classes), first)


def test_a_full_disk_is_done_without(classes, monkeypatch, own_cache):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loading.np, "save", full)
    assert len(load_data(classes).train) == 27
    assert list((own_cache / "data").iterdir()) == []


def test_another_process_may_be_first(classes, monkeypatch, own_cache):
    first = load_data(classes)
    shutil.move(own_cache, own_cache.with_name("winner"))
    store = loading._store

    def late(stored, fingerprint, workspace):
        shutil.copytree(own_cache.with_name("winner") / "data" / fingerprint, own_cache / "data" / fingerprint)
        store(stored, fingerprint, workspace)

    monkeypatch.setattr(loading, "_store", late)
    assert same(load_data(classes), first)
    assert [path.name for path in (own_cache / "data").iterdir()] == [first.fingerprint]


def test_what_does_not_fit_is_mapped(classes, monkeypatch, own_cache):
    (classes / "cats" / "bad.png").write_bytes(b"")
    save(picture(99, channels=3), classes / "dogs" / "zz.png")
    first = load_data(classes)
    shutil.rmtree(own_cache)
    monkeypatch.setattr(cache, "in_memory", lambda nbytes: False)
    mapped = load_data(classes)
    assert isinstance(mapped.train.x, np.memmap) and same(mapped, first) and same(load_data(classes), first)
    indices = torch.tensor([5, 2])
    assert mapped.train.batch(indices).x.equal(first.train.batch(indices).x)
    entry = {path.stem for path in (own_cache / "data" / first.fingerprint).iterdir()}
    assert entry == {"data", "test_x", "test_y", "train_x", "train_y"}
    monkeypatch.setenv("FABULATE_CACHE", os.devnull)
    with pytest.raises(DataError, match=r"set FABULATE_CACHE to a folder with room"):
        load_data(classes)


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("FABULATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "fabulate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.root().parts[-2:] == (".cache", "fabulate")


def test_names_that_are_not_unicode(folder):
    if sys.platform != "linux":
        pytest.skip("this file system takes Unicode names only")
    fill(folder, 10)
    os.rename(os.fsencode(folder / "000.png"), os.fsencode(folder) + b"/\xff.png")  # noqa: PTH104  # bytes, not a Path
    (folder / "001.png").write_bytes(b"")
    data = load_data(folder)
    assert data.report.kept == 9 and load_data(folder).report == data.report


# Images of more than 8 bits


def dark(folder: Path, n: int = 12, low: int = 290, high: int = 674) -> Path:
    """A folder of 16-bit images of a 12-bit sensor."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        values = np.random.default_rng(i).integers(low, high + 1, (8, 8)).astype(np.uint16)
        values[0, 0], values[0, 1] = (low, high) if i == 3 else values[0, :2]
        Image.fromarray(values).save(folder / f"{i:02}.png")
    return folder


def test_16_bit_images_that_would_be_black_are_refused_with_their_range(folder):
    with pytest.raises(
        DarkError, match=r"290\.\.674 of 0\.\.65535.*--range 290:674.*--range 0:1023.*0:65535"
    ) as caught:
        load_data(dark(folder))
    assert caught.value.options == {"range": "290:674"}
    assert load_data(folder, range="0:65535").train.x.max() == 3  # who wants it dark has it dark


def test_one_scale_for_all_found_or_given(folder, no_decoding):
    data = load_data(dark(folder), range="auto")
    assert data.spec.range == "290:674" and "290..674 found" in notes(data)
    everything = np.concatenate([data.train.x, data.test.x])
    expected = np.array(
        [np.rint((np.asarray(Image.open(folder / f"{i:02}.png")) - 290.0) * 255 / 384) for i in range(12)]
    )
    assert sorted(everything.sum((1, 2, 3))) == sorted(expected.sum((1, 2)))
    no_decoding()  # the range that was found is kept too, and is the same as when it is given
    assert load_data(folder, range="auto").fingerprint == load_data(folder, range="290:674").fingerprint
    with pytest.raises(AssertionError, match="decoded again"):
        load_data(folder, range="0:4095")


def test_a_range_that_leaves_all_black_or_white_is_refused_and_what_has_8_bits_needs_none(folder, tmp_path):
    for asked, words in (("1000:2000", "makes all black"), ("0:100", "makes all white")):
        with pytest.raises(DataError, match=rf"{words}: the values found are 290\.\.674"):
            load_data(dark(folder), range=asked)
    fill(tmp_path / "plain", 9)
    assert "is not used" in notes(load_data(tmp_path / "plain", range="290:674"))
    with pytest.raises(DataError, match=r"no readable image of more than 8 bits"):
        load_data(tmp_path / "plain", range="auto")
    for bad in ("5:3", "nan:1", "dark", "1:2:3"):
        with pytest.raises(ConfigError, match=r"range: must be LOW:HIGH"):
            load_data(folder, range=bad)


def test_hot_pixels_do_not_make_images_bright(folder):
    for i in range(9):
        values = np.random.default_rng(i).integers(290, 675, (64, 64)).astype(np.uint16)
        values[5, 5] = 65535
        Image.fromarray(values).save(folder / f"{i}.png")
    with pytest.raises(DarkError):
        load_data(folder)


def test_the_range_found_is_told(folder):
    for i in range(9):
        Image.fromarray(pixels(i).astype(np.uint16) * 100).save(folder / f"{i}.png")
    high = 100 * max(int(pixels(i).max()) for i in range(9))
    assert f"..{high} of 0..65535; --range auto would make the brightest white" in notes(load_data(folder))


def test_one_image_is_read_by_the_range_of_those_that_were_learnt(folder):
    data = load_data(dark(folder), range="auto")
    image = read_image(folder / "03.png", data.shape, data.spec)
    assert (image.min(), image.max()) == (0, 255)
    with pytest.raises(DataError, match=r"03\.png hold values"):
        read_image(folder / "03.png", data.shape)


def test_a_record_without_range_still_reads():
    old = {"source": "digits", "size": None, "channels": None, "limit_broken": 0.1, "name": "digits"}
    assert data_spec(old | {"size": 8}) == DataSpec(size=8)
    assert data_spec(old) == DataSpec() and DataSpec(range=" 0.0:4095.50").range == "0:4095.5"


def test_the_cap_belongs_to_the_fingerprint(folder):
    fill(folder, 10)
    save(picture(99, 40, 40), folder / "large.png")
    data = load_data(folder, max_megapixels=0.001, size=8)
    assert dict(data.report.set_aside)["large.png"].startswith("decompression bomb: 40x40 pixels")
    assert load_data(folder, size=8).report.kept == 11 and load_data(folder, size=8).fingerprint != data.fingerprint


def test_orientation_after_the_pixels_leaves_no_row_undefined(folder):
    from test_data_decode import sideways

    for i in range(10):
        save(picture(i, 6, 4, 3), folder / f"{i}.png")
    (folder / "late.png").write_bytes(sideways("late exif"))
    data = load_data(folder)
    everything = np.concatenate([data.train.x, data.test.x])
    expected = pixels(0, 4, 6, 3).transpose(1, 0, 2)[:, ::-1].transpose(2, 0, 1)
    assert len(everything) == 11 and (everything == expected).all((1, 2, 3)).sum() == 1


def test_the_verb_shows_what_it_refuses(folder, capsys):
    from fabulate.cli import main

    with pytest.raises(SystemExit) as end:
        main(["data", str(dark(folder))])
    told = capsys.readouterr()
    assert end.value.code == 2 and "290..674" in told.out and "--range 290:674" in told.err
    main(["data", str(folder), "--range", "290:674"])
