"""The studio's screens for docs/studio.md: a server on a folder of runs and images, and chromium, without a window.

`docs/pictures.py studio-home` and the others like it make them: each screen at 1,280 and at 390 pixels side by side,
light and dark. The folder is made by the commands that the studio's own buttons run; a second call only looks.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

import fabulate
from fabulate import cli
from fabulate.training import read_log

TOKEN = "screensscreensscreens"
WIDE, NARROW, HIGH = 1280, 390, 900
HEIGHT, GAP = 590, 14  # of the pictures, and between the two: pixels
CHROMA = 50  # levels between the channels of a pixel that is no shade of gray
PHOTOS = {"frog": 90, "horse": 60, "ship": 140}
TRAININGS = {
    "vae-digits": "vae digits",
    "gan-digits": "gan digits --steps 1500",
    "vae-photos": "vae photos --size 32 --conditional --minutes 2",
}


def photos(folder: Path) -> None:
    """Images of CIFAR-10 in three classes and several shapes, some of them broken or copies."""
    data = fabulate.load_data("cifar10")
    assert data.train.y is not None
    for name, count in PHOTOS.items():
        (folder / name).mkdir(parents=True)
        for k, i in enumerate(np.flatnonzero(data.train.y == data.classes.index(name))[:count]):
            size = ((96, 96), (96, 96), (128, 96), (72, 96))[k % 4]
            image = Image.fromarray(data.train.x[i].transpose(1, 2, 0)).resize(size, Image.Resampling.LANCZOS)
            image.save(folder / name / f"{name}-{k:03d}.jpg", quality=92)
    whole = (folder / "horse" / "horse-003.jpg").read_bytes()
    (folder / "horse" / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "frog" / "notes.png").write_text("not an image at all")
    (folder / "ship" / "empty.png").write_bytes(b"")
    shutil.copy(folder / "frog" / "frog-004.jpg", folder / "frog" / "copy of frog-004.jpg")
    shutil.copy(folder / "ship" / "ship-010.jpg", folder / "ship" / "again.jpg")


def prepare(folder: Path) -> None:
    """All that the screens show, by the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if not Path("photos").exists():
        photos(Path("photos"))
    for name, words in TRAININGS.items():
        log = read_log(Path("runs", name))
        if not (log and log[-1].get("finished")):
            cli.main(["train", *words.split(), "--out", f"runs/{name}"])
    for made, words in (
        ("runs/normal-photos", "outliers fit photos --size 32 --out runs/normal-photos"),
        ("runs/normal-photos/photos", "outliers score runs/normal-photos photos"),
        ("runs/vae-digits/report", "evaluate runs/vae-digits -n 2000"),
        ("runs/compare-vae-digits-gan-digits", "compare runs/vae-digits runs/gan-digits -n 2000"),
    ):
        if not Path(made).exists():
            cli.main(words.split())


@cache
def opened(folder: Path) -> tuple[str, Any]:
    """The studio's address on a folder, and a browser."""
    from playwright.sync_api import sync_playwright

    before = Path.cwd()
    prepare(folder)
    os.chdir(before)
    words = [sys.executable, "-m", "fabulate", "studio", ".", "--port", "0", "--token", TOKEN]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    atexit.register(server.terminate)
    assert server.stdout is not None
    address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+/", line)))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    started = sync_playwright().start()
    atexit.register(started.stop)
    return address, started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


def explored(page: Any) -> None:
    """A place on the map, and a path."""
    page.wait_for_selector("canvas.big[data-place]")
    page.locator("canvas.map").scroll_into_view_if_needed()
    page.locator("canvas.map").click(position={"x": 190, "y": 90})
    page.get_by_role("button", name="Draw a path").click()
    box = page.locator("canvas.map").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.6 * box["height"])
    page.mouse.down()
    for k in range(20):
        x, y = 0.2 + 0.03 * k, 0.6 - 0.25 * float(np.sin(k / 5))
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.up()
    page.wait_for_selector(".film")
    page.evaluate("() => document.querySelectorAll('#screen section')[2].scrollIntoView()")
    page.mouse.wheel(0, -70)


def sorted_out(page: Any) -> None:
    """Three images thrown out, one kept."""
    page.wait_for_selector(".odd")
    for key in "rrkr":
        page.keyboard.press(key)
        page.wait_for_timeout(120)
    page.wait_for_selector(".strange[data-saved]")
    page.evaluate("() => scrollTo(0, 0)")


def compared(page: Any) -> None:
    """The verdict, and both models' samples."""
    page.wait_for_selector("#overall")
    page.wait_for_selector(".versus figure:nth-child(2) canvas")


def learnt(page: Any) -> None:
    """A GAN that has played a while."""
    page.wait_for_selector("canvas.plane[data-step]")
    page.keyboard.press(" ")
    page.wait_for_function("() => Number(document.querySelector('canvas.plane').dataset.step) >= 200")
    page.keyboard.press(" ")
    page.wait_for_timeout(500)


SCREENS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "home": ("#/", lambda page: page.wait_for_selector(".tile")),
    "data": ("#/data?source=photos", lambda page: page.wait_for_selector(".split canvas")),
    "train": ("#/train?source=digits", lambda page: page.wait_for_selector("input[name=steps]")),
    "run": ("#/run?path=runs/vae-digits", lambda page: page.wait_for_selector(".chart")),
    "explore": ("#/explore?run=runs/vae-digits", explored),
    "outliers": ("#/outliers?path=runs/normal-photos/photos", sorted_out),
    "learn": ("#/learn?family=gan&data=grid", learnt),
    "compare": ("#/compare?path=runs/compare-vae-digits-gan-digits", compared),
}


def screen(folder: Path, name: str, theme: str) -> Image.Image:
    """A screen at both widths side by side, in a theme."""
    address, browser = opened(folder.resolve())
    place, ready = SCREENS[name]
    shots = []
    for width in (WIDE, NARROW):
        context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": HIGH})
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{address}?token={TOKEN}")
        page.goto(f"{address}{place}")
        page.wait_for_selector(f"#screen[data-shown={place.split('?')[0].removeprefix('#/') or 'home'}]")
        ready(page)
        page.wait_for_function("() => [...document.images].every((image) => image.complete)")
        page.wait_for_timeout(1000)
        shots.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        context.close()
    return side_by_side(shots)


def shared(folder: Path, theme: str) -> Image.Image:
    """The page of an exported VAE at both widths side by side, in a theme."""
    opened_on = opened(folder.resolve())[1]
    if not (folder / "page").exists():
        cli.main(["export", str(folder / "runs" / "vae-digits"), "--web", str(folder / "page")])
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "page"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    shots = []
    for width in (WIDE, NARROW):
        context = opened_on.new_context(color_scheme=theme, viewport={"width": width, "height": HIGH})
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("#page[data-seed]", timeout=120_000)
        shots.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        context.close()
    server.shutdown()
    return side_by_side(shots)


def side_by_side(shots: list[Image.Image]) -> Image.Image:
    """Screens of one height as a picture for the docs."""
    small = [shot.resize((round(shot.width * HEIGHT / HIGH), HEIGHT), Image.Resampling.LANCZOS) for shot in shots]
    both = Image.new("RGB", (small[0].width + GAP + small[1].width, HEIGHT), "#808894")
    both.paste(small[0], (0, 0))
    both.paste(small[1], (small[0].width + GAP, 0))
    return small_palette(both)


def small_palette(image: Image.Image) -> Image.Image:
    """A screen in 256 colours: shades of gray, what is seldom but has a colour (dots, lines), and what is frequent."""
    pixels = np.asarray(image).reshape(-1, 3)
    bright = pixels[np.ptp(pixels.astype(int), axis=1) > CHROMA]
    colours = [level for gray in np.linspace(0, 255, 48).round().astype(int).tolist() for level in (gray,) * 3]
    for some, count in ((bright if len(bright) else pixels, 72), (pixels, 136)):
        colours += (Image.fromarray(some[None]).quantize(count).getpalette() or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)
