"""A run folder loses nothing: not a user's files, not a good checkpoint, and it keeps no weights that are not good."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import fabulate
from fabulate.data import Data
from fabulate.errors import DivergedError, RunError
from fabulate.files import (
    append_line,
    inside,
    own_folder,
    place_file,
    read_json,
    read_weights,
    remove_leftovers,
    write_file,
    write_weights,
)
from fabulate.training import read_log
from fabulate.training.folder import RunFolder
from tiny import ends, small

OPTIONS = {**small("vae"), "steps": 10, "batch_size": 16}


def train(out: Path, data: Data, **options: object) -> fabulate.GenerativeModel:
    return fabulate.train("vae", data, out=out, quiet=True, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def finished(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10 steps; tests take copies."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(out, digits)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of the test's own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


OURS = ["samples.png", "curves.png", "log.jsonl", "model/config.json", "notes.tmp", "deeper/draft.tmp", "x.ckpt"]


@pytest.mark.parametrize("name", [*OURS, "config.json"])
def test_a_users_folder_is_refused_and_untouched(name, digits, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"port": 8080}')
    words = r"is not empty and no run folder.*another --out|config\.json is damaged or of another form"
    with pytest.raises(RunError, match=words):
        train(tmp_path, digits)
    assert contents(tmp_path) == {name: b'{"port": 8080}'}


def test_files_beside_a_runs_own_stay(run, digits):
    for name in ("notes.tmp", "samples/draft.tmp", "checkpoints/other.ckpt", "model/mine.txt"):
        (run / name).write_text("mine")
    (run / "samples" / ".0123456789abcdef.fabulate-tmp").write_text("left by a killed write")
    train(run, digits)
    for name in ("notes.tmp", "samples/draft.tmp", "checkpoints/other.ckpt", "model/mine.txt"):
        assert (run / name).read_text() == "mine"
    assert not list(run.rglob("*.fabulate-tmp"))


@pytest.mark.parametrize("name", ["checkpoints", "samples", "model"])
def test_folders_that_are_links_are_not_written_through(name, run, digits, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".0123456789abcdef.fabulate-tmp").write_text("not ours")
    assert contents(run / name)
    shutil.rmtree(run / name)
    (run / name).symlink_to(tmp_path / "elsewhere")
    unfinished(run)
    with pytest.raises(RunError, match=r"is a link to|holds no checkpoint"):
        train(run, digits)
    assert contents(tmp_path / "elsewhere") == {".0123456789abcdef.fabulate-tmp": b"not ours"}


def test_files_that_are_links_are_replaced_and_never_followed(run, digits, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run / "samples.png").unlink()
    (run / "samples.png").symlink_to(victim)
    unfinished(run)
    train(run, digits)
    assert victim.read_text() == "mine"
    assert not (run / "samples.png").is_symlink()
    (tmp_path / "line").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        append_line(tmp_path / "line", "theirs")


def test_a_model_is_not_saved_over_files_that_are_no_model(run, tmp_path):
    model = fabulate.load(run)
    for name in ("README.md", "config.json"):
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / name).write_text("{}")
        with pytest.raises(RunError, match="is not a model folder of fabulate's"):
            model.save_pretrained(tmp_path / "project")
        assert contents(tmp_path / "project") == {name: b"{}"}
        shutil.rmtree(tmp_path / "project")
    model.save_pretrained(tmp_path / "own")
    model.save_pretrained(tmp_path / "own")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def lose_latest(run: Path) -> None:
    (run / "checkpoints" / "latest.json").unlink()


def damage_latest(run: Path) -> None:
    (run / "checkpoints" / "latest.json").write_text('{"name": "step')


def point_elsewhere(run: Path) -> None:
    latest = json.loads((run / "checkpoints" / "latest.json").read_text())
    (run / "checkpoints" / "latest.json").write_text(json.dumps({**latest, "name": "../../x"}))


def unfinished(run: Path) -> None:
    """As a kill just before the end would leave a run."""
    rows = [row for row in read_log(run) if not row.get("finished")]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("damage", [lose_latest, damage_latest, point_elsewhere])
def test_checkpoints_are_found_without_latest(damage, run, digits):
    whole, log = fabulate.load(run), read_log(run)
    unfinished(run)
    damage(run)
    assert torch.equal(train(run, digits).sample(4), whole.sample(4))
    assert [row["step"] for row in read_log(run)] == [row["step"] for row in log]


def test_no_good_checkpoint_is_no_reason_to_begin_again(run, digits, tmp_path):
    shutil.copytree(run, tmp_path / "lost")
    for path in (run / "checkpoints").glob("*.ckpt"):
        spoil(path)
    shutil.rmtree(tmp_path / "lost" / "checkpoints")
    for name, words in (
        ("run", r"none of its checkpoints can be used.*hash is wrong"),
        ("lost", "holds no checkpoint"),
    ):
        before = contents(tmp_path / name)
        with pytest.raises(RunError, match=words):
            train(tmp_path / name, digits)
        assert contents(tmp_path / name) == before


@pytest.mark.parametrize("lost", ["optimizers", "means", "empty"])
def test_a_checkpoint_without_its_optimiser_is_refused(lost, run, digits):
    unfinished(run)
    folder = RunFolder(run)
    state, _ = folder.restore()
    assert state is not None
    if lost == "optimizers":
        del state["optimizers"]
    elif lost == "means":
        del state["optimizers"]["model"]["state"][0]["exp_avg"]
    else:
        state["optimizers"]["model"]["state"] = {}
    folder.save(state)
    folder.close()
    with pytest.raises(RunError, match="does not hold all that training needs"):
        train(run, digits)


def test_a_checkpoint_that_cannot_be_deleted_is_a_warning(digits, tmp_path, monkeypatch, capsys):
    honest = Path.unlink

    def stuck(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".ckpt":
            raise PermissionError(1, "Operation not permitted", str(self))
        honest(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", stuck)
    fabulate.train("vae", digits, out=tmp_path, **OPTIONS, save_every=3)
    said = capsys.readouterr().out
    assert said.count("step-00000000.ckpt cannot be deleted: Operation not permitted") == 1
    assert read_log(tmp_path)[-1]["finished"]


@pytest.mark.parametrize("steps", [1, 2])
def test_weights_that_are_not_finite_are_never_saved(steps, digits, tmp_path):
    with pytest.raises(DivergedError, match=r"Last good checkpoint in .*: step 0"):
        train(tmp_path, digits, steps=steps, lr=1e38, warmup=0)
    assert not (tmp_path / "model").exists()
    state, _ = RunFolder(tmp_path).restore()
    assert state is not None
    assert all(bool(value.isfinite().all()) for value in state["model"].values())


def test_one_flipped_bit_of_the_weights_is_noticed(run, tmp_path):
    spoil(run / "model" / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.safetensors is damaged: .*hash"):
        fabulate.load(run)
    write_weights(tmp_path / "any", {"w": torch.ones(1000)}, {"words": "kept"})
    assert read_weights(tmp_path / "any")[1] == {"words": "kept"}


CONFIGS = {
    "empty": b"",
    "cut": b'{"format": 1, "family": "vae", "mod',
    "binary": bytes(range(256)),
    "list": b"[1, 2, 3]",
    "number": b"1e999",
    "null": b"null",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "other": b'{"port": 8080}',
    "format": b'{"format": 99, "family": "vae"}',
    "not utf-8": b'{"format": 1, "family": "\xff\xfe"}',
}


@pytest.mark.parametrize("damage", CONFIGS)
def test_a_damaged_record_is_one_line_with_its_name(damage, run, capsys):
    for record, words in {
        "config.json": ["info", "train vae --out", "sample", "evaluate", "reconstruct", "traverse", "morph", "rare"],
        "model/config.json": ["sample", "export", "interpolate"],
    }.items():
        whole = (run / record).read_bytes()
        (run / record).write_bytes(CONFIGS[damage])
        for verb in words:
            assert ends(*verb.split(), run) == 2, verb
            told = capsys.readouterr().err.strip()
            assert "\n" not in told
            assert str(run) in told
            assert len(told) < 700
        (run / record).write_bytes(whole)


def test_a_damaged_log_is_one_line_and_a_line_cut_off_is_passed_over(run):
    whole = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(whole + b'{"step": 7, "ep')
    assert len(read_log(run)) == len(whole.splitlines())
    (run / "log.jsonl").write_bytes(b"\x00\x00\n" + whole)
    with pytest.raises(RunError, match=r"log\.jsonl, line 1, is damaged"):
        read_log(run)


def test_a_config_of_absurd_sizes_takes_no_memory(run):
    path = run / "model" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["network"]["hidden"] = [10**9, 10**9]
    path.write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"its weights are of another model than config\.json tells"):
        fabulate.load(run)


def test_files_are_read_with_care(tmp_path):
    (tmp_path / "large.json").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(RunError, match="more than the 100"):
        read_json(tmp_path / "large.json", list[int], 100)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(RunError, match="is not a regular file"):
        read_json(tmp_path / "pipe.json", list[int])
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "out").symlink_to(tmp_path)
    for name in ("../victim", "/etc/passwd", "a/../../b", "", "out/large.json", "C:\\x", "a\0b"):
        with pytest.raises(RunError, match="does not lie in it"):
            inside(tmp_path / "inner", name)
    assert inside(tmp_path / "inner", "a/b.png") == tmp_path / "inner" / "a" / "b.png"


@pytest.mark.parametrize("write", [place_file, write_file])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(write, tmp_path):
    (tmp_path / "file").write_text("old")

    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", fail)
    assert contents(tmp_path) == {"file": b"old"}
    write(tmp_path / "file", lambda file: file.write(b"new"))
    assert contents(tmp_path) == {"file": b"new"}


def test_leftovers_are_removed_from_our_own_folders_only(tmp_path):
    name = ".0123456789abcdef.fabulate-tmp"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / name).write_text("")
    (tmp_path / "real" / "keep.tmp").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    remove_leftovers(tmp_path / "link")
    assert (tmp_path / "real" / name).exists()
    with pytest.raises(RunError, match="is a link to"):
        own_folder(tmp_path / "link")
    remove_leftovers(tmp_path / "real")
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["keep.tmp"]
