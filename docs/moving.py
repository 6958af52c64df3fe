"""The moving pictures of the docs: trainings looked at from inside, and what is moved through afterwards.

`docs/pictures.py moving-vae` and the others like it make them. A training is filmed by keeping the averaged weights at
some of its steps, evenly in the logarithm: most happens early. What was filmed is kept, so a second call only draws.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor

import fabulate
from fabulate.pictures import font
from fabulate.seeds import generator
from fabulate.training import configure
from fabulate.training.loop import Learner
from fabulate.training.train import fresh

FILMED, SEED = 40, 0  # pictures of a training; what is drawn
SPREAD = 0.7  # of the codes that a walk leads through; with 1 some lie where no image does
NOISE = 20  # steps of which little can be seen, and which make a large file
GRAYS = 24  # levels: a GIF of all would be three times as large, and look the same
PAPER, WORDS, ACCENT = 16, 190, (0x5B, 0x9B, 0xE6)  # behind the images, of words, of the bar: gray levels and RGB
CLASSES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a89200", "#8a8f98", "#9a6a4f", "#7a5fc0")
EDGE, BELOW = 10, 34  # pixels around the panels, and for words and the bar below them
Frame = Image.Image

TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vae": ("vae", "default", {"network": "mlp", "epochs": 10, "conditional": True}),
    "plane": ("vae", "default", {"network": "mlp", "epochs": 3, "latent_dim": 2}),
    "textbook": ("gan", "tutorial", {"epochs": 4}),
}


class Film:
    """A training on MNIST: the steps that are kept of it, and the model as it was at each."""

    def __init__(self, runs: Any, name: str) -> None:
        self.folder = runs.folder / f"moving-{name}"
        family, preset, hyperparameters = TRAININGS[name]
        config, self.schedule = configure(family, preset, hyperparameters)
        self.data = fabulate.load_data("mnist")
        classes = self.data.classes if self.schedule.conditional else ()
        self.model: Any = fresh(family, config, self.schedule, self.data.shape, classes, "cpu")
        if not (self.folder / "whole").exists():
            self.take()
        self.steps = sorted(int(file.stem) for file in self.folder.glob("*.safetensors"))
        self.model.eval()

    @torch.enable_grad()
    def take(self) -> None:
        """Train, and keep the averaged weights of some steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        learner = Learner(self.model, self.schedule, self.data.train)
        assert learner.total is not None
        at = {0, *np.geomspace(1, learner.total, FILMED - 1).round().astype(int).tolist()}

        def keep() -> None:
            if learner.step in at:
                save_file(learner.sampler().state_dict(), self.folder / f"{learner.step:06d}.safetensors")

        keep()
        for _ in learner.steps():
            keep()
        (self.folder / "whole").touch()

    def at(self, step: int) -> Any:
        """The model at a step that was kept."""
        self.model.load_state_dict(load_file(self.folder / f"{step:06d}.safetensors"))
        return self.model


# Frames


def pixels(images: Tensor) -> Any:
    """Images (R, K, 1, H, W) in [-1, 1] as one uint8 array, without gaps."""
    rows, columns, _, height, width = images.shape
    together = images[:, :, 0].permute(0, 2, 1, 3).reshape(rows * height, columns * width)
    return fabulate.to_uint8(together.clamp(-1, 1)[None])[0].numpy()


def panel(images: Tensor, scale: int = 2) -> Frame:
    """Images (R, K, 1, H, W) in [-1, 1] in a table, enlarged."""
    image = Image.fromarray(pixels(images))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def frame(panels: Sequence[Frame], words: str, share: float | None, above: Sequence[str] = ()) -> Frame:
    """Panels side by side on dark ground, words below them, and a bar for how far it is."""
    top = EDGE + (18 if above else 0)
    width = sum(each.width for each in panels) + EDGE * (len(panels) + 1)
    canvas = Image.new("RGB", (width, top + max(each.height for each in panels) + BELOW), (PAPER,) * 3)
    draw, left = ImageDraw.Draw(canvas), EDGE
    for each, title in zip(panels, above or [""] * len(panels), strict=True):
        canvas.paste(each.convert("RGB"), (left, top))
        draw.text((left, 6), title, (WORDS,) * 3, font(12))
        left += each.width + EDGE
    draw.text((EDGE, canvas.height - 26), words, (WORDS,) * 3, font(12))
    if share is not None:
        bar = canvas.height - 6
        draw.rectangle((EDGE, bar, width - EDGE, bar + 1), (60,) * 3)
        draw.rectangle((EDGE, bar, EDGE + share * (width - 2 * EDGE), bar + 1), ACCENT)
    return canvas


def save(frames: Sequence[tuple[Frame, int]], path: Path) -> None:
    """Write frames, each with its milliseconds, as an endless GIF in few colours, the same in all frames."""
    own = [c for level in np.linspace(0, 255, GRAYS).round().astype(int).tolist() for c in (level,) * 3]
    colours = [int(name[i : i + 2], 16) for name in CLASSES for i in (1, 3, 5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*own, *ACCENT, *colours])
    drawn = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each, _ in frames]
    drawn[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=drawn[1:],
        duration=[milliseconds for _, milliseconds in frames],
        loop=0,
        optimize=False,  # the palette is small already
    )


# What is shown


@torch.no_grad()
def vae(runs: Any) -> list[tuple[Frame, int]]:
    """A conditional VAE as it learns: a code in each row, a class in each column; then all rows walk among codes."""
    rows, between = 4, 12
    film = Film(runs, "vae")
    last = film.steps[-1]
    model = film.at(last)
    drawn = [torch.randn(rows, model.config.latent_dim, generator=generator(SEED, "stop", k)) for k in range(4)]
    stops = [SPREAD * z for z in drawn]

    def shown(z: Tensor) -> Frame:
        n = len(model.classes)
        images = model.decode(z.repeat_interleave(n, 0), torch.arange(n).repeat(rows))
        return panel(images.view(rows, n, *images.shape[1:]))

    frames = []
    for step in film.steps:
        film.at(step)
        words = f"training a VAE on MNIST: step {step:,}; a class in each column, a code in each row"
        frames.append((frame([shown(stops[0])], words, step / last), 110))
    frames[-1] = (frames[-1][0], 900)
    for start, end in pairwise([*stops, stops[0]]):
        for part in range(between):
            z = torch.cat([on_shell(start[i], end[i], part / between) for i in range(rows)])
            frames.append(
                (frame([shown(z)], f"a walk through its codes, 32 numbers each, drawn from N(0, {SPREAD}²)", 1.0), 80)
            )
    return frames


def on_shell(start: Tensor, end: Tensor, part: float) -> Tensor:
    """A point of the way between two codes (Z,) along the shell on which Gaussian codes lie: (1, Z)."""
    angle = torch.arccos(torch.nn.functional.cosine_similarity(start, end, dim=0))
    weights = torch.sin((1 - part) * angle), torch.sin(part * angle)
    return ((weights[0] * start + weights[1] * end) / torch.sin(angle))[None]


@torch.no_grad()
def plane(runs: Any) -> list[tuple[Frame, int]]:
    """Codes of test images in a plane, and what is decoded on a lattice of it, as a VAE learns."""
    side, reach, count = 364, 3.6, 1500
    film = Film(runs, "plane")
    test = fabulate.load_data("mnist").test
    assert test is not None
    x, y = test.batch(torch.arange(count))
    marks = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.03, 0.97, 13))
    codes = torch.stack(torch.meshgrid(marks, marks.flip(0), indexing="xy"), -1).reshape(-1, 2)
    frames = []
    for step in (step for step in film.steps if step >= NOISE):
        model = film.at(step)
        cloud = Image.new("RGB", (side, side), (0, 0, 0))
        draw = ImageDraw.Draw(cloud)
        for (a, b), c in zip(model.encode(x).tolist(), y.tolist(), strict=True):
            across, down = side / 2 * (1 + a / reach), side / 2 * (1 - b / reach)
            draw.rectangle((across - 1, down - 1, across + 1, down + 1), CLASSES[c])
        for c, colour in enumerate(CLASSES):
            draw.text((6 + 13 * c, side - 18), str(c), colour, font(12))
        images = model.decode(codes)
        words = f"a VAE with two numbers in its code: step {step:,}"
        above = (f"{count:,} test images at their codes", "what the decoder draws across the plane")
        frames.append(
            (frame([cloud, panel(images.view(13, 13, 1, 28, 28), 1)], words, step / film.steps[-1], above), 150)
        )
    frames[-1] = (frames[-1][0], 2500)
    return frames


@torch.no_grad()
def collapse(runs: Any) -> list[tuple[Frame, int]]:
    """The textbook's GAN as it learns: what its generator makes of the same noise."""
    rows, columns, film = 3, 10, Film(runs, "textbook")
    noise = torch.randn(rows * columns, film.model.config.latent_dim, generator=generator(SEED, "noise"))
    frames = []
    for step in (step for step in film.steps if step >= NOISE):
        images = film.at(step).decode(noise)
        words = f"the textbook's GAN: its images of the same {rows * columns} noise vectors, step {step:,}"
        share = step / film.steps[-1]
        frames.append((frame([panel(images.view(rows, columns, *images.shape[1:]))], words, share), 180))
    frames[-1] = (frames[-1][0], 2500)
    return frames


FILMS: dict[str, Callable[[Any], list[tuple[Frame, int]]]] = {
    "moving-vae": vae,
    "moving-plane": plane,
    "moving-collapse": collapse,
}
