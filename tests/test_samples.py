"""Samples on disk: each class in a folder of its own, any number in constant memory, in parts that join, drawn once."""

import io
import json
import shutil
import tracemalloc
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fabulate.errors import ConfigError, RunError
from fabulate.files import read_json
from fabulate.models.base import TILE, GenerativeModel, NoChoice
from fabulate.samples import Manifest, Order, Places, join, write_npz, write_samples
from fabulate.samples.writing import DRAWING, Parts, lines, stream_npz
from fabulate.types import ImageShape, to_uint8
from tiny import Case, ends, make

MANY = 10**9


def test_classes_whose_names_meet_have_folders_of_their_own(tmp_path):
    classes = ("a/b", "a_b", "A_B", "x" * 300, "grid.png", "manifest.json", "", "CON", "end.")
    model = make(Case("vae", "mlp", classes))
    places = write_samples(model, tmp_path / "drawn", 2 * len(classes))
    found = read_json(tmp_path / "drawn" / "manifest.json", Manifest)
    assert found["classes"] == list(classes)
    folders = [found["folders"].get(name, name) for name in classes]
    assert len({name.casefold() for name in folders}) == len(classes)
    for i, name in enumerate(found["images"]):
        assert name.split("/")[0] == folders[i % len(classes)]
        assert places[i] == tmp_path / "drawn" / name and places[i].is_file()
    assert "a_b" not in found["folders"], "a name that is fine stays"


def test_a_billion_samples_begin_at_once_and_in_constant_memory(tmp_path):
    """Their number, labels, names and manifest: nothing of it is as long as they are many."""
    tracemalloc.start()
    order = Order(make(Case("vae", "mlp", ("cat", "dog"))), MANY)
    places = Places(tmp_path, order)
    assert len(places) == MANY
    assert places[-1] == tmp_path / "dog" / "999999999.png"
    assert places[3:5] == [tmp_path / "dog" / "000000003.png", tmp_path / "cat" / "000000004.png"]
    assert order.labels(MANY - 2, MANY).tolist() == [0, 1]
    assert len(list(islice(lines(order.head(), places.all_names()), 10_000))) == 10_000
    first, images = next(order.batches())
    assert first == 0 and images.shape == (256, 1, 8, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_the_manifest_that_is_written_in_pieces_is_json_of_its_form(tmp_path):
    write_samples(make(Case("vae", "mlp", ("cat", "dög/x"))), tmp_path, 5, batch_size=2)
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert json.loads(text)["folders"] == {"dög/x": "dög_x"}


@pytest.mark.parametrize("write", [write_samples, write_npz])
def test_what_cannot_fit_on_the_disk_is_refused_before_work_begins(write, tmp_path):
    with pytest.raises(RunError, match=r"^1,000,000,000,000,000 images of 8x8 gray take up to .* free there: even "):
        write(make(Case("vae", "mlp")), tmp_path / "drawn", 10**15)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("free", "words"), [(1100, "Warning: 100 images"), (10**12, "100 images")])
def test_much_is_told_before_work_begins(free, words, tmp_path, monkeypatch):
    """What may not fit, and what takes much."""
    monkeypatch.setattr("fabulate.samples.writing.MUCH", 1000)
    monkeypatch.setattr("fabulate.samples.writing.BLOCK", 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    said = []
    write_samples(make(Case("vae", "mlp")), tmp_path, 100, say=said.append)
    assert said.pop().startswith(words)


@pytest.mark.parametrize("write", [write_samples, write_npz])
def test_the_same_samples_are_not_drawn_twice(write, tmp_path, monkeypatch):
    model, said, out = make(Case("vae", "mlp", ("cat", "dog"))), [], tmp_path / "drawn.npz"
    write(model, out, 6, say=said.append)
    assert not said
    another = make(Case("vae", "mlp", ("cat", "dog")), seed=1)
    monkeypatch.setattr(type(model), "draw", None)
    for y in (None, [0, 1, 0, 1, 0, 1]):  # the same classes, given otherwise
        write(model, out, 6, y, say=said.append)
        assert "holds these 6 images already" in said.pop()
    others = [{"n": 7}, {"seed": 1}, {"start": 2}, {"y": "cat"}, {"y": [0, 1, 0, 1, 1, 0]}, {"model": another}]
    for other in others:
        with pytest.raises(RunError, match="give --overwrite"):
            write(**{"model": model, "n": 6, ("path" if write is write_npz else "folder"): out, **other})
    if write is write_samples:
        (out / "cat" / "00002.png").unlink()
        with pytest.raises(RunError, match="is not empty"):
            write(model, out, 6)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"images": ["../../victim"]}'])
def test_a_damaged_manifest_is_not_believed(content, tmp_path):
    model = make(Case("vae", "mlp"))
    write_samples(model, tmp_path, 2)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunError, match="is not empty"):
        write_samples(model, tmp_path, 2)


def test_links_in_the_folder_are_replaced_and_not_followed(tmp_path):
    model, drawn = make(Case("vae", "mlp", ("cat", "dog"))), tmp_path / "drawn"
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"keep")
    write_samples(model, drawn, 2)
    (drawn / "cat" / "00000.png").unlink()
    (drawn / "cat" / "00000.png").symlink_to(mine)
    write_samples(model, drawn, 2, overwrite=True)
    assert mine.read_bytes() == b"keep" and not (drawn / "cat" / "00000.png").is_symlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(drawn / "dog")
    (drawn / "dog").symlink_to(elsewhere)
    with pytest.raises(RunError, match="is a link"):
        write_samples(model, drawn, 2, overwrite=True)
    assert not list(elsewhere.iterdir())


def test_overwriting_replaces_our_own_images_only(tmp_path):
    model = make(Case("vae", "mlp"))
    (tmp_path / "00000.png").write_text("mine")
    with pytest.raises(RunError, match="overwrite replaces only what fabulate wrote"):
        write_samples(model, tmp_path, 3, overwrite=True)
    assert (tmp_path / "00000.png").read_text() == "mine"
    write_samples(model, tmp_path / "own", 3)
    write_samples(model, tmp_path / "own", 3, seed=1, overwrite=True)
    assert not (tmp_path / "own" / DRAWING).exists()


def test_samples_that_were_cut_off_are_ours_to_replace_and_not_taken_for_whole(tmp_path, monkeypatch):
    model = make(Case("vae", "mlp"))
    write_samples(model, tmp_path, 3)

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as power:
        power.setattr("fabulate.samples.writing.save_png", cut)
        with pytest.raises(KeyboardInterrupt):
            write_samples(model, tmp_path, 3, seed=1, overwrite=True)
    with pytest.raises(RunError, match="is not empty"):
        write_samples(model, tmp_path, 3)  # its manifest still tells of these, and some are others
    write_samples(model, tmp_path, 3, overwrite=True)


# Parts


def test_samples_are_the_same_in_any_batch():
    model = make(Case("vae", "mlp", ("cat", "dog", "horse")))
    whole = to_uint8(model.sample(150)).numpy()
    for start, size in ((0, 150), (0, 40), (0, 1), (7, 64), (149, 8)):
        found = [images for _, images in Order(model, 150 - start, start=start, batch_size=size).batches()]
        assert np.array_equal(np.concatenate(found), whole[start:])


PARTS = {0: 3, 3: 60, 63: 1, 64: 11}  # from where, how many


@pytest.mark.parametrize("classes", [(), ("cat", "dog", "a/b")])
@pytest.mark.parametrize("form", ["", ".npz"])
def test_parts_are_joined_to_what_one_draws(form, classes, tmp_path):
    model, write = make(Case("vae", "mlp", classes)), write_npz if form else write_samples
    write(model, tmp_path / f"one{form}", 75, seed=3)
    parts = [tmp_path / f"from {start}{form}" for start in PARTS]
    for part, (start, n) in zip(parts, PARTS.items(), strict=True):
        write(model, part, n, seed=3, start=start, batch_size=n % 7 + 1)
    made = tmp_path / f"all{form}"
    assert ends("join", *reversed(parts), "--out", made, "-n", 75) == 0
    if form:
        assert made.read_bytes() == (tmp_path / "one.npz").read_bytes()
        return
    one, joined = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (tmp_path / "one", made))
    assert one == joined and len(one) == 75 + 2 and not (made / DRAWING).exists()


def test_only_the_parts_of_one_whole_are_joined(tmp_path):
    model, out = make(Case("vae", "mlp")), tmp_path / "all"
    spans = {"a": (0, 4), "b": (4, 4), "c": (6, 4), "d": (8, 4)}
    for name, (start, n) in spans.items():
        write_samples(model, tmp_path / name, n, start=start)
    write_samples(make(Case("vae", "mlp"), seed=1), tmp_path / "other", 4, start=4)
    write_samples(model, tmp_path / "seed", 4, start=4, seed=1)
    write_npz(model, tmp_path / "b.npz", 4, start=4)
    for names, message in (
        ("a d", "samples 4 to 7 are missing"),
        ("b d", "samples 0 to 3 are missing"),
        ("a b c", "c has samples 6 to 7, as another part has"),
        ("a b b", "b has samples 4 to 7, as another part has"),
        ("a other", "by another model than"),
        ("a seed", "by another seed than"),
        ("a nowhere", "nowhere is no .npz of samples"),
        ("a b", "9 samples are asked for, and the parts have 8"),
    ):
        with pytest.raises(RunError, match=message):
            join([tmp_path / name for name in names.split()], out, n=9)
    for parts, place in ((["a", "b.npz"], out), (["a"], tmp_path / "all.npz"), ([], out)):
        with pytest.raises(ConfigError, match="all must be of one kind"):
            join([tmp_path / name for name in parts], place)
    (tmp_path / "b" / "00005.png").unlink()
    with pytest.raises(RunError, match=r"00005.png is missing"):
        join([tmp_path / "a", tmp_path / "b"], out)
    (tmp_path / "b" / "manifest.json").unlink()
    with pytest.raises(RunError, match="b is not whole"):
        join([tmp_path / "a", tmp_path / "b"], out)
    assert not out.exists()


# Memory


class Blank(GenerativeModel):
    """A model without a family whose samples are told by their numbers, so that drawing costs nothing."""

    def __init__(self):
        super().__init__(NoChoice(), ImageShape(1, 64, 64))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def players(self):
        return {}

    def draw(self, tiles, y):
        return torch.cat([torch.rand(TILE, 1, 1, 1, generator=tile) for tile in tiles]).expand(-1, *self.shape)


@pytest.mark.parametrize("write", [write_npz, write_samples])
def test_memory_does_not_grow_with_the_number_of_images(write, tmp_path, monkeypatch):
    monkeypatch.setattr(Blank, "family", "blank", raising=False)
    batch = Order._batch  # tracemalloc sees what numpy holds, not what torch does: so batches lie in numpy's memory
    monkeypatch.setattr(Order, "_batch", lambda *words: batch(*words).copy())
    model, peaks, numbers = Blank(), [], (256, 1536)
    for n in (numbers[0], *numbers, numbers[1]):  # the first time is for what is imported and kept
        tracemalloc.start()
        write(model, tmp_path / f"{len(peaks)}-{n}", n, batch_size=128)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Of two times the lower: paths intern their names, and once in a while all the interpreter's table of them moves.
    grown = (min(peaks[2:]) - peaks[1]) / (numbers[1] - numbers[0])
    assert grown < 0.3 * model.shape.size  # bytes an image: less than its own, which are left for its path


def test_an_npz_written_in_parts_is_numpys_own():
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 5), dtype=np.uint8)
    others = {"seed": np.array(3), "classes": np.array(["cat", "dög"])}
    for sizes in ([10], [3, 7], [1] * 10):
        ours, numpys = io.BytesIO(), io.BytesIO()
        parts = Parts(images.shape, np.uint8, np.split(images, np.cumsum(sizes)[:-1]))
        stream_npz(ours, {"images": parts, **others})
        np.savez_compressed(numpys, images=images, **others)
        assert ours.getvalue() == numpys.getvalue()


def test_numbers_are_as_long_as_the_whole_needs(tmp_path):
    """As if one had drawn them: the names of a part's images are shorter where its last number is."""
    model = make(Case("vae", "mlp"))
    for start in (99_998, 100_000):
        write_samples(model, tmp_path / f"{start}", 2, start=start)
    assert sorted(path.name for path in (tmp_path / "99998").glob("9*.png")) == ["99998.png", "99999.png"]
    head = read_json(tmp_path / "99998" / "manifest.json", Manifest)
    for name in (tmp_path / "99998", tmp_path / "100000"):  # as if these were all there are
        text = (name / "manifest.json").read_text()
        (name / "manifest.json").write_text(text.replace('"start": 99998', '"start": 0').replace("100000,", "2,"))
    assert head["start"] == 99_998
    names = read_json(join([tmp_path / "99998", tmp_path / "100000"], tmp_path / "all") / "manifest.json", Manifest)
    assert names["images"] == ["00000.png", "00001.png", "00002.png", "00003.png"]
