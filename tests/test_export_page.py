"""The page of an exported model in a browser: from a plain file server, all else blocked, held against Python."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabulate.config import override
from fabulate.models import GenerativeModel
from fabulate.models.base import evaluating
from fabulate.models.capabilities import HasLatent
from fabulate.share.graphs import stepwise
from fabulate.share.web import LARGEST, write_web
from fabulate.types import ImageShape, unit
from tiny import CLASSES, Case, make

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not here: pip install playwright")
pytest.importorskip("onnxruntime", reason="the packages for ONNX are not here: pip install 'fabulate[onnx]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")]

ARRAYS = ("noise", "choice", "classes", "codes", "pixels")


class Quiet(SimpleHTTPRequestHandler):
    """What `python -m http.server` answers with, without its words."""

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(folder: Path, **context: Any) -> Iterator[Any]:
    """The page of a folder, once it has drawn; any request to elsewhere, and any complaint of a script, fails."""
    wrong: list[str] = []
    with served(folder) as url, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(**context).new_page()

        def only_here(route: Any) -> None:
            if route.request.url.startswith(url):
                route.continue_()
            else:
                wrong.append(route.request.url)
                route.abort()

        page.route("**/*", only_here)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(60_000)
        page.goto(url)
        page.wait_for_selector("#page[data-seed]")
        yield page
        browser.close()
    assert not wrong, wrong


def drawn(page: Any, name: str = "drawn") -> dict[str, Any]:
    """What the page drew last, and what of."""
    return page.evaluate(
        f"() => Object.fromEntries(Object.entries({name}).map(([k, v]) => [k, v.length ? [...v] : v]))"
    )


def seeded(page: Any, seed: int) -> dict[str, Any]:
    """What the page draws with a seed."""
    page.fill("input[type=number]", str(seed))
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => drawn.seed === {seed}")
    return drawn(page)


@torch.no_grad()
def expected(model: GenerativeModel, made: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels in [0, 1] that Python makes of the same noise, and those of the page, both (N, C, H, W)."""
    assert isinstance(model, HasLatent)
    noise, choice = (torch.tensor(made[name], dtype=torch.float32) for name in ("noise", "choice"))
    n = len(choice)
    y = torch.tensor(made["classes"]) if model.classes else None
    way = {"solver": "ipndm", "evaluations": made["steps"]} if stepwise(model) else {}
    with evaluating(model), model.drawing(way):
        codes = model.from_noise(noise.view(n, -1), choice, y)
        pixels = unit(model.decode(codes, y)).clamp(0, 1).numpy()
    return pixels, np.reshape(made["pixels"], pixels.shape)


def agree(model: GenerativeModel, made: dict[str, Any]) -> None:
    here, there = expected(model, made)
    assert np.ptp(here) > 0.1 and np.abs(here - there).max() <= 1 / 255


def test_a_conditional_vae_draws_and_walks_as_python_does(tmp_path):
    model = make(Case("vae", "mlp", CLASSES))
    with torch.no_grad():
        model.mixture.means.normal_(generator=torch.Generator().manual_seed(0))
        for weights in model.decoder.parameters():
            weights.mul_(3)  # images that differ
    write_web(model, tmp_path / "page", "cats")
    assert sum(file.stat().st_size for file in (tmp_path / "page").iterdir()) < LARGEST
    with opened(tmp_path / "page") as page:
        first, other = seeded(page, 5), seeded(page, 2**40 + 6)
        agree(model, first), agree(model, other)
        assert np.abs(np.subtract(first["pixels"], other["pixels"])).max() > 0.1
        assert seeded(page, 5) == first, "the same seed draws other images"
        assert first["classes"][:4] == [0, 1, 2, 0] and len(first["choice"]) == 64
        noise = np.array([*first["noise"], *other["noise"]])
        assert abs(noise.mean()) < 5 / len(noise) ** 0.5 and abs(noise.var() - 1) < 5 * (2 / len(noise)) ** 0.5

        page.select_option("select", label="dog")
        page.wait_for_function("() => drawn.classes.every((y) => y === 1)")
        agree(model, drawn(page))
        page.locator(".cell").nth(9).click()
        page.locator(".slider input").first.fill("2")
        page.wait_for_function("() => Number(document.querySelector('.slider output').textContent) === 2")
        page.wait_for_timeout(500)
        walked, base = drawn(page, "walked"), np.reshape(drawn(page)["codes"], (64, -1))[9]
        assert np.abs(np.subtract(walked["code"], base)).max() > 0.01
        with torch.no_grad():
            here = unit(model.decode(torch.tensor([walked["code"]]), torch.tensor([walked["label"]]))).flatten()
        assert walked["label"] == 1 and np.abs(here.numpy() - walked["pixels"]).max() <= 1 / 255


def test_a_convolutional_gan_draws_as_python_does(tmp_path):
    model = make(Case("gan", "conv"), ImageShape(1, 28, 28))
    write_web(model, tmp_path / "page", "digits")
    assert not (tmp_path / "page" / "prior.onnx").exists()  # its codes are the noise
    with opened(tmp_path / "page", viewport={"width": 390, "height": 844}) as page:
        agree(model, drawn(page))
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
        page.keyboard.press("n")
        page.wait_for_function("() => drawn.seed === 1")
        agree(model, drawn(page))
        shown = page.evaluate(
            "() => [...document.querySelector('.cell canvas').getContext('2d').getImageData(0, 0, 28, 28).data]"
        )
        assert np.abs(np.reshape(shown, (784, 4))[:, 0] - 255 * np.array(drawn(page)["pixels"][:784])).max() <= 0.51


def test_a_flow_takes_its_steps_as_python_does(tmp_path):
    model = make(Case("flow", "unet", CLASSES, "pca"))
    model.sampling = override(model.sampling, {"evaluations": 20})
    write_web(model, tmp_path / "page", "waves")
    with opened(tmp_path / "page") as page:
        made = drawn(page)
        assert made["steps"] == 20 and len(made["choice"]) == 16
        agree(model, made)
        page.locator("input[type=range]").fill("7")
        page.locator("input[type=range]").dispatch_event("change")
        page.wait_for_function("() => drawn.steps === 7")
        agree(model, drawn(page))
