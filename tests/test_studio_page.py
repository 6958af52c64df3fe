"""The studio's page in a browser, as a person drives it: chromium, headless, on a server of its own."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fabulate.data import load_data
from fabulate.studio.explore import map_of
from fabulate.training import load
from fabulate.types import to_uint8
from tiny import ends

pytest.importorskip("fastapi", reason="the studio's packages are not here: pip install 'fabulate[studio]'")
httpx = pytest.importorskip("httpx")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not here: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

TOKEN = "abcdefghijklmnopqrstuvwx"
TINY = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "4", "--steps", "20", "--batch-size", "16"]


class Studio:
    """`fabulate studio` on a folder, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = [sys.executable, "-m", "fabulate", "studio", ".", "--port", "0", "--token", TOKEN]
        self.said = folder / "studio.err"
        with self.said.open("a") as errors:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://\S+/", line):
                self.url = found[0]
                return
        raise AssertionError("it did not tell its address")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert "Traceback" not in self.said.read_text(), self.said.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a folder of images, one of them broken and with a name that is markup."""
    folder = tmp_path_factory.mktemp("studio")
    assert ends("train", "vae", *TINY, "--out", folder / "runs" / "vae") == 0
    images = load_data("digits").train
    for i in range(30):
        place = folder / "photos" / ("even" if images.y[i] % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.x[i, 0]).save(place / f"{i}.png")
    (folder / "photos" / "odd" / "<img src=x onerror=alert(1)>.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    studio = Studio(folder)
    yield studio
    studio.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, studio: Studio) -> Iterator[Any]:
    """The opened page; what its scripts complain of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    page.on("dialog", lambda dialog: wrong.append(f"a script ran: {dialog.message}"))
    page.set_default_timeout(20_000)
    page.goto(f"{studio.url}?token={TOKEN}")
    yield page
    context.close()
    assert not wrong, wrong


def at(page: Any, studio: Studio, place: str) -> None:
    """Go to a screen and wait until it is there."""
    page.goto(f"{studio.url}#/{place}")
    page.wait_for_selector(f"#screen[data-shown={place.split('?')[0] or 'home'}]")


def test_the_first_page_shows_the_run_and_the_images_and_hides_the_token(page, studio):
    page.wait_for_selector(".tile")
    assert "token" not in page.url
    assert page.inner_text(".tile:has(.pill) h3").startswith("vae") and page.inner_text(".tile .pill") == "finished"
    assert page.locator(".tile", has_text="photos").count() == 1
    page.wait_for_function("() => [...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth > 0)")
    assert page.evaluate("() => document.cookie") == ""


def test_broken_files_are_seen_with_their_reasons_and_names_are_never_markup(page, studio):
    at(page, studio, "data?source=photos")
    page.wait_for_selector(".file")
    assert page.inner_text(".file strong") == "odd/<img src=x onerror=alert(1)>.png"
    assert "not an image" in page.inner_text(".file figcaption span")
    assert page.locator(".barrow").count() == 2
    page.click(".barrow[data-label=even]")
    page.wait_for_selector(".barrow[data-label=even][aria-pressed=true]")
    assert page.inner_text(".command code") == "fabulate data photos"


def test_a_form_names_the_field_that_is_out_of_bounds_and_its_command_follows(page, studio):
    at(page, studio, "train?source=digits")
    page.wait_for_selector("input[name=steps]")
    page.fill("input[name=steps]", "-4")
    page.wait_for_selector(".problem:has-text('steps')")
    assert page.get_by_role("button", name="Train", exact=True).is_disabled()
    page.fill("input[name=steps]", "30")
    page.click("summary:has-text('The model')")
    page.fill("input[name=latent_dim]", "3")
    page.select_option("select[name=network]", "mlp")
    page.wait_for_selector("input[name='network.hidden']")
    page.fill("input[name='network.hidden']", "16 8")
    wanted = (
        "fabulate train vae digits --latent-dim 3 --network mlp --network.hidden 16 8 --steps 30 --out runs/vae-digits"
    )
    page.wait_for_selector(f".command:has-text('{wanted}')")


def shown(page: Any, selector: str) -> Any:
    """The pixels of a canvas, gray ones of colour: (H, W)."""
    script = """(selector) => {
        const canvas = document.querySelector(selector);
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.height, canvas.width, Array.from(data)];
    }"""
    height, width, numbers = page.evaluate(script, selector)
    return np.array(numbers, np.uint8).reshape(height, width, 4)[..., 0]


def test_samples_and_codes_are_decoded_to_the_models_own_pixels(page, studio, folder):
    model, run = load(folder / "runs" / "vae"), folder / "runs" / "vae"
    at(page, studio, "explore?run=runs/vae")
    page.wait_for_selector(".samples[data-seed='0']")
    page.get_by_role("button", name="›").click()
    page.wait_for_selector(".samples[data-seed='1']")
    assert np.array_equal(shown(page, ".samples canvas"), to_uint8(model.sample(1, seed=1))[0, 0].numpy())
    page.wait_for_selector("canvas.big[data-place]")
    page.locator("canvas.map").scroll_into_view_if_needed()
    page.locator("canvas.map").click(position={"x": 150, "y": 120})
    page.fill("input[name=direction-3]", "1.5")
    page.wait_for_selector("canvas.big[data-place*=' 1.500']")
    page.wait_for_timeout(100)
    place = [float(value) for value in page.get_attribute("canvas.big", "data-place").split()]
    assert abs(place[0]) > 0.1 and abs(place[1]) > 0.1
    codes = map_of(run, 400, None).codes(torch.tensor([place]))
    own = to_uint8(model.decode(codes))[0, 0].numpy().astype(int)
    assert np.abs(shown(page, "canvas.big") - own).max() <= 1  # the place is told to three digits


def test_a_lesson_is_stepped_by_keys_and_an_exercise_is_solved(page, studio):
    at(page, studio, "learn?family=gan&preset=tutorial&data=grid")
    page.wait_for_selector("canvas.plane[data-step='0']", timeout=60_000)
    page.wait_for_selector(".formula.next[data-player=critic]")
    page.keyboard.press("t")
    page.wait_for_selector(".formula.next[data-player=generator]")
    assert page.locator(".terms dt", has_text="generator").count() == 0  # which had no turn yet
    page.keyboard.press("t")
    page.wait_for_selector("canvas.plane[data-step='1']")
    assert page.locator("math msub").count() == 2 and page.locator(".marked-line", has_text="softplus").count() == 2
    page.keyboard.press("5")
    page.wait_for_selector(".formula[data-player=model]")
    page.wait_for_selector("canvas.plane[data-step='0']")
    before = shown(page, "canvas.plane")
    page.keyboard.press("t")
    page.wait_for_selector("canvas.plane[data-step='1']")
    page.wait_for_timeout(100)
    assert (shown(page, "canvas.plane") != before).any()
    page.wait_for_selector(".task", timeout=60_000)
    task = page.locator(".task", has_text="How low can it go?")
    for value, outcome in (("1", "Not yet"), ("-0.96", "Solved.")):
        task.locator("input").fill(value)
        task.get_by_role("button", name="Check").click()
        task.locator(".outcome", has_text=outcome).wait_for()
    assert page.get_attribute(".exercises", "data-solved") == "entropy"
    page.reload()
    page.wait_for_selector(".exercises[data-solved=entropy]")
    assert page.locator(".task.solved .why").is_visible()


@pytest.mark.slow
def test_a_path_becomes_a_strip_and_a_dropped_image_is_judged(page, studio, folder):
    at(page, studio, "explore?run=runs/vae")
    page.wait_for_selector("canvas.big[data-place]")
    page.get_by_role("button", name="Draw a path").click()
    page.locator("canvas.map").scroll_into_view_if_needed()
    box = page.locator("canvas.map").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 150, steps=4)
    page.mouse.up()
    page.wait_for_selector(".film")
    assert page.locator(".walk .strip canvas").count() == 12
    assert not np.array_equal(
        shown(page, ".walk .strip canvas:first-child"), shown(page, ".walk .strip canvas:last-child")
    )
    page.set_input_files(".drop input", next((folder / "photos" / "even").glob("*.png")))
    page.wait_for_selector(".score")
    assert page.locator(".judged figure").count() == 4
    page.set_input_files(".drop input", folder / "photos" / "odd" / "<img src=x onerror=alert(1)>.png")
    page.wait_for_selector(".note.poor")


def test_outliers_are_sorted_by_keys_with_undo(page, studio, folder):
    detector, ranking = folder / "runs" / "normal", folder / "runs" / "normal" / "photos"
    assert ends("outliers", "fit", folder / "photos", "--out", detector) == 0
    assert ends("outliers", "score", detector, folder / "photos", "--out", ranking) == 0
    at(page, studio, "outliers?path=runs/normal/photos")
    page.wait_for_selector(".odd")
    with (ranking / "outliers.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file)]
    for key, saved in (("r", "0 1"), ("r", "0 2"), ("k", "1 2"), ("r", "1 3"), ("u", "1 2"), ("r", "1 3")):
        page.keyboard.press(key)
        page.wait_for_selector(f".strange[data-saved='{saved}']")
    assert (ranking / "reject.txt").read_text().splitlines() == [names[0], names[1], names[3]]
    assert (ranking / "keep.txt").read_text().splitlines() == [names[2]]
    page.reload()
    page.wait_for_selector(".odd[data-decided=reject]")
    assert page.locator(".odd[data-decided=reject]").count() == 3
    assert "--without runs/normal/photos/reject.txt" in page.inner_text(".action code")


@pytest.mark.slow
def test_the_verdict_of_a_comparison_is_the_command_lines(page, studio, folder, capsys):
    assert ends("train", "gan", *TINY, "--out", folder / "runs" / "gan") == 0
    at(page, studio, "compare?run=runs/vae")
    page.locator(".pick", has_text="gan").locator("input").check()
    page.fill("input[name=n]", "200")
    page.wait_for_selector(".command:has-text('-n 200')")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector("#overall", timeout=240_000)
    capsys.readouterr()
    out = folder / "own"
    assert ends("compare", folder / "runs" / "vae", folder / "runs" / "gan", "-n", "200", "--out", out) == 0
    assert page.inner_text("#overall") in capsys.readouterr().out
    report = page.frame_locator("iframe.report")
    report.locator("h1").wait_for()
    assert report.locator("h1").inner_text() == "vae · gan"


def test_a_proof_is_a_chart_of_its_ways_below_its_answer(page, studio, folder):
    ways = {"real": (0.5, False), "balanced": (0.6, False), "synthetic": (0.7, True), "both": (None, True)}
    record = {
        "helped": "no",
        "sentences": ["Synthetic images <b>did not</b> help.", "Recommended: balanced."],
        "baselines": {
            name: {
                "words": name,
                "images": 9,
                "balanced_accuracy": {"value": v, "low": v and v - 0.1, "high": v and v + 0.1},
            }
            for name, (v, _) in ways.items()
        },
        "differences": [{"first": name} for name, (_, synthetic) in ways.items() if synthetic],
    }
    place = folder / "more" / "proof"
    place.mkdir(parents=True)
    (place / "proof.json").write_text(json.dumps(record))
    (place / "proof.html").write_text("<p>all numbers</p>")
    at(page, studio, "compare?proof=more%2Fproof")
    page.wait_for_selector("svg.proof")
    assert page.inner_text("#answer") == record["sentences"][0]
    assert page.locator(".way").evaluate_all("all => all.map((each) => each.dataset.way)") == [*ways]
    assert page.locator(".way.synthetic").evaluate_all("all => all.map((each) => each.dataset.way)") == [
        "synthetic",
        "both",
    ]
    places = page.locator(".way circle").evaluate_all("all => all.map((each) => Number(each.getAttribute('cx')))")
    lines = page.locator(".way line").evaluate_all(
        "all => all.map((each) => ['x1', 'x2'].map((end) => Number(each.getAttribute(end))))"
    )
    unit = places[1] - places[0]  # a tenth of the accuracy
    assert unit > 20 and abs(places[2] - places[1] - unit) < 0.3 and len(places) == 3
    assert all(
        abs(at - unit - low) < 0.3 and abs(at + unit - high) < 0.3
        for at, (low, high) in zip(places, lines, strict=True)
    )
    shutil.rmtree(folder / "more")


@pytest.mark.slow
def test_a_training_goes_on_while_the_server_is_killed_and_the_page_comes_back(browser, folder):
    studio = Studio(folder)
    page = browser.new_context().new_page()
    page.set_default_timeout(90_000)
    page.goto(f"{studio.url}?token={TOKEN}")
    at(page, studio, "train?source=digits")
    page.wait_for_selector("input[name=steps]")
    page.fill("input[name=epochs]", "")
    page.fill("input[name=steps]", "2500")
    page.fill("input[name=out]", "runs/killed")
    page.wait_for_selector(".command:has-text('--out runs/killed')")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector(".chart")
    studio.end(signal.SIGKILL)
    step = len((folder / "runs" / "killed" / "log.jsonl").read_text().splitlines())
    time.sleep(2)
    assert len((folder / "runs" / "killed" / "log.jsonl").read_text().splitlines()) > step
    studio = Studio(folder)
    page.goto(f"{studio.url}?token={TOKEN}")
    at(page, studio, "run?path=runs/killed")
    page.wait_for_selector(".pill.running")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".pill.stopped")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_selector(".pill.running")
    page.wait_for_selector(".pill.finished", timeout=240_000)
    assert int(page.get_attribute(".lapse", "data-count")) >= 2
    studio.end()


@pytest.mark.slow
def test_fifty_pages_follow_a_run_that_is_deleted_under_them(tmp_path):
    """Each hears every line once, those that go away leave nothing behind, and the rest hear that the run is gone."""
    run = tmp_path / "runs" / "one"
    (run / "checkpoints").mkdir(parents=True)
    config = {"family": "vae", "model": {}, "training": {"steps": 40}, "data": {}, "shape": [1, 8, 8], "classes": []}
    (run / "config.json").write_text(json.dumps(config))
    studio = Studio(tmp_path)
    where = f"{studio.url}api/run/events?path=runs/one"
    cookie = {"Cookie": f"fabulate_{studio.url.rstrip('/').rsplit(':')[-1]}={TOKEN}"}

    def follow(leaves: bool) -> tuple[list[int], bool]:
        steps: list[int] = []
        with httpx.stream("GET", where, headers=cookie, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    news = json.loads(line.removeprefix("data: "))
                    steps += [row["step"] for row in news.get("rows", [])]
                    if news.get("gone"):
                        return steps, True
                    if leaves and steps:
                        return steps, False
        return steps, False

    with ThreadPoolExecutor(50) as pool:
        told = [pool.submit(follow, i % 5 == 0) for i in range(50)]
        for step in range(1, 41):
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "epoch": 1.0, "seconds": 1.0, "train": {"loss": 1.0}}) + "\n")
            time.sleep(0.05)
        time.sleep(2)
        began = time.monotonic()
        assert httpx.get(f"{studio.url}api/home", headers=cookie, timeout=30).status_code == 200
        assert time.monotonic() - began < 5
        shutil.rmtree(run)
        heard = [each.result(60) for each in told]
    stayed = [steps for steps, gone in heard if gone]
    assert len(stayed) == 40 and all(steps == [*range(1, 41)] for steps in stayed)
    assert httpx.get(f"{studio.url}api/run?path=runs/one", headers=cookie).status_code == 404
    studio.end()


@pytest.mark.slow
def test_clients_that_go_away_leave_the_studio_at_work(studio, folder):
    """In the middle of drawing samples and of reading images: what others ask for afterwards is as it was."""
    cookie = {"Cookie": f"fabulate_{studio.url.rstrip('/').rsplit(':')[-1]}={TOKEN}"}
    asked = {"run": "runs/vae", "n": 400}
    gone = 0
    for seed in range(12):
        try:
            httpx.post(f"{studio.url}api/explore/draw", json=asked | {"seed": seed}, headers=cookie, timeout=0.002)
        except httpx.TimeoutException:
            gone += 1
        with httpx.stream(
            "POST", f"{studio.url}api/data", json={"source": "photos"}, headers=cookie, timeout=60
        ) as told:
            next(told.iter_lines())
    assert gone > 6
    answer = httpx.post(f"{studio.url}api/explore/draw", json=asked | {"n": 1, "seed": 5}, headers=cookie, timeout=60)
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))[..., 0]
    assert np.array_equal(drawn, to_uint8(load(folder / "runs" / "vae").sample(1, seed=5))[0, 0].numpy())


def test_tunes_are_read_and_heard_and_another_seed_writes_others(page, studio, folder):
    notes = ["ABcd ABcd|ABcd efga|", "GABc GABc|dBGB A2G2|"]
    tunes = "".join(f"X:{i}\nT:Tune {i}\nM:4/4\nL:1/8\nK:G\n{notes[i % 2]}\n\n" for i in range(1, 25))
    (folder / "tunes.abc").write_text(tunes)
    small = ["--transformer.width", "16", "--transformer.layers", "1", "--steps", "2", "--batch-size", "4"]
    assert ends("train", "ar", folder / "tunes.abc", *small, "--out", folder / "runs" / "tunes") == 0
    page.goto(f"{studio.url}#/explore?run=runs/tunes")
    page.fill("input[name=temperature]", "0.05")
    model = load(folder / "runs" / "tunes")

    def shows(seed: int) -> None:
        """Wait until the page shows what the model writes."""
        written = [item.strip("\n") for item in model.items(model.sample(6, seed=seed, temperature=0.05))]
        seen = "[...document.querySelectorAll('.writing pre')].map((each) => each.innerText)"
        page.wait_for_function(f"(written) => JSON.stringify({seen}) === JSON.stringify(written)", arg=written)

    shows(seed=0)
    code = page.locator(".action code").last.inner_text()
    assert code == "fabulate sample runs/tunes -n 6 --seed 0 --temperature 0.05"
    page.wait_for_function(
        """async () => {
            const one = document.querySelector(".writing audio");
            if (one.readyState < 1) one.load();
            one.preload = "auto";
            return one.duration > 1;
        }"""
    )
    page.click("text=›")
    shows(seed=1)
    page.goto(f"{studio.url}#/data?source=tunes.abc")
    page.wait_for_selector(".writing pre")
    assert "24 found" in page.locator("table.told").inner_text()
