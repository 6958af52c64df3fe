"""Where codes are drawn from: priors with levels of their own, mixtures fitted afterwards, and binary images.

Maths in float64. A statistic says its n and is allowed five standard errors: a sound one fails once in two million.

Legend: N codes, D pixels, Z latent, K components.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

import fabulate
from fabulate.data import load_data
from fabulate.models import mixture as mixture_file
from fabulate.models.base import GenerativeModel
from fabulate.models.families.ae import AE
from fabulate.models.families.vae import VAE, VAEConfig, VAESampling
from fabulate.models.mixture import Mixture
from fabulate.models.priors import PRIORS, Gaussians, StandardNormal
from fabulate.nets import MLP
from fabulate.prob import BINARISATIONS
from fabulate.seeds import generator, seeded
from fabulate.types import Batch, ImageShape
from test_oracles import LinearGaussian
from tiny import CLASSES, SMALL, pictures, within_five_errors

LINEAR = MLP(hidden=())
D, Z = SMALL.size, 3


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "priors"), dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("float64")


def density(weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


# The mixture fitted to codes


def three_clouds() -> MixtureSameFamily:
    """Weights 0.5, 0.3, 0.2, well apart, each with a covariance of its own."""
    factors = normal(3, Z, Z, seed=1) / 2 + torch.eye(Z)
    means = torch.tensor([[0.0, 0.0, 0.0], [9.0, -3.0, 1.0], [-4.0, 8.0, 6.0]])
    return density(torch.tensor([0.5, 0.3, 0.2]), means, factors @ factors.mT)


def test_a_mixture_fitted_to_a_mixture_has_its_density():
    true, n = three_clouds(), 6000
    with seeded(0):
        codes, fresh = true.sample((n,)), true.sample((n,))
    fit = Mixture(Z, 3)
    fit.fit(codes)
    found = density(fit.weights[0], fit.means[0], fit.roots[0] @ fit.roots[0].mT)
    gain = true.log_prob(fresh) - found.log_prob(fresh)  # its mean is KL(true || fit)
    # A right fit of 29 parameters to n codes is 29 / (2 n) = 0.0024 nats off on average.
    assert -5 * gain.std() / n**0.5 < gain.mean() < 0.0024 * 3 + 5 * gain.std() / n**0.5
    one = Mixture(Z, 1)
    one.fit(codes)
    single = density(one.weights[0], one.means[0], one.roots[0] @ one.roots[0].mT)
    assert (true.log_prob(fresh) - single.log_prob(fresh)).mean() > 0.5  # and the law can fail


def test_codes_are_drawn_from_the_density_that_was_fitted():
    fit, n = Mixture(Z, 3), 100_000
    with seeded(0):
        fit.fit(three_clouds().sample((3000,)))
    drawn = fit.draw(n, None, generator(0))
    found = density(fit.weights[0], fit.means[0], fit.roots[0] @ fit.roots[0].mT)
    assert within_five_errors(drawn.mean(0), found.mean, (found.variance / n).sqrt())
    assert within_five_errors(drawn.square().mean(0), found.variance + found.mean**2, drawn.square().std(0) / n**0.5)
    nearest = torch.cdist(drawn, fit.means[0]).argmin(1).bincount(minlength=3) / n
    assert torch.allclose(nearest, fit.weights[0], atol=0.02)  # the clouds hardly touch


def test_one_component_has_the_mean_and_covariance_of_the_codes():
    codes, fit = normal(50, Z) @ normal(Z, Z, seed=1) + 5, Mixture(Z, 1)
    fit.fit(codes)
    torch.testing.assert_close(fit.means[0, 0], codes.mean(0))
    covariance = codes.T.cov(correction=0)
    torch.testing.assert_close(fit.roots[0, 0] @ fit.roots[0, 0].T, covariance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "codes",
    [
        torch.full((1, Z), 2.0),
        torch.full((8, Z), 2.0),
        torch.tensor([[0.0, 0.0, 1.0], [3.0, 4.0, 1.0]]),
        torch.tensor([[300.0, 0.0, 1.0]]) + normal(400, Z) * torch.tensor([1.0, 0.0, 1e-3]),
        normal(400, 1) * torch.tensor([[1.0, -2.0, 0.5]]),
        torch.zeros(100, Z),
        normal(100, Z) * 1e-9,
        normal(400, Z) * 1e9,
        torch.tensor([[0.0], [1.0]]).repeat(100, Z),
    ],
    ids=["one_image", "constant", "two_images", "far_from_0", "a_line", "dead", "tiny", "huge", "two_points"],
)
@pytest.mark.parametrize("components", [1, 7])
def test_a_mixture_takes_whatever_the_codes_are(codes, components):
    fit, n = Mixture(Z, components).float(), 2000  # as users have it
    fit.fit(codes.float())
    drawn = fit.draw(n, None, generator(0))
    assert drawn.dtype == torch.float32
    spread = codes.std(0, correction=0)
    allowed = 5 * spread / n**0.5 + 1e-4 * codes.abs().max()
    assert ((drawn.mean(0) - codes.mean(0)).abs() <= allowed).all()
    assert ((drawn.std(0) - spread).abs() <= 2 * allowed).all()


def test_each_row_has_its_own_codes_and_one_without_codes_stays_as_it_was():
    fit = Mixture(Z, 2, rows=3)
    fit.fit(torch.cat([normal(100, Z) + 50, normal(100, Z) - 50]), torch.tensor([0, 2]).repeat_interleave(100))
    drawn = fit.draw(300, torch.arange(3).repeat(100), generator(0)).view(100, 3, Z).mean(0)
    assert within_five_errors(drawn, torch.tensor([[50.0], [0.0], [-50.0]]), torch.tensor(0.2))


def test_an_unfitted_mixture_is_the_standard_normal():
    n = 5000
    drawn = Mixture(Z, 4).draw(n, None, generator(0))
    assert within_five_errors(drawn.mean(0), 0.0, torch.tensor(n**-0.5))
    assert within_five_errors(drawn.T.cov(), torch.eye(Z), torch.tensor((2 / n) ** 0.5))


def test_a_component_is_not_spent_on_a_few_codes():
    fit = Mixture(Z, 10)
    fit.fit(normal(4 * 2 * Z, Z))
    assert (fit.weights > 0).sum() <= 4


def settled(family: type[GenerativeModel], classes: tuple[str, ...] = (), **config: object) -> GenerativeModel:
    with seeded(0):
        model = family(family.Config(latent_dim=Z, network=LINEAR, **config), SMALL, classes)
    model.fit_latents(pictures(SMALL, 90, CLASSES))
    return model


@pytest.mark.parametrize("family", [AE, VAE])
@pytest.mark.parametrize("classes", [(), CLASSES], ids=["one", "classes"])
def test_settling_depends_on_the_weights_and_the_images_alone(family, classes, monkeypatch):
    model = settled(family, classes)
    torch.rand(5)
    again = settled(family, classes)
    assert model.weights_hash() == again.weights_hash()
    before = torch.get_rng_state()
    again.train().fit_latents(pictures(SMALL, 90, CLASSES))
    assert model.weights_hash() == again.weights_hash()  # neither its mode nor an earlier fit counts
    assert again.training
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(mixture_file, "AT_ONCE", 7)
    for name, value in settled(family, classes).mixture.named_buffers():
        torch.testing.assert_close(value, model.mixture.get_buffer(name))


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("classes", [(), CLASSES], ids=["one", "classes"])
def test_a_settled_autoencoder_draws_codes_with_the_mean_and_covariance_of_its_images(classes):
    n, model, images = 20_000, settled(AE, classes, components=1), pictures(SMALL, 90, CLASSES)
    x, y = images.batch(torch.arange(90))
    codes = model.encode(x, y if classes else None)
    for row in range(max(len(classes), 1)):
        seen = codes[y == row] if classes else codes
        drawn = model.prior(n, torch.full((n,), row) if classes else None, generator(1))
        covariance = seen.T.cov(correction=0)
        variance = covariance.diagonal()
        assert within_five_errors(drawn.mean(0), seen.mean(0), (variance / n).sqrt())
        error = ((variance[:, None] * variance + covariance.square()) / n).sqrt()
        assert within_five_errors(drawn.T.cov(), covariance, error)


@pytest.mark.usefixtures("whole")
def test_a_vaes_mixture_has_the_spread_of_its_posteriors_not_of_their_means():
    images, n = pictures(SMALL, 4000), 4000
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, components=1), SMALL)
    mean, logvar = model.posterior(images.batch(torch.arange(n)))
    aggregate = mean.var(0) + logvar.exp().mean(0)
    model.fit_latents(images)
    variance = (model.mixture.roots[0, 0] @ model.mixture.roots[0, 0].T).diagonal()
    assert within_five_errors(variance, aggregate, aggregate * (2 / n) ** 0.5)
    assert (aggregate > 2 * mean.var(0)).all()  # the law would fail for the means


def test_a_vae_draws_from_its_prior_or_from_the_mixture_as_it_is_told():
    model = settled(VAE)
    own, fitted = model.sample(3, codes="prior"), model.sample(3, codes="mixture")
    assert not torch.equal(own, fitted)
    with model.drawing({"codes": "mixture"}):
        codes = model.prior(4, None, generator(1))
    assert torch.equal(codes, model.mixture.draw(4, None, generator(1)))


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_training_settles_the_model_that_it_saves_and_again_the_same_way(name: str, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    pixels = np.rint(load_digits().images[:200] * (255 / 16)).astype(np.uint8)[:, None]
    data = load_data(pixels)
    options = {"steps": 8, "batch_size": 16, "latent_dim": 3, "network": MLP(hidden=(8,)), "quiet": True}
    options |= {"validation": 0}  # or some of the images would not be settled to
    model = fabulate.train(name, data, out=tmp_path / "run", **options)
    loaded = fabulate.load(tmp_path / "run")
    assert loaded.weights_hash() == model.weights_hash()
    before = [value.clone() for value in model.mixture.buffers()]
    assert not torch.equal(before[1], torch.zeros_like(before[1]))
    loaded.fit_latents(data.train)
    assert all(map(torch.equal, before, loaded.mixture.buffers()))
    again = fabulate.train(name, data, out=tmp_path / "run", **options)  # finished: restored, not trained
    assert again.weights_hash() == model.weights_hash()


# p(z) as a part of the model


@pytest.mark.parametrize("classes", [0, 3])
def test_the_estimated_divergence_is_the_closed_one_when_the_gaussians_are_all_the_standard_normal(classes):
    n = 20_000
    learned, plain = Gaussians(Z, 5, classes), StandardNormal(Z, 5, classes)
    torch.nn.init.zeros_(learned.means)
    mean, logvar = torch.tensor([1.0, -0.5, 0.0]).expand(n, Z), torch.tensor([-1.0, 0.5, -3.0]).expand(n, Z)
    y = torch.arange(n) % classes if classes else None
    z = mean + torch.exp(logvar / 2) * normal(n, Z)
    for prior in (learned, plain):
        torch.testing.assert_close(prior.log_prob(z, y), Normal(0.0, 1.0).log_prob(z).sum(1))
    with torch.no_grad():
        estimate = learned.kl(z, mean, logvar, y)
    assert estimate.shape == (n, 1)
    exact = plain.kl(z, mean, logvar, y).sum(1)[0]
    assert within_five_errors(estimate.mean(), exact, estimate.std() / n**0.5)
    torch.testing.assert_close(exact, kl_divergence(Normal(mean[0], torch.exp(logvar[0] / 2)), Normal(0.0, 1.0)).sum())


def vae_of_gaussians(classes: tuple[str, ...] = ()) -> VAE:
    """A prior of four Gaussians (of each class) that differ in weight, mean and variance."""
    with seeded(3):
        own = {"prior": "gaussians", "prior_components": 4, "sampling": VAESampling(codes="prior")}
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, **own), SMALL, classes)
        with torch.no_grad():
            model.p_z.means.mul_(5)
            model.p_z.logvars.copy_(0.1 * torch.randn_like(model.p_z.logvars))
            model.p_z.logits.copy_(0.1 * torch.randn_like(model.p_z.logits))
    return model


def components(model: VAE, row: int = 0) -> MixtureSameFamily:
    log_weight, mean, logvar = (values[row].detach() for values in model.p_z.components())
    return density(log_weight.exp(), mean, torch.diag_embed(logvar.exp()))


@pytest.mark.parametrize("classes", [(), CLASSES], ids=["one", "classes"])
def test_the_density_and_the_draws_of_a_prior_are_those_of_its_components(classes):
    model, n = vae_of_gaussians(classes), 50_000
    for row in range(max(len(classes), 1)):
        exact = components(model, row)
        y = torch.full((n,), row) if classes else None
        with torch.no_grad():
            z = model.prior(n, y, generator(0))
            torch.testing.assert_close(model.p_z.log_prob(z, y), exact.log_prob(z))
        assert within_five_errors(z.mean(0), exact.mean, (exact.variance / n).sqrt())
        assert within_five_errors(z.square().mean(0), exact.variance + exact.mean**2, z.square().std(0) / n**0.5)
    if classes:
        assert (components(model, 0).mean - components(model, 1).mean).abs().max() > 0.1  # the class is heard


def test_learned_gaussians_begin_as_about_the_standard_normal():
    n = 5000
    with seeded(0):
        prior = Gaussians(Z, 100, 0)
    z = normal(n, Z)
    gain = (Normal(0.0, 1.0).log_prob(z).sum(1) - prior.log_prob(z, None)).detach()  # its mean: KL(N(0, 1) || p)
    assert -5 * gain.std() / n**0.5 < gain.mean() < 0.1


def test_with_learned_gaussians_bounds_rise_with_the_codes_and_stay_below_the_log_likelihood():
    """With a linear decoder p(x) is a mixture of Gaussians too: N(W m_k + b, W S_k W' + s^2)."""
    model, n = vae_of_gaussians(), 4000
    model.likelihood = LinearGaussian()
    with torch.no_grad():
        log_weight, mean, logvar = (values[0] for values in model.p_z.components())
        w, b = model.decoder.layers[0].weight, model.decoder.layers[0].bias
        covariance = w @ torch.diag_embed(logvar.exp()) @ w.T + model.likelihood.logvar.exp() * torch.eye(D)
        exact = density(log_weight.exp(), mean @ w.T + b, covariance)
        with seeded(0):
            x = exact.sample()
            batch = Batch(x.expand(n, D).reshape(-1, *SMALL))
            losses = torch.stack([model.loss(Batch(batch.x[:200]))["loss"] for _ in range(50)])
            bounds = torch.stack([model.bound(batch, k) for k in (1, 4, 16, 64)])  # (4, N)
    means, errors = bounds.mean(1), bounds.std(1) / n**0.5
    rises, rise_errors = means.diff(), (errors[1:].square() + errors[:-1].square()).sqrt()
    assert (rises > 5 * rise_errors).all()
    assert (means <= exact.log_prob(x) + 5 * errors).all()
    error = (errors[0].square() + losses.var() / len(losses)).sqrt()
    assert within_five_errors(-losses.mean(), means[0], error)  # the ELBO is the bound of one code


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("classes", [(), CLASSES], ids=["one", "classes"])
def test_every_prior_gives_finite_gradients_to_all_its_parameters(name, classes):
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, prior=name, prior_components=4), SMALL, classes)
    model.loss(pictures(SMALL, 9, classes).batch(torch.arange(9)))["loss"].backward()
    gradients = [p.grad for p in model.p_z.parameters()]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    assert bool(gradients) == (name != "normal")


def test_an_estimated_divergence_below_zero_counts_as_it_is():
    """It has to be right on average: cut off at 0 it would be too high, and its gradient lost."""
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, prior="gaussians", prior_components=4), SMALL)
        batch = pictures(SMALL, 9).batch(torch.arange(9))
        terms = [model.loss(batch) for _ in range(50)]
    assert min(term["kl"] for term in terms) < 0
    for term in terms:
        torch.testing.assert_close(term["loss"], term["reconstruction"] + term["kl"])


# Binary images


def test_dynamic_binarisation_has_the_gray_image_as_its_mean():
    n, gray = 20_000, torch.linspace(-1, 1, 11)
    with seeded(0):
        drawn = BINARISATIONS["dynamic"](gray.expand(n, 11))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert within_five_errors(drawn.mean(0), gray, ((1 - gray.square()) / n).sqrt())
    assert torch.equal(BINARISATIONS["threshold"](gray), torch.where(gray < 0, -1.0, 1.0))
    assert BINARISATIONS["none"](gray) is gray


@pytest.mark.parametrize("name", BINARISATIONS)
def test_the_loss_and_the_bound_are_those_of_the_binarised_images(name):
    with seeded(0):
        model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, likelihood="bernoulli", binarise=name), SMALL)
        plain = VAE(VAEConfig(latent_dim=Z, network=LINEAR, likelihood="bernoulli"), SMALL)
    plain.load_state_dict(model.state_dict())
    batch = pictures(SMALL, 9).batch(torch.arange(9))
    for use in (lambda model, batch: model.loss(batch)["loss"], lambda model, batch: model.bound(batch, 3)):
        with seeded(1):
            loss = use(model, batch)
        with seeded(1):
            expected = use(plain, Batch(BINARISATIONS[name](batch.x)))
        torch.testing.assert_close(loss, expected)


def test_scores_are_those_of_the_models_prior_wherever_samples_come_from():
    model = settled(VAE)
    x = pictures(SMALL, 4).batch(torch.arange(4)).x
    scores = model.score(x)
    model.mixture.means += 100
    with model.drawing({"codes": "prior"}):
        assert torch.equal(model.score(x), scores)
    assert torch.equal(model.score(x), scores)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": 2, "beta": 2.0}, "has no KL term"),
        ({"gradient": "path", "free_bits": 0.1}, "has no KL term"),
        ({"prior": "gaussians", "free_bits": 0.1}, "free_bits must be 0"),
        ({"binarise": "dynamic"}, "need likelihood='bernoulli'"),
    ],
)
def test_hyperparameters_that_do_not_go_together_are_refused_in_words(fields, words):
    with pytest.raises(ValueError, match=words):
        VAEConfig(**fields)


@pytest.mark.parametrize("preset", VAE.presets)
def test_every_preset_of_the_vae_begins_with_a_finite_loss_and_gradient(preset):
    torch.set_default_dtype(torch.float32)
    shape = ImageShape(1, 28, 28)
    with seeded(0):
        model = VAE(VAE.presets[preset].model, shape)
        loss = model.loss(pictures(shape, 8).batch(torch.arange(8)))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.sample(2).shape == (2, *shape)
