"""Filling in: what is given stays, and the rest is drawn from its distribution given that."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from fabulate.data.media import medium
from fabulate.models.filling import ancestors, inpainted
from fabulate.pictures import save_png, to_image
from fabulate.samplers import grid
from fabulate.seeds import generator
from fabulate.types import ImageShape, SequenceShape, Tensors
from test_ar import SHAPE, WORDS, all_sequences, made, words
from tiny import ends


def strong(shape, **values):
    """A model whose symbols depend on each other, as its weights are large."""
    model = made(shape, **values)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1.8)
    return model


@pytest.mark.parametrize("known", [[0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]])
def test_completions_come_as_often_as_they_are_likely_given_what_is_known(known):
    model, x = strong(SHAPE, counts=0), torch.tensor([[1, 2, 2, 1]], dtype=torch.int16)
    known = torch.tensor(known, dtype=torch.bool)
    every = all_sequences(4, 3)
    fitting = (every == x)[:, known].all(1)
    p = model.log_prob(every).exp().double()
    expected = p * fitting / p[fitting].sum()
    n = 1500
    drawn = model.fill(x, known, n=n, seed=1, particles=16)
    assert (drawn == x)[:, known].all()
    seen = torch.stack([(drawn == one).all(1).double().mean() for one in every])
    assert ((seen - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt() + 0.02).all()
    if not known[0]:  # where the beginning alone tells what comes, this is another distribution
        plain = p * (every == x)[:, :1].all(1)
        assert (plain / plain.sum() - expected).abs().max() > 0.05


def test_completion_i_is_the_same_however_many_are_drawn():
    model, known = strong(WORDS), torch.zeros(9, dtype=torch.bool)
    model.init_from_data(Tensors(words(60)))
    known[3] = True
    x = torch.tensor([[1, 2, 3, 4, 1, 2, 0, 0, 0]], dtype=torch.int16)
    assert torch.equal(
        model.fill(x, known, n=4, seed=2, particles=8)[:2], model.fill(x, known, n=2, seed=2, particles=8)
    )


def test_lower_voices_are_written_below_a_given_one_and_end_with_it():
    shape = SequenceShape(5, ("", "r4", "C4", "D4", "E4"), 2, "pieces")
    model, its = made(shape, counts=0), medium(shape)
    x = its.given(["E4 C4 | D4 C4 | E4 D4"], shape)
    known = torch.zeros(shape.dims, dtype=torch.bool)
    known[:, 0] = True
    drawn = model.fill(x, known, n=6, particles=8)
    assert torch.equal(drawn[:, :, 0], x[:, :, 0].expand(6, -1))
    assert (drawn[:, :3, 1] > 0).all() and len({tuple(row) for row in drawn.flatten(1).tolist()}) > 1


def test_images_of_few_levels_are_filled_too():
    model = strong(ImageShape(1, 2, 3), counts=0)
    images = torch.tensor([*product([-1.0, 1.0], repeat=6)]).view(-1, 1, 2, 3)
    known = torch.tensor([0, 0, 1, 0, 0, 1], dtype=torch.bool).view(1, 2, 3)
    x = torch.ones(1, 1, 2, 3)
    fitting = (images == x)[:, known].all(1)
    p = model.log_prob(images).exp().double() * fitting
    drawn = model.fill(x, known, n=1000, particles=16)
    seen = torch.stack([(drawn == one).flatten(1).all(1).double().mean() for one in images])
    assert ((seen - p / p.sum()).abs() <= 5 * (p / p.sum() / 1000).sqrt() + 0.02).all()


def test_particles_are_drawn_by_their_weights():
    log_w = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().expand(4000, 4)
    found = ancestors(log_w, torch.rand(4000, generator=generator(0)))
    assert np.allclose(np.bincount(found.flatten()) / 16000, [0.1, 0.2, 0.3, 0.4], atol=0.01)


def test_pixels_beside_given_ones_have_their_mean_and_spread_of_a_gaussian():
    """Two pixels, covariance [[1, r], [r, 1]] / 4, one given: the other has mean r x and variance (1 - r^2) / 4."""
    r, n, given = 0.8, 4000, 0.6
    cov = torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64) / 4
    g = generator(0)

    def denoise(u, s):
        return u @ torch.linalg.solve(cov + s**2 * torch.eye(2), cov)

    def noise():
        return torch.randn(n, 2, generator=g, dtype=torch.float64)

    def pasted(x):
        return torch.stack([torch.full((n,), given, dtype=torch.float64), x[:, 1]], 1)

    once, again = (inpainted(denoise, noise() * 80, list(grid(40)), noise, pasted, times)[:, 1] for times in (1, 10))
    assert abs(float(again.mean()) - r * given) < 0.04 and abs(float(again.std()) - ((1 - r**2) / 4) ** 0.5) < 0.05
    assert abs(float(once.mean()) - r * given) > 0.15  # as if what is given told little


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    piece = [[60 + i % 5, 64 + i % 5] for i in range(8)]
    (folder / "songs.json").write_text(str([piece[i % 4 :] for i in range(30)]))
    small = ("--transformer.width", 16, "--transformer.layers", 1, "--counts", 2)
    assert ends("train", "ar", folder / "songs.json", "--out", folder / "songs", "--steps", 4, *small) == 0
    net = ("--steps", 4, "--batch-size", 16, "--network.width", 8)
    np.savez(folder / "digits.npz", np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    assert (
        ends("train", "flow", folder / "digits.npz", "--out", folder / "digits", "--steps", 4, "--batch-size", 16, *net)
        == 0
    )
    return folder


def test_from_a_run_to_completions_that_sound(runs, tmp_path):
    out = tmp_path / "out"
    assert ends("fill", runs / "songs", "--voice", 1, "-n", 3, "--out", out) == 0
    its = medium(SequenceShape(2, ("", "r4"), 2, "pieces"))
    names = ["given", "whole", "00000", "00001", "00002"]
    given, whole, *drawn = [
        [step.split(" ") for step in its.read(out / f"{name}.mid")[6:].split(" | ")] for name in names
    ]
    assert all(len(piece) == len(whole) for piece in (given, *drawn))
    assert [step[0] for step in given] == [step[0] for step in whole] and {len(step) for step in given} == {1}
    assert all(top[0] in step for piece in drawn for top, step in zip(whole, piece, strict=True))
    assert (out / "index.html").read_text().count("<audio") == 5
    assert ends("fill", runs / "songs", "--keep", "0:2", "-n", 1, "--out", tmp_path / "kept") == 0
    given, drawn = (its.read(tmp_path / "kept" / f"{name}.mid").split(" | ") for name in ("given", "00000"))
    assert given[:2] == drawn[:2] and {*given[2:]} == {"r4"}


def test_a_masked_image_keeps_what_is_given(runs, tmp_path):
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[:, 4:] = 255
    save_png(to_image(mask), tmp_path / "mask.png")
    assert ends("fill", runs / "digits", "--mask", tmp_path / "mask.png", "-n", 2, "--out", tmp_path / "out") == 0
    given, whole, a, b = (
        np.asarray(Image.open(tmp_path / "out" / f"{name}.png")) for name in ("given", "whole", "00000", "00001")
    )
    assert (given[4:] == 128).all()
    for image in (given, a, b):
        assert (image[:4] == whole[:4]).all()
    assert (a[4:] != b[4:]).any()


def test_what_is_given_is_said_in_the_items_words(runs, tmp_path, capsys):
    save_png(to_image(np.zeros((1, 8, 8), np.uint8)), tmp_path / "black.png")
    for run, given, told in (
        ("songs", (), "say what is given of pieces by --keep or --voice; given nothing"),
        ("songs", ("--mask", tmp_path / "black.png"), "given --mask"),
        ("songs", ("--voice", "soprano"), "--voice is one of 1, 2; given 'soprano'"),
        ("songs", ("--keep", "x"), "--keep is START:END, such as 0:64; given 'x'"),
        ("songs", ("--keep", ":"), "leaves nothing to fill"),
        ("songs", ("--keep", "0:2", "--item", 99), "0 to 2; given --item 99"),
        ("digits", ("--keep", "0:2"), "say what is given of images by --mask; given --keep"),
        ("digits", ("--mask", tmp_path / "black.png"), "is all black: white is filled in, black is given"),
        ("digits", ("--mask", tmp_path / "none.png"), "cannot be read as a mask"),
    ):
        assert ends("fill", runs / run, *given, "--out", tmp_path / "out") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
