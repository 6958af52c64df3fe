"""Make every picture of the docs from runs trained here: python docs/pictures.py [--runs DIR] [PICTURE ...]

The runs continue where they stopped and a finished one is used as it is, so a second call only draws. MNIST comes from
$FABULATE_DATA/mnist or from the Hugging Face hub. The numbers that stand in the tutorial are printed on the way.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import moving
import numpy as np
import screens
import torch
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

import fabulate
from fabulate import cli, rare
from fabulate.metrics import class_shares
from fabulate.metrics.classes import nearest
from fabulate.pictures import grid, paired_rows, save_png
from fabulate.seeds import permutation
from fabulate.training import read_log
from fabulate.uses.outliers.heat import gallery

HERE = Path(__file__).parent / "pictures"
MARGIN, LINE = 12, 24  # pixels around panels, and for a line of text
BLUE, RED = ("#9dbbe0", "#5b8cc8", "#2f5f9b"), ("#eda5ae", "#d9687a", "#b03a4e")  # one shade for each seed
SEEDS = (0, 1, 2)
SAMPLES = 14, 56, 4 * 58  # where they begin in a run's pictures, below the words, and how wide 4 digits are there
COLOURS = 64  # of a picture of colour samples: 120 of 32x32 then take about 100 kB
RUNS: dict[str, str] = {
    "ae-tutorial": "ae --preset tutorial --data mnist",
    "vae-tutorial": "vae --preset tutorial --data mnist",
    **{f"gan-tutorial-{seed}": f"gan --preset tutorial --data mnist --seed {seed}" for seed in SEEDS},
    "ae": "ae --network mlp --data mnist",
    "vae": "vae --network mlp --data mnist",
    "vae-conv": "vae --data mnist --network conv --network.norm none --network.activation leaky_relu --lr 1e-3",
    "vae-plane": "vae --network mlp --data mnist --latent-dim 2",
    "vae-conditional": "vae --network mlp --data mnist --conditional --epochs 10",
    "gan-game": "gan --preset tutorial --data mnist --game relativistic",
    **{f"gan-{seed}": f"gan --network mlp --data mnist --epochs 10 --seed {seed}" for seed in SEEDS},
    "rare": "vae --network mlp --data mnist --minutes 10",
    "families-ae-mnist": "ae --network conv --data mnist --minutes 4",
    "families-vae-mnist": "vae --preset conv --data mnist --minutes 8",
    "families-gan-mnist": "gan --network conv --data mnist --minutes 12",
    "families-flow-mnist": "flow --data mnist --preset flow-matching --network.width 32 --network.patch 2 --minutes 25",
    "families-nf-mnist": "nf --data mnist --minutes 10",
    "families-vqvae-mnist": "vqvae --data mnist --minutes 10",
    "families-ae-cifar10": "ae --network conv --data cifar10 --minutes 5",
    "families-vae-cifar10": "vae --preset conv --data cifar10 --minutes 5",
    "families-gan-cifar10": "gan --network conv --data cifar10 --conditional --minutes 10",
    "families-flow-cifar10": "flow --data cifar10 --minutes 10",
    "families-nf-cifar10": "nf --data cifar10 --minutes 6",
    "families-vqvae-cifar10": "vqvae --data cifar10 --minutes 6",
}


class Runs:
    """The folder of runs; asking for one trains it first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        out = self.folder / name
        log = read_log(out)
        if not (log and log[-1].get("finished")):
            cli.main(["train", *RUNS[name].split(), "--out", str(out)])
            log = read_log(out)
        tested = [row["test"] for row in log if row.get("test")]
        if tested:
            print(f"{name}: test", ", ".join(f"{term} {value:.5g}" for term, value in tested[-1].items()))
        return out

    def model(self, name: str) -> Any:
        return fabulate.load(self[name])


def pixels(images: torch.Tensor) -> Any:
    return fabulate.to_uint8(images).numpy()


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes along with matplotlib, so that captions look the same everywhere."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def beside(panels: Mapping[str, Image.Image], columns: int = 2) -> Image.Image:
    """Pictures of one size in rows, each below its caption."""
    wide, high = next(iter(panels.values())).size
    wide, high = wide + MARGIN, high + LINE + MARGIN
    rows = -(-len(panels) // columns)
    canvas = Image.new("RGB", (columns * wide + MARGIN, rows * high + MARGIN), "white")
    write = ImageDraw.Draw(canvas)
    for i, (caption, panel) in enumerate(panels.items()):
        left, top = MARGIN + i % columns * wide, MARGIN + i // columns * high
        write.text((left + 1, top + 1), caption, "#333333", font(14))
        canvas.paste(panel.convert("RGB"), (left, top + LINE))
    return canvas


def rows(named: Mapping[str, torch.Tensor], width: int = 90) -> Image.Image:
    """Rows of images, each behind its name."""
    columns = len(next(iter(named.values())))
    picture = grid(pixels(torch.cat([fabulate.to_float(images) for images in named.values()])), columns)
    canvas = Image.new("RGB", (picture.width + width + MARGIN, picture.height + 2 * MARGIN), "white")
    canvas.paste(picture.convert("RGB"), (width, MARGIN))
    write, high = ImageDraw.Draw(canvas), picture.height / len(named)
    for i, name in enumerate(named):
        write.text((width - 8, MARGIN + (i + 0.5) * high), name, "#333333", font(14), anchor="rm")
    return canvas


def plot(
    draw: Callable[..., None], panels: int = 1, width: float = 7.0, height: float = 3.0, **axes: Any
) -> Image.Image:
    """A figure of matplotlib as an image."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    every = np.atleast_1d(figure.subplots(1, panels, **axes))
    for one in every:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
        one.tick_params(labelsize=8)
    draw(*every)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)


def test_images() -> fabulate.Images:
    test = fabulate.load_data("mnist").test
    assert test is not None
    return test


def real_digits(runs: Runs) -> Image.Image:
    images = fabulate.load_data("mnist").train
    return grid(images.pixels(permutation(len(images), 0, "grid")[:39]), columns=13)


def reconstructions(runs: Runs, run: str) -> Image.Image:
    """Rows of real test images, each above the row of their copies."""
    x = test_images().batch(torch.arange(24)).x
    return grid(paired_rows(pixels(x), pixels(runs.model(run).reconstruct(x)), columns=8), columns=8)


def print_error(name: str, model: Any) -> None:
    """The mean squared error of a model's copies of all test images, pixels in [0, 1]."""
    test, errors = test_images(), []
    for indices in torch.arange(len(test)).split(1000):
        x = test.batch(indices).x
        errors.append((model.reconstruct(x) - x).square().mean() / 4)
    print(f"{name}: mean squared error of test images {torch.stack(errors).mean():.5f}")


def copies(runs: Runs, family: str) -> Image.Image:
    """The same test images as both presets copy them."""
    pictures = {"real": test_images().batch(torch.arange(12)).x}
    for name, run in (("tutorial", f"{family}-tutorial"), ("default", family)):
        model = runs.model(run)
        print_error(run, model)
        if family == "vae":
            print_gap(run, model)
        pictures[name] = model.reconstruct(pictures["real"])
    return rows(pictures)


def samples(runs: Runs, run: str) -> Image.Image:
    return grid(pixels(runs.model(run).sample(48)), columns=8)


def family(runs: Runs, run: str) -> Image.Image:
    """Samples of one of the runs of docs/families.md; of a conditional one a row for each class, behind its name."""
    model = runs.model(run)
    if not model.classes:
        picture = grid(pixels(model.sample(48)), columns=12)
    else:
        picture = rows({name: model.sample(12, y=name) for name in model.classes}, width=110)
    # Samples of colour photographs hardly compress: a palette, without dithering, keeps the page light.
    return picture if picture.mode == "L" else picture.quantize(COLOURS, dither=Image.Dither.NONE)


def plane(runs: Runs) -> Image.Image:
    """Images decoded from codes on a lattice: even in probability, so that each stands for as much of p(z)."""
    model = runs.model("vae-plane")
    marks = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.03, 0.97, 14))
    with torch.no_grad():
        picture = grid(pixels(model.decode(torch.cartesian_prod(marks, marks))), columns=14)
    return picture.resize((picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS)


def posterior(runs: Runs) -> Image.Image:
    """Real images, what their mean codes decode to, and what codes drawn around the mean decode to."""
    model = runs.model("vae-tutorial")
    batch = test_images().batch(torch.arange(12))
    torch.manual_seed(0)
    with torch.no_grad():
        mean, logvar = model.posterior(batch)
        drawn = [mean + torch.exp(logvar / 2) * torch.randn_like(mean) for _ in range(3)]
        decoded = [model.decode(z) for z in (mean, *drawn)]
    names = ("z = mu", "z, draw 1", "z, draw 2", "z, draw 3")
    return rows({"real": batch.x, **dict(zip(names, decoded, strict=True))})


def print_noise(model: Any) -> None:
    """The noise that a VAE has learned, beside the error of its copies from drawn codes; both in pixels of [0, 1]."""
    batch = fabulate.load_data("mnist").train.batch(torch.arange(5000))
    torch.manual_seed(0)
    with torch.no_grad():
        mean, logvar = model.posterior(batch)
        error = model.decode(mean + torch.exp(logvar / 2) * torch.randn_like(mean)) - batch.x
        learned, measured = float(torch.exp(model.likelihood.logvar / 2)) / 2, float(error.square().mean().sqrt()) / 2
    print(f"noise: learned {learned:.4f}, root mean squared error {measured:.4f}")


def print_gap(name: str, model: Any) -> None:
    """How far the codes of a VAE are from the prior: the KL of the Gaussian fitted to drawn codes, in nats."""
    batch = fabulate.load_data("mnist").train.batch(torch.arange(5000))
    torch.manual_seed(0)
    with torch.no_grad():
        mean, logvar = model.posterior(batch)
        z = (mean + torch.exp(logvar / 2) * torch.randn_like(mean)).double()
    centre, covariance = z.mean(0), torch.cov(z.T)
    gap = 0.5 * (centre.square().sum() + covariance.trace() - len(centre) - torch.logdet(covariance))
    print(f"{name}: gap {gap:.2f} nats, means up to {centre.abs().max():.2f} from 0", end=", ")
    print(f"standard deviations {z.std(0).min():.2f} to {z.std(0).max():.2f}, on average {z.std(0).mean():.2f}")


def networks(runs: Runs) -> Image.Image:
    """Samples of the default VAE and of the one with convolutions."""
    named = {"fully connected": "vae", "convolutions": "vae-conv"}
    pictures = {}
    for name, run in named.items():
        model = runs.model(run)
        print(f"{run}: {sum(weights.numel() for weights in model.parameters()):,} weights")
        print_error(run, model)
        print_gap(run, model)
        pictures[name] = model.sample(12)
    return rows(pictures, width=140)


def bound(runs: Runs) -> Image.Image:
    """The importance-weighted bound of the default VAE over the number of codes, on 1,000 test images."""
    model = runs.model("vae")
    print_noise(model)
    x = test_images().batch(torch.arange(1000)).x
    counts = [1, 2, 4, 8, 16, 32, 64, 128]
    values = [float(model.score(x, k=k).mean()) for k in counts]
    print("bound:", ", ".join(f"k={k} {value:.1f}" for k, value in zip(counts, values, strict=True)))

    def draw(axes: Any) -> None:
        axes.semilogx(counts, values, "o-", base=2, color=BLUE[2])
        axes.set_xlabel("codes per image, K", fontsize=9)
        axes.set_ylabel("bound of log p(x), nats", fontsize=9)
        axes.set_xticks(counts, [str(k) for k in counts])

    return plot(draw, width=5.5, height=2.8)


def saturation(runs: Runs) -> Image.Image:
    """Both losses of the generator against the critic's score of a fake, and their slopes."""
    score = torch.linspace(-8, 8, 200, requires_grad=True)
    minimax = torch.log(1 - torch.sigmoid(score))
    other = torch.nn.functional.softplus(-score)
    slopes = [torch.autograd.grad(loss.sum(), score)[0] for loss in (minimax, other)]
    labels, colours = ("minimax: log(1 - sigmoid(s))", "non-saturating: -log sigmoid(s)"), (RED[2], BLUE[2])

    def draw(left: Any, right: Any) -> None:
        for loss, slope, label, colour in zip((minimax, other), slopes, labels, colours, strict=True):
            left.plot(score.detach(), loss.detach(), color=colour, label=label)
            right.plot(score.detach(), slope, color=colour)
        left.set_title("generator's loss", fontsize=10)
        right.set_title("its slope: what the generator learns from", fontsize=10)
        left.legend(fontsize=8, frameon=False, loc="lower left")
        for axes in (left, right):
            axes.set_xlabel("critic's score s of a fake", fontsize=9)

    return plot(draw, panels=2, width=7.5)


def collapse(runs: Runs) -> Image.Image:
    """The same 16 noise vectors as training goes on: the textbook's GAN above, the default below."""
    panels = {}
    for caption, name in (("textbook", "gan-tutorial-0"), ("default", "gan-0")):
        pictures = sorted((runs[name] / "samples").glob("step-*.png"))
        for i in (0, 3, 7):
            picture = Image.open(pictures[i])
            left, top, side = SAMPLES  # 4 x 4 of the 8 x 8 samples
            step = int(pictures[i].stem.removeprefix("step-"))
            panels[f"{caption}, step {step:,}"] = picture.crop((left, top, left + side, top + side))
    return beside(panels, columns=3)


def shares(runs: Runs) -> Image.Image:
    """How much of 5,000 samples falls in each class, as in examples/count_modes.py."""
    data = fabulate.load_data("mnist")
    assert data.train.y is not None
    references, labels = torch.from_numpy(data.train.x[:10_000]), torch.from_numpy(data.train.y[:10_000])

    def measure(name: str) -> torch.Tensor:
        measured = class_shares(fabulate.to_uint8(runs.model(name).sample(5000)), references, labels, 10)
        print(f"{name}: shares", ", ".join(f"{share:.1%}" for share in measured.tolist()))
        return measured

    named = {"textbook (--preset tutorial)": ("gan-tutorial", RED), "default": ("gan", BLUE)}

    def draw(*both: Any) -> None:
        for axes, (title, (name, colours)) in zip(both, named.items(), strict=True):
            for seed, colour in zip(SEEDS, colours, strict=True):
                places = np.arange(10) + 0.28 * (seed - 1)
                axes.bar(places, 100 * measure(f"{name}-{seed}").numpy(), 0.26, color=colour, label=f"seed {seed}")
            axes.axhline(10, color="#555555", linewidth=0.8, linestyle="--")
            axes.set_xticks(range(10))
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("class of the nearest real digit", fontsize=9)
            axes.legend(fontsize=8, frameon=False)
            axes.grid(visible=False, axis="x")
        both[0].set_ylabel("% of 5,000 samples", fontsize=9)

    return plot(draw, panels=2, width=8.5, sharey=True)


def only_the_game(runs: Runs) -> Image.Image:
    """The textbook's GAN, the same with the default's game, and the default."""
    named = {"textbook": "gan-tutorial-0", "other game": "gan-game", "default": "gan-0"}
    return rows({name: runs.model(run).sample(12) for name, run in named.items()}, width=110)


def walk(runs: Runs) -> Image.Image:
    """Between the first samples of two seeds, both ways, with two models; seeds whose samples are digits."""
    strips = {}
    for name, run, first, last in (("vae", "vae", 22, 14), ("gan", "gan-0", 3, 7)):
        model = runs.model(run)
        for path in ("spherical", "linear"):
            strips[f"{name}, {path}"] = model.interpolate(model.code(first), model.code(last), steps=12, path=path)
    return rows(strips, width=120)


def classes(runs: Runs) -> Image.Image:
    model, train = runs.model("vae-conditional"), fabulate.load_data("mnist").train
    assert train.y is not None
    references, labels = torch.from_numpy(train.x[:10_000]), torch.from_numpy(train.y[:10_000])
    asked = torch.arange(10).repeat_interleave(500)
    right = labels[nearest(fabulate.to_uint8(model.sample(5000, y=asked)), references)] == asked
    shares = ", ".join(f"{share:.1%}" for share in right.view(10, 500).float().mean(1).tolist())
    print(f"classes: {right.float().mean():.1%} of the samples are of the class asked for; {shares}")
    return rows({name: model.sample(12, y=name) for name in model.classes}, width=32)


def curves(runs: Runs, name: str, terms: Sequence[str]) -> Image.Image:
    """Some of a run's curves, as in its curves.png."""
    log = read_log(runs[name])

    def draw(*every: Any) -> None:
        for axes, term in zip(every, terms, strict=True):
            for part, style, colour in (("train", "-", BLUE[2]), ("test", "o", RED[1])):
                points = [(row["step"], row[part][term]) for row in log if term in row.get(part, {})]
                if points:
                    axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4, linewidth=1.2, label=part)
            axes.set_title(term, fontsize=10)
            axes.set_xlabel("step", fontsize=9)
        every[0].legend(fontsize=8, frameon=False)

    return plot(draw, panels=len(terms), width=2.9 * len(terms), height=2.4)


def boldest(runs: Runs) -> Image.Image:
    """From the tail of the model, the boldest of 10,000 samples and rarer, and plain samples, from bold to thin."""
    found = rare.tail(runs.model("rare"), rare.brightness, quantile=1e-4)
    print(f"rare: {found.event}")
    return rows({"rare": torch.from_numpy(found.images[::5]), "plain": torch.from_numpy(found.typical[::5])})


def strays(runs: Runs) -> Image.Image:
    """The 16 strangest of the test part's threes and of 30 other digits among them, to a detector of threes."""
    train, test = fabulate.load_data("mnist").train, test_images()
    assert train.y is not None and test.y is not None
    threes, others = np.flatnonzero(test.y == 3), np.flatnonzero(test.y != 3)
    x = test.x[np.concatenate([threes, others[permutation(len(others), "strays").numpy()[:30]]])]
    detector = fabulate.OutlierDetector(false_alarm=0.01, variants=1).fit(train.x[train.y == 3])
    called = detector.predict(x) == -1
    print(f"strays: {called[len(threes) :].sum()} of 30 called outliers, and {called[: len(threes)].sum()} threes")
    strangest = x[np.argsort(detector.score_samples(x))[:16]]
    return gallery(strangest, detector.heat_maps(strangest))


def studio(runs: Runs, name: str, theme: str) -> Image.Image:
    """A screen of the studio at 1,280 and at 390 pixels."""
    return screens.screen(runs.folder / "studio", name, theme)


def share(runs: Runs, theme: str) -> Image.Image:
    """The page that `fabulate export RUN --web` writes."""
    return screens.shared(runs.folder / "studio", theme)


PICTURES: dict[str, Callable[[Runs], Image.Image]] = {
    "mnist": real_digits,
    "latent-plane": plane,
    "ae-copies": lambda runs: copies(runs, "ae"),
    "ae-reconstructions": lambda runs: reconstructions(runs, "ae"),
    "ae-tutorial-samples": lambda runs: samples(runs, "ae-tutorial"),
    "ae-samples": lambda runs: samples(runs, "ae"),
    "vae-posterior": posterior,
    "vae-curves": lambda runs: curves(runs, "vae-tutorial", ["reconstruction", "kl", "active_units"]),
    "vae-tutorial-samples": lambda runs: samples(runs, "vae-tutorial"),
    "vae-samples": lambda runs: samples(runs, "vae"),
    "vae-copies": lambda runs: copies(runs, "vae"),
    "vae-reconstructions": lambda runs: reconstructions(runs, "vae"),
    "vae-bound": bound,
    "vae-networks": networks,
    "gan-saturation": saturation,
    "gan-collapse": collapse,
    "gan-shares": shares,
    "gan-tutorial-samples": lambda runs: samples(runs, "gan-tutorial-0"),
    "gan-samples": lambda runs: samples(runs, "gan-0"),
    "gan-curves": lambda runs: curves(runs, "gan-0", ["critic.real", "critic.fake", "critic.penalty"]),
    "gan-game": only_the_game,
    "classes": classes,
    "interpolation": walk,
    "rare-bold": boldest,
    "outliers-strays": strays,
    **{run: partial(family, run=run) for run in RUNS if run.startswith("families-")},
    **{f"studio-{name}": partial(studio, name=name, theme="light") for name in screens.SCREENS},
    **{f"studio-{name}-dark": partial(studio, name=name, theme="dark") for name in screens.SCREENS},
    "share": partial(share, theme="light"),
    "share-dark": partial(share, theme="dark"),
}
EVERY = (*PICTURES, *moving.FILMS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the docs.")
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=f"which (default: all): {', '.join(EVERY)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/docs"), help="where the runs are or will be")
    flags = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    for name in flags.pictures or EVERY:
        if name in moving.FILMS:
            moving.save(moving.FILMS[name](Runs(flags.runs)), HERE / f"{name}.gif")
        else:
            save_png(PICTURES[name](Runs(flags.runs)), HERE / f"{name}.png")
        print(name)


if __name__ == "__main__":
    main()
