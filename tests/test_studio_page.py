"""The studio's page in a browser, as a person drives it: chromium, headless, on a server of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fabulate.data import load_data
from tiny import ends

pytest.importorskip("fastapi", reason="the studio's packages are not here: pip install 'fabulate[studio]'")
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
        self.process = subprocess.Popen(
            words, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
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


@pytest.mark.slow
def test_a_training_goes_on_while_the_server_is_killed_and_the_page_comes_back(browser, folder):
    studio = Studio(folder)
    page = browser.new_context().new_page()
    page.set_default_timeout(90_000)
    page.goto(f"{studio.url}?token={TOKEN}")
    at(page, studio, "train?source=digits")
    page.wait_for_selector("input[name=steps]")
    page.fill("input[name=epochs]", "")
    page.fill("input[name=steps]", "4000")
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
    page.wait_for_selector(".pill.finished")
    assert int(page.get_attribute(".lapse", "data-count")) >= 2
    studio.end()
