"""Streams of parquet shards: every image once, exact resumption, bounded memory, and what is wrong with images told."""

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import fabulate
from data_files import encoded, picture
from fabulate.cli import main
from fabulate.config import DataSpec, Training, from_json, override, to_json
from fabulate.data import load_data, once, parquet, read_once, stream
from fabulate.errors import DataError, MixedSizesError
from fabulate.evaluation import evaluate
from fabulate.models import family
from fabulate.nets import MLP
from fabulate.pictures import to_image
from fabulate.processes import Processes
from fabulate.training.loop import Learner
from fabulate.types import ImageShape, order_of

NAMES = tuple("0123456789")


def write(path, images, labels=None, names=NAMES, rows=50):
    """A shard in the hub's layout with `rows` images in a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": [None if data is None else {"bytes": data, "path": None} for data in images]}
    features = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = labels
        features |= {"label": {"names": list(names), "_type": "ClassLabel"}} if names else {}
    table = pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    )
    pq.write_table(table, path, row_group_size=rows)


def pngs(n, first=0):
    return [encoded(picture(i)) for i in range(first, first + n)]


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """700 digits in two training shards of seven row groups each, and 90 to test with."""
    root = tmp_path_factory.mktemp("shards") / "written"
    images, labels = [encoded(to_image(x)) for x in digits.train.x[:790]], digits.train.y[:790].tolist()
    for name, a, b in (("data/train-0-of-2", 0, 350), ("data/train-1-of-2", 350, 700), ("data/test-0-of-1", 700, 790)):
        write(root / f"{name}.parquet", images[a:b], labels[a:b])
    return root


@pytest.fixture
def small_windows(monkeypatch):
    """Three row groups are shuffled together."""
    monkeypatch.setattr(stream, "SHUFFLED", 150)


@pytest.fixture
def reads(monkeypatch):
    """The row groups that are read, as they are."""
    seen = []

    read_images = parquet.read_images

    def read(group, columns):
        seen.append((group.shard.name, group.number))
        return read_images(group, columns)

    monkeypatch.setattr(parquet, "read_images", read)
    return seen


def test_a_stream_holds_what_intake_would(folder):
    streamed, held = load_data(f"stream:{folder}"), load_data(folder)
    assert (len(streamed.train), len(streamed.test), streamed.shape) == (700, 90, held.shape)
    assert streamed.classes == held.classes and streamed.name == held.name == "written"
    everything = torch.arange(700).flip(0)
    (x, y), (held_x, held_y) = streamed.train.batch(everything), held.train.batch(everything)
    assert x.equal(held_x) and y.equal(held_y)
    assert (streamed.test.x == held.test.x).all() and (streamed.test.y == held.test.y).all()
    assert streamed.report.train_classes == held.report.train_classes
    assert from_json(type(streamed.report), to_json(streamed.report)) == streamed.report


def test_an_epoch_reads_each_row_group_once_and_holds_few(folder, small_windows, reads):
    images = load_data(f"stream:{folder}").train
    assert images.window == 3 and len(images.groups) == 14
    reads.clear()
    orders = []
    for epoch in range(3):
        orders.append(images.order(7, epoch))
        for indices in orders[-1].split(16):
            images.batch(indices)
            assert len(images.reader.held) <= 6
        assert sorted(orders[-1].tolist()) == list(range(700))
    assert images.order(7, 1).equal(orders[1]) and not orders[0].equal(orders[1])
    assert not images.order(8, 0).equal(orders[0])
    # The first window of an epoch may still be held from the one before; nothing else is read twice in an epoch.
    assert 3 * 14 - 2 * 6 <= len(reads) <= 3 * 14
    first = orders[0].split(150)
    assert all(len(set((window // 50).tolist())) == 3 for window in first[:-1])  # a window is three whole row groups
    assert (first[0].diff() != 1).any()  # shuffled


def learner(images, **options):
    training = Training(**({"steps": 45, "batch_size": 32, "epochs": None} | options))
    torch.manual_seed(0)
    return Learner(family("vae")(family("vae").presets["tutorial"].model, images.shape), training, images)


def test_the_halves_of_two_processes_are_the_batch(folder, small_windows):
    images = load_data(f"stream:{folder}").train
    asked = []
    images.stored = lambda indices: asked.append(indices) or fabulate.Batch(torch.zeros(len(indices), 1, 8, 8))
    lesson = learner(images)
    for lesson.step in range(44):  # two epochs, across their border
        asked.clear()
        for lesson.processes in (Processes(), Processes(0, 2), Processes(1, 2)):
            lesson.parts = lesson.processes.count  # a micro-batch for each
            lesson.micro_batches()
        whole, *halves = asked
        assert torch.cat(halves).equal(whole) and not set(halves[0].tolist()) & set(halves[1].tolist())


def cut_after(monkeypatch, calls):
    """The power goes after so many batches."""
    stored, count = stream.Stream.stored, iter(range(10**9))

    def mortal(self, indices):
        if next(count) >= calls:
            raise InterruptedError("power cut")
        return stored(self, indices)

    monkeypatch.setattr(stream.Stream, "stored", mortal)


def test_a_training_that_is_cut_off_goes_on_at_the_exact_image(folder, small_windows, tmp_path):
    def trained(out):
        options = {"steps": 20, "batch_size": 64, "network": MLP(hidden=(16,)), "save_every": 4, "quiet": True}
        model = fabulate.train("gan", f"stream:{folder}", out=tmp_path / out, **options)
        return torch.cat([p.flatten() for p in model.parameters()])

    straight = trained("straight")
    for calls in (7, 9):  # in the first epoch of 11 steps, and in the second
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, calls)
            with pytest.raises(InterruptedError):
                trained("cut")
    assert (tmp_path / "cut" / "checkpoints" / "latest.json").exists()
    assert torch.isfinite(straight).all() and trained("cut").equal(straight)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """200 images, of which five in four row groups cannot be used; the few looked at beforehand are sound."""
    monkeypatch.setattr(stream, "LOOKS", 8)
    images, labels = pngs(200), [i % 10 for i in range(200)]
    images[1], images[51], images[52] = b"", images[51][:40], b"no image"
    images[101], images[151] = None, encoded(picture(151, height=9))
    write(tmp_path / "set" / "train.parquet", images, labels)
    write(tmp_path / "set" / "test.parquet", pngs(20, 500), [0] * 20)
    return tmp_path / "set"


def test_others_stand_in_for_broken_images_and_they_are_counted(broken):
    images = load_data(f"stream:{broken}").train
    x = images.pixels(torch.tensor([1, 51, 52, 101, 151, 49, 53]))
    sound = [2, 53, 53, 102, 152, 49, 53]
    assert (x == images.pixels(torch.tensor(sound))).all()
    assert images.batch(torch.tensor([1, 51, 52])).y.tolist() == [2, 3, 3]  # with their own classes
    assert sorted(images.broken) == [1, 51, 52, 101, 151]
    assert images.broken[1] == "empty file (0 bytes)" and images.broken[52].startswith("not an image")
    assert images.broken[151] == "9x8, the others are 8x8"
    (sentence,) = images.warnings()
    assert "1 or more" in sentence and "stand in for them (the first: train.parquet[" in sentence


def test_a_streamed_training_tells_of_broken_images(broken, tmp_path, capsys):
    fabulate.train("ae", f"stream:{broken}", out=tmp_path / "run", steps=8, batch_size=32)
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("1 or more of the streamed images cannot be used") == 1


def test_too_many_broken_images_stop_a_stream(broken):
    images = load_data(f"stream:{broken}", limit_broken=0.02).train
    with pytest.raises(DataError, match=r"5 of \d+ streamed images cannot be used.* limit of 2%(.|\n)*--limit-broken"):
        images.batch(torch.arange(200))


def test_a_row_group_without_any_image_stops_a_stream(tmp_path):
    write(tmp_path / "train.parquet", pngs(50) + [b"x"] * 50 + pngs(50, 100))
    images = load_data(f"stream:{tmp_path}", limit_broken=1).train
    with pytest.raises(DataError, match=r"no image of row group \d of train.parquet"):
        images.batch(torch.arange(len(images)))


def test_a_sample_shows_what_is_wrong_before_training(tmp_path):
    odd = [encoded(picture(i, height=8 + 4 * (i % 2))) for i in range(100)]
    write(tmp_path / "sizes" / "train.parquet", odd)
    with pytest.raises(MixedSizesError, match=r"8x8 .*12x8 .*--size 8"):
        load_data(f"stream:{tmp_path / 'sizes'}")
    fitted = load_data(f"stream:{tmp_path / 'sizes'}", size=8)
    assert fitted.train.batch(torch.arange(50)).x.shape == (50, 1, 8, 8) and not fitted.train.broken
    write(tmp_path / "bad" / "train.parquet", [b"x" if i % 4 == 0 else x for i, x in enumerate(pngs(100))])
    with pytest.raises(DataError, match=r"\d+ of \d+ images looked at cannot be read.* limit of 10%"):
        load_data(f"stream:{tmp_path / 'bad'}")
    assert (
        load_data(f"stream:{tmp_path / 'bad'}", limit_broken=0.5).report.warning.count("images looked at cannot") == 1
    )
    write(tmp_path / "none" / "train.parquet", [b"x"] * 20)
    with pytest.raises(DataError, match="no image of those looked at can be read"):
        load_data(f"stream:{tmp_path / 'none'}", limit_broken=1)


def test_gray_and_colour_become_colour_or_what_is_asked_for(tmp_path):
    write(tmp_path / "train.parquet", [encoded(picture(i, channels=1 + 2 * (i % 2))) for i in range(60)])
    assert load_data(f"stream:{tmp_path}").shape == (3, 8, 8)
    assert load_data(f"stream:{tmp_path}", channels=1).train.pixels(torch.arange(3)).shape == (3, 1, 8, 8)


def test_without_test_files_row_groups_are_held_out(tmp_path):
    write(tmp_path / "images.parquet", pngs(300), rows=20)
    data = load_data(f"stream:{tmp_path}")
    assert (len(data.train), len(data.test)) == (280, 20) and data.train.y is None and not data.classes
    shown = {x.tobytes() for x in data.train.pixels(torch.arange(280))}
    assert len(shown) == 280 and not shown & {x.tobytes() for x in data.test.x}
    write(tmp_path / "images.parquet", pngs(300), rows=100)
    data = load_data(f"stream:{tmp_path}")
    assert data.test is None and "no row group is small enough" in " ".join(data.report.notes)


def test_labels_are_names_numbers_or_missing(tmp_path):
    for name, labels, names in (("plain", ["b", "a"] * 30, ()), ("hidden", [0] * 59 + [-1], NAMES)):
        write(tmp_path / name / "train.parquet", pngs(60), labels, names)
    plain, hidden = (load_data(f"stream:{tmp_path / name}") for name in ("plain", "hidden"))
    assert plain.classes == ("a", "b") and plain.train.batch(torch.arange(3)).y.tolist() == [1, 0, 1]
    assert not hidden.classes and "no classes: 1 of 60 training images have no label" in hidden.report.warning


def test_images_sorted_by_class_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "SHUFFLED", 40)
    write(tmp_path / "train.parquet", pngs(200), [i // 20 for i in range(200)], rows=20)
    assert "hold one class only" in load_data(f"stream:{tmp_path}").report.notes[-1]


def test_a_fingerprint_is_of_what_the_footers_tell(folder, tmp_path):
    before = load_data(f"stream:{folder}").fingerprint
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_data(f"stream:{copy}").fingerprint == before != load_data(f"stream:{copy}", size=4).fingerprint
    write(copy / "data" / "train-1-of-2.parquet", pngs(350), [0] * 350)
    assert load_data(f"stream:{copy}").fingerprint != before


def test_what_cannot_be_streamed_is_told(tmp_path, folder):
    def told(source, words):
        with pytest.raises(DataError, match=words):
            load_data(f"stream:{source}")

    told(tmp_path / "nothing", "there is no file or folder .*nothing")
    (tmp_path / "images").mkdir()
    told(tmp_path / "images", r"no parquet files in .*images.*--data .*images")
    told(folder / "data" / "train-0-of-2.parquet", "one|kind")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "images" / "train.parquet")
    told(tmp_path / "images", r"no column of images.*text \(string\)")
    write(tmp_path / "images" / "train.parquet", pngs(5), [0] * 5)
    write(tmp_path / "images" / "train2.parquet", pngs(5))
    told(tmp_path / "images", "train2.parquet has other columns")
    (tmp_path / "images" / "train2.parquet").unlink()
    (tmp_path / "images" / "train.parquet").write_bytes(b"PAR1 and no more")
    told(tmp_path / "images", r"train.parquet cannot be read: .*Is it whole\?")
    with pytest.raises(DataError, match="hf:OWNER/NAME"):
        load_data("stream:hf:nobody")


def test_a_file_that_is_cut_while_it_is_read_is_told(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    images = load_data(f"stream:{copy}").train
    for path in copy.glob("data/train*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"train-\d-of-2.parquet cannot be read"):
        images.batch(torch.arange(700))


def refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "leave out `stream:`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_the_command_line_trains_on_a_stream(name, folder, tmp_path, capsys):
    out = tmp_path / name
    words = ["--steps", "2", "--conditional", "--network", "mlp", "--network.hidden", "16", "--out", str(out)]
    main(["train", name, "--data", f"stream:{folder}", *words])
    assert (out / "samples.png").exists() and (out / "model" / "model.safetensors").exists()
    if name == "vae":
        assert (out / "reconstructions.png").exists()
        main(["reconstruct", str(out)])
        main(["traverse", str(out), "--n", "4"])
        main(["evaluate", str(out), "-n", "60", "--features", "pixels", "--out", str(tmp_path / "report")])
        assert (tmp_path / "report" / "index.html").exists()
        refused(["compare", str(out), str(out)], capsys)


def test_other_verbs_say_what_to_do_with_a_stream(folder, tmp_path, capsys):
    main(["data", f"stream:{folder}", "--out", str(tmp_path / "grid.png")])
    assert "790 images found, 342 looked at" in " ".join(capsys.readouterr().out.split())
    refused(["outliers", "fit", f"stream:{folder}", "--out", str(tmp_path / "o")], capsys)
    with pytest.raises(DataError, match="leave out `stream:`"):
        np.concatenate([load_data(f"stream:{folder}").train.x])
    options = {"steps": 2, "evaluate_every": 1, "quiet": True}
    with pytest.raises(DataError, match="leave out `stream:`"):
        fabulate.train("ae", f"stream:{folder}", out=tmp_path / "judged", **options)


def test_images_are_met_once_each_under_their_names(broken, monkeypatch):
    monkeypatch.setattr(once, "PORTION", 30)
    table = pq.read_table(broken / "train.parquet")
    pq.write_table(table, broken / "train.parquet", row_group_size=10**6)  # one row group: portions are smaller
    images = read_once(DataSpec(source=f"stream:{broken}", size=8, channels=1), ImageShape(1, 8, 8))
    for _ in range(2):  # going through them anew begins anew
        portions = list(images)
        assert max(len(part.x) for part in portions) == 30 and len(images) == 220
        names = [name for part in portions for name in part.names]
        unread = {f"train.parquet[{i}]" for i in (1, 51, 52, 101)}  # 9x8 is brought to the size
        rows = {f"train.parquet[{i}]" for i in range(200)} | {f"test.parquet[{i}]" for i in range(20)}
        assert {*names} == rows - unread and len(names) == 216
        assert dict(images.broken).keys() == unread and "4 of 220 images cannot be read" in images.warning
    x, classes = np.concatenate([part.x for part in portions]), [c for part in portions for c in part.classes]
    place = names.index("train.parquet[57]")
    assert (x[place] == np.asarray(picture(57))).all() and classes[place] == "7"


def test_too_many_images_that_cannot_be_read_end_a_pass(broken):
    spec = DataSpec(source=f"stream:{broken}", size=8, channels=1, limit_broken=0.01)
    with pytest.raises(DataError, match=r"4 of 220 images cannot be read, more than the limit of 1%"):
        list(read_once(spec, ImageShape(1, 8, 8)))
    for path in broken.glob("*.parquet"):
        write(path, [b"no image"] * 30, [0] * 30)
    with pytest.raises(DataError, match="60 of 60 images cannot be read"):
        list(read_once(override(spec, {"limit_broken": 1.0}), ImageShape(1, 8, 8)))


def test_a_stream_is_evaluated_as_the_folder_is(folder):
    streamed, held = load_data(f"stream:{folder}"), load_data(folder)
    model = family("vae")(family("vae").presets["tutorial"].model, held.shape)
    found, expected = [evaluate(model, data, n=60, features="pixels", images=20) for data in (streamed, held)]
    assert {name: row.value for name, row in found.rows.items()} == {
        name: row.value for name, row in expected.rows.items()
    }
    assert len(found.rows) > 15 and found.warnings == expected.warnings


def test_of_a_large_stream_whole_row_groups_stand_for_all(folder, monkeypatch):
    monkeypatch.setattr(stream, "GATHERED", 200)
    data = load_data(f"stream:{folder}")
    some = stream.in_memory(data)
    assert len(some.train) == 200 and some.test is data.test and some.fingerprint == data.fingerprint
    everything = data.train.pixels(torch.arange(700))
    places = [np.flatnonzero((everything == x).all((1, 2, 3)))[0] for x in some.train.x]
    assert len({place // 50 for place in places}) == 4  # 50 images each
    assert (some.train.y == data.train.y[places]).all()
    assert (stream.in_memory(load_data(f"stream:{folder}")).train.x == some.train.x).all()
    model = family("vae")(family("vae").presets["tutorial"].model, data.shape)
    (sentence,) = evaluate(model, data, n=60, features="pixels", images=20).warnings
    assert "200 of the 700 training images stand for all" in sentence


@pytest.fixture(scope="module")
def detector(folder, tmp_path_factory):
    """A detector of the digits of the folder."""
    out = tmp_path_factory.mktemp("detector") / "normal"
    main(["outliers", "fit", str(folder), "--out", str(out)])
    return out


def test_a_stream_is_ranked_as_the_folder_is(folder, detector, tmp_path, capsys):
    def scored(source, out):
        main(["outliers", "score", str(detector), source, "--out", str(tmp_path / out)])
        return capsys.readouterr().out

    assert scored(f"stream:{folder}", "streamed").splitlines()[0] == scored(str(folder), "held").splitlines()[0]
    texts = [(tmp_path / out / "outliers.csv").read_text() for out in ("streamed", "held")]
    streamed, held = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert len(streamed) == 790
    columns = ("rank", "class", "score", "p_value", "outlier")
    assert [[row[name] for name in columns] for row in streamed] == [[row[name] for name in columns] for row in held]
    pages = [(tmp_path / out / "outliers.html").read_text() for out in ("streamed", "held")]
    assert pages[0].count("<figure>") == pages[1].count("<figure>") > 64
    # A table for programs: the same in the order of the rows.
    assert "790 images" in scored(f"stream:{folder}", "table.parquet")
    table = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["image"] for row in table[:700:350]] == ["data/train-0-of-2.parquet[0]", "data/train-1-of-2.parquet[0]"]
    by_name = {row["image"]: row for row in streamed}
    for row in table:
        other = by_name[row["image"]]
        assert row["score"] == pytest.approx(float(other["score"]), rel=1e-5) and row["class"] == other["class"]
        assert row["p_value"] == pytest.approx(float(other["p_value"]), rel=1e-5)
        assert row["outlier"] == (other["outlier"] == "yes")
    assert sum(row["outlier"] for row in table) == sum(row["outlier"] == "yes" for row in held) > 0


def test_a_table_is_not_written_over_nor_among_the_images(folder, detector, tmp_path, capsys):
    out = tmp_path / "table.parquet"
    out.write_bytes(b"mine")
    for place, words in ((out, "exists; give --overwrite"), (folder / "table.parquet", "where the images come from")):
        with pytest.raises(SystemExit, match="2"):
            main(["outliers", "score", str(detector), f"stream:{folder}", "--out", str(place)])
        assert words in " ".join(capsys.readouterr().err.split())
    assert out.read_bytes() == b"mine"
    with pytest.raises(SystemExit, match="2"):
        main(["outliers", "score", str(detector), f"stream:{tmp_path}", "--out", str(tmp_path.parent / "t.parquet")])
    assert "table.parquet cannot be read" in capsys.readouterr().err
    main(["outliers", "score", str(detector), f"stream:{folder}", "--out", str(out), "--overwrite"])
    assert pq.read_table(out).num_rows == 790


def test_broken_images_are_told_and_left_out_of_a_table(broken, tmp_path, capsys):
    main(["outliers", "fit", f"{broken}", "--size", "8", "--out", str(tmp_path / "run")])
    main(["outliers", "score", str(tmp_path / "run"), f"stream:{broken}", "--out", str(tmp_path / "t.parquet")])
    assert "4 of 220 images cannot be read and are left out: train.parquet[1]" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 216


def test_images_in_memory_keep_the_order_they_had(digits):
    expected = torch.randperm(len(digits.train), generator=fabulate.seeds.generator(3, "order", 2))
    assert order_of(digits.train, 3, 2).equal(expected)
