"""Texts and tunes in the studio: what is read and heard there is what the model writes, and what a page may ask."""

import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the studio's packages are not here: pip install 'fabulate[studio]'")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from fabulate.data.media import MEDIA, medium
from fabulate.studio.app import application
from fabulate.studio.places import NAMED, Roots
from fabulate.training import load
from test_studio import PORT, TOKEN
from tiny import ends

LIKELY = {"temperature": 0.05}  # what was counted, nearly to the letter
SMALL = ["--transformer.width", "16", "--transformer.layers", "1", "--steps", "2", "--batch-size", "4"]


def tune(i: int) -> str:
    notes = "ABcd" if i % 2 else "GABc"
    return f"X:{i}\nT:Tune {i}\nR:{'reel' if i % 2 else 'jig'}\nM:4/4\nL:1/8\nK:G\n{notes} {notes}|{notes} {notes}|\n\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of tunes and a model of texts."""
    home = tmp_path_factory.mktemp("written")
    (home / "tunes.abc").write_text("".join(tune(i) for i in range(1, 25)))
    assert ends("train", "ar", home / "tunes.abc", "--conditional", *SMALL, "--out", home / "runs" / "tunes") == 0
    assert ends("train", "ar", "proverbs", *SMALL, "--out", home / "runs" / "proverbs") == 0
    return home


@pytest.fixture
def page(home: Path) -> TestClient:
    client = TestClient(application(Roots([home], here=home), TOKEN, PORT, ("127.0.0.1",)), f"http://127.0.0.1:{PORT}")
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def test_what_is_read_is_what_the_model_writes(page, home):
    model = load(home / "runs" / "proverbs")
    facts = page.get("/api/explore", params={"run": "runs/proverbs"}).json()
    assert facts["medium"] == "texts" and not facts["map"] and "temperature" in facts["sampling"]["properties"]
    asked = {"run": "runs/proverbs", "n": 3, "seed": 5, "sampling": {"temperature": 0.7, "begin": "a "}}
    items = page.post("/api/explore/write", json=asked).json()
    written = model.items(model.sample(3, seed=5, temperature=0.7, begin="a "))
    assert [item["text"] for item in items] == [*written] and all(text.startswith("a ") for text in written)
    assert not any(item["sound"] for item in items)
    assert page.get("/api/explore/sound", params={"asks": json.dumps(asked), "i": 0}).status_code == 404


def test_a_tune_is_heard_as_its_file_sounds_and_seen_as_a_piano_roll(page, home, tmp_path):
    model = load(home / "runs" / "tunes")
    asked: dict[str, Any] = {"run": "runs/tunes", "n": 2, "seed": 0, "label": "reel", "sampling": LIKELY}
    items = page.post("/api/explore/write", json=asked).json()
    assert items[0]["sound"] and items[0]["title"].startswith("Tune") and "bars are full" in items[0]["about"]
    answer = page.get("/api/explore/sound", params={"asks": json.dumps(asked), "i": 0})
    assert answer.headers["content-type"] == "audio/wav"
    (text, _) = model.items(model.sample(2, "reel", seed=0, **LIKELY))
    medium(model.shape).place(text, tmp_path / "one.abc")
    assert answer.content == (tmp_path / "one.wav").read_bytes()
    with wave.open(io.BytesIO(answer.content)) as sound:
        numbers = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert 3000 < abs(numbers).max() < 32767  # neither silent nor clipped
    sheet = Image.open(io.BytesIO(page.post("/api/explore/sheet", json=asked).content))
    assert len({*sheet.convert("RGB").get_flattened_data()}) > 3
    assert page.get("/api/explore/sound", params={"asks": json.dumps(asked), "i": 2}).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"run": "runs/tunes", "n": 25}, 422, "n:"),
        ({"run": "runs/tunes", "seed": -1}, 422, "seed"),
        ({"run": "runs/tunes", "label": "waltz"}, 422, "waltz"),
        ({"run": "runs/tunes", "sampling": {"temperature": -1}}, 422, "temperature"),
        ({"run": "runs/tunes", "sampling": {"begin": "\u2603"}}, 422, "\u2603"),
        ({"run": "../elsewhere"}, 403, "does not lie"),
        ({"run": "runs/none"}, 404, "runs/none"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(page, asked, status, words):
    for answer in (
        page.post("/api/explore/write", json=asked),
        page.post("/api/explore/sheet", json=asked),
        page.get("/api/explore/sound", params={"asks": json.dumps(asked), "i": 0}),
    ):
        assert answer.status_code == status and words in answer.json()["error"], answer.text


def test_maps_and_sheets_of_pixels_are_of_images_alone(page):
    for path, body in (("map", {"run": "runs/tunes"}), ("draw", {"run": "runs/tunes"})):
        answer = page.post(f"/api/explore/{path}", json=body)
        assert answer.status_code == 422 and "tunes" in answer.json()["error"]


def test_intake_tells_of_tunes_what_the_command_line_does(page, home, capsys):
    lines = page.post("/api/data", json={"source": "tunes.abc"}).text.splitlines()
    report = json.loads(lines[-1])["report"]
    assert report["medium"] == "tunes" and report["train"] == len(report["items"]) + 22 - 12
    assert ends("data", home / "tunes.abc") == 0
    printed = capsys.readouterr().out
    told = dict(report["rows"])
    assert told["tunes"] in printed and told["lengths"] in printed
    assert all(item["text"].startswith("T:Tune") for item in report["items"])


def test_the_sources_with_a_name_are_those_that_the_media_know():
    assert {*NAMED} - {"digits", "mnist", "fashion_mnist", "cifar10"} == {
        name for one in MEDIA.values() for name in one.sources
    }
