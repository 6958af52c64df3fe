"""Drawing and measuring in two processes give what one gives; one that dies ends both; memory does not grow with n."""

import io
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fabulate
from fabulate.cli import main
from fabulate.files import read_json
from fabulate.models.base import TILE, GenerativeModel, NoChoice
from fabulate.processes import Processes
from fabulate.samples import Order, Parts, stream_npz, write_npz, write_samples
from fabulate.training import read_log
from fabulate.types import ImageShape
from test_processes import needs_proc, wait, worker
from tiny import ends, in_two, small

# Shares that are even, that leave one process without a last batch, and one without any.
DRAWN = {"even": ("-n", 128), "uneven": ("-n", 75, "--batch-size", 32), "one": ("-n", 1)}
MEASURED = {"conditional": "auto", "searched": "pixels"}


def everything(folder, name):
    """All that is compared, of the runs in a folder, in its sub-folder "one" or "two"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabulate.features.classifier.FEWEST_STEPS", 30)
        patch.setattr("fabulate.features.classifier.EPOCHS", 1)
        for case, words in DRAWN.items():
            options = [*map(str, words), "--seed", "3"]
            main(["sample", f"{folder}/conditional", "--out", f"{folder}/{name}/{case}", *options])
            main(["sample", f"{folder}/conditional", "--npz", f"{folder}/{name}/{case}.npz", *options])
        for run, features in MEASURED.items():
            words = ["-n", "620", "--k", "3", "--images", "150", "--features", features, "--device", "cpu"]
            main(["evaluate", f"{folder}/{run}", "--out", f"{folder}/{name}/{run}", *words])
        patch.setattr("fabulate.training.judge.SHARE", 1e9)
        patch.setattr("fabulate.training.judge.SAMPLES", 100)
        patch.setattr("fabulate.training.loop.TEST_BATCH", 100)
        options = {"steps": 12, "batch_size": 32, "accumulate": {"one": 2, "two": 1}[name], "evaluate_every": 4}
        fabulate.train("ae", "digits", out=f"{folder}/{name}/trained", quiet=True, **options, **small("ae"))


def what_two_do(folder, processes):
    """The same in one of two processes, and a command that is refused."""
    everything(folder, "two")
    code = ends("sample", f"{folder}/conditional", "--out", f"{folder}/two/even")
    Path(f"{folder}/refused-{processes.rank}").write_text(str(code))


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """Runs, what one process makes of them, what two do, and all that those said."""
    folder = tmp_path_factory.mktemp("shards")
    options = {"steps": 20, "batch_size": 32, "quiet": True}
    fabulate.train("vae", "digits", out=folder / "conditional", conditional=True, **options, **small("vae"))
    fabulate.train("gan", "digits", out=folder / "searched", **options, **small("gan"))
    everything(folder, "one")
    done = in_two(what_two_do, folder)
    (folder / "said").write_text(done.stdout)
    (folder / "errors").write_text(done.stderr)
    return folder


@pytest.mark.parametrize("case", DRAWN)
def test_two_processes_write_the_files_of_one(folder, case):
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")}
        for f in (folder / "one" / case, folder / "two" / case)
    )
    assert len(one) == DRAWN[case][1] + 2  # the grid and the manifest
    assert one == two
    arrays, others = (np.load(folder / name / f"{case}.npz") for name in ("one", "two"))
    assert arrays.files == others.files == ["images", "seed", "model_sha256", "labels", "classes"]
    for name in arrays.files:
        assert np.array_equal(arrays[name], others[name]), name


@pytest.mark.parametrize("run", MEASURED)
def test_two_processes_measure_what_one_does_to_the_last_bit(folder, run):
    one, two = (read_json(folder / name / run / "metrics.json", dict[str, Any]) for name in ("one", "two"))
    for report in (one, two):
        for clock in ("seconds", "sampling_seconds", "date"):
            del report[clock]
    assert sum(len(section["rows"]) for section in one["sections"]) > 20
    assert one == two


def test_two_processes_look_at_the_samples_and_test_as_one(folder):
    one, two = (read_log(folder / name / "trained") for name in ("one", "two"))
    for what, times in (("samples", 3), ("test", 8)):
        rows, others = ([(row["step"], row[what]) for row in log if what in row] for log in (one, two))
        assert len(rows) == times
        for (step, values), (other_step, other) in zip(rows, others, strict=True):
            assert step == other_step
            assert other == pytest.approx(values, rel=1e-4)  # the weights differ by rounding


def test_only_the_first_process_speaks_and_refuses(folder):
    assert [(folder / f"refused-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    assert (folder / "errors").read_text().count("is not empty") == 1
    said = (folder / "said").read_text()
    assert all(said.count(f"{folder}/two/{case}\n") == 1 for case in DRAWN)
    assert said.count("metrics.json") == len(MEASURED)


@needs_proc
@pytest.mark.parametrize("form", ["--out", "--npz"])
def test_a_process_that_dies_ends_the_drawing_and_nothing_looks_whole(folder, tmp_path, form):
    place = tmp_path / "drawn"
    begun = "drawn/*.png" if form == "--out" else ".*.fabulate-tmp"
    words = ["sample", str(folder / "searched"), "-n", "100000", form, str(place), "--processes", "2"]
    drawing = subprocess.Popen([sys.executable, "-m", "fabulate", *words], stderr=subprocess.PIPE, text=True)
    try:
        wait(drawing, lambda: any(tmp_path.glob(begun)))
        os.kill(worker(drawing.pid, 1), signal.SIGKILL)
        errors = drawing.communicate(timeout=90)[1]
    finally:
        drawing.terminate()  # and with it those that it started
    assert drawing.returncode != 0
    assert "process 1 of 2 was ended by signal 9" in errors or "another process of this drawing is gone" in errors
    assert not (place if form == "--npz" else place / "manifest.json").exists()


@pytest.mark.parametrize("n", [0, 1, 7, 64, 100])
@pytest.mark.parametrize("block", [1, 8, 32])
def test_parts_are_whole_blocks_that_cover_everything_in_order(n, block):
    for count in range(1, 6):
        parts = [Processes(rank, count).part(n, block) for rank in range(count)]
        assert [i for part in parts for i in part] == list(range(n))
        assert all(part.start % block == 0 for part in parts if part)
        blocks = [-(-len(part) // block) for part in parts]
        assert max(blocks) - min(blocks) <= 1


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
    monkeypatch.setattr(Order, "_batch", lambda *words: torch.from_numpy(batch(*words).numpy().copy()))
    model, peaks, numbers = Blank(), [], (256, 1536)
    for n in (numbers[0], *numbers):  # the first time is for what is imported and kept
        tracemalloc.start()
        write(model, tmp_path / f"{len(peaks)}-{n}", n, batch_size=128)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = (peaks[2] - peaks[1]) / (numbers[1] - numbers[0])
    assert grown < 0.3 * model.shape.size  # bytes an image: less than its own, which are left for its path


def test_an_npz_written_in_parts_is_numpys_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 5), dtype=np.uint8)
    others = {"seed": np.array(3), "classes": np.array(["cat", "dög"])}
    for sizes in ([10], [3, 7], [1] * 10):
        ours = io.BytesIO()
        parts = Parts(images.shape, np.uint8, np.split(images, np.cumsum(sizes)[:-1]))
        stream_npz(ours, {"images": parts, **others})
        numpys = io.BytesIO()
        np.savez_compressed(numpys, images=images, **others)
        assert ours.getvalue() == numpys.getvalue()


def test_batches_of_several_processes_are_the_samples_in_order(folder):
    model = fabulate.load(folder / "conditional")
    whole = np.concatenate([images for _, images in Order(model, 150).whole()])
    assert np.array_equal(whole, fabulate.to_uint8(model.sample(150)).numpy())
    found = {}
    for rank in range(3):
        for first, images in Order(model, 150, batch_size=40, processes=Processes(rank, 3)).own():
            found |= dict(enumerate(images, first))
    assert np.array_equal(np.stack([found[i] for i in range(150)]), whole)
    assert len(found) == 150 and ends("sample", folder / "conditional", "--out", folder / "one" / "one") == 2
