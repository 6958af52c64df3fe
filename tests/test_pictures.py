"""Pictures keep every pixel in its place, and files are either the old one or the new one."""

import json
from math import ceil, sqrt

import numpy as np
import pytest
from PIL import Image

from fabulate.files import read_json, sha256, write_file, write_json
from fabulate.pictures import grid, paired_rows, save_curves, save_gif, save_png, table, to_image


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
    columns, first = 4, np.arange(n)
    rows = paired_rows(first, first + 100, columns)
    assert len(rows) == 2 * n
    for i in range(n):
        row = i // columns
        width = min(columns, n - row * columns)
        above = 2 * row * columns + i % columns
        assert (rows[above], rows[above + width]) == (i, i + 100)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shares", [(), (0.5, 0.125)])
def test_a_table_is_a_grid_with_words_around_it(channels, shares):
    images = pixels(6, channels, 8, 8).reshape(2, 3, channels, 8, 8)
    picture = table(images, ["a", "b", "c"], "title", "legend", ["one", "two"], shares)
    inner = np.asarray(grid(images.reshape(6, channels, 8, 8), columns=3).convert("RGB"))
    canvas = np.asarray(picture)
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
    save_curves([{"step": 1}], tmp_path / "none.png", "t")
    assert not (tmp_path / "none.png").exists()
    one = [{"step": i, "train": {"loss": i}} for i in range(3)]
    four = [{"step": i, "train": dict.fromkeys("abcd", i), "test": {"e": 1.0}} for i in range(3)]
    sizes = []
    for rows in (one, four):
        save_curves(rows, tmp_path / "curves.png", "title")
        with Image.open(tmp_path / "curves.png") as picture:
            sizes.append(picture.size)
    assert sizes[1] == (3 * sizes[0][0], 2 * sizes[0][1])  # five quantities in two rows of three


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
    assert read_json(path) == value == json.loads(path.read_text(encoding="utf-8"))
    before = sha256(path)
    write_json(path, value)
    assert sha256(path) == before
    assert len(before) == 64
    write_json(path, [])
    assert sha256(path) != before
