"""Sections that ask the model itself: bounds and likelihoods, copies, codes; against what is known exactly.

Maths in float64. A statistic says its n and is allowed five standard errors: a sound one fails once in two million.

Legend: N images, D pixels, Z latent, K codes.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, log

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from fabulate.data import Data, Images, load_data
from fabulate.errors import ConfigError
from fabulate.evaluation.codes import information, latent, reconstruction
from fabulate.evaluation.likelihood import corrected, likelihood
from fabulate.evaluation.subject import Findings, Subject
from fabulate.features import Features
from fabulate.metrics.images import mse
from fabulate.metrics.intervals import NORMAL_95, Estimate
from fabulate.models import GenerativeModel, importance
from fabulate.models.base import TILE, NoChoice, Player
from fabulate.models.capabilities import Encodes, HasBound, HasLikelihood, ImportanceWeighted, Reconstructs
from fabulate.models.families.ae import AE, AEConfig
from fabulate.models.families.vae import VAE, VAEConfig
from fabulate.models.families.vqvae import VQVAE
from fabulate.nets import MLP
from fabulate.prob import BIN, DiscretisedLogistic
from fabulate.report import Row
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, to_float, to_uint8
from test_oracles import linear_vae
from tiny import CLASSES, SMALL, Case, cases, make, pictures, within_five_errors

LINEAR = MLP(hidden=())
D, Z = SMALL.size, 3
BINARISATIONS = ["none", "dynamic", "threshold"]


class Flat(Features):
    """Pixels in a row."""

    name = "pixels"

    def __call__(self, images: Tensor) -> Tensor:
        return to_float(images).flatten(1).float()


def data_of(train: Images, test: Images | None, classes: tuple[str, ...] = ()) -> Data:
    some = np.zeros((2, 8, 8), np.uint8)
    some[1] = 1
    return replace(load_data(some), train=train, test=test, classes=classes)


def waves(n: int, classes: tuple[str, ...] = (), seed: int = 0) -> Images:
    source = pictures(SMALL, n, classes, seed)
    return Images(source.x.numpy(), None if source.y is None else source.y.numpy())


def subject(model: GenerativeModel, test: Images | None = None, seed: int = 0, data: Data | None = None) -> Subject:
    data = data or data_of(waves(40, model.classes, 1), test or waves(30, model.classes), model.classes)
    none = torch.zeros(0, *SMALL, dtype=torch.uint8)
    return Subject(model=model, data=data, samples=none, y=None, features=Flat(), seed=seed)


def named(section: Findings, name: str) -> Row:
    return next(row for row in section.rows if row.name.startswith(name))


# A model whose p(x) is known: probabilistic PCA


def ppca(wrong: float = 1.0) -> tuple[VAE, MultivariateNormal]:
    """x = W z + b + s eps as a VAE, its exact p(x), and an encoder: p(z | x) with `wrong` times its deviations."""
    return linear_vae(wrong, noise=0.05)


@pytest.mark.usefixtures("float64")
def test_the_section_of_a_linear_gaussian_model_has_its_exact_log_likelihood_and_bits():
    model, exact = ppca()
    images = waves(25)
    section = likelihood(subject(model, images), k=3)
    x = to_float(torch.from_numpy(images.x)).flatten(1)
    truth = exact.log_prob(x)
    bound = named(section, "Importance-weighted bound, k=3").value
    assert bound.value == pytest.approx(truth.mean().item(), rel=1e-9)
    assert bound == pytest.approx(Estimate.of_mean(truth), rel=1e-9)  # the interval over images too
    # Noise as wide as a pixel's step moves a quadratic form by little; its share is bounded by its trace.
    bits = -(truth.mean().item() / D + log(BIN)) / log(2)
    assert named(section, "bits/dim").value.value == pytest.approx(bits, abs=0.02)


@pytest.mark.usefixtures("float64")
def test_the_elbo_of_the_section_is_the_log_likelihood_less_the_posteriors_divergence():
    wrong, n = 1.5, 2000
    model, exact = ppca(wrong)
    x = torch.from_numpy(waves(1).x).expand(n, *SMALL)
    section = likelihood(subject(model, Images(x.numpy().copy())), images=n, k=1)
    mean, logvar = model.posterior(Batch(to_float(x[:1])))
    q = Normal(mean, torch.exp(logvar / 2))
    elbo = exact.log_prob(to_float(x[:1]).flatten(1)) - kl_divergence(q, Normal(mean, q.stddev / wrong)).sum()
    row = named(section, "ELBO").value
    assert within_five_errors(torch.tensor(row.value), elbo, torch.tensor((row.high - row.value) / NORMAL_95))
    kl = named(section, "KL").value.value
    assert kl == pytest.approx(kl_divergence(q, Normal(0.0, 1.0)).sum().item())
    assert named(section, "Reconstruction").value.value - kl == pytest.approx(row.value)
    # The bound of one code is the ELBO too, with the KL estimated: it spreads more and has the same mean.
    one = named(section, "Importance-weighted bound, k=1").value
    assert within_five_errors(torch.tensor(one.value), elbo, torch.tensor((one.high - one.value) / NORMAL_95))


@pytest.mark.usefixtures("float64")
def test_the_bound_rises_with_k_and_reaches_the_log_likelihood():
    model, exact = ppca(wrong=1.5)  # the wider posterior has all moments of the weights: the bound converges as 1 / k
    n = 4000  # bounds of one image, each with its own codes
    x = to_float(torch.from_numpy(waves(1).x))
    bounds = torch.stack([model.score(x.expand(n, *SMALL), k=k, seed=k) for k in (1, 5, 50)])
    means, errors = bounds.mean(1), bounds.std(1) / n**0.5
    assert (means.diff() > 5 * (errors[1:].square() + errors[:-1].square()).sqrt()).all()
    truth = exact.log_prob(x.flatten(1))
    assert (means <= truth + 5 * errors).all()
    # log of a mean of k weights of mean 1 and variance v is -v / 2k on average, to first order; that of p / q of Z
    # Gaussians, q's deviation c times p's, is (c^2 / sqrt(2 c^2 - 1))^Z - 1
    v = (1.5**2 / (2 * 1.5**2 - 1) ** 0.5) ** Z - 1
    one = model.score(x, k=5000)
    assert abs(one - truth) < v / 10_000 + 5 * (v / 5000) ** 0.5
    assert abs(one - truth) < 0.2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("classes", [(), CLASSES], ids=["one", "classes"])
@pytest.mark.parametrize("binarise", BINARISATIONS)
def test_how_many_codes_are_decoded_together_changes_nothing(monkeypatch, binarise, classes):
    with seeded(0):
        config = VAEConfig(latent_dim=Z, network=LINEAR, likelihood="bernoulli", binarise=binarise, prior="gaussians")
        model = VAE(config, SMALL, classes)
    x, y = pictures(SMALL, 7, classes).batch(torch.arange(7))
    scores, k, calls = [], 23, []
    model.decoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    for rows in (1, 7, 20, 70, 10_000):
        monkeypatch.setattr(importance, "ROWS", rows)
        scores.append(model.score(x, y, k=k))
        assert sum(calls) == 7 * k
        assert max(calls) <= max(7, rows)
        calls.clear()
    for score in scores[1:]:
        torch.testing.assert_close(score, scores[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [0, -3])
def test_a_bound_of_no_codes_is_refused(k):
    model = make(Case("vae", "mlp"))
    with pytest.raises(ConfigError, match=f"at least 1 code of each image, given k={k}"):
        model.score(pictures(SMALL, 2).x, k=k)
    with pytest.raises(ConfigError, match=f"at least 1 code of each image, given k={k}"):
        likelihood(subject(model), k=k)
    for section in (likelihood, reconstruction):
        with pytest.raises(ConfigError, match=f"at least 1 image must be measured, given {k}"):
            section(subject(model), images=k)


# Models that know nothing cost 8 bits


class Unknowing(HasLikelihood, GenerativeModel):
    """Uniform over all uint8 images: floats in [-256/255, 256/255]."""

    Config = NoChoice

    def players(self) -> dict[str, Player]:
        return {}

    def draw(self, tiles: Sequence[torch.Generator], y: Tensor | None) -> Tensor:
        return torch.zeros(TILE * len(tiles), *self.shape)

    def log_prob(self, x: Tensor, y: object = None) -> Tensor:
        inside = (x.flatten(1).abs() <= 256 / 255 + 1e-6).all(1)
        return torch.where(inside, -self.shape.size * log(256 * BIN), -torch.inf)


class Uniform(DiscretisedLogistic):
    """A probability of 1/256 for each pixel value."""

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        return torch.full((len(x),), -D * log(256)).to(raw)


@pytest.mark.usefixtures("float64")
def test_uniform_noise_costs_8_bits_under_models_that_know_nothing():
    noise = Images(torch.randint(256, (50, *SMALL), dtype=torch.uint8, generator=generator(0, "noise")).numpy())
    flat = VAE(VAEConfig(latent_dim=Z, network=LINEAR, likelihood="logistic"), SMALL)
    flat.likelihood = Uniform()
    torch.nn.init.zeros_(flat.encoder.layers[0].weight)
    torch.nn.init.zeros_(flat.encoder.layers[0].bias)  # the posterior is the prior: the code costs nothing
    for model in (Unknowing(NoChoice(), SMALL), flat):
        bits = named(likelihood(subject(model, noise)), "bits/dim").value
        assert bits == pytest.approx((8.0, 8.0, 8.0), abs=1e-12)
        assert named(likelihood(subject(model, noise)), "Generalisation gap").value.value == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_bits_of_a_likelihood_of_pixel_values_are_its_nats_in_other_units():
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, likelihood="logistic"), SMALL)
    section = likelihood(subject(model), k=5)
    bound = named(section, "Importance-weighted bound").value.value
    assert named(section, "bits/dim").value.value == pytest.approx(-bound / (D * log(2)))


@pytest.mark.usefixtures("float64")
def test_a_density_in_other_units_of_the_pixels_changes_its_nats_and_not_its_bits():
    """Exact likelihood: bits are of uint8 images, nats of floats in [-1, 1], and one follows from the other."""
    section = likelihood(subject(make(Case("nf", None)).double()))
    bits, nats = named(section, "bits/dim").value.value, named(section, "log p(x)").value.value
    assert bits == pytest.approx(-(nats / D + log(BIN)) / log(2))


def test_binary_and_gray_images_have_no_bits_of_pixel_values_and_the_binarisation_is_told():
    for binarise, words in zip(BINARISATIONS, ("as if they were binary", "dynamic", "middle gray"), strict=True):
        config = VAEConfig(latent_dim=Z, network=LINEAR, likelihood="bernoulli", binarise=binarise)
        section = likelihood(subject(VAE(config, SMALL)), k=2)
        assert "bits/dim" in section.absent
        assert not [row for row in section.rows if "bits" in row.name]
        assert any(words in sentence for sentence in section.sentences)


def test_training_images_that_are_likelier_show_as_a_gap():
    model, exact = ppca()
    seen, unseen = waves(60, seed=1), waves(50)
    dark = Images(np.zeros_like(seen.x))  # far from the mean of the model: unlikely
    for train, sign in ((dark, -1), (Images(np.full_like(seen.x, 128)), 1)):
        row = named(likelihood(subject(model, data=data_of(train, unseen)), k=2), "Generalisation gap")
        x, known = (to_float(torch.from_numpy(images.x)).double().flatten(1) for images in (unseen, train))
        truth = exact.log_prob(known).mean() - exact.log_prob(x).mean()
        # The ELBO is tight here, and of one code: at the true posterior it spreads by sqrt(Z / 2) nats at most,
        # over 50 images and 40 or more others.
        assert row.value.value == pytest.approx(truth.item(), abs=5 * (Z / 2 * (1 / 50 + 1 / 40)) ** 0.5)
        assert row.value.value * sign > 0


# Choices


def test_numbers_depend_on_the_seed_alone_and_so_do_the_images():
    model = make(Case("vae", "mlp"))
    first = likelihood(subject(model, waves(300)), k=4, images=50)
    torch.rand(3)
    assert likelihood(subject(model, waves(300)), k=4, images=50).rows == first.rows
    assert likelihood(subject(model, waves(300), seed=1), k=4, images=50).rows != first.rows
    few, more = (subject(model, waves(300)).subset(waves(300), n, "x").x for n in (10, 20))
    assert torch.equal(few, more[:10])
    assert len(subject(model, waves(300)).subset(waves(300), 1000, "x").x.unique(dim=0)) == 300
    assert "50 of 300" in first.sentences[0]


def test_a_conditional_model_is_asked_about_the_classes_it_knows_by_their_names():
    model = make(Case("vae", "mlp", CLASSES))
    others = ("horse", "mouse", "cat")  # numbered otherwise, and one that the model never saw
    images = waves(30, others)
    about = subject(model, data=data_of(images, images, others))
    chosen = about.subset(images, 30, "x")
    assert set(chosen.y) == {"horse", "cat"}
    assert len(chosen) == len(about.known(images)) == 20
    for image, name in zip(chosen.x, chosen.y, strict=True):
        assert others.index(name) in images.y[(images.x == image.numpy()).all((1, 2, 3))]
    assert all(isfinite(row.value.value) for row in likelihood(about, k=2).rows)
    strange = replace(about, data=replace(about.data, classes=("a", "b", "c")))
    for section in (likelihood, reconstruction, latent):
        assert not section(strange).rows
        assert "no image here is of a class" in next(iter(section(strange).absent.values()))


def test_progress_ends_when_all_is_done():
    for name in ("vae", "vqvae", "nf"):
        heard: list[tuple[int, int]] = []
        model = next(make(case) for case in cases(HasLikelihood) + cases(HasBound) if case.family == name)
        likelihood(
            subject(model, waves(130)), k=2, progress=lambda done, total, heard=heard: heard.append((done, total))
        )
        assert [done for done, _ in heard] == sorted({done for done, _ in heard})
        assert {total for _, total in heard} == {heard[-1][0]}


# Copies


def test_errors_of_copies_are_those_of_the_pairs_and_the_worst_copy_is_the_last_shown():
    with seeded(0):
        model = AE(AEConfig(latent_dim=Z, network=LINEAR), SMALL)
    images = waves(40)
    section = reconstruction(subject(model, images), images=40)
    errors = mse(torch.from_numpy(images.x), model.reconstruct(torch.from_numpy(images.x)))
    assert named(section, "MSE").value.value == pytest.approx(errors.mean().item(), rel=1e-6)
    assert named(section, "MSE").better == "lower"
    (picture,) = section.pictures.values()
    chosen = subject(model, images).subset(images, 40, "reconstruction")
    copies = model.reconstruct(chosen.x)
    order = mse(chosen.x, copies).argsort()
    shown = torch.cat([order[:8], order[16:24], order[-8:]])
    # A picture's tiles are its images and copies enlarged: best, median, worst, each group above its copies.
    pixels = np.asarray(picture.convert("L"))
    assert all(enlarged(image) in pixels.tobytes() for image in (*chosen.x[shown], *to_uint8(copies)[shown]))


def enlarged(image: Tensor) -> bytes:
    """The first row of an 8x8 image as a grid draws it: each pixel eight times."""
    return image[0, 0].repeat_interleave(8).numpy().tobytes()


class Copier(Unknowing, Reconstructs):
    """Copies are the images."""

    def reconstruct(self, x: Tensor, y: object = None) -> Tensor:
        return to_float(x)


def test_perfect_copies_have_no_error_full_similarity_and_an_infinite_ratio_that_is_told():
    section = reconstruction(subject(Copier(NoChoice(), SMALL)))
    assert named(section, "MSE").value == (0, 0, 0)
    assert named(section, "SSIM").value.value == pytest.approx(1)
    assert "30 reconstructions equal" in section.absent["PSNR"]


# Codes


def test_what_a_dimension_tells_is_its_divergence_from_the_prior_where_codes_follow_it():
    model, exact = ppca()
    n = 4000
    with seeded(0):
        x = exact.sample((n,))  # of the model itself: its codes as a whole follow N(0, 1)
    with torch.no_grad():
        mean, logvar = model.posterior(Batch(x.view(n, *SMALL)))
    divergence = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0))  # (N, Z)
    # The variance of codes is known to 1 +- sqrt(2 / N), and so half its logarithm to +- sqrt(1 / 2 N).
    errors = divergence.std(0) / n**0.5 + (0.5 / n) ** 0.5
    assert within_five_errors(information(mean, logvar), divergence.mean(0), errors)
    moved = information(5 + 3 * mean, logvar + 2 * log(3))  # another scale and origin of codes
    torch.testing.assert_close(moved, information(mean, logvar))


def test_a_collapsed_dimension_is_counted():
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=5, network=LINEAR), SMALL)
    with torch.no_grad():
        model.encoder.layers[0].weight[:5] *= 10
        model.encoder.layers[0].weight[5:] = 0
        model.encoder.layers[0].bias[5:] = -4
        model.encoder.layers[0].weight[:2] = 0  # two posteriors that do not see the image
    section = latent(subject(model))
    assert named(section, "Active units").value.value == 3
    assert named(section, "Posterior collapse").value.value == pytest.approx(0.4)
    assert 1 <= named(section, "Effective dimensions").value.value <= 3
    assert len(section.pictures) == 1


def test_straight_codes_of_a_linear_decoder_give_straight_paths():
    """A linear decoder's path is the cross-fade of its ends."""
    section = latent(subject(ppca()[0].float(), waves(100)))
    rows = {row.name: row.value.value for row in section.rows}
    assert rows["Path detour"] == pytest.approx(1, abs=1e-4)
    assert rows["Largest step of a path"] == pytest.approx(1, abs=1e-3)
    assert "a detour of 1 and a largest step of 1" in section.sentences[-1]


def test_paths_of_a_model_that_draws_one_image_are_not_measured():
    with seeded(0):
        model = AE(AEConfig(latent_dim=Z, network=LINEAR), SMALL)
    torch.nn.init.zeros_(model.decoder.layers[0].weight)
    assert "same image" in latent(subject(model)).absent["smoothness"]


# Every family


@pytest.mark.parametrize("section", [likelihood, reconstruction, latent])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_family_has_finite_rows_or_a_reason(case, section):
    found = section(subject(make(case), waves(12, case.classes)))
    assert found.rows or found.absent
    assert all(isfinite(row.value.value) for row in found.rows)
    assert len({row.name for row in found.rows}) == len(found.rows)
    assert not found.rows or found.sentences[0].startswith("Measured on") or section is latent
    assert all(picture.width > 50 for picture in found.pictures.values())


@pytest.mark.parametrize("case", [case for case in cases(HasBound) if not case.classes], ids=str)
def test_a_score_is_no_less_than_the_bounds_terms_on_average(case):
    model = make(case)
    x = pictures(SMALL, 200).x
    evidence = model.evidence(x)
    assert (evidence.rate.mean() >= 0) and evidence.bound.shape == (200,)
    if isinstance(model, ImportanceWeighted):
        more = model.score(x, k=20) - evidence.bound
        assert more.mean() >= -5 * more.std() / 200**0.5
    else:
        assert isinstance(model, VQVAE | Encodes)
        assert torch.equal(model.score(x), evidence.bound)


def test_without_test_images_the_section_says_so_and_has_no_gap():
    model = make(Case("vae", "mlp"))
    section = likelihood(subject(model, data=data_of(waves(20), None)), k=2)
    assert "training images" in section.sentences[0]
    assert not [row for row in section.rows if "gap" in row.name]


# Codes for a part of the images


def test_a_mean_known_exactly_of_a_part_has_an_honest_interval_that_is_hardly_wider():
    held, widths = 0, []
    for trial in range(300):
        chance = generator(trial, "corrected")
        rough = 50 * torch.randn(1000, generator=chance, dtype=torch.float64)
        exact = 1.1 * rough + 7 + 5 * torch.randn(1000, generator=chance, dtype=torch.float64)
        found, whole = corrected(rough, exact[:100]), Estimate.of_mean(exact)
        held += found.low <= 7 <= found.high
        widths.append((found.high - found.low) / (whole.high - whole.low))
        assert corrected(rough, exact) == whole
    assert 0.91 <= held / 300 <= 0.985
    assert sum(widths) / 300 < 1.15


@pytest.mark.parametrize(("n", "asked"), [(30, 30), (300, 100), (1500, 150)])
@pytest.mark.usefixtures("float64")
def test_codes_are_drawn_for_a_tenth_of_the_images_but_for_a_hundred_where_there_are(monkeypatch, n, asked):
    model, exact = ppca()
    images, score, count = waves(n), model.score, []

    def counted(x, y=None, *, k, seed):
        count.append(len(x))
        return score(x, y, k=k, seed=seed)

    monkeypatch.setattr(model, "score", counted)
    section = likelihood(subject(model, images), images=n, k=2)
    assert sum(count) == 2 * asked  # as they are, and with noise as wide as a pixel's step
    assert any(f"known from {asked:,} of the images" in words for words in section.sentences) == (asked < n)
    truth = exact.log_prob(to_float(torch.from_numpy(images.x)).flatten(1)).mean()
    bound = named(section, "Importance-weighted bound").value
    assert within_five_errors(torch.tensor(bound.value), truth, torch.tensor((bound.high - bound.value) / NORMAL_95))
