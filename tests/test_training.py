"""Training in a run folder and in memory: what a run holds, refusals, guards, reports, and what the disk does."""

import errno
import inspect
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import fabulate
from fabulate.data import Data
from fabulate.errors import ConfigError, DivergedError, RunError
from fabulate.models import names
from fabulate.models.families.vae import VAE
from fabulate.training import configure, fit, read_config, read_log, scalars
from fabulate.training.folder import RunFolder
from tiny import ends, long, small


def tiny(name: str, out: Path, data: Data, **options: object) -> fabulate.GenerativeModel:
    return fabulate.train(name, data, out=out, quiet=True, **{**small(name), "steps": 12, "batch_size": 16, **options})


@pytest.mark.usefixtures("whole")
def test_a_run_draws_curves_and_looks_at_itself_eight_times(digits, tmp_path):
    tiny("vae", tmp_path, digits, steps=8)
    assert len([*(tmp_path / "samples").glob("step-*.png")]) == 8
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.width > 500


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * long(name)) for name in names()])
def test_a_run_holds_everything_and_the_same_call_knows_it_is_done(name, digits, tmp_path):
    model = tiny(name, tmp_path / "run", digits, steps=6)
    run = tmp_path / "run"
    present = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"config.json", "log.jsonl", "curves.png", "samples.png", "checkpoints/latest.json"} <= present
    assert {"model/config.json", "model/model.safetensors", "model/README.md", "model/samples.png"} <= present
    assert not [path for path in present if path.endswith((".tmp", ".pt", ".pkl"))]
    stamp = (run / "model" / "model.safetensors").stat().st_mtime_ns
    again = tiny(name, run, digits, steps=6)
    assert torch.equal(again.sample(3), model.sample(3))
    assert (run / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert torch.equal(fabulate.load(run).sample(3), model.sample(3))
    assert torch.equal(fabulate.load(run / "model").sample(3), model.sample(3))


def test_the_log_ends_with_test_numbers(digits, tmp_path):
    tiny("vae", tmp_path, digits)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert rows[-1]["finished"]
    test = rows[-2]["test"]
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["kl"], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, "training.lr was 0.001, now 0.5"),
        ({"latent_dim": 6}, "model.latent_dim was 5, now 6"),
        ({"seed": 3}, "training.seed was 0, now 3"),
        ({"network": fabulate.nets.MLP(hidden=(17,))}, "model.network.hidden was [16], now [17]"),
    ],
)
def test_a_changed_hyperparameter_is_refused_by_name(change, words, digits, tmp_path):
    tiny("vae", tmp_path, digits)
    with pytest.raises(RunError) as caught:
        tiny("vae", tmp_path, digits, **change)
    assert words in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_run_from_before_there_was_validation_goes_on(digits, tmp_path):
    tiny("vae", tmp_path, digits, validation=0)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["training"]["validation"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"training\.validation was 0\.0, now 0\.1"):
        tiny("vae", tmp_path, digits)
    tiny("vae", tmp_path, digits, validation=0)


def test_other_images_are_refused(digits, tmp_path):
    tiny("vae", tmp_path, digits)
    with pytest.raises(RunError, match="the images changed"):
        tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:100]))


def test_two_processes_cannot_share_a_run(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="another process is training"):
        RunFolder(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def test_divergence_keeps_the_last_good_checkpoint(digits, tmp_path, monkeypatch):
    honest = VAE.loss
    calls = iter(range(10_000))

    def loss(self: VAE, batch: fabulate.Batch) -> dict[str, Tensor]:
        terms = honest(self, batch)
        return terms if next(calls) < 14 else {**terms, "loss": terms["loss"] / 0}

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(DivergedError, match=r"Last good checkpoint in .*: step 10"):
        tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:9]), save_every=5, steps=500)
    monkeypatch.undo()
    tiny("vae", tmp_path, fabulate.load_data(digits.train.x[:9]), steps=500)
    assert read_log(tmp_path)[-1]["finished"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_reading_walks_back_to_the_newest_good_checkpoint(damage, digits, tmp_path):
    whole = tiny("ae", tmp_path / "whole", digits, save_every=4)
    tiny("ae", tmp_path / "run", digits, save_every=4)
    run = tmp_path / "run"
    latest = json.loads((run / "checkpoints" / "latest.json").read_text())
    path = run / "checkpoints" / latest["name"]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:100] if damage == "truncated" else data[:-50] + b"?" + data[-49:])
    state, passed = (folder := RunFolder(run)).restore()
    folder.close()
    assert state is not None
    assert state["step"] < latest["step"]
    assert len(passed) == 1
    assert latest["name"] in passed[0]
    again = tiny("ae", run, digits, save_every=4)
    assert torch.equal(again.sample(3), whole.sample(3))


def test_a_full_disk_is_told_and_leaves_checkpoints_intact(digits, tmp_path, monkeypatch):
    sync = os.fsync
    calls = iter(range(10_000))

    def full(handle: int) -> None:
        if next(calls) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*intact"):
        tiny("ae", tmp_path / "run", digits, save_every=2)
    monkeypatch.undo()
    folder = RunFolder(tmp_path / "run")
    state, passed = folder.restore()
    folder.close()
    assert state is not None
    assert not passed
    assert torch.equal(tiny("ae", tmp_path / "run", digits).sample(3), tiny("ae", tmp_path / "other", digits).sample(3))


def test_a_folder_that_cannot_be_made_is_told_before_any_step(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="Not a directory"):
        tiny("ae", tmp_path / "file" / "run", digits)


def test_a_models_warnings_are_told_once_and_not_at_the_beginning(digits, tmp_path, monkeypatch, capsys):
    asked = []

    def warnings(self: VAE, terms: dict[str, float]) -> list[str]:
        asked.append(terms["loss"])
        return ["the first", "another"] if len(asked) > 3 else ["the first"]

    monkeypatch.setattr(VAE, "warnings", warnings)
    monkeypatch.setattr("fabulate.training.session.SETTLED", 4)
    fabulate.train("vae", digits, out=tmp_path, **{**small("vae"), "steps": 40, "batch_size": 16})
    said = capsys.readouterr().out
    assert said.count("Warning: the first\n") == said.count("Warning: another\n") == 1
    assert asked == [row["train"]["loss"] for row in read_log(tmp_path) if "train" in row][3:]


def test_classes_are_asked_of_images_that_have_none(digits, tmp_path):
    with pytest.raises(ConfigError, match="has no classes"):
        tiny("vae", tmp_path / "run", fabulate.load_data(digits.train.x[:50]), conditional=True)
    assert not (tmp_path / "run").exists()


def test_the_words_of_configure():
    with pytest.raises(ConfigError, match="training needs a budget: epochs, steps, minutes"):
        fabulate.train("gan", "digits", quiet=True, steps=None)
    with pytest.raises(ConfigError, match="unknown hyperparameter 'latent_dims'; did you mean 'latent_dim'"):
        configure("vae", "default", {"latent_dims": 3})
    with pytest.raises(ConfigError, match="no preset 'tutorail'; did you mean 'tutorial'"):
        configure("vae", "tutorail", {})
    with pytest.raises(ConfigError, match="no network 'conf'; did you mean 'conv'"):
        configure("vae", "default", {"network": "conf"})
    with pytest.raises(ConfigError, match="cannot be used here"):
        fabulate.train("vae", "digits", device="cuda:99", quiet=True, steps=1)


def test_six_frames_lead_from_the_command_to_the_loss(tmp_path, monkeypatch):
    honest, seen = VAE.loss, []

    def loss(self: VAE, batch: fabulate.Batch) -> dict[str, Tensor]:
        above = [Path(frame.filename) for frame in inspect.stack()[1:]]
        home = Path(fabulate.__file__).parent
        seen.append([path.relative_to(home).as_posix() for path in above if home in path.parents])
        return honest(self, batch)

    monkeypatch.setattr(VAE, "loss", loss)
    ends("train", "vae", "--steps", "1", "--out", tmp_path / "run")
    in_training = [frames for frames in seen if "training/loop.py" in frames and "training/session.py" not in frames]
    assert in_training
    for frames in in_training:
        assert len(frames) <= 6, "\n".join(frames)


def test_reports_are_the_lines_of_the_log_and_a_loop_that_is_left_saves(digits, tmp_path):
    options = {**small("vae"), "steps": 12, "batch_size": 16, "quiet": True}
    whole = fabulate.train("vae", digits, out=tmp_path / "whole", **options)
    reports = fabulate.steps("vae", digits, out=tmp_path / "run", **options)
    for report in reports:
        if report["step"] == 5:
            break
    reports.close()
    assert fabulate.training.read_log(tmp_path / "run")[-1] == report
    assert (tmp_path / "run" / "checkpoints" / "step-00000005.ckpt").exists()
    reports = [report, *fabulate.steps("vae", digits, out=tmp_path / "run", **options)]
    assert [row["step"] for row in read_log(tmp_path / "run")[-len(reports) :]] == [row["step"] for row in reports]
    assert reports[-1]["finished"]
    assert torch.equal(fabulate.load(tmp_path / "run").sample(3), whole.sample(3))
    numbers = scalars(next(row for row in reports if "train" in row))
    assert {"train/loss", "train/kl"} <= numbers.keys()


def test_a_model_trained_in_memory_is_that_of_a_run(digits, tmp_path):
    config, training = configure("vae", "default", {**small("vae"), "steps": 9, "batch_size": 16, "validation": 0})
    run = fabulate.train("vae", digits, out=tmp_path / "run", quiet=True, **{**vars(config), **vars(training)})
    done: list[tuple[int, int]] = []
    model = fit("vae", config, training, digits.train, digits.shape, progress=lambda *step: done.append(step))
    assert torch.equal(model.sample(3), run.sample(3))
    assert done[-1] == (9, 9)


def test_a_config_of_a_run_makes_the_same_run_elsewhere_and_flags_change_it(tmp_path, capsys):
    first = ["vae", "digits", "--size", 9, "--steps", 3, "--network", "mlp", "--network.hidden", 7, "--lr", 0.01]
    assert ends("train", *first, "--out", tmp_path / "a") == 0
    file = tmp_path / "a" / "config.json"
    assert ends("train", "--config", file, "--out", tmp_path / "b") == 0
    assert read_config(tmp_path / "b") == read_config(tmp_path / "a")
    assert torch.equal(fabulate.load(tmp_path / "b").sample(3), fabulate.load(tmp_path / "a").sample(3))
    assert ends("train", "vae", "--config", tmp_path / "a", "--epochs", "0.1", "--out", tmp_path / "c") == 0
    changed = read_config(tmp_path / "c")
    assert (changed["training"]["epochs"], changed["training"]["steps"], changed["training"]["lr"]) == (0.1, None, 0.01)
    assert changed["model"]["network"]["hidden"] == [7]
    capsys.readouterr()
    for words, said in (
        (["gan", "--config", file], "is of the family vae, given gan"),
        (["--config", file, "--preset", "tutorial"], "give --config or --preset"),
        (["--config", tmp_path / "none"], "is not a run folder"),
    ):
        assert ends("train", *words) == 2
        assert said in capsys.readouterr().err


def test_the_log_goes_to_tensorboard_where_that_is_installed(tmp_path, monkeypatch, capsys):
    written = []

    class SummaryWriter:
        def __init__(self, folder: Path) -> None:
            written.append(folder)

        def __enter__(self) -> "SummaryWriter":
            return self

        def __exit__(self, *_: object) -> None:
            written.append("closed")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

    words = ["train", "ae", "--steps", "2", "--network", "mlp", "--out", tmp_path / "run", "--log", "tensorboard"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert ends(*words) == 2
    assert "--log tensorboard needs a package that is not here" in capsys.readouterr().err
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    assert ends(*words) == 0
    assert written[0] == tmp_path / "run" / "tensorboard" and written[-1] == "closed"
    assert {("train/loss", 1), ("train/loss", 2), ("test/loss", 2)} <= {*written[1:-1]}


@pytest.mark.parametrize("flag", ["save_every", "evaluate_every"])
def test_steps_between_are_at_least_one(flag, digits, tmp_path):
    with pytest.raises(ConfigError, match=f"{flag} is a number of steps, at least 1; given 0"):
        tiny("vae", tmp_path / "run", digits, **{flag: 0})
    assert not (tmp_path / "run").exists()


def test_training_begins_with_what_fits_of_another_run(tmp_path, capsys):
    first = fabulate.train("vae", "digits", out=tmp_path / "first", steps=3, quiet=True, network="mlp")
    wide = np.zeros((40, 1, 10, 10), np.uint8)
    again = {"steps": 1, "lr": 1e-12, "ema": 0, "network": "mlp", "validation": 0}
    model = fabulate.train("vae", wide, out=tmp_path / "wide", begin_from=tmp_path / "first", **again)
    said = " ".join(capsys.readouterr().out.split())
    assert "tensors" in said and "begun anew: encoder.layers.0.weight, decoder.layers.4.weight" in said
    inner = "encoder.layers.2.weight"
    torch.testing.assert_close(model.state_dict()[inner], first.state_dict()[inner], atol=1e-9, rtol=0)


def test_a_run_that_began_from_another_continues_without_it_and_refuses_others(tmp_path):
    first = fabulate.train("ae", "digits", out=tmp_path / "first", steps=2, quiet=True)
    again = {"out": tmp_path / "second", "steps": 2, "quiet": True}
    second = fabulate.train("ae", "digits", begin_from=tmp_path / "first", **again)
    shutil.rmtree(tmp_path / "first")
    same = fabulate.train("ae", "digits", begin_from=tmp_path / "first", **again)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in second.state_dict().items())
    with pytest.raises(RunError, match=r"from was .*first.*, now null"):
        fabulate.train("ae", "digits", **again)
    first.save_pretrained(tmp_path / "saved")
    third = again | {"out": tmp_path / "third", "begin_from": tmp_path / "saved"}
    with pytest.raises(ConfigError, match="of the family ae, and this is vae"):
        fabulate.train("vae", "digits", **third)
    with pytest.raises(ConfigError, match="no layer"):
        fabulate.train("ae", "digits", **third, network="conv")
