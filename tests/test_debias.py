"""Debiasing: densities, weights that make a factor independent of the class, recoloured images, and the command."""

import csv
import json
import pickle
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score

from fabulate.data import Data, Images, load_data
from fabulate.errors import ConfigError, DataError
from fabulate.files import class_folders
from fabulate.prob import effective_size
from fabulate.seeds import generator
from fabulate.types import ImageShape, to_float
from fabulate.uses.debias import Debiaser, densities, factors, filling, page, proof
from fabulate.uses.debias.densities import RAREST, log_prior_of, weights
from fabulate.uses.debias.recolour import Duotone, DuotoneConfig, Palette, counterfactual, paint, shrunk, unpaint
from pages import loads
from tiny import ends, within_five_errors

COLOURS = np.array([[230, 40, 40], [40, 200, 60], [60, 80, 240]])
SHARE = 0.9  # of the images that have the colour of their class


def shapes(n: int, seed: int = 0, share: float | None = SHARE) -> tuple[Images, np.ndarray]:
    """Bars, crosses and rings, 8x8, of random place and brightness, in three colours that go along with them."""
    chance = np.random.default_rng([7, seed])
    y = np.arange(n) % 3
    colour = np.where(chance.random(n) < (share or 0), y, chance.integers(0, 3, n))
    gray = np.zeros((n, 8, 8))
    for i, (kind, down, across) in enumerate(zip(y, *chance.integers(0, 3, (2, n)), strict=True)):
        patch = np.zeros((5, 5))
        if kind == 0:
            patch[:, 2] = 1
        elif kind == 1:
            patch[np.arange(5), np.arange(5)] = patch[np.arange(5), 4 - np.arange(5)] = 1
        else:
            patch[[0, -1], :] = patch[:, [0, -1]] = 1
        gray[i, down : down + 5, across : across + 5] = patch
    gray = gray * chance.uniform(0.7, 1, (n, 1, 1)) + 0.03 * chance.random((n, 8, 8))
    x = gray[:, None] * COLOURS[colour][:, :, None, None]
    return Images(np.rint(x.clip(0, 255)).astype(np.uint8), y.astype(np.int64)), colour


@pytest.fixture(scope="module")
def biased() -> tuple[Images, np.ndarray]:
    return shapes(1200)


@pytest.fixture(scope="module")
def debiaser(biased: tuple[Images, np.ndarray]) -> Debiaser:
    return Debiaser(steps=400).fit(biased[0])


# Densities


def two_classes(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (n, 2) of two Gaussian classes at -1 and 1 of the first axis, and log p(f | 1) - log p(f | 0)."""
    chance = np.random.default_rng(0)
    y = np.arange(n) % 2
    codes = chance.normal(size=(n, 2)) + np.stack([2.0 * y - 1, np.zeros(n)], axis=1)
    return codes, y, 2 * codes[:, 0]


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_densities_of_two_gaussians_have_the_known_ratio(name: str) -> None:
    codes, y, exact = two_classes(2000)
    log_density = densities.DENSITIES[name](codes, y, 2, 0)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    ratio = log_density(codes) @ np.array([-1, 1])
    middle = np.abs(exact) < 3  # in the tails there is nothing to learn from
    assert middle.sum() > 1200
    assert np.corrcoef(ratio[middle], exact[middle])[0, 1] > 0.9
    assert np.sqrt(np.mean((ratio - exact)[middle] ** 2)) < 0.8
    if name == "histogram":  # units and axes are not the codes' own
        again = densities.histogram(5 * codes @ turn + 3, y, 2, 0)(5 * codes @ turn + 3)
        np.testing.assert_allclose(again @ np.array([-1, 1]), ratio, atol=1e-6)


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_constant_codes_and_a_class_without_images_are_no_special_cases(name: str) -> None:
    y = np.arange(60) % 2
    found = densities.DENSITIES[name](np.ones((60, 3)), y, 3, 0)(np.ones((60, 3)))
    assert np.isfinite(found).all()
    assert weights(found, y, log_prior_of(y, 3)).std() < 1e-9


# Weights


def test_weights_make_a_factor_independent_of_the_class() -> None:
    """With the exact densities of two_classes, the weighted mean of f is 0 in both classes, where it was -1 and 1."""
    codes, y, _ = two_classes(20_000)
    f = codes[:, 0]
    log_density = np.stack([stats.norm.logpdf(f, -1), stats.norm.logpdf(f, 1)], axis=1)
    found = weights(log_density, y, np.log([0.5, 0.5]))
    assert found.mean() == pytest.approx(1)
    for k in (0, 1):
        w, own = found[y == k], f[y == k]
        mean = (w * own).sum() / w.sum()
        error = sqrt((w**2 * (own - mean) ** 2).sum()) / w.sum()
        assert abs(mean) < 5 * error + 2 * RAREST  # the share of the target biases by about itself
        assert abs(own.mean() - (2 * k - 1)) < 0.1


def test_with_the_even_target_all_bins_weigh_the_same() -> None:
    counts = np.array([1, 10, 100, 1000])
    code = np.repeat(np.arange(4), counts)
    log_density = np.log(counts / counts.sum())[code][:, None]
    found = weights(log_density, np.zeros(len(code), int), np.zeros(1), "even")
    mass = np.bincount(code, found)
    np.testing.assert_allclose(mass / mass.sum(), 0.25, atol=3 * RAREST * 1000 / 4)


def test_no_weight_passes_the_bound_however_rare_an_image_is() -> None:
    log_density = np.array([[0.0, 0.0]] * 999 + [[-800.0, 0.0]])
    found = weights(log_density, np.zeros(1000, int), np.log([0.5, 0.5]))
    assert found[-1] / found[0] == pytest.approx(1 / RAREST, rel=0.01)


def test_what_is_odd_in_every_class_gains_nothing_by_the_overall_target() -> None:
    odd = np.array([[-1.0, -1.0]] * 99 + [[-40.0, -40.0]])
    y = np.arange(100) % 2
    np.testing.assert_allclose(weights(odd, y, np.log([0.5, 0.5])), 1)
    assert weights(odd, y, np.log([0.5, 0.5]), "even")[-1] > 50


def test_images_are_drawn_as_often_as_they_count() -> None:
    given, debiaser = np.array([0.0, 1.0, 2.5, 0.5]), Debiaser()
    debiaser.weights_ = given
    often = torch.tensor(np.bincount(list(debiaser.sampler(4000)), minlength=4) / 4000)
    share = torch.from_numpy(given / 4)
    assert within_five_errors(often, share, (share * (1 - share) / 4000).sqrt())
    assert list(debiaser.sampler()) == list(debiaser.sampler()) and len(debiaser.sampler()) == 4


# Structure and palette


def palettes(n: int) -> Palette:
    chance = generator("palettes")
    return Palette(-0.5 - 0.5 * torch.rand(n, 3, generator=chance), 0.2 + 0.8 * torch.rand(n, 3, generator=chance))


def test_unpainting_is_the_inverse_of_painting(float64: None) -> None:
    gray, colours = torch.rand(20, 1, 4, 5, generator=generator("gray")), palettes(20)
    torch.testing.assert_close(unpaint(paint(gray, colours), colours), gray)


def test_structure_has_no_room_for_colours() -> None:
    """Whatever the structure code is, every pixel lies between the palette's two colours."""
    model = Duotone(DuotoneConfig(structure=3, palette=2), ImageShape(3, 8, 8))
    s, t = 3 * torch.randn(50, 3, generator=generator("s")), torch.randn(1, 2, generator=generator("t")).expand(50, 2)
    x = model.decode(torch.cat([s, t], dim=1)).detach().double()
    end = Palette(*(colour.detach().double() for colour in model.ends(t)))
    place = unpaint(x, end)
    assert (place > -1e-5).all() and (place < 1 + 1e-5).all()
    torch.testing.assert_close(paint(place, end), x, atol=1e-5, rtol=0)


def test_what_goes_into_the_palette_is_the_colour(debiaser: Debiaser, biased: tuple[Images, np.ndarray]) -> None:
    _, colour = biased
    t = debiaser.codes_[:, list(factors.named(debiaser.config)["palette"])].double().numpy()
    middle = np.stack([t[colour == c].mean(0) for c in range(3)])
    nearest = ((t[:, None] - middle) ** 2).sum(2).argmin(1)
    assert (nearest == colour).mean() > 0.97


def test_a_recoloured_image_is_the_same_shape_in_another_colour(
    debiaser: Debiaser, biased: tuple[Images, np.ndarray]
) -> None:
    images, colour = biased
    x = images.batch(torch.arange(300)).x
    donors = torch.from_numpy(np.flatnonzero(colour == 2)[:300] if (colour == 2).sum() >= 300 else np.arange(300))
    new = counterfactual(debiaser.model_, x, debiaser.codes_[donors], debiaser.place_)
    level, level_new = (images.mean(1).flatten(1).double() for images in (x, new))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(level.numpy(), level_new.numpy(), strict=True)]
    assert np.median(alike) > 0.99
    light = new > -0.3
    blue = torch.from_numpy(colour[donors] == 2)
    strongest = (new * light).sum((2, 3)).argmax(1)
    assert (strongest[blue] == 2).double().mean() > 0.8  # a third by chance


def test_with_its_own_codes_an_image_loses_only_what_lies_beside_the_line(
    debiaser: Debiaser, biased: tuple[Images, np.ndarray]
) -> None:
    """What is lost is at right angles to the line from dark to bright, as that of a least-squares fit."""
    x = biased[0].batch(torch.arange(30)).x
    own = debiaser.model_.encode(x)
    lost = x - counterfactual(debiaser.model_, x, own, debiaser.place_)
    ends_of = debiaser.model_.ends(debiaser.model_.parts(own)[1])
    line = (ends_of.bright - ends_of.dark)[:, :, None, None]
    inside = (x - lost).abs().amax(1) < 1  # others are clipped
    across = (lost * line).sum(1)[inside]
    assert inside.float().mean() > 0.2
    assert across.abs().max() < 1e-4
    assert lost.square().mean() < 0.5 * x.var()


# Factors and environments


def test_the_test_of_invariance_has_uniform_p_values_and_no_bits_by_chance() -> None:
    found = []
    for seed in range(200):
        chance = np.random.default_rng(seed)
        cell, e = chance.integers(0, 5, 2000), chance.integers(0, 2, 2000)
        y = (chance.random(2000) < 0.2 + 0.1 * cell).astype(np.int64)  # the cell tells of y the same everywhere
        found.append(factors.invariance(cell, y, e))
    bits, p_values = np.array(found).T
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4
    assert bits.mean() < 0.002


def test_the_information_by_which_a_factor_fails_is_that_of_theory() -> None:
    """y is e with probability 0.8 within each of two cells: I(y; e) = 1 - H(0.8) bits."""
    chance = np.random.default_rng(0)
    n = 20_000
    cell, e = chance.integers(0, 2, n), chance.integers(0, 2, n)
    y = np.where(chance.random(n) < 0.8, e, 1 - e)
    exact = 1 - stats.entropy([0.8, 0.2], base=2)
    deviation = sqrt(0.8 * 0.2) * np.log2(0.8 / 0.2) / sqrt(n)
    assert abs(factors.invariance(cell, y, e)[0] - exact) < 5 * deviation


def test_environments_show_which_factor_is_the_bias() -> None:
    parts = [shapes(400, seed, share) for seed, share in ((1, 0.95), (2, 0.6))]
    train = Images(*(np.concatenate([getattr(images, part) for images, _ in parts]) for part in ("x", "y")))
    where = np.repeat([0, 1], 400)
    debiaser = Debiaser(steps=120).fit(train, environments=where)
    assert debiaser.chosen_ == ("palette",)
    assert debiaser.factors_[0].p_value is not None and debiaser.factors_[0].p_value < 1e-6
    with pytest.raises(ConfigError, match="there is no bias that environments could show"):
        Debiaser(steps=20).fit(shapes(300)[0], environments=np.random.default_rng(0).integers(0, 2, 300))


# All together


def test_images_against_their_class_get_the_weight(debiaser: Debiaser, biased: tuple[Images, np.ndarray]) -> None:
    images, colour = biased
    against = colour != images.y
    found = debiaser.weights_
    assert roc_auc_score(against, found) > 0.95
    assert against.mean() < 0.1
    assert 0.35 < found[against].sum() / found.sum() < 0.8  # 2/3 where colours are independent
    top = next(factor for factor in debiaser.factors_ if factor.name == "palette")
    assert 0.4 < top.against / against.sum() < 1.6  # those near the edge of a palette fall on either side


def test_recoloured_images_have_colours_that_tell_nearly_nothing(
    debiaser: Debiaser, biased: tuple[Images, np.ndarray]
) -> None:
    images, colour = biased
    new = debiaser.recoloured(images.batch(torch.arange(len(images))).x, "test")
    strongest = (new + 1).sum((2, 3)).argmax(1).numpy()
    told = [stats.contingency.association(table(images.y, seen), method="cramer") for seen in (colour, strongest)]
    assert told[0] > 0.8 and told[1] < 0.3


def table(rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (rows, seen), 1)
    return counts


class ByColour(torch.nn.Module):
    """Says the class that goes along with an image's strongest colour."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(1, 1)  # `predict` asks it for the device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1).sum((2, 3))


def test_who_goes_by_colour_is_found_out_by_groups_and_by_weights(
    debiaser: Debiaser, biased: tuple[Images, np.ndarray]
) -> None:
    images, colour = biased
    named = [("red", "green", "blue")[c] for c in colour]
    seen: Any = ByColour()
    found = proof.tested(seen, images, debiaser.weights_, ("bar", "cross", "ring"), named)
    assert found.overall.value == pytest.approx(np.mean(colour == images.y))
    assert found.pairs["bar, red"].value == 1 and found.worst[1].value == 0
    assert found.balanced.value == pytest.approx(1 / 3)
    assert found.unbiased.value < 0.6 < 0.9 < found.overall.value  # it is 1/3 where colours are independent
    assert set(found.groups) == {"red", "green", "blue"} and len(found.pairs) == 9


def test_a_classifier_sees_what_it_is_shown(debiaser: Debiaser, biased: tuple[Images, np.ndarray]) -> None:
    images, _ = biased
    indices = torch.arange(600)
    shown = {way: show(0, indices) for way, show in proof.ways(images, debiaser).items()}
    assert torch.equal(shown["plain"].x, images.batch(indices).x)
    assert torch.equal(shown["recolour"].y, shown["plain"].y)
    strongest = {way: (batch.x + 1).sum((2, 3)).argmax(1) for way, batch in shown.items()}
    along = {way: float((strongest[way] == shown[way].y).double().mean()) for way in shown}
    assert along["plain"] > 0.9 and along["weights"] < 0.6 and along["recolour"] < 0.45


def test_weights_undo_the_bias_that_test_images_have_themselves(debiaser: Debiaser) -> None:
    even, biased = debiaser.weigh(shapes(900, 3, None)[0]), debiaser.weigh(shapes(900, 4)[0])
    assert effective_size(torch.from_numpy(even)) > 2 * effective_size(torch.from_numpy(biased))


def test_images_without_classes_are_weighed_by_how_rare_they_are() -> None:
    images, _ = shapes(300)
    blue = np.flatnonzero(images.y == 2)[:4]
    few = np.concatenate([np.flatnonzero(images.y == 0), blue])
    debiaser = Debiaser(steps=150).fit(Images(images.x[few]))
    assert debiaser.target_ == "even"
    assert debiaser.weights_[-4:].mean() > 1


# Pairs of class and attribute


def test_rare_pairs_are_filled_up_and_all_count_alike(biased: tuple[Images, np.ndarray]) -> None:
    images, colour = biased
    attributes = [str(c) for c in colour]
    keep = ~((images.y == 2) & (colour == 0))
    images, attributes = Images(images.x[keep], images.y[keep]), [a for a, k in zip(attributes, keep, strict=True) if k]
    small = {"steps": 30, "latent_dim": 4, "batch_size": 32}
    filled = filling.fill(images, attributes, up_to=40, hyperparameters=small)
    assert filled.absent == ((2, "0"),)
    pairs = list(zip(filled.images.y.tolist(), filled.attributes, strict=True))
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    assert len(counts) == 8 and min(counts.values()) == 40
    mass = {pair: sum(w for w, p in zip(filled.weights, pairs, strict=True) if p == pair) for pair in counts}
    for k in range(3):
        own = [m for (c, _), m in mass.items() if c == k]
        np.testing.assert_allclose(own, own[0])
    np.testing.assert_array_equal(filled.images.x[: filled.real], images.x)
    assert filled.weights.mean() == pytest.approx(1)


def test_attributes_that_cannot_be_filled_are_refused() -> None:
    y = np.arange(100) % 2
    with pytest.raises(ConfigError, match="all images have 'a'"):
        filling.check("vae", y, ["a"] * 100)
    with pytest.raises(ConfigError, match="100 values for 100 images"):
        filling.check("vae", y, [str(i) for i in range(100)])
    with pytest.raises(ConfigError, match="did you mean 'vae'"):
        filling.check("vea", y, ["a", "b"] * 50)


# Mistakes and the command


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"by": "palete"}, "no factor 'palete'; did you mean 'palette'"),
        ({"by": ()}, "needs a factor"),
        ({"density": "kernel"}, "no density 'kernel'"),
        ({"target": "evn"}, "did you mean 'even'"),
        ({"steps": 0}, "at least 1 training step"),
        ({"hyperparameters": {"palete": 2}}, "did you mean 'palette'"),
    ],
)
def test_mistakes_are_told_before_any_work(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Debiaser(**parameters)


def test_images_that_tell_nothing_are_refused() -> None:
    images, _ = shapes(60)
    with pytest.raises(DataError, match="at least 50"):
        Debiaser().fit(shapes(30)[0])
    with pytest.raises(ConfigError, match="at least two places"):
        Debiaser().fit(images, environments=np.zeros(60, np.int64))
    with pytest.raises(ConfigError, match="have no classes"):
        Debiaser().fit(Images(images.x), environments=np.arange(60) % 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "given: nothing"),
        ("image,group\na.png\n", "two columns"),
        ("a.png,x\nb.png,y\n", "no column called group"),
        ("image,colour,shape\na.png,x,y\nb.png,y,x\n", "no column called group .its first line: image, colour, shape"),
        ("image,group,Groups\na.png,x,y\nb.png,y,x\n", "several columns called group"),
        ("image,group\na.png,x\nb.png,y\na.png,y\n", "two things of a.png: its group is x in line 2 and y in line 4"),
        ("image,group\na.png,x\nb.png,\n", "does not name the group of 1 of 2 images: b.png"),
        ("image,group\na.png,x\n", "does not name the group of 1 of 2 images: b.png"),
    ],
)
def test_tables_that_do_not_fit_are_told(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        factors.read_column(tmp_path / "t.csv", ["a.png", "b.png"], "group")


def test_a_table_is_read_by_the_name_of_its_column_in_the_order_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "scanners.csv").write_text('\ufeffimage,hospital,scanner\nb.png,h,y\n\'=a.png,h,"x, z"\nb.png,h,y\n')
    assert factors.read_column(tmp_path / "scanners.csv", ["=a.png", "b.png"], "attribute") == ["x, z", "y"]


def proof_of(right: list[int], groups: list[str] | None = None) -> proof.Accuracies:
    """A proof of a classifier that is right for these images."""
    found = np.array(right, bool)
    share = proof.share(found)
    named = groups or ["all"] * len(right)
    members = {group: np.array(named) == group for group in sorted(set(named))}
    pairs = {group: proof.share(found[own]) for group, own in members.items()}
    return proof.Accuracies(share, share, {}, pairs, found, members)


def test_a_way_is_recommended_only_where_it_lifts_the_worst_group() -> None:
    plain = proof_of([1, 0] * 200)
    assert proof.verdict("weights", proof_of([0, 0] * 200), plain).verdict == "not recommended"
    assert proof.verdict("weights", proof_of([1, 1] * 200), plain).verdict == "it helps"
    assert proof.verdict("weights", proof_of([1, 0] * 200), plain).verdict == "not recommended"
    groups = ["rare"] * 40 + ["common"] * 360
    before = proof_of([0] * 40 + [1] * 360, groups)
    priced = proof_of([1] * 40 + [1] * 260 + [0] * 100, groups)
    said = proof.verdict("weights", priced, before)
    assert said.verdict == "it helps, at a price" and "from 0.0 (rare) to 72.2 % (common)" in said.because
    worse = proof_of([0] * 40 + [1] * 300 + [0] * 60, groups)
    assert proof.verdict("weights", worse, before).grade == "poor"
    ways = {"plain": before, "weights": worse, "recolour": priced}
    assert proof.advice(ways, page.WAYS).verdict == page.WAYS["recolour"]
    assert proof.advice({"plain": before, "weights": worse}, page.WAYS).verdict == "as the images are"


def test_more_right_in_all_is_no_help_where_the_worst_group_falls() -> None:
    groups = ["rare"] * 100 + ["common"] * 900
    plain = proof_of([1] * 70 + [0] * 30 + [1] * 800 + [0] * 100, groups)
    found = proof_of([1] * 60 + [0] * 40 + [1] * 890 + [0] * 10, groups)
    assert proof.overall_gain(found, plain).low > 0
    said = proof.verdict("weights", found, plain)
    assert said.verdict == "not recommended" and "from 70.0 (rare) to 60.0 % (rare)" in said.because


def test_errors_of_the_other_half_count_as_half_of_their_class(biased: tuple[Images, np.ndarray]) -> None:
    images, colour = biased
    wrong = proof.errors(images, ("bar", "cross", "ring"), steps=60)
    against = colour != images.y
    assert wrong.any() and wrong[against].mean() > 10 * wrong[~against].mean()
    weights = proof.half_weights(wrong, images.class_numbers)
    assert weights.mean() == pytest.approx(1)
    for k in range(3):
        own = images.y == k
        of_errors, of_others = weights[own & wrong], weights[own & ~wrong]
        if len(of_errors):
            ratio = of_errors[0] / of_others[0]
            assert ratio == pytest.approx(50) or of_errors.sum() == pytest.approx(of_others.sum())


def test_the_gain_of_the_worst_group_has_an_interval_that_holds_it() -> None:
    """Two groups of nearly equal accuracy, where the minimum of both is biased, and a true gain of 5 points."""
    chance, inside = np.random.default_rng(0), 0
    groups = ["a"] * 300 + ["b"] * 300
    for _ in range(100):
        luck = chance.random(600)
        gain = proof.worst_gain(proof_of((luck < 0.75).tolist(), groups), proof_of((luck < 0.70).tolist(), groups))
        inside += gain.low <= 0.05 <= gain.high
    assert inside >= 88  # 95 less three standard errors


def test_classes_whose_names_differ_only_in_signs_keep_folders_of_their_own(tmp_path: Path) -> None:
    found = class_folders(tmp_path / "recoloured", ("a/b", "a_b", "=c"))
    assert len({place.name for place in found}) == 3 and all(place.is_dir() for place in found)


def test_a_fitted_debiaser_can_be_pickled_and_is_the_same_for_the_same_seed(digits: Data) -> None:
    first, same, other = (Debiaser(steps=20, density="histogram", seed=s).fit(digits.train) for s in (0, 0, 1))
    again = pickle.loads(pickle.dumps(first))
    assert np.array_equal(again.weigh(digits.train), first.weigh(digits.train))
    assert np.array_equal(first.weights_, same.weights_) and (first.weights_ != other.weights_).any()
    x = to_float(torch.from_numpy(digits.train.x[:20]))  # gray images have palettes of brightness
    assert first.recoloured(x, "gray").shape == x.shape


def sound(path: Path) -> bool:
    loaded = loads(path)
    return bool(loaded) and all(load.startswith("data:image/png;") for load in loaded)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes and a table of colours."""
    root = tmp_path_factory.mktemp("debias")
    images, colour = shapes(240)
    rows = [("image", "size", "colour")]
    for i, (x, y) in enumerate(zip(images.x, images.y, strict=True)):
        place = Path(("bar", "cross", "ring")[y]) / f"{i:03}.png"
        (root / "images" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(root / "images" / place)
        rows.append((place.as_posix(), "small", ("red", "green", "blue")[colour[i]]))
    with (root / "colours.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


QUICK = ["--steps", "60", "--classifier-steps", "15"]


def test_the_command_weighs_shows_and_proves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, groups = folder / "out", ["--groups", folder / "colours.csv"]
    words = ["--by", "palette", "--recoloured", "--out", out]  # after so few steps a shape may tell more
    assert ends("debias", folder / "images", *groups, *words, *QUICK) == 0
    said = capsys.readouterr().out
    assert "palette: made independent of the class; effective sample size" in said and "mean over pairs" in said
    with (out / "weights.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 216 and np.mean([float(row["weight"]) for row in table]) == pytest.approx(1, abs=1e-4)
    for row in table:
        assert (folder / "images" / row["image"]).exists() and row["image"].startswith(row["class"])
    assert sound(out / "debias.html")
    assert "group red" in (out / "debias.html").read_text()
    again = load_data(out / "recoloured")
    assert len(again.train) + len(again.test or ()) == 216 and again.classes == ("bar", "cross", "ring")
    with Image.open(out / "factors.png") as picture:
        assert picture.width > 300
    assert ends("debias", folder / "images", "--out", out, *QUICK) == 2  # refused
    assert "is not empty; give --overwrite" in capsys.readouterr().err
    record = json.loads((out / "debias.json").read_text())
    assert record["independent"] == ["palette"] and record["verdicts"].keys() == {"weights", "recolour", "errors"}
    assert record["advice"] in page.WAYS.values() or record["advice"] == "as the images are"
    text = (out / "debias.html").read_text()
    assert text.index("How to teach?") < text.index("Teach by weight?") < text.index("effective sample size")


def test_the_command_fills_up_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "pairs"
    words = ["--attribute", folder / "colours.csv", "--fill", "12", "--out", out, *QUICK]
    assert ends("debias", folder / "images", *words) == 0
    assert "images generated for pairs" in capsys.readouterr().out
    with (out / "weights.csv").open() as file:
        made = [row for row in csv.DictReader(file) if row["image"].startswith("generated/")]
    assert made and all((out / row["image"]).exists() for row in made)
    assert sound(out / "debias.html")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "colour"], "there is no factor 'colour'"),
        (["--groups", "none.csv"], "the table of group none.csv cannot be read"),
        (["--environments", "none.csv"], "the table of environment none.csv cannot be read"),
        (["--attribute", "none.csv", "--by", "palette"], "do not go with it"),
        (["--density", "kernel"], "--density"),
        (["--attribute", "colours.csv", "--family", "vea"], "did you mean 'vae'"),
    ],
)
def test_mistakes_in_the_command_end_in_one_line(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert ends("debias", "images", "--out", "never", *words) == 2
    assert message in capsys.readouterr().err
    assert not Path("never").exists()


def test_images_without_classes_are_refused_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for i, x in enumerate(shapes(20)[0].x):
        Image.fromarray(x.transpose(1, 2, 0)).save(tmp_path / "images" / f"{i}.png")
    assert ends("debias", tmp_path / "images", "--out", tmp_path / "out") == 2
    assert "put the images of each class in a folder" in capsys.readouterr().err


def test_large_images_are_looked_at_small_and_recoloured_large() -> None:
    chance = np.random.default_rng(0)
    y = np.arange(80) % 2
    colours = np.where(y == 1, 200, 40)  # red tells the class
    pixels = chance.integers(0, 30, (80, 4, 96, 128)).astype(np.uint8)
    pixels[:, 0] += colours[:, None, None].astype(np.uint8)
    images = Images(pixels, y.astype(np.int64))
    debiaser = Debiaser("palette", steps=4, device="cpu").fit(images)
    assert debiaser.model_.shape == (4, 48, 64)
    x = images.batch(torch.arange(8)).x
    changed = debiaser.recoloured(x, "here")
    assert changed.shape == x.shape and changed.abs().max() <= 1
    small = shrunk(x, debiaser.model_.shape)
    assert torch.allclose(small, x.view(8, 4, 48, 2, 64, 2).mean((3, 5)), atol=1e-6)
    palette = debiaser.model_.ends(debiaser.model_.parts(debiaser.model_.encode(small))[1])
    same = counterfactual(debiaser.model_, x, debiaser.codes_[:8], ())
    assert torch.allclose(same, paint(unpaint(x, palette), palette).clamp(-1, 1), atol=1e-5)
