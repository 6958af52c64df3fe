"""Records that lie in folders, damaged in every way: a line with the file's name, and nothing of a user's is touched.

A record is what a verb reads again: augment.json, a detector's config.json, metrics.json, and those that say whose a
folder is when it is to be overwritten.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fabulate.config import DataSpec
from fabulate.data import Data, Images, load_data
from fabulate.errors import FabulateError, RunError
from fabulate.evaluation import report as reports
from fabulate.evaluation.report import Report, Settings, kept
from fabulate.evaluation.subject import Findings
from fabulate.files import LARGEST_JSON, replaceable_folder, write_json
from fabulate.metrics.intervals import Estimate
from fabulate.report import Card, Row
from fabulate.uses.augment import folder as augmented
from fabulate.uses.augment.folder import split
from fabulate.uses.augment.page import RECORD as PROOF
from fabulate.uses.augment.page import Record as Proved
from fabulate.uses.debias import page as debiased
from fabulate.uses.outliers import OutlierDetector, load_detector, ranking, save_detector
from fabulate.uses.outliers.saving import Mark
from fabulate.uses.rare import folder as rare
from tiny import ends

WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "cut off": lambda text: text[: len(text) // 2],
    "binary": lambda text: bytes(range(256)) * 8,
    "not UTF-8": lambda text: text.replace(b'"', b"\xff", 1),
    "two values": lambda text: text + text,
    "a list": lambda text: b"[" + text + b"]",
    "an empty object": lambda text: b"{}",
    "null": lambda text: b"null",
    "a number": lambda text: b"1e999",
    "a word": lambda text: b'"{}"',
    "deep lists": lambda text: b"[" * 100_000,
    "deep objects": lambda text: b'{"kind":' * 100_000,
}
FEW = pytest.mark.parametrize("spoil", ["cut off", "binary", "deep lists"])  # how a verb ends; readers meet them all
LARGE = "1" + "0" * 400
VALUES = ("null", '"word"', "-1", "0.5", "NaN", "1e999", LARGE, "[]", "{}", '["../victim"]', "[" * 200 + "]" * 200)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value something stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


def damaged(text: bytes) -> Iterator[tuple[str, bytes]]:
    """A record in which each place in turn is missing or holds something else."""
    whole = json.loads(text)
    for path in places(whole):
        for new in (None, *VALUES):
            changed = copy.deepcopy(whole)
            at = changed
            for key in path[:-1]:
                at = at[key]
            if new is None:
                del at[path[-1]]
            else:
                at[path[-1]] = "@"
            yield f"{path} {new and new[:20]}", json.dumps(changed).replace('"@"', new or "").encode()


def told(reading: Callable[[], object], file: Path, what: str) -> bool:
    """Whether a reading is refused; if so in a line that names the file or its folder."""
    try:
        reading()
    except FabulateError as error:
        said = str(error)
        assert "\n" not in said and (file.name in said or str(file.parent) in said), f"{what}: {said}"
        return True
    return False


@pytest.fixture(scope="module")
def images() -> Data:
    return load_data("digits")


@pytest.fixture
def made(tmp_path: Path, images: Data) -> Path:
    """A folder as `fabulate augment` leaves it."""
    folder, cut = tmp_path / "made", split(images)
    augmented.claim(folder, images, cut, overwrite=False)
    some = Images(images.train.x[:6], images.train.y[:6])
    paths = augmented.write_part(folder, "synthetic", some, images.classes)
    files = {path: (images.classes[k], i) for i, (path, k) in enumerate(zip(paths, some.y, strict=True))}
    about = {
        "classes": list(images.classes),
        "model": {"family": "vae", "sha256": "0" * 64, "sampling": {}, "trained": {}},
        "counts": {
            name: {"real": int((cut.train.y == k).sum()), "test": int((cut.test.y == k).sum())}
            for k, name in enumerate(images.classes)
        },
    }
    augmented.finish(folder, images, cut, files, about)
    return folder


@pytest.fixture(scope="module")
def detector() -> OutlierDetector:
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return OutlierDetector(["reconstruction"], hyperparameters={"steps": 2}, false_alarm=0.2).fit(x)


@pytest.fixture
def fitted(tmp_path: Path, detector: OutlierDetector) -> Path:
    save_detector(detector, tmp_path / "detector")
    return tmp_path / "detector"


# augment.json


def test_no_damage_of_augment_json_ends_in_a_traceback(made, images):
    file = made / "augment.json"
    text = file.read_bytes()
    assert augmented.splits(images, augmented.read(made)).synthetic.shape == images.shape
    refused = 0
    for what, bad in [*((what, spoil(text)) for what, spoil in WHOLE.items()), *damaged(text)]:
        file.write_bytes(bad)
        refused += told(lambda: augmented.splits(images, augmented.read(made)), file, what)
    assert refused > 300


@FEW
def test_verbs_end_in_one_line_where_augment_json_is_damaged(made, spoil, capsys):
    file = made / "augment.json"
    file.write_bytes(WHOLE[spoil](file.read_bytes()))
    for words in (["prove", "digits", made], ["augment", "digits", "--to", "200", "--out", made, "--overwrite"]):
        assert ends(*words) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and "augment.json" in said[0]


@pytest.mark.parametrize(
    "name", ["../victim", "../../victim", "synthetic/../../victim", "synthetic/out/victim", "run/victim", "victim", "/"]
)
def test_a_record_that_names_files_elsewhere_neither_deletes_nor_reads_them(made, images, name):
    victims = [made.parent / "victim", made.parent.parent / "victim", made / "run" / "victim", made / "victim"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("mine")
    (made / "synthetic" / "out").symlink_to(made.parent)
    file = made / "augment.json"
    record = json.loads(file.read_text())
    for given in (name, str(made.parent / "victim")):
        record["images"][1]["file"] = given
        file.write_text(json.dumps(record))
        with pytest.raises(RunError, match=r"augment\.json|does not lie in it"):
            augmented.claim(made, images, split(images), overwrite=True)
        with pytest.raises(RunError, match=r"augment\.json|does not lie in it"):
            augmented.read(made)
    assert all(victim.read_text() == "mine" for victim in victims)
    assert (made / record["images"][0]["file"]).exists()  # nothing was deleted before all was looked at


def test_what_the_record_lists_is_read_only_as_it_was_written(made):
    first = sorted((made / "synthetic").rglob("*.png"))[0]
    for content in (b"no image", b"\x89PNG\r\n\x1a\n", first.read_bytes()[:60]):
        first.write_bytes(content)
        with pytest.raises(FabulateError, match="cannot be read"):
            augmented.read(made)
    digests = made / "learnt-from.txt"
    text = digests.read_bytes()
    first.unlink()
    for content in (b"", text[:33], text[:-10], bytes(range(256)), text + text):
        digests.write_bytes(content)
        with pytest.raises(RunError, match=r"learnt-from\.txt is damaged"):
            augmented.read(made)


# A detector


def test_no_damage_of_a_detector_is_believed(fitted):
    load_detector(fitted)
    file = fitted / "config.json"
    text = file.read_bytes()
    for what, bad in [*((what, spoil(text)) for what, spoil in WHOLE.items()), *damaged(text)]:
        file.write_bytes(bad)
        assert told(lambda: load_detector(fitted), file, what), what
    file.write_bytes(text)
    state = fitted / "detector.safetensors"
    weights = state.read_bytes()
    flipped = bytearray(weights)
    flipped[-20] ^= 1
    for bad in (b"", weights[:100], weights[:-1], bytes(flipped), b"\xff" * 9 + weights[9:]):
        state.write_bytes(bad)
        assert told(lambda: load_detector(fitted), state, "weights")


@FEW
def test_scoring_ends_in_one_line_where_the_detector_is_damaged(fitted, spoil, capsys):
    (fitted / "config.json").write_bytes(WHOLE[spoil]((fitted / "config.json").read_bytes()))
    assert ends("outliers", "score", fitted, "digits") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "config.json" in said[0]


def test_parts_of_two_fits_are_no_detector(fitted, detector, tmp_path):
    save_detector(detector, tmp_path / "other", note="another")
    (tmp_path / "other" / "config.json").replace(fitted / "config.json")
    with pytest.raises(RunError, match="of another fit"):
        load_detector(fitted)


# A report


def some_report() -> Report:
    row = Row(name="FD", value=Estimate(1.0, 0.5), better="lower", floor=float("nan"), noise=9.0)
    section = Findings(title="S", rows=(row,), sentences=("so",), cards=(Card("Q?", "yes", "of it", "good"),))
    return Report(
        name="vae",
        family="vae",
        model_sha256="0" * 64,
        classes=("a",),
        parameters=3,
        trained={"steps": 5},
        data="digits",
        settings=Settings(data="f", n=5, seed=0, features="auto", k=5, images=5),
        reference="test images",
        real=5,
        features={"name": "pixels"},
        sampling_seconds=0.5,
        seconds={"fidelity": 1.0},
        versions={"fabulate": reports.version("fabulate")},
        date="today",
        warnings=("w",),
        sections=(section,),
    )


def test_no_damage_of_metrics_json_ends_in_a_traceback(tmp_path):
    report = some_report()
    model = SimpleNamespace(weights_hash=lambda: "0" * 64)
    file = tmp_path / "metrics.json"
    assert kept(tmp_path, model, report.settings) is None
    write_json(file, report.to_json())
    again = kept(tmp_path, model, report.settings)
    assert again is not None and again.to_json() == report.to_json()
    text, refused = file.read_bytes(), 0
    for what, bad in [*((what, spoil(text)) for what, spoil in WHOLE.items()), *damaged(text)]:
        file.write_bytes(bad)
        refused += told(lambda: kept(tmp_path, model, report.settings), file, what)
    assert refused > 200


# Whose a folder is


RECORDS = {
    "detector": ("config.json", Mark),
    "ranking": (ranking.RECORD, ranking.Record),
    "augment": (augmented.MANIFEST, augmented.Begun),
    "proof": (PROOF, Proved),
    "debias": (debiased.RECORD, debiased.Record),
    "rare": (rare.RECORD, rare.Record),
    "report": (reports.JSON, reports.Head),
}


@pytest.mark.parametrize(("name", "kind"), RECORDS.values(), ids=RECORDS.keys())
def test_only_a_folder_with_our_own_record_is_overwritten(name, kind, tmp_path):
    folder = tmp_path / "out"
    assert replaceable_folder(folder, True, name, kind) == folder
    folder.mkdir()
    assert replaceable_folder(folder, True, name, kind) == folder
    (folder / "detector.safetensors").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="another --out"):
            replaceable_folder(folder, overwrite, name, kind)
    file = folder / name
    for what, spoil in WHOLE.items():
        file.write_bytes(spoil(b'{"kind": "mine", "format": 1}'))
        assert told(lambda: replaceable_folder(folder, True, name, kind), file, what), what
    with file.open("wb") as sparse:
        sparse.truncate(LARGEST_JSON + 1)
    assert told(lambda: replaceable_folder(folder, True, name, kind), file, "large")
    file.unlink()
    file.symlink_to(file)
    assert told(lambda: replaceable_folder(folder, True, name, kind), file, "a link to itself")
    assert (folder / "detector.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["outliers", "fit", "digits"],
        ["debias", "digits"],
        ["augment", "digits", "--to", "200"],
    ],
    ids=lambda words: words[0],
)
def test_verbs_leave_a_folder_of_the_users_alone(words, tmp_path, capsys):
    names = ("detector.safetensors", "config.json", "weights.csv", "samples.png", "notes.tmp")
    for name in names:
        (tmp_path / name).write_text("{}")
    for more in ([], ["--overwrite"]):
        assert ends(*words, "--out", tmp_path, *more) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).read_text() == "{}" for name in names)


@pytest.mark.parametrize(
    "words",
    [
        ["data", "X", "--out", "X/a/0.png", "--overwrite"],
        ["train", "ae", "--data", "X", "--out", "X"],
        ["train", "ae", "--data", "X", "--out", "X/run"],
        ["outliers", "fit", "X", "--out", "X/a"],
        ["outliers", "score", "detector", "X", "--out", "X/new"],
        ["augment", "X", "--out", "X/more"],
        ["debias", "X", "--out", "X/a/debias"],
        ["prove", "X", "made", "--out", "X/proof"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_nothing_is_written_among_the_images(words, made, fitted, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    augmented.write_part(tmp_path, "X", Images(images.train.x[:20], np.arange(20) % 2), ("a", "b"))
    (tmp_path / "X" / "a" / "0.png").write_bytes((tmp_path / "X" / "a" / "00000.png").read_bytes())
    before = {path: path.read_bytes() for path in sorted((tmp_path / "X").rglob("*.png"))}
    assert ends(*words) == 2
    assert "where the images come from" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in sorted((tmp_path / "X").rglob("*")) if path.is_file()} == before


def test_a_spec_says_how_images_were_read(made):
    assert augmented.read(made).spec_of("mine") == DataSpec(source="mine")
