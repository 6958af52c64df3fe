"""Samples on disk: each class in a folder of its own, any number in constant memory, the same ones only once."""

import json
import shutil
import tracemalloc
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from fabulate.errors import RunError
from fabulate.files import read_json
from fabulate.samples import DRAWING, Manifest, Order, Places, lines, write_npz, write_samples
from tiny import Case, make

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
    assert len(list(islice(lines(order, places), 10_000))) == 10_000
    first, images = next(order.own())
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
    monkeypatch.setattr("fabulate.samples.MUCH", 1000)
    monkeypatch.setattr("fabulate.samples.BLOCK", 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    said = []
    write_samples(make(Case("vae", "mlp")), tmp_path, 100, say=said.append)
    assert said.pop().startswith(words)


def test_the_same_samples_are_not_drawn_twice(tmp_path, monkeypatch):
    model, said = make(Case("vae", "mlp", ("cat", "dog"))), []
    first = write_samples(model, tmp_path, 6, say=said.append)
    assert not said
    monkeypatch.setattr(type(model), "draw", None)
    for y in (None, [0, 1, 0, 1, 0, 1]):  # the same classes, given otherwise
        assert list(write_samples(model, tmp_path, 6, y, say=said.append)) == list(first)
        assert "holds these 6 images already" in said.pop()
    another = make(Case("vae", "mlp", ("cat", "dog")), seed=1)
    others = [{"n": 7}, {"seed": 1}, {"y": "cat"}, {"y": [0, 1, 0, 1, 1, 0]}, {"model": another}]
    for other in others:
        with pytest.raises(RunError, match="is not empty; give --overwrite"):
            write_samples(**{"model": model, "folder": tmp_path, "n": 6, **other})
    first[2].unlink()
    with pytest.raises(RunError, match="is not empty"):
        write_samples(model, tmp_path, 6)


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


def test_labels_of_an_npz_are_those_of_its_images(tmp_path):
    model = make(Case("vae", "mlp", ("cat", "dog", "horse")))
    arrays = np.load(write_npz(model, tmp_path / "a.npz", 7, batch_size=2))
    assert arrays["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert arrays["labels"].dtype == np.int64


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
        power.setattr("fabulate.samples.save_png", cut)
        with pytest.raises(KeyboardInterrupt):
            write_samples(model, tmp_path, 3, seed=1, overwrite=True)
    with pytest.raises(RunError, match="is not empty"):
        write_samples(model, tmp_path, 3)  # its manifest still tells of these, and some are others
    write_samples(model, tmp_path, 3, overwrite=True)
