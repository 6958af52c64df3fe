"""The command line as a stranger uses it: what it prints, what it writes, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fabulate
from fabulate.cli import VERBS
from fabulate.cli import gallery as verbs
from fabulate.evaluation import gallery
from fabulate.models import capabilities
from fabulate.models.base import able
from tiny import ends

TINY = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "4", "--steps", "20", "--batch-size", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain VAE and a class-conditional one, and a GAN, trained by the command."""
    folder = tmp_path_factory.mktemp("runs")
    assert ends("train", "vae", *TINY, "--out", folder / "vae") == 0
    assert ends("train", "vae", *TINY, "--conditional", "--out", folder / "classes") == 0
    assert ends("train", "gan", *TINY, "--out", folder / "gan") == 0
    return folder


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def holds(path: Path, columns: int, rows: int) -> bool:
    """Whether a picture has the size of so many 8x8 images, enlarged, with words around them."""
    wide, high = size(path)
    return 0 < wide - 66 * columns < 250 and 0 < high - 66 * rows < 110


def test_help_names_every_verb_and_does_not_import_torch():
    code = "import sys; from fabulate.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(verb in shown for verb in VERBS)
    assert shown.endswith("False\n")


@pytest.mark.parametrize("words", [["models"], ["cache"], ["data", "digits"], ["train", "vae", "--help"]], ids=" ".join)
def test_an_answer_that_nobody_reads_ends_as_the_shell_expects(words, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # noqa: PTH123  # by its number
        monkeypatch.setattr(sys, "stdout", closed)
        assert ends(*words) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("words", "there", "other"),
    [
        (["vae", "--network", "conv"], "--network.width", "--network.hidden"),
        (["vqvae", "--quantiser", "codebook"], "--quantiser.commitment", "--quantiser.levels"),
    ],
)
def test_help_of_train_shows_the_flags_of_the_chosen_parts(words, there, other, capsys):
    ends("train", *words, "--help")
    shown = capsys.readouterr().out
    assert there in shown and "--lr" in shown and other not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no verb 'trian'; did you mean 'train'?"),
        (["train"], "usage: fabulate train FAMILY"),
        (["train", "vea"], "there is no family 'vea'; did you mean 'vae'?"),
        (["train", "--steps", "3"], "the family comes first"),
        (["train", "vae", "--stepz", "3"], "Unrecognized options: --stepz, 3; did you mean --steps?"),
        (["train", "vae", "--steps", "0"], "steps: Input should be greater than 0 (given: 0)"),
        (["train", "vae", "--epochs", "-1"], "epochs: Input should be greater than 0"),
        (["train", "vae", "--network", "cnov"], "there is no network 'cnov'; did you mean 'conv'?"),
        (
            ["train", "gan", "--network", "unet"],
            "there is no network 'unet' (networks of gan: auto, mlp, conv, dcgan, projected)",
        ),
        (["train", "vqvae", "--quantiser", "codebok"], "there is no quantiser 'codebok'; did you mean 'codebook'?"),
        (["train", "vae", "--preset", "tutoral"], "did you mean 'tutorial'?"),
        (["train", "vae", "--likelihood", "poisson"], "invalid choice 'poisson'"),
        (["train", "vae", "--samples", "5", "--beta", "2"], "no KL term"),
        (["train", "vae", "--data", "mnits"], "did you mean 'mnist'?"),
        (["train", "vae", "--network", "conv", "--data", "digits", "--size", "4"], "takes sides from 8 to 256"),
        (["data", "nowhere/at/all"], "there is no file or folder 'nowhere/at/all'"),
        (["info", "nowhere"], "is not a run folder"),
        (["sample", "nowhere"], "there is no run or model folder nowhere"),
        (["sample", "nowhere", "-n", "0"], "Input should be greater than 0"),
        (["sample", "a", "--out", "b", "--npz", "c"], "not both"),
        (["sample", "--evals", "3", "a"], "Unrecognized options: --evals"),
        (["interpolate", "--seed", "1", "a"], "did you mean --seeds?"),
    ],
)
def test_mistakes_end_in_one_clear_line(words, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ends(*words) == 2
    out, err = capfd.readouterr()
    assert message in out + err
    if err:
        said = [line for line in err.splitlines() if not line.startswith("reading images: ")]
        assert len(said) == 1 and said[0].startswith("fabulate: ")
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


def test_models_lists_families_and_what_they_can(capsys):
    assert ends("models") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in fabulate.families())
    assert "reconstruct" in shown
    assert "tutorial" in shown


def test_train_tells_where_everything_is(tmp_path, capsys):
    assert ends("train", "ae", *TINY, "--out", tmp_path / "ae") == 0
    shown = capsys.readouterr().out
    for name in ("samples.png", "reconstructions.png", "curves.png", "model"):
        assert str(tmp_path / "ae" / name) in shown
        assert (tmp_path / "ae" / name).exists()
    assert "test loss" in shown
    assert ends("train", "ae", *TINY, "--out", tmp_path / "ae") == 0
    assert "is finished: 20 steps" in capsys.readouterr().out
    assert ends("train", "ae", *TINY, "--lr", "0.5", "--out", tmp_path / "ae") == 2
    assert "training.lr was 0.003, now 0.5" in capsys.readouterr().err


def test_a_mistyped_run_is_told_at_once_with_the_nearest(runs, capsys):
    """And not looked for on the hub, where RUNS/NAME could be OWNER/NAME."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs.parent)
        assert ends("sample", f"{runs.name}/clases") == 2
    assert f"did you mean '{runs.name}/classes'?" in capsys.readouterr().err


def test_info_prints_the_test_numbers(runs, capsys):
    assert ends("info", runs / "vae") == 0
    shown = " ".join(capsys.readouterr().out.split())
    rows = [json.loads(line) for line in (runs / "vae" / "log.jsonl").read_text().splitlines()]
    loss = [row["test"]["loss"] for row in rows if "test" in row][-1]
    assert f"test loss {loss:.5g}" in shown
    assert "network mlp, network.hidden 16" in shown
    assert "finished" in shown


def test_sample_of_a_class_writes_its_folder(runs, tmp_path):
    assert ends("sample", runs / "classes", "--label", "7", "-n", 12, "--out", tmp_path / "sevens") == 0
    assert len(list((tmp_path / "sevens" / "7").glob("*.png"))) == 12
    manifest = json.loads((tmp_path / "sevens" / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["n"] == len(manifest["images"]) == 12
    assert len(manifest["model_sha256"]) == 64
    assert size(tmp_path / "sevens" / "7" / "00000.png") == (8, 8)


def test_samples_with_classes_are_a_data_set(runs, tmp_path):
    """What `sample` writes, `train` reads: class folders, the overview left out."""
    assert ends("sample", runs / "classes", "-n", 40, "--out", tmp_path / "drawn") == 0
    data = fabulate.load_data(tmp_path / "drawn")
    assert data.classes == tuple(map(str, range(10)))
    assert data.report.kept == 40
    assert ends("train", "ae", *TINY, "--data", tmp_path / "drawn", "--conditional", "--out", tmp_path / "run") == 0


def test_sample_to_npz(runs, tmp_path):
    path = tmp_path / "deep" / "samples.npz"
    assert ends("sample", runs / "classes", "-n", 25, "--npz", path, "--batch-size", 10) == 0
    arrays = np.load(path)
    assert arrays["images"].shape == (25, 1, 8, 8)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [i % 10 for i in range(25)]
    expected = fabulate.to_uint8(fabulate.load(runs / "classes").sample(25)).numpy()
    assert (arrays["images"] == expected).all()
    assert ends("sample", runs / "classes", "--npz", path) == 2
    assert ends("sample", runs / "classes", "--npz", path, "--overwrite") == 0


def test_sample_never_writes_over_something_unasked(runs, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert ends("sample", runs / "vae", "-n", 2, "--out", tmp_path) == 2
    assert "is not empty; give --overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert ends("sample", runs / "vae", "-n", 2, "--out", tmp_path, "--overwrite") == 0
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "vae", "--label", "3"], "this model learnt no classes"),
        (["sample", "classes", "--label", "sevn"], "there is no class 'sevn'"),
        (["sample", "vae", "--device", "cuda:9"], "the device 'cuda:9' cannot be used here"),
        (["traverse", "vae", "--image", "a.png", "--seed", "1"], "--image (a file) or --seed (a sample)"),
        (["traverse", "vae", "--image", "a.png"], "a.png: "),
        (["traverse", "vae", "--steps", "1"], "greater than or equal to 2"),
        (["traverse", "vae", "--label", "3"], "this model learnt no classes"),
        (["morph", "vae"], "--from is not given (classes: 0, 1,"),
        (["morph", "vae", "--from", "3"], "--to is not given"),
        (["morph", "vae", "--from", "3", "--to", "x"], "there is no class 'x' (classes: 0, 1,"),
        (["interpolate", "vae", "--images", "a.png", "b.png"], "a.png: "),
        (["interpolate", "vae", "--steps", "1"], "at least 2 steps"),
    ],
)
def test_what_a_model_cannot_do_is_said(words, message, runs, tmp_path, capsys):
    verb, run, *rest = words
    assert ends(verb, runs / run, *rest, "--out", tmp_path / "x.png") == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_in_one_line(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert ends("sample", runs / "vae", "-n", 2, "--out", tmp_path / "file" / "drawn") == 1
    assert capsys.readouterr().err == f"fabulate: {tmp_path / 'file' / 'drawn'}: Not a directory\n"


def test_reconstruct_shows_each_image_above_its_copy(runs, tmp_path, capsys):
    assert ends("reconstruct", runs / "classes", "-n", 8, "--out", tmp_path / "r.png") == 0
    assert holds(tmp_path / "r.png", 8, 2)
    assert "mean squared error" in capsys.readouterr().out
    assert ends("reconstruct", runs / "classes", "--out", tmp_path / "r.png") == 2


def test_reconstruct_fits_other_images_to_the_model(runs, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 30), "red").save(tmp_path / "images" / "one.png")
    Image.new("RGB", (33, 21), "blue").save(tmp_path / "images" / "two.png")
    assert ends("reconstruct", runs / "vae", "--data", tmp_path / "images", "--out", tmp_path / "out" / "r.png") == 0
    assert ends("reconstruct", runs / "vae", "--data", tmp_path / "images", "--out", tmp_path / "images" / "r.png") == 2


def test_interpolate_between_seeds_and_between_images(runs, tmp_path):
    assert ends("interpolate", runs / "gan", "--seeds", 3, 4, "--steps", 5, "--out", tmp_path / "s.png") == 0
    assert holds(tmp_path / "s.png", 5, 1)
    with Image.open(tmp_path / "s.gif") as animation:
        assert animation.n_frames > 20
    assert ends("sample", runs / "vae", "-n", 2, "--out", tmp_path / "drawn") == 0
    ends_of_walk = [tmp_path / "drawn" / "00000.png", tmp_path / "drawn" / "00001.png"]
    words = ["--images", *ends_of_walk, "--path", "linear", "--out", tmp_path / "i.png"]
    assert ends("interpolate", runs / "vae", *words) == 0
    assert (tmp_path / "i.gif").exists()


def test_a_model_without_an_encoder_has_codes_of_images_by_search(runs, tmp_path):
    assert ends("reconstruct", runs / "gan", "-n", 8, "--out", tmp_path / "r.png") == 0
    assert holds(tmp_path / "r.png", 8, 2)
    assert not (runs / "gan" / "reconstructions.png").exists(), "training waits for no search"
    assert ends("sample", runs / "vae", "-n", 2, "--out", tmp_path / "drawn") == 0
    ends_of_walk = [tmp_path / "drawn" / "00000.png", tmp_path / "drawn" / "00001.png"]
    words = ["--images", *ends_of_walk, "--steps", 3, "--out", tmp_path / "i.png"]
    assert ends("interpolate", runs / "gan", *words) == 0
    assert holds(tmp_path / "i.png", 3, 1)


@pytest.mark.parametrize(
    ("verb", "capability", "words"),
    [
        ("reconstruct", "Reconstructs", "cannot reconstruct images; families that can: ae, "),
        ("interpolate", "HasLatent", "has no codes to walk between; families that can: ae, "),
        ("interpolate", "Encodes", "cannot find the codes of images (use --seeds); families that can: ae, "),
        ("traverse", "HasLatent", "has no codes to walk among; families that can: ae, "),
        ("traverse", "Encodes", "cannot find the codes of images (use --directions jacobian); families that can: ae, "),
        ("morph", "Encodes", "cannot find the codes of images; families that can: ae, "),
    ],
)
def test_a_capability_that_a_family_lacks_is_said(verb, capability, words, runs, tmp_path, monkeypatch, capsys):
    """Which family lacks what changes; here the verb is shown a capability that none of its model's bases is."""
    real = getattr(capabilities, capability)
    for code in (gallery, verbs):
        monkeypatch.setattr(code, capability, type(capability, (), {}), raising=False)
    monkeypatch.setattr(gallery, "able", lambda _: able(real))
    extra = {"Encodes": {"interpolate": ["--images", "a", "b"], "traverse": ["--directions", "axes"]}}
    options = extra.get(capability, {}).get(verb, [])
    assert ends(verb, runs / "vae", *options, "--out", tmp_path / "x.png") == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_families_that_can_are_told_though_they_were_not_imported():
    code = "from fabulate.models.base import Conditional, able; print(able(Conditional))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "ae, " in shown and "gan, " in shown and "vae" in shown
    assert "vae" in shown


@pytest.mark.parametrize("kind", ["axes", "principal", "jacobian"])
@pytest.mark.parametrize("run", ["vae", "classes", "gan"])
def test_traverse_draws_a_row_for_each_direction(run, kind, runs, tmp_path, capsys):
    words = ["--directions", kind, "--axes", 3, "--steps", 5, "-n", 40, "--out", tmp_path / "t.png"]
    assert ends("traverse", runs / run, *words) == 0
    assert capsys.readouterr().out.startswith("3 directions hold ")
    wide, high = size(tmp_path / "t.png")
    assert wide > 5 * 66 and high > 3 * 66
    assert ends("traverse", runs / run, *words) == 2


def test_traverse_starts_from_the_mean_an_image_or_a_seed(runs, tmp_path):
    assert ends("sample", runs / "classes", "-n", 1, "--label", "7", "--out", tmp_path / "drawn") == 0
    image = tmp_path / "drawn" / "7" / "00000.png"
    for words in ([], ["--seed", 3], ["--image", image, "--label", "7"]):
        assert ends("traverse", runs / "classes", "--axes", 2, "--steps", 3, "-n", 40, *words) == 0
    drawn = runs / "classes" / "drawn"
    names = ["traversal-axes-00000-7.png", "traversal-axes-mean.png", "traversal-axes-seed-3.png"]
    assert sorted(path.name for path in drawn.glob("traversal-*")) == names
    assert len({(drawn / name).read_bytes() for name in names}) == 3


def test_traverse_searches_for_directions_where_it_would_have_to_search_for_codes(runs):
    assert ends("traverse", runs / "gan", "--axes", 2, "--steps", 3) == 0
    assert (runs / "gan" / "drawn" / "traversal-jacobian-mean.png").exists()


def test_morph_turns_images_of_a_class_towards_another(runs, tmp_path):
    for run in ("vae", "gan"):
        words = ["--from", 3, "--to", 8, "--rows", 2, "--steps", 3, "-n", 20, "--out", tmp_path / f"{run}.png"]
        assert ends("morph", runs / run, *words) == 0
        wide, high = size(tmp_path / f"{run}.png")
        assert wide > 4 * 66 and high > 2 * 66


def test_morph_needs_images_with_classes(runs, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    Image.new("L", (8, 8), 200).save(tmp_path / "two.png")
    assert ends("morph", runs / "vae", "--from", "3", "--to", "8", "--data", tmp_path) == 2
    assert "have no classes; give others with --data" in capsys.readouterr().err


def test_data_prints_the_report_and_saves_a_grid(tmp_path, capsys):
    assert ends("data", "digits", "--out", tmp_path / "grid.png") == 0
    assert "1,797" in capsys.readouterr().out
    assert holds(tmp_path / "grid.png", 10, 10)


def test_a_folder_of_ones_own_end_to_end(tmp_path, capsys):
    """Colour images of mixed sizes in two classes, broken files among them: look, train, draw a class."""
    chance = np.random.default_rng(0)
    for name, colour in (("red", 0), ("blue", 2)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(30):
            image = np.zeros((chance.integers(20, 50), chance.integers(20, 50), 3), np.uint8)
            image[..., colour] = chance.integers(150, 255)
            Image.fromarray(image).save(tmp_path / "mine" / name / f"{i}.JPG", format="JPEG")
    for i in range(4):
        (tmp_path / "mine" / "red" / f"broken{i}.png").write_bytes(b"not an image")
    assert ends("data", tmp_path / "mine") == 2, "mixed sizes cannot be trained on"
    shown = capsys.readouterr()
    assert "--size" in shown.err
    assert all(f"broken{i}.png" in shown.out for i in range(4)), "and yet everything is looked at"
    assert ends("data", tmp_path / "mine", "--size", 16) == 0
    shown = capsys.readouterr()
    assert all(f"broken{i}.png" in shown.out for i in range(4))
    words = ["--data", tmp_path / "mine", "--size", 16, "--conditional", "--out", tmp_path / "run"]
    assert ends("train", "vae", *words, "--network", "mlp", "--network.hidden", 64, "--steps", 300) == 0
    assert "4 of 64 files cannot be read and are set aside" in capsys.readouterr().err
    for name, colour in (("red", 0), ("blue", 2)):
        assert ends("sample", tmp_path / "run", "--label", name, "-n", 10, "--out", tmp_path / name) == 0
        drawn = np.stack([np.asarray(Image.open(path)) for path in (tmp_path / name / name).glob("*.png")])
        assert drawn.shape == (10, 16, 16, 3)
        assert drawn.mean((0, 1, 2)).argmax() == colour
