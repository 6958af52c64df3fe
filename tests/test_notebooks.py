"""Objects show themselves in notebooks, in any colours and with any words; the notebooks of examples/ run."""

from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import fabulate
from fabulate.data import Data, load_data
from fabulate.evaluation import evaluate
from fabulate.models import GenerativeModel
from fabulate.pictures import card
from pages import Page
from tiny import Case, make

BOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
HOSTILE = "<script>alert('x')</script> & \" \udcff"


@pytest.fixture(scope="module")
def model(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> GenerativeModel:
    return fabulate.train("vae", digits, out=tmp_path_factory.mktemp("run"), steps=3, conditional=True, quiet=True)


def sound(html: str) -> str:
    """HTML whose tags close in order, that can be sent, loads nothing from elsewhere and sets no colour of words."""
    html.encode()
    page = Page(html)
    assert not page.links and all(place.startswith("data:image/png;base64,") for place in page.loads)
    assert "<script" not in html and "color:" not in html.replace("background-color:", "")
    return html


def test_a_card_takes_any_words() -> None:
    html = sound(card(HOSTILE, [(HOSTILE, HOSTILE)], Image.new("L", (3, 2))))
    assert html.count("&lt;script&gt;") == 4 and 'width="3" height="2"' in html


def test_data_and_their_report_show_themselves(digits: Data) -> None:
    html = sound(digits._repr_html_())
    assert "1,618 to train, 179 to test" in html and html.count("<img") == 1
    assert sound(digits.report._repr_html_()).count("<img") == 0
    assert "Images(1,618 of 8x8 gray)" in repr(digits) and len(repr(digits)) < 2000


def test_a_folder_with_hostile_names_shows_itself(tmp_path: Path) -> None:
    for name in ("<b>bold", "two\nlines"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (9, 7), (80 * i, 0, 0)).save(tmp_path / name / f"<i>{i}.png")
    data = load_data(tmp_path)
    assert "&lt;b&gt;bold" in sound(data._repr_html_())


def test_data_show_every_class_however_rare(digits: Data) -> None:
    assert digits.train.y is not None
    order = np.argsort(digits.train.y != 7, kind="stable")[: (digits.train.y == 7).sum() + 1]
    few = replace(digits, train=type(digits.train)(digits.train.x[order], digits.train.y[order]), test=None)
    assert len(set(few.train.y.tolist())) == 2
    assert few.show(8).height == few.show(8, seed=1).height == digits.show(2).height  # two rows: the rare class has one
    assert few.show(8).tobytes() == few.show(8).tobytes() != few.show(8, seed=1).tobytes()


def test_a_model_shows_its_samples_by_class(model: GenerativeModel) -> None:
    html = sound(model._repr_html_())
    assert "vae on digits" in html and "steps" in html and "test loss" in html
    assert model.shown == 60 and model.show().tobytes() == model.show(60).tobytes()
    rows = {n: model.show(n).height for n in (1, 10, 20)}
    assert rows[20] == rows[10] == rows[1] + 9 * 66
    assert model.show(3, y="7").tobytes() != model.show(3, y="8").tobytes()
    sent = model.show(3)._repr_png_()
    assert sent is not None and sent.startswith(b"\x89PNG")


def test_an_evaluation_shows_its_answers_and_numbers(digits: Data) -> None:
    unconditional = make(Case("ae", "mlp"))
    report = evaluate(unconditional, digits, n=60, features="pixels", images=5, k=2)
    html = sound(report._repr_html_())
    assert all(row in html for row in ("Precision", "a perfect model", "noise", "Is it good?"))


def test_there_are_three_notebooks() -> None:
    assert [path.stem for path in BOOKS] == ["first_model", "outliers", "your_own_folder"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_what_it_shows(path: Path) -> None:
    assert path.stat().st_size < 400_000
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) < len(book.cells) and [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_did(path: Path, tmp_path: Path) -> None:
    """In an empty folder; each cell shows things of the same kinds as those that are kept."""
    kept, book = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    for cell, before in zip(book.cells, kept.cells, strict=True):
        new, old = (
            [set(output.data) - {"image/jpeg"} for output in one.get("outputs", ()) if "data" in output]
            for one in (cell, before)
        )
        assert new == old, cell.source  # Pillow offers its pictures as JPEGs too, which are not kept
