"""Images from the tail of a model: codes as functions of N(0, I), exact and counted probabilities, the verb."""

import csv
import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import fabulate
from fabulate import rare
from fabulate.config import override
from fabulate.errors import CapabilityError, ConfigError, DataError, RunError
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import HasLatent
from fabulate.models.families import families
from fabulate.seeds import generator, seeded
from fabulate.uses.rare.simulator import Simulator, codes
from fabulate.uses.rare.tail import tails
from tiny import CLASSES, SMALL, cases, ends, make, small, within_five_errors


def first(z: torch.Tensor) -> torch.Tensor:
    return z[:, 0]


def gan(dim: int = 6, **options: object) -> GenerativeModel:
    with seeded(0, "weights"):
        cls = families()["gan"]
        return cls(override(cls.Config(), {**small("gan"), "latent_dim": dim, **options}), SMALL)


def mixed(name: str, clusters: bool = True) -> GenerativeModel:
    """A small model whose mixture was fitted to codes in two clusters, of unequal size and shape."""
    with seeded(0, "weights"):
        cls = families()[name]
        model = cls(override(cls.Config(), {**small(name), "components": 2}), SMALL)
    z = torch.randn(400, 5, generator=generator(0, "codes")) @ torch.randn(5, 5, generator=generator(1, "codes")) / 2
    z[:100] = 0.3 * z[:100] + 4
    model.mixture.fit(z)
    return model


def moments(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the square of each number of codes and of neighbours' products, with standard errors."""
    values = torch.cat([z, z.square(), z * z.roll(1, 1)], 1).double()
    return values.mean(0), values.std(0) / sqrt(len(z))


def same_law(model: HasLatent, label: int | None) -> None:
    law = codes(model, label, first)
    n = 1000
    z = law.of(torch.randn(n, law.dim, generator=generator(0, "u"), dtype=torch.float64))
    y = None if label is None else torch.full((n,), label)
    with torch.no_grad():
        drawn = model.prior(n, y, generator(0, "prior"))
    assert z.shape == drawn.shape
    (ours, error), (theirs, other) = moments(z), moments(drawn)
    assert within_five_errors(ours, theirs, (error**2 + other**2).sqrt() + 1e-6)


@pytest.mark.parametrize("case", cases(HasLatent), ids=str)
def test_codes_have_the_law_that_the_family_draws_from(case):
    same_law(make(case), None if not case.classes else 1)


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_codes_have_the_law_of_a_fitted_mixture(name):
    same_law(mixed(name), None)


def test_codes_have_the_law_of_a_learned_prior_of_uniform_noise_and_of_a_temperature():
    with seeded(3, "weights"):
        vae = families()["vae"]
        config = override(vae.Config(), {**small("vae"), "prior": "gaussians", "prior_components": 3})
        model = vae(config, SMALL)
        torch.nn.init.normal_(model.p_z.means)
    model.sampling = override(model.sampling, {"codes": "prior"})
    same_law(model, None)
    same_law(gan(noise="uniform"), None)
    nf = make(next(case for case in cases() if case.family == "nf"))
    nf.sampling = override(nf.sampling, {"temperature": 0.5})
    same_law(nf, None)


def test_a_family_with_codes_of_its_own_must_say_how_they_are_made():
    class Own(families()["gan"]):
        pass

    class Other(HasLatent):
        def players(self):
            return {}

        def decode(self, z, y=None):
            return z.view(-1, *self.shape)

        def prior(self, n, y, generator):
            return torch.rand(n, 64, generator=generator)

    own, other = Own(gan().config, SMALL), Other(gan().config, SMALL)
    Other.family = "other"
    assert codes(own, None, first).dim == own.config.latent_dim
    with pytest.raises(CapabilityError, match="register"):
        codes(other, None, first)


def test_a_gaussian_tail_has_its_exact_probability_and_law():
    """Codes z ~ N(0, I) with z_1 > 3: P is known, z_1 is a truncated normal, and the rest is as it was."""
    found = rare.tail(gan(), rare.along(torch.eye(6)[0]), threshold=3.0, n=300, calls=6000)
    truth = stats.norm.sf(3.0)
    assert abs(found.event.probability - truth) < 5 * found.event.standard_error < truth
    assert found.event.warnings == () and found.again == 300
    assert (found.scores > 3).all() and (np.diff(found.scores) <= 0).all()
    spread = stats.truncnorm(3, np.inf).std()
    assert abs(found.scores.mean() - stats.truncnorm(3, np.inf).mean()) < 5 * spread / sqrt(found.ancestors)
    exact = stats.norm.sf(found.scores)
    assert np.median(np.abs(np.log(found.rarities / exact))) < 0.2
    assert found.rarities.max() <= found.event.probability * (1 + 1e-9)


@pytest.mark.parametrize("quantile", [0.02, 1e-5])
def test_a_mixtures_tail_is_found_at_the_quantile_asked_for(quantile):
    """A direction of a mixture of Gaussians: P(z . v > t) is a sum of normal tails."""
    model = mixed("vae")
    direction = torch.tensor([0.5, -0.5, 0.5, 0.1, -0.5])
    found = rare.tail(model, rare.along(direction), quantile=quantile, n=20, calls=12_000)
    law = model.mixture
    centres = (law.means[0] @ direction).numpy()
    deviations = (law.roots[0].mT @ direction).norm(dim=1).numpy()
    truth = float(law.weights[0].numpy() @ stats.norm.sf((found.threshold - centres) / deviations))
    assert abs(found.event.probability - truth) < 5 * found.event.standard_error
    assert quantile / 2 < truth < 2 * quantile


def test_plain_sampling_agrees_and_needs_more(digits):
    """Brightness of a trained decoder: what plain draws count is within both intervals, at several times the cost."""
    with seeded(0, "train"):
        model = fabulate.family("vae")(override(fabulate.family("vae").Config(), {"latent_dim": 8}), SMALL)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(100):
            optimiser.zero_grad()
            batch = digits.train.batch(torch.arange(step * 64, step * 64 + 64) % len(digits.train))
            model.loss(batch)["loss"].backward()
            optimiser.step()
    model.sampling = override(model.sampling, {"codes": "prior"})
    found = rare.tail(model, rare.brightness, quantile=0.003, n=50, calls=20_000)
    simulator = Simulator(model, rare.brightness, None, None, 0)
    n = 12_000
    share = simulator.exceeding(found.threshold, n, 0) / n
    error = sqrt(found.event.standard_error**2 + share / n)
    assert abs(found.event.probability - share) < 5 * error
    assert found.variance_reduction > 10 and found.event.warnings == ()
    np.testing.assert_allclose((found.images / 255).mean((1, 2, 3)), found.scores, atol=1e-6)


def test_a_noisy_score_is_confessed():
    """Half of the score's variance is noise: judged again, many images fall short."""
    chance = torch.Generator().manual_seed(0)

    def noisy(x, z):
        return z[:, 0] + torch.randn(len(z), generator=chance)

    found = rare.tail(gan(), noisy, threshold=3.5, n=100, calls=6000)
    truth = stats.norm.sf(3.5 / sqrt(2))
    assert abs(found.event.probability - truth) < 5 * found.event.standard_error
    assert (found.scores > 3.5).all() and found.again < 80


def test_scores_are_of_what_they_say():
    model = make(next(case for case in cases() if case.family == "vae" and not case.classes))
    x = torch.rand(3, *SMALL, generator=generator(0, "x")) * 2 - 1
    z = torch.randn(3, 5, generator=generator(0, "z"))
    assert torch.equal(rare.surprise(model)(x, z), -model.score(x))
    torch.testing.assert_close(rare.brightness(x, z) + rare.darkness(x, z), torch.ones(3))
    logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    odds = rare.odds(logits, 2)(x, z)
    p = torch.softmax(logits(x), 1)[:, 2]
    torch.testing.assert_close(odds, torch.logit(p), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="codes have 5 numbers"):
        rare.along(torch.ones(4))(x, z)


def test_equal_seeds_give_equal_images_and_others_do_not():
    one, same, other = (rare.tail(gan(), rare.brightness, n=5, calls=1000, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, same.images) and one.event.probability == same.event.probability
    assert not np.array_equal(one.scores, other.scores)


def test_tails_count_what_is_at_least_as_high():
    scores, weights = torch.rand(50, generator=generator(0)), torch.rand(50, generator=generator(1))
    expected = torch.stack([weights[scores >= s].sum() for s in scores]) / weights.sum()
    torch.testing.assert_close(tails(scores, weights), expected)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threshold": 1.0, "quantile": 0.1}, "not both"),
        ({"threshold": float("nan")}, "finite"),
        ({"quantile": 0.0}, "share of the model's images"),
        ({"n": 0}, "n must be at least 1"),
        ({"calls": 99}, "calls at least 100"),
        ({"y": "cat"}, "learnt no classes"),
    ],
)
def test_what_cannot_be_asked(wrong, words):
    with pytest.raises(ConfigError, match=words):
        rare.tail(gan(), rare.brightness, **wrong)


def test_what_cannot_be_done():
    with pytest.raises(CapabilityError, match=r"gan knows no p\(x\).*vae"):
        rare.surprise(gan())
    with pytest.raises(RunError, match="none of 500 images scored above 2"):
        rare.tail(gan(), rare.brightness, threshold=2.0, calls=500)
    with pytest.raises(DataError, match="one number for each of 500"):
        rare.tail(gan(), lambda x, z: z, calls=500)
    conditional = make(next(case for case in cases() if case.classes))
    with pytest.raises(ConfigError, match=f"say which .{', '.join(CLASSES)}"):
        rare.tail(conditional, rare.brightness, calls=500)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits):
    """A VAE of a folder of images with two classes, a class-conditional one, and a GAN."""
    folder = tmp_path_factory.mktemp("runs")
    for i in range(160):
        place = folder / "images" / ("thick" if i % 2 else "thin") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.x[i, 0] // (1 if i % 2 else 3)).save(place)
    quick = {"steps": 20, "batch_size": 32, "quiet": True}
    fabulate.train("vae", folder / "images", out=folder / "vae", **quick, **small("vae"))
    fabulate.train("vae", folder / "images", out=folder / "classes", conditional=True, **quick, **small("vae"))
    fabulate.train("gan", folder / "images", out=folder / "gan", **quick, **small("gan"))
    return folder


QUICK = ("-n", 6, "--calls", 400)


def test_the_verb_writes_images_a_table_numbers_and_a_page(runs, capsys):
    assert ends("rare", runs / "vae", *QUICK, "--score", "brightness", "--check", 3000) == 0
    out = runs / "vae" / "drawn" / "rare-brightness"
    rows = list(csv.DictReader((out / "rare.csv").read_text().splitlines()))
    told = json.loads((out / "rare.json").read_text())
    assert len(rows) == 6 and all(float(row["score"]) > told["threshold"] - 1e-6 for row in rows)
    for row in rows:
        bright = np.asarray(Image.open(out / row["image"])).mean() / 255
        assert bright == pytest.approx(float(row["score"]), abs=1e-5)
        assert float(row["rarity"]) <= told["probability"] * 1.001
        assert np.isfinite(float(row["log_density_bound"]))
    page = (out / "rare.html").read_text()
    assert page.count("<img") == 3 and "one in" in page and (out / "grid.png").exists()
    said = capsys.readouterr().out
    assert "plain samples" in said and "of 3,000 beyond it" in said
    assert ends("rare", runs / "vae", *QUICK, "--score", "brightness") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert ends("rare", runs / "vae", *QUICK, "--score", "brightness", "--overwrite") == 0


@pytest.mark.slow
def test_a_class_a_direction_and_a_conditional_model(runs, capsys, monkeypatch):
    monkeypatch.setattr("fabulate.features.trained.FEWEST_STEPS", 30)  # of the classifier behind --towards
    assert ends("rare", runs / "gan", *QUICK, "--towards", "thick", "--quantile", 0.1) == 0
    assert "log odds of class thick" in capsys.readouterr().out
    table = (runs / "gan" / "drawn" / "rare-towards-thick-0.1" / "rare.csv").read_text()
    assert table.startswith("image,score,rarity,one_in\n")
    assert ends("rare", runs / "gan", *QUICK, "--direction", -2, "--out", runs / "out") == 0
    assert "against direction 2" in capsys.readouterr().out
    assert ends("rare", runs / "classes", *QUICK, "--label", "thin") == 0
    assert (runs / "classes" / "drawn" / "rare-surprise-thin" / "00005.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vae", "--score", "brightness", "--direction", 1), "not more"),
        (("vae", "--quantile", 2), "share of the model's images"),
        (("vae", "--above", 1, "--quantile", 0.1), "not both"),
        (("vae", "--towards", "thik"), "'thick'"),
        (("vae", "--label", "thin"), "--conditional"),
        (("vae", "--direction", 9), "1 to 5"),
        (("vae", "--check", -1), "--check"),
        (("classes",), "--label (thick, thin)"),
        (("classes", "--label", "thik"), "'thick'"),
        (("gan",), "knows no p(x)"),
        (("vae", "--above", 9, "--score", "brightness"), "none of 400 images"),
    ],
)
def test_the_verb_refuses_in_words(runs, capsys, words, said):
    run, *flags = words
    assert ends("rare", runs / run, *QUICK, *flags, "--out", runs / "refused") == 2
    assert said in capsys.readouterr().err
    assert not (runs / "refused").exists()


@pytest.mark.slow
def test_the_example(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import rare_images

    found = rare_images.main(tmp_path, steps=20, calls=1500)
    assert (found.scores > found.threshold).all()
    assert (tmp_path / "rare.png").exists()
    assert "one in" in capsys.readouterr().out
