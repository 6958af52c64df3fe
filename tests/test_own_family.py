"""Families from outside the package: files brought by `--import`, packages with an entry point, `fabulate check`."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import fabulate
from fabulate.errors import ConfigError
from fabulate.models import GenerativeModel, families, family, names
from fabulate.models.families import OURS, import_families
from tiny import ends

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_family.py"


@pytest.fixture(autouse=True)
def forgotten():
    """What a test brings is forgotten after it: other tests go over the registry."""
    yield
    for name in GenerativeModel.families.keys() - OURS:
        del GenerativeModel.families[name]
    for name in ("mine", "own_family"):
        sys.modules.pop(name, None)


@pytest.fixture
def mine(tmp_path):
    """A file with the family of the example, under another name."""
    file = tmp_path / "mine.py"
    file.write_text(EXAMPLE.read_text().replace('family="ppca"', 'family="mine"'))
    return file


def train(file, out):
    return ends("train", "mine", "--import", file, "--steps", 3, "--out", out)


def test_a_file_is_trained_from_sampled_from_and_named_where_it_is_missing(mine, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(mine, run) == 0
    assert ends("sample", run, f"--import={mine}", "-n", 2, "--out", tmp_path / "drawn") == 0
    assert ends("reconstruct", "--import", mine, run, "--out", tmp_path / "copies.png") == 0
    del GenerativeModel.families["mine"], sys.modules["mine"]
    with pytest.raises(ConfigError, match=r"family 'mine', which is defined in mine.py: give --import with that file"):
        fabulate.load(run)
    capsys.readouterr()
    assert ends("sample", run, "-n", 2) == 2
    assert "which is defined in mine.py: give --import" in capsys.readouterr().err
    assert ends("train", "mine", "--steps", 3) == 2
    assert "there is no family 'mine'" in (told := capsys.readouterr().err) and "--import FILE" in told
    assert train(mine, run) == 0  # it is finished, and says so
    assert isinstance(fabulate.load(run), family("mine"))


def test_a_package_offers_families_by_an_entry_point(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine.parent)
    found = {"mine": EntryPoint("mine", "mine", "fabulate.families"), "lost": EntryPoint("lost", "no_such", "x")}
    monkeypatch.setattr(families, "installed", lambda: found)
    assert {"mine", "lost"} <= {*names()}
    assert "mine" not in GenerativeModel.families
    assert family("mine").__module__ == "mine"
    with pytest.raises(ConfigError, match="the family 'lost' of no_such cannot be imported: No module named 'no_such'"):
        family("lost")


def test_a_module_is_imported_by_its_name(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine.parent)
    assert import_families("mine") == import_families(mine) == ["mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"nothing.py cannot be imported: FileNotFoundError"),
        (
            "import no_such_module",
            "nothing.py cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def f(:", "nothing.py cannot be imported: SyntaxError"),
        ("x = 1", "nothing.py defines no family; one is made by class NAME"),
        (EXAMPLE.read_text().replace('"ppca"', '"vae"'), "defines the family 'vae', which fabulate has"),
    ],
)
def test_files_that_bring_no_family_are_refused_in_words(tmp_path, text, words):
    before = {**GenerativeModel.families}
    if text is not None:
        (tmp_path / "nothing.py").write_text(text)
    with pytest.raises(ConfigError, match=words):
        import_families(tmp_path / "nothing.py")
    assert GenerativeModel.families == before
    sys.modules.pop("nothing", None)


def test_a_file_with_the_name_of_another_module_and_a_missing_name_are_refused(tmp_path, capsys):
    (tmp_path / "json.py").write_text(EXAMPLE.read_text())
    with pytest.raises(ConfigError, match=r"json.py has the name of another module, json"):
        import_families(tmp_path / "json.py")
    assert ends("models", "--import") == 2
    assert "--import needs a Python file" in capsys.readouterr().err


def test_check_says_what_to_mend_and_where(tmp_path, capsys):
    text = EXAMPLE.read_text().replace('family="ppca"', 'family="mine"')
    broken = text.replace(
        "    def decode", "    def encode(self, x, y=None):\n        return x.flatten(1)\n\n    def decode"
    )
    (tmp_path / "mine.py").write_text(broken.replace(".clamp(-1, 1)", ".unsqueeze(0)"))
    assert ends("check", tmp_path / "mine.py") == 1
    told = capsys.readouterr().out
    assert "  ok    Each parameter belongs to exactly one player" in told
    assert "  mend  Samples are images of the model's shape in [-1, 1], for any shape" in told
    assert "`encode` gives codes of the shape (6, 64) where `prior` has (6, 5)" in told
    assert (
        "`encode` finds other things in uint8 pixels than in the same images as floats: call `self.given(x, y)`" in told
    )
