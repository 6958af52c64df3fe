"""Pictures keep every pixel in its place, and files are either the old one or the new one."""

import json
from math import ceil, sqrt
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fabulate.files import read_json, sha256, write_file, write_json
from fabulate.pictures import grid, paired_rows, pairs, save_curves, save_gif, save_png, sheet, table, to_image


def pixels(n: int, channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (n, channels, height, width), np.uint8)  # never quite white


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_keeps_its_pixels_and_its_mode(channels, tmp_path):
    (image,) = pixels(1, channels, 5, 7)
    picture = to_image(image)
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert picture.size == (7, 5)
    save_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert np.array_equal(np.asarray(read).reshape(5, 7, channels).transpose(2, 0, 1), image)


@pytest.mark.parametrize("columns", [None, 1, 4])
@pytest.mark.parametrize(
    ("shape", "scale"), [((1, 8, 8), 8), ((3, 9, 11), 5), ((1, 28, 20), 2), ((3, 64, 64), 1), ((1, 100, 70), 1)]
)
@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_a_grid_shows_each_image_enlarged_at_its_place_on_white(n, shape, scale, columns):
    images = pixels(n, *shape)
    canvas = np.asarray(grid(images, columns))
    canvas = canvas.reshape(*canvas.shape[:2], -1).transpose(2, 0, 1)  # (C, rows, columns)
    columns = columns or ceil(sqrt(n))
    high, wide = (side * scale + 2 for side in shape[1:])  # a gap of one pixel on each side
    assert canvas.shape == (shape[0], ceil(n / columns) * high, columns * wide)
    for i, image in enumerate(images):
        top, left = i // columns * high + 1, i % columns * wide + 1
        tile = canvas[:, top : top + high - 2, left : left + wide - 2]
        assert np.array_equal(tile, np.kron(image, np.ones((1, scale, scale), np.uint8)))
    assert (canvas < 255).sum() == images.size * scale**2  # nothing else is drawn on


@pytest.mark.parametrize("n", [1, 4, 5, 8, 11])
def test_paired_rows_put_each_image_above_its_partner_in_a_grid(n):
    columns, first, second = 4, pixels(n, 1, 8, 8), 254 - pixels(n, 1, 8, 8)
    canvas = np.asarray(grid(paired_rows(first, second, columns), columns))
    for i in range(n):
        top, left = 2 * 66 * (i // columns) + 1, 66 * (i % columns) + 1
        above, below = (canvas[y : y + 64 : 8, left : left + 64 : 8] for y in (top, top + 66))
        assert np.array_equal(above, first[i, 0]) and np.array_equal(below, second[i, 0])


def places(picture: Image.Image, images: np.ndarray) -> list[list[tuple[int, int]]]:
    """Where (row, column of pixels) each 8x8 image of a set lies in a picture, enlarged."""
    canvas = np.asarray(picture.convert("L"))
    found = []
    for image in images[:, 0]:
        (*at,) = zip(*np.where(canvas[:-63, :-63] == image[0, 0]), strict=True)
        found.append([(y, x) for y, x in at if np.array_equal(canvas[y : y + 64 : 8, x : x + 64 : 8], image)])
    return [[min(at)] if at else [] for at in found]  # an enlarged image also matches a few pixels further


def test_a_sheet_puts_each_class_in_rows_behind_its_name():
    images, y = pixels(16, 1, 8, 8), np.array([2, 0] * 8)
    assert len(np.unique(images[:, 0, 0, 0])) == 16
    shown = places(sheet(images, "title", "legend", y, ["a", "b", "c"], columns=5), images)
    rows = {k: sorted({shown[i][0][0] for i in np.flatnonzero(y == k)}) for k in (0, 2)}
    assert len(rows[0]) == len(rows[2]) == 2 and max(rows[0]) < min(rows[2])
    assert all(left > 14 for ((_, left),) in shown), "the names are on the left"
    plain, named = (sheet(images, "t", y=y, classes=names, columns=8) for names in ("abc", ["a" * 9, "b", "c" * 300]))
    assert plain.height == named.height and 0 < named.width - plain.width < 200, "long names are cut"


def test_images_of_many_classes_have_the_names_below_them():
    images, y = pixels(20, 1, 8, 8), np.arange(20)[::-1].copy()
    bare = sheet(images, "title")
    picture = sheet(images, "title", y=y, classes=[f"class {k}" for k in range(20)])
    assert picture.width == bare.width and picture.height == bare.height + 4 * 16
    tops = [at[0][0] for at in places(picture, images[::-1])]
    assert tops == sorted(tops) and len(set(tops)) == 4, "in the order of the classes"
    canvas = np.asarray(picture)
    assert all((canvas[top + 66 : top + 80] < 128).any() for top in set(tops))


def test_pairs_are_named_and_each_stands_above_its_partner():
    first, second = pixels(11, 1, 8, 8), 254 - pixels(11, 1, 8, 8)
    picture = pairs(first, second, "title", columns=4)
    above, below = places(picture, first), places(picture, second)
    assert all(b[0][0] - a[0][0] == 66 and b[0][1] == a[0][1] for a, b in zip(above, below, strict=True))
    assert (np.asarray(picture)[above[0][0][0] :, : above[0][0][1] - 14] < 128).any()


@pytest.mark.parametrize("words", ["two\nlines", "\udcff", "x" * 3000, "", " ", "猫"])
def test_any_words_can_stand_in_a_picture(words):
    picture = table(pixels(4, 1, 8, 8), [words, words], words, words, [words, words], names=[words] * 4)
    assert picture.width <= 2 * 14 + 900


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shares", [(), (0.5, 0.125)])
def test_a_table_is_a_grid_with_words_around_it(channels, shares):
    images = pixels(6, channels, 8, 8).reshape(2, 3, channels, 8, 8)
    picture = table(images, ["a", "b", "c"], "title", "legend", ["one", "two"], shares)
    assert picture.mode == ("L" if channels == 1 and not shares else "RGB")
    inner = np.asarray(grid(images.reshape(6, channels, 8, 8), columns=3).convert("RGB"))
    canvas = np.asarray(picture.convert("RGB"))
    high, wide = inner.shape[:2]
    places = [
        (y, x)
        for y in range(canvas.shape[0] - high + 1)
        for x in range(canvas.shape[1] - wide + 1)
        if np.array_equal(canvas[y + 1, x + 1 : x + 9], inner[1, 1:9])
        and np.array_equal(canvas[y : y + high, x : x + wide], inner)
    ]
    assert len(places) == 1
    ((top, left),) = places
    assert (canvas[:top] < 128).any() and (canvas[:, :left] < 128).any()  # words above and on the left
    bars = [
        (canvas[top + row * high // 2 : top + (row + 1) * high // 2] == (0x3B, 0x6E, 0xA8)).all(2) for row in (0, 1)
    ]
    lengths = [int(bar.any(0)[:left].sum()) for bar in bars]
    assert lengths[1] == pytest.approx(lengths[0] / 4, abs=1) if shares else lengths == [0, 0]
    assert not shares or lengths[0] > 40


@pytest.mark.parametrize(("n", "order"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_an_animation_runs_forth_and_back_for_ever(n, order, tmp_path):
    frames = [Image.new("L", (4, 4), 60 * i) for i in range(n)]
    save_gif(frames, tmp_path / "a.gif", milliseconds=50)
    with Image.open(tmp_path / "a.gif") as animation:
        shown = []
        for i in range(getattr(animation, "n_frames", 1)):
            animation.seek(i)
            shown.append(animation.convert("L").getpixel((0, 0)) // 60)
            assert n == 1 or (animation.info["duration"], animation.info["loop"]) == (50, 0)
    assert shown == order


def test_curves_show_every_quantity_and_nothing_is_drawn_of_nothing(tmp_path):
    save_curves([{"step": 1}], tmp_path / "none.png", "t", {})
    assert not (tmp_path / "none.png").exists()
    one = [{"step": i, "train": {"loss": i}} for i in range(3)]
    four = [{"step": i, "train": dict.fromkeys("abcd", i), "test": {"e": 1.0}} for i in range(3)]
    sizes = []
    for rows in (one, four):
        save_curves(rows, tmp_path / "curves.png", "title", {})
        with Image.open(tmp_path / "curves.png") as picture:
            sizes.append(picture.size)
    assert sizes[1] == (3 * sizes[0][0], 2 * sizes[0][1] - 24)  # five quantities in two rows of three, one headline


def test_curves_say_what_they_show(tmp_path, monkeypatch):
    """Their words are those of the figure that is written: units at the axes, parts in the legend."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    rows = [{"step": i, "train": {"loss": i, "critic.loss": i}, "test": {"loss": i}} for i in range(3)]
    save_curves(rows, tmp_path / "curves.png", "cost $x_1", {"loss": "nats per image", "critic.loss": "score"})
    (figure,) = drawn
    assert figure.get_suptitle() == "cost $x_1"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss (nats per image)", "critic: loss (score)"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert [text.get_text() for text in figure.legends[0].texts] == ["training images", "test images"]


def fail_midway(file):
    file.write(b"half of the new")
    raise OSError("disk full")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, lambda file: file.write(b"old"))
    for stop in (fail_midway, lambda _: (_ for _ in ()).throw(KeyboardInterrupt)):
        with pytest.raises((OSError, KeyboardInterrupt)):
            write_file(path, stop)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
    write_file(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, lambda file: file.write(b"old"))

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_file(path, write)
    assert path.read_bytes() == b"new"


def test_json_comes_back_and_its_hash_is_that_of_its_bytes(tmp_path):
    path, value = tmp_path / "a.json", {"name": "Zürich", "list": [1, 2.5, None, True]}
    write_json(path, value)
    assert read_json(path, Any) == value == json.loads(path.read_text(encoding="utf-8"))
    before = sha256(path)
    write_json(path, value)
    assert sha256(path) == before
    assert len(before) == 64
    write_json(path, [])
    assert sha256(path) != before
