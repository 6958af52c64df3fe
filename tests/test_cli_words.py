"""The words of a command: in any order, with any spelling of a flag, and for any terminal."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from fabulate.cli import VERBS, shared, speak_plainly
from fabulate.cli.shared import OtherImages
from fabulate.config import DataSpec
from fabulate.data import load_data, load_spec
from fabulate.types import Progress
from tiny import ends

TINY = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "4", "--steps", "5", "--batch-size", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on 8x8 images that are not the digits, one of them class-conditional."""
    folder = tmp_path_factory.mktemp("words")
    chance = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = chance.integers(0, 60, (120, 8, 8)).astype(np.uint8) + (120 * y[:, None, None]).astype(np.uint8)
    np.savez(folder / "bars.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    assert ends("train", "vae", folder / "bars.npz", *TINY, "--out", folder / "vae") == 0
    assert ends("train", "vae", *TINY, "--conditional", "--data", folder / "bars.npz", "--out", folder / "classes") == 0
    return folder


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose family has flags of its own in `sample`."""
    run = tmp_path_factory.mktemp("flow") / "run"
    assert ends("train", "flow", "digits", "--network.width", 8, "--steps", 1, "--batch-size", 4, "--out", run) == 0
    return run


def sources(runs: Path, monkeypatch: pytest.MonkeyPatch, *words: object) -> set[str]:
    """Where the images of a command came from."""
    seen = []

    def watched(spec: DataSpec, progress: Progress | None = None) -> object:
        seen.append(Path(spec.source).name)
        return load_spec(spec, progress)

    monkeypatch.setattr("fabulate.cli.shared.load_spec", watched)
    assert ends(*words) == 0
    return set(seen)


@pytest.mark.parametrize(
    "words",
    [
        ["reconstruct", "--seed", "3", "RUN"],
        ["reconstruct", "-n4", "RUN", "--seed=5"],
        ["reconstruct", "--n=5", "--seed", "6", "--", "RUN"],
        ["traverse", "-n", "20", "--axes", "2", "--steps", "3", "RUN"],
        ["morph", "--from", "0", "--to", "1", "--rows", "2", "--steps", "3", "-n", "10", "RUN"],
        ["evaluate", "-n", "30", "--features", "pixels", "RUN"],
        pytest.param(["compare", "--features", "pixels", "-n", "30", "RUN", "RUN"], marks=pytest.mark.slow),
        pytest.param(
            ["rare", "--towards", "0", "--quantile", "0.5", "-n", "4", "--calls", "2000", "RUN"], marks=pytest.mark.slow
        ),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_run_has_its_own_images_wherever_it_stands(words, runs, tmp_path, monkeypatch):
    words = [str(runs / "vae") if word == "RUN" else word for word in words]
    assert sources(runs, monkeypatch, words[0], "--out", tmp_path / "out.png", *words[1:]) == {"bars.npz"}


def test_a_model_folder_has_no_images_and_none_are_made_up(runs, tmp_path, capsys, monkeypatch):
    model = runs / "vae" / "model"
    for verb in ("reconstruct", "traverse", "evaluate"):
        assert ends(verb, "--out", tmp_path / "x.png", model) == 2
        assert "is a model without its run: give --data" in capsys.readouterr().err
    words = ["reconstruct", "--data=digits", "--out", tmp_path / "x.png", model]
    assert sources(runs, monkeypatch, *words) == {"digits"}


def test_other_images_are_read_by_all_the_flags_that_there_are():
    assert {field.name for field in fields(OtherImages)} == {field.name for field in fields(DataSpec)}


@pytest.mark.parametrize("words", [["RUN", "--evaluations", "3"], ["--evaluations=3", "RUN"], ["-n2", "--", "RUN"]])
def test_sample_knows_a_runs_own_flags_before_it_and_behind(words, flow, tmp_path):
    words = [str(flow) if word == "RUN" else word for word in words]
    assert ends("sample", "--n=2", "--out", tmp_path, *words) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sampling"]["evaluations"] == (20 if "--" in words else 3)


@pytest.mark.parametrize(
    ("words", "model", "training"),
    [
        (
            ["--preset=tutorial", "--steps", "2", "--latent-dim", "3"],
            {"likelihood": "bernoulli", "latent_dim": 3},
            {"steps": 2, "epochs": None, "schedule": "constant"},
        ),
        (["--preset", "conv", "--preset", "tutorial"], {"likelihood": "bernoulli"}, {"epochs": 10.0}),
        (["--network", "conv", "--network", "mlp", "--network.hidden", "8"], {"kind": "mlp"}, {}),
        (["--out=--steps", "--batch_size=4"], {}, {"steps": 5000, "epochs": 200.0}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_flags_that_decide_others_are_read_as_the_others_are(words, model, training, monkeypatch, tmp_path):
    """The last one counts, `=` or not, and a value is no flag."""
    monkeypatch.chdir(tmp_path)
    seen = {}

    def run(name, config, schedule, *rest, **options):
        seen.update(model=config, training=schedule)
        raise KeyboardInterrupt

    monkeypatch.setattr("fabulate.training.run", run)
    assert ends("train", "vae", *words) == 130
    told = {**vars(seen["model"]), "kind": seen["model"].network.kind}
    assert {name: told[name] for name in model} == model
    assert {name: getattr(seen["training"], name) for name in training} == training


def test_train_takes_its_images_as_a_word(runs, tmp_path, capsys):
    words = [*TINY, "--out", tmp_path / "run"]
    assert ends("train", "vae", *words, runs / "bars.npz") == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["data"]["name"] == "bars"
    assert ends("train", "vae", runs / "bars.npz", "--data", "mnist") == 2
    assert "give the images once" in capsys.readouterr().err
    assert ends("data", "--size", 8, runs / "bars.npz") == 0
    assert "80 to train, 40 to test" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_by_its_flag_and_by_its_name(verb, capsys):
    words = [verb, "vae"] if verb == "train" else [verb, "fit"] if verb == "outliers" else [verb]
    assert ends("help", *words) == ends(*words, "--help") == 0
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert f"fabulate {verb}" in shown and "None" not in shown


def test_help_alone_and_of_an_unknown_verb(capsys):
    assert ends("help") == ends("--help") == 0
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert ends("help", "trian") == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_walks_in_two_classes_are_two_pictures(runs):
    for label in ("0", "1"):
        assert ends("interpolate", "--label", label, "--steps", 3, runs / "classes") == 0
    drawn = runs / "classes" / "drawn"
    assert (drawn / "interpolation-0-1-0.png").exists() and (drawn / "interpolation-0-1-1.gif").exists()
    assert ends("interpolate", "--label", "0", runs / "classes") == 2


def test_a_conditional_model_morphs_by_another_class(runs, tmp_path):
    words = ["--from", 0, "--to", 1, "--rows", 3, "--out", tmp_path / "m.png"]
    assert ends("morph", runs / "classes", *words) == 0
    from fabulate import load
    from fabulate.models.directions import as_classes

    model, x = load(runs / "classes"), load_data(runs / "bars.npz").train.batch(torch.arange(2)).x
    codes = model.encode(x, "0")
    images = as_classes(model, codes, ["0", "1"])
    assert images.shape == (2, 2, 1, 8, 8)
    assert (images[:, 0] - model.decode(codes, model.labels("0", 2))).abs().max() < 1e-6
    assert (images[:, 1] - model.decode(codes, model.labels("1", 2))).abs().max() < 1e-6
    assert (images[:, 0] - images[:, 1]).abs().max() > 1e-6


def test_sample_twice_says_that_it_is_there(runs, capsys):
    words = ["sample", runs / "classes", "-n", 6, "--seed", 4, "--label", "1"]
    assert ends(*words) == 0
    capsys.readouterr()
    assert ends(*words) == 0
    told = capsys.readouterr()
    assert "holds these 6 images already" in told.err and "images " in told.out
    words[3] = 7
    assert ends(*words) == 2


def test_lines_come_by_the_clock_where_there_is_no_terminal(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with shared.Lines(first=0.05, between=0.05) as lines:
        lines("quick", 1, 1)
        lines("drawing", 3, 9)
        time.sleep(0.4)  # no news, and a line all the same
        lines("judging", 0, 1)
        time.sleep(0.2)
    said = shown.getvalue().splitlines()
    assert "drawing: 3 of 9, 0 s" in said and said.count("drawing: done in 0 s") == 1
    assert "judging: 0 s" in said and said[-1] == "judging: done in 0 s"
    assert not any(line.startswith("quick") for line in said)
    with shared.Lines(first=5) as lines:
        lines("quick", 1, 1)
    assert len(shown.getvalue().splitlines()) == len(said)


def test_signs_have_plain_forms_and_letters_are_escaped():
    speak_plainly()
    text = "Fréchet → 3 ≥ 2 │ café 名 Fréchet"
    assert text.encode("ascii", "fabulate.plain").decode() == "Frechet -> 3 >= 2 | caf\\xe9 \\u540d Frechet"
    assert "café → ─".encode("cp1252", "fabulate.plain") == b"caf\xe9 -> -"
    assert "\udcc3".encode("utf-8", "fabulate.plain") == b"\\udcc3"


EVERYTHING = """
import sys
from fabulate.cli import main
from pathlib import Path

def verb(*words, code=0):
    print("$", *map(ascii, words))
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        assert (end.code or 0) == code, (words, end.code)

folder, run = Path(sys.argv[1]), Path(sys.argv[1]) / "run"
tiny = ["--network", "mlp", "--network.hidden", "8", "--latent-dim", "3", "--steps", "3", "--batch-size", "8"]
data = folder / "söurce"
verb("data", data), verb("models"), verb("help"), verb("train", "vae", "--help")
verb("train", "vae", data, *tiny, "--conditional", "--out", run), verb("info", run)
verb("train", "vae", "--stepz", "3", code=2)
verb("sample", run, "-n", 4), verb("sample", run, "--label", "dög → x", "-n", 2), verb("reconstruct", run)
verb("interpolate", run, "--label", "dög → x"), verb("traverse", run, "--axes", 2, "-n", 20)
verb("morph", run, "--from", "cat", "--to", "dög → x"), verb("evaluate", "-n", 20, "--features", "pixels", run)
verb("compare", run, run, "-n", 20, "--features", "pixels", "--out", folder / "compared")
verb("rare", run, "--label", "cat", "--quantile", 0.5, "-n", 2, "--calls", 1000)
verb("export", run, code=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale",
    [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "ascii"],
)
def test_every_verb_works_without_utf8(locale, tmp_path):
    from PIL import Image

    chance = np.random.default_rng(0)
    for part, n in (("train", 24), ("test", 12)):
        for name in ("cat", "dög → x"):
            place = tmp_path / "söurce" / part / name
            place.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(chance.integers(0, 255, (8, 8)).astype(np.uint8)).save(place / f"{i}.png")
    (tmp_path / "all.py").write_text(EVERYTHING, encoding="utf-8")
    code = "import sys; from fabulate.cli import utf8_names; utf8_names(); exec(open(sys.argv[2], 'rb').read())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, tmp_path / "all.py"], env={**clean, **locale}, capture_output=True
    )
    told = done.stdout.decode("cp1252")
    assert done.returncode == 0, told + done.stderr.decode("cp1252")
    assert done.stderr.decode("cp1252").count("Traceback") == 0
    assert ("d\\xf6g -> x" if "LC_ALL" in locale else "dög -> x") in told
    manifest = json.loads((tmp_path / "run" / "drawn" / "seed-0" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == ["cat", "dög → x"]
    assert (tmp_path / "run" / "drawn" / "seed-0" / "dög → x").is_dir()
