"""Each family against something known exactly: PCA, the linear-Gaussian model, closed forms, the textbook's own code.

Maths in float64. A statistic says its n and is allowed five standard errors: a sound one fails once in two million.

Legend: N images or samples, D pixels, Z latent.
"""

from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from fabulate.config import Training, override
from fabulate.models.families.ae import AE, AEConfig
from fabulate.models.families.gan import GAMES, GAN, GANConfig, gradient_norms, judge, one_centred, spread, zero_centred
from fabulate.models.families.vae import VAE, VAEConfig
from fabulate.nets import MLP, Conv
from fabulate.nets.transforms import CHANGES, augment, colour, cutout, translation
from fabulate.prob import LEAD, Gaussian, kl_to_standard_normal
from fabulate.seeds import generator, seeded
from fabulate.training.loop import Learner
from fabulate.types import Batch, ImageShape, unit
from tiny import SMALL, Tensors, pictures, within_five_errors

LINEAR = MLP(hidden=())
D, Z = SMALL.size, 3


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=generator(seed, "oracle"), dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("float64")


# The autoencoder


def test_a_linear_autoencoder_spans_the_principal_components():
    # Pixels differ from mid-gray by about x = 0.04, where the output's sigmoid(a) = 1/2 + a/4 - a^3/48 is linear up to
    # a share a^2/12 = 5e-4 (a = 2 x). Smaller x would be more linear and worse conditioned: the encoder sees 1/2 + x/2.
    n, spectrum = 200, torch.tensor([4.0, 3.0, 2.0, *[0.5] * (D - Z)])
    basis, _ = torch.linalg.qr(normal(D, D))
    x = 0.05 * normal(n, D, seed=1) * spectrum @ basis.T  # (N, D)
    with seeded(0):
        model = AE(AEConfig(latent_dim=Z, network=LINEAR), SMALL).eval()
    batch = Batch(x.view(n, *SMALL))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=250, history_size=100, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = 1e3 * model.loss(batch)["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    centred = x - x.mean(0)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:Z].T  # (D, Z)
    learnt, _ = torch.linalg.qr(model.decoder.layers[0].weight.detach())  # (D, Z)
    sines = torch.linalg.svdvals(learnt - components @ (components.T @ learnt))  # of the principal angles
    assert sines.max() < 0.01
    projected = x.mean(0) + centred @ components @ components.T
    error = (model.reconstruct(batch.x).flatten(1) - projected).norm() / (x - projected).norm()
    assert error < 0.02


def test_noise_reaches_the_encoder_in_training_only_and_with_its_standard_deviation():
    noise, n = 0.3, 200
    model = AE(AEConfig(latent_dim=Z, network=LINEAR, noise=noise), SMALL)
    x = unit(normal(n, *SMALL).clamp(-1, 1))
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.eval().loss(Batch(2 * x - 1))
        with seeded(0):
            model.train().loss(Batch(2 * x - 1))
    torch.testing.assert_close(seen[0], x)
    added = seen[1] - x  # n D = 12800 numbers
    size = torch.tensor(added.numel())
    assert within_five_errors(added.mean(), 0.0, noise / size.sqrt())
    assert within_five_errors(added.std(), noise, noise / (2 * size).sqrt())


def test_a_denoising_autoencoder_is_asked_for_the_clean_image():
    model = AE(AEConfig(latent_dim=Z, network=LINEAR, noise=0.5), SMALL).train()
    nn.init.zeros_(model.decoder.layers[0].weight)
    nn.init.zeros_(model.decoder.layers[0].bias)  # whatever the code, the copy is mid-gray
    x = normal(20, *SMALL).clamp(-1, 1)
    torch.testing.assert_close(model.loss(Batch(x))["loss"], (unit(x) - 0.5).square().mean())


# The variational autoencoder


class LinearGaussian(Gaussian):
    """x = raw + noise, without the sigmoid: with linear layers p(x) is then a Gaussian."""

    def mean(self, raw: torch.Tensor) -> torch.Tensor:
        return raw


def linear_vae(posterior_scale: float = 1.0, noise: float = 1.0, **config: object) -> tuple[VAE, MultivariateNormal]:
    """x = W z + b + s eps with orthogonal columns in W, its exact p(x), and an encoder set to p(z | x).

    p(z | x) = N(S W'(x - b) / s^2, S), S = (1 + W'W / s^2)^-1, diagonal here. The encoder sees (x + 1) / 2.
    A posterior_scale other than 1 makes its standard deviation wrong by this factor; `noise` is s^2.
    """
    model = VAE(VAEConfig(latent_dim=Z, network=LINEAR, **config), SMALL)
    model.likelihood = LinearGaussian()
    model.double()
    with torch.no_grad():
        model.likelihood.level.fill_(log(noise) / LEAD)
        decoder, encoder = model.decoder.layers[0], model.encoder.layers[0]
        orthogonal, _ = torch.linalg.qr(normal(D, Z))
        w, b = orthogonal * torch.tensor([2.0, 1.0, 0.5]), 0.1 * normal(D, seed=1)
        decoder.weight.copy_(w)
        decoder.bias.copy_(b)
        variance = 1 / (1 + (w.T @ w).diagonal() / noise)  # (Z,)
        m = variance[:, None] * w.T / noise  # (Z, D)
        encoder.weight.copy_(torch.cat([2 * m, torch.zeros(Z, D)]))
        encoder.bias.copy_(torch.cat([-m @ (1 + b), variance.log() + 2 * log(posterior_scale)]))
        exact = MultivariateNormal(b, w @ w.T + noise * torch.eye(D))
    return model, exact


@pytest.mark.parametrize("k", [1, 7])
def test_the_bound_is_the_exact_log_likelihood_at_the_true_posterior(k):
    model, exact = linear_vae()
    x = exact.sample((20,))
    bound = model.bound(Batch(x.view(-1, *SMALL)), k)
    torch.testing.assert_close(bound, exact.log_prob(x))  # for every draw of z: p(x | z) p(z) / p(z | x) is p(x)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_minus_the_loss_is_the_log_likelihood_less_the_posteriors_divergence(scale):
    model, exact = linear_vae(scale)
    x = exact.sample()
    mean, logvar = model.posterior(Batch(x.view(1, *SMALL)))
    wrong, true = Normal(mean, torch.exp(logvar / 2)), Normal(mean, torch.exp(logvar / 2) / scale)
    elbo = exact.log_prob(x) - kl_divergence(wrong, true).sum()
    assert elbo <= exact.log_prob(x)
    n = 40  # losses of 500 codes each
    losses = torch.stack([model.loss(Batch(x.expand(500, D).reshape(-1, *SMALL)))["loss"] for _ in range(n)]).detach()
    assert within_five_errors(-losses.mean(), elbo, losses.std() / n**0.5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_the_loss_is_reconstruction_plus_beta_times_the_divergence(beta):
    model, exact = linear_vae(2.0, beta=beta)
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    mean, logvar = model.posterior(batch)
    terms = model.loss(batch)
    divergence = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(terms["kl"], divergence)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + beta * divergence)


def test_dimensions_cheaper_than_the_free_bits_all_cost_the_same_and_get_no_gradient():
    free = 0.3
    model, exact = linear_vae(free_bits=free)
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    kl = kl_to_standard_normal(*model.posterior(batch)).mean(0)
    assert (kl > free).any() and (kl < free).any()
    terms = model.loss(batch)
    torch.testing.assert_close(terms["loss"] - terms["reconstruction"], kl.clamp_min(free).sum())
    nn.init.zeros_(model.encoder.layers[0].weight)
    nn.init.zeros_(model.encoder.layers[0].bias)  # q is the prior: every dimension is free
    terms = model.loss(batch)
    torch.testing.assert_close(terms["loss"] - terms["reconstruction"], torch.tensor(Z * free))
    (gradient,) = torch.autograd.grad(terms["loss"] - terms["reconstruction"], model.encoder.layers[0].bias)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_active_units_counts_the_code_dimensions_whose_mean_varies():
    model, exact = linear_vae()
    batch = Batch(exact.sample((100,)).view(-1, *SMALL))
    assert model.loss(batch)["active_units"] == Z
    with torch.no_grad():
        model.encoder.layers[0].weight[1] = 0
    assert model.loss(batch)["active_units"] == Z - 1


def test_the_loss_of_more_codes_is_minus_the_importance_weighted_bound():
    model, exact = linear_vae(0.5, samples=5)
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    with seeded(0):
        loss = model.loss(batch)["loss"]
    with seeded(0):
        torch.testing.assert_close(loss, -model.bound(batch, 5).mean())


@pytest.mark.parametrize("network", [MLP(), Conv()], ids=["mlp", "conv"])
def test_a_decoder_that_says_nothing_draws_the_mean_image(network):
    images = pictures(SMALL, 40)
    model = VAE(VAEConfig(centre="mean", network=network), SMALL).requires_grad_(False)
    model.init_from_data(images)
    for parameter in model.decoder.parameters():
        parameter.zero_()
    mean = images.batch(torch.arange(40)).x.mean(0, keepdim=True)
    assert mean.std() > 0.1  # of the range -1 to 1: there is something to draw
    assert torch.allclose(model.sample(3, codes="prior"), mean.expand(3, -1, -1, -1).to(model.sample(1)), atol=2e-3)


def test_scores_repeat_and_depend_on_their_seed():
    model, exact = linear_vae(0.5)
    x = exact.sample((5,)).view(-1, *SMALL)
    scores = model.score(x)
    torch.rand(3)
    assert torch.equal(model.score(x), scores)
    assert not torch.equal(model.score(x, seed=1), scores)
    torch.testing.assert_close(linear_vae()[0].score(x), exact.log_prob(x.flatten(1)))


# The generative adversarial network

REAL, FAKE = normal(6, *SMALL), normal(6, *SMALL, seed=1)
SCORES = normal(2, 50, seed=2)


def test_penalties_of_a_linear_critic_have_a_closed_form_and_a_gradient():
    w = normal(D, seed=3).requires_grad_()
    length = w.norm()

    def critic(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ w + 7

    for penalty, value in ((zero_centred, length.square()), (one_centred, (length - 1).square())):
        computed = penalty(critic, judge(critic, REAL), judge(critic, FAKE))
        torch.testing.assert_close(computed, value)
        # The penalty is itself a gradient: training needs the gradient of that.
        expected = torch.autograd.grad(value, w, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(computed, w), expected)


def test_the_zero_centred_penalty_is_taken_at_real_and_at_fake_images_and_the_other_in_between():
    def critic(x: torch.Tensor) -> torch.Tensor:  # its gradient at x is x
        return x.flatten(1).square().sum(1) / 2

    at = [gradient_norms(judge(critic, x)) for x in (REAL, FAKE)]
    torch.testing.assert_close(at[0], REAL.flatten(1).square().sum(1))
    torch.testing.assert_close(
        zero_centred(critic, judge(critic, REAL), judge(critic, FAKE)), (at[0].mean() + at[1].mean()) / 2
    )
    direction = torch.full((400, *SMALL), D**-0.5)  # of length 1
    penalties = [
        one_centred(critic, judge(critic, 2 * one), judge(critic, 4 * one)).item() for one in direction.split(1)
    ]
    assert 1 <= min(penalties) < 1.5 < 8.5 < max(penalties) <= 9  # (|x| - 1)^2 for |x| from 2 to 4


def test_the_one_centred_penalty_has_a_finite_gradient_where_the_critic_is_flat():
    w = torch.zeros(D, requires_grad=True)
    critic = lambda x: x.flatten(1) @ w  # noqa: E731  # shorter so
    one_centred(critic, judge(critic, REAL), judge(critic, FAKE)).backward()
    assert w.grad.isfinite().all()


def test_the_penalty_of_a_convolutional_critic_is_its_slope_by_finite_differences():
    with seeded(0):
        critic = Conv(width=4, blocks=1, activation="silu").encoder(SMALL, 1)  # smooth: its slope has no jumps
    x, step = normal(2, *SMALL), 1e-5
    norms = gradient_norms(judge(lambda x: critic(x).squeeze(1), x))
    with torch.no_grad():
        moved = step * torch.eye(D).view(D, *SMALL)
        slopes = torch.stack([(critic(one + moved) - critic(one - moved)).squeeze(1) / (2 * step) for one in x])
    torch.testing.assert_close(norms, slopes.square().sum(1), rtol=1e-6, atol=1e-9)
    norms.sum().backward()  # the gradient of a gradient reaches every weight before the last bias
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.layers.parameters())
    assert any(p.grad.any() for p in critic.layers.parameters())


def test_the_nonsaturating_game_is_the_textbooks_cross_entropy():
    game, (real, fake) = GAMES["nonsaturating"], SCORES
    ones, zeros = torch.ones(50), torch.zeros(50)
    critic = F.binary_cross_entropy(real.sigmoid(), ones) + F.binary_cross_entropy(fake.sigmoid(), zeros)
    torch.testing.assert_close(game.critic(real, fake), critic)
    torch.testing.assert_close(game.generator(real, fake), F.binary_cross_entropy(fake.sigmoid(), ones))


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [
        # by hand: real scores 2, -1 and fake scores 0, -3
        ("hinge", (0 + 2) / 2 + (1 + 0) / 2, 3 / 2),
        ("wasserstein", -3 / 2 - 1 / 2, 3 / 2),
        ("relativistic", (log(1 + 2.718281828459045**-2) * 2) / 2, (log(1 + 2.718281828459045**2) * 2) / 2),
    ],
)
def test_games_by_hand(name, critic, generator):
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.0, -3.0])
    torch.testing.assert_close(GAMES[name].critic(real, fake), torch.tensor(critic))
    torch.testing.assert_close(GAMES[name].generator(real, fake), torch.tensor(generator))


@pytest.mark.parametrize("name", GAMES)
def test_only_differences_of_scores_count_in_the_relative_game(name):
    game, (real, fake) = GAMES[name], SCORES
    moved = [loss(real + 5, fake + 5) - loss(real, fake) for loss in (game.critic, game.generator)]
    assert all(change.abs() < 1e-9 for change in moved) == (name == "relativistic")


@pytest.mark.parametrize("name", GAMES)
def test_critic_and_generator_pull_fake_scores_apart(name):
    game = GAMES[name]
    real, fake = SCORES.clone().requires_grad_()
    pull = [torch.autograd.grad(loss(real, fake), fake)[0].sum() for loss in (game.critic, game.generator)]
    assert pull[0] > 0 > pull[1]  # minimising: the critic lowers them, the generator raises them


def small_gan(**config: object) -> GAN:
    with seeded(0):
        return GAN(GANConfig(latent_dim=Z, network=MLP(hidden=(8,)), **config), SMALL)


@pytest.mark.parametrize("name", ["nonsaturating", "relativistic"])
def test_each_player_moves_alone_and_gives_the_other_no_gradient(name):
    for mover, other in (("critic", "generator"), ("generator", "critic")):
        model = small_gan(game=name)
        learner = Learner(
            model, Training(batch_size=6, warmup=0, lr=1e-2, compile="off"), Tensors(pictures(SMALL, 6).x)
        )
        before = {name: [p.clone() for p in learner.parameters[name]] for name in learner.players}
        learner.update(mover, learner.micro_batches())
        assert all(p.grad is None for p in learner.parameters[other])
        assert all(map(torch.equal, before[other], learner.parameters[other]))
        assert not all(map(torch.equal, before[mover], learner.parameters[mover]))
        assert all(p.requires_grad for p in model.parameters())


def test_the_generator_moves_on_every_nth_step():
    learner = Learner(small_gan(critic_steps=3), Training(steps=7, batch_size=6), Tensors(pictures(SMALL, 6).x))
    moved = ["generator.loss" in terms for terms in learner.steps()]
    assert moved == [False, False, True, False, False, True, False]


def test_the_critics_loss_has_its_penalty_with_its_weight():
    batch = Batch(REAL)
    for weight in (0.0, 1.0, 10.0):
        model = small_gan(game="relativistic", penalty=weight)
        with seeded(0):
            terms = model.critic_loss(batch)
        with seeded(0):
            free = small_gan(game="relativistic", penalty=0.0).critic_loss(batch)["loss"]
        torch.testing.assert_close(terms["loss"], free + weight * terms["penalty"])


def test_spread_is_the_distance_of_two_images_over_all_pairs():
    flat = REAL.flatten(1)
    torch.testing.assert_close(spread(REAL), torch.cdist(flat, flat).square().mean().sqrt())


@pytest.mark.parametrize(("noise", "diversity"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_diversity_compares_fakes_with_the_data_and_collapse_is_told(noise, diversity):
    model, batch = small_gan(), Batch(normal(6, *SMALL))
    model.fakes = lambda batch: 0.3 + noise * batch.x
    terms = {f"critic.{name}": float(value.detach()) for name, value in model.critic_loss(batch).items()}
    assert terms["critic.diversity"] == pytest.approx(diversity)
    told = model.warnings(terms)
    assert bool(told) == (diversity < 0.4)
    assert all("the generator is collapsing" in sentence for sentence in told)


def test_accuracy_is_the_share_of_pairs_that_the_critic_has_right():
    model, batch = small_gan(), Batch(REAL)
    model.fakes = lambda batch: batch.x - torch.tensor([1.0, 1, 1, -1, -1, 0])[:, None, None, None]
    model.scores = lambda x, y: x.mean((1, 2, 3))
    assert float(model.critic_loss(batch)["accuracy"]) == 0.5


# Differentiable augmentation


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_most_images_and_no_change_none(name):
    x = normal(20, 3, 8, 10)
    assert (CHANGES[name](x) != x).flatten(1).any(1).sum() > 10
    assert augment(x, ()) is x


def test_shift_moves_by_whole_pixels_and_what_comes_in_is_zero():
    x, most = normal(300, 1, 16, 24), (2, 3)  # an eighth of the sides
    frame = F.pad(x, (most[1], most[1], most[0], most[0]))
    with seeded(0):
        moved = translation(x)
    seen = set()
    for before, after in zip(frame, moved, strict=True):
        offsets = [
            (i, j)
            for i in range(2 * most[0] + 1)
            for j in range(2 * most[1] + 1)
            if torch.equal(before[:, i : i + 16, j : j + 24], after)
        ]
        assert len(offsets) == 1
        seen |= set(offsets)
    assert len(seen) == 5 * 7  # every shift occurs: of 300 draws from 35, one is missing once in 150 tries


def test_cutout_removes_a_rectangle_of_half_the_sides_and_leaves_the_rest():
    x = 1 + normal(200, 2, 8, 12).abs()
    with seeded(0):
        cut = cutout(x)
    gone = cut == 0
    assert torch.equal(cut[~gone], x[~gone])
    assert torch.equal(gone[:, 0], gone[:, 1])  # the same in each channel
    assert gone[:, 0].any(2).sum(1).max() == 4 and gone[:, 0].any(1).sum(1).max() == 6
    areas = gone[:, 0].sum((1, 2))
    assert torch.equal(areas, gone[:, 0].any(2).sum(1) * gone[:, 0].any(1).sum(1))  # a rectangle
    assert 6 <= areas.min() < areas.max() == 24  # at the border only a part of it is inside


def test_colour_keeps_shapes_and_grays():
    x = normal(50, 3, 6, 6)
    with seeded(0):
        y = colour(x)
    with seeded(0):
        gray = colour(x.mean(1, keepdim=True).expand_as(x))
    torch.testing.assert_close(gray, y.mean(1, keepdim=True).expand_as(x))  # saturation leaves the mean of channels
    centred = [(image - image.mean((1, 2, 3), keepdim=True)).mean(1).flatten(1) for image in (x, y)]
    torch.testing.assert_close(F.cosine_similarity(*centred), torch.ones(50))  # only brightness and contrast changed


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_drawn_for_each_image_from_the_global_generator_and_let_gradients_through(name):
    x = normal(1, 3, 8, 8).repeat(16, 1, 1, 1).requires_grad_()
    with seeded(1):
        first = CHANGES[name](x)
    with seeded(1):
        assert torch.equal(CHANGES[name](x), first)
    with seeded(2):
        assert not torch.equal(CHANGES[name](x), first)
    assert len({image.detach().numpy().tobytes() for image in first}) > 4
    (gradient,) = torch.autograd.grad(first.square().sum() / 2, x, create_graph=True)
    assert gradient.flatten(1).any(1).all()
    # Linear in the image but for brightness: the directional derivative is a difference, to rounding.
    direction = normal(16, 3, 8, 8, seed=5)
    with seeded(1):
        there = CHANGES[name](x + direction)
    torch.testing.assert_close(torch.autograd.functional.jvp(lambda x: run(name, x), x, direction)[1], there - first)


def run(name: str, x: torch.Tensor) -> torch.Tensor:
    with seeded(1):
        return CHANGES[name](x)


def test_real_and_fake_images_are_changed_alike_in_both_losses(monkeypatch):
    calls: list[tuple[int, bool]] = []

    def spy(x: torch.Tensor, changes: tuple[str, ...]) -> torch.Tensor:
        calls.append((len(x), changes == ("shift",)))
        return x

    monkeypatch.setattr("fabulate.models.families.gan.augment", spy)
    model = small_gan(augment=("shift",))
    for loss in (model.critic_loss, model.generator_loss):
        loss(Batch(REAL))
        assert calls == [(6, True)] * 2
        calls.clear()


# The textbook, to the letter

MNIST = ImageShape(1, 28, 28)
TEXTBOOK = {
    AE: [(784, 128), (128, 64), (64, 128), (128, 784)],
    VAE: [(784, 128), (128, 2 * 64), (64, 128), (128, 784)],  # mean and log-variance: one layer, two heads
    GAN: [(784, 128), (128, 1), (64, 128), (128, 784)],  # discriminator, then generator
}


@pytest.mark.parametrize("family", TEXTBOOK)
def test_the_tutorial_has_the_textbooks_layers_and_training(family):
    preset = family.presets["tutorial"]
    model = family(preset.model, MNIST)
    leaves = [module for module in model.modules() if not list(module.children())]
    layers = [module for module in leaves if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == TEXTBOOK[family]
    assert all(layer.bias is not None for layer in layers)
    assert sum(isinstance(module, nn.ReLU) for module in leaves) == 2  # one in each half; nothing else but these
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for x in layers for p in x.parameters()) == 0
    assert preset.training == Training(
        epochs=10, steps=None, batch_size=128, lr=1e-3, schedule="constant", warmup=0, clip=0, ema=0, validation=0
    )


def tutorial(family: type) -> tuple:
    with seeded(0):
        model = family(family.presets["tutorial"].model, MNIST)
    return model, torch.rand(5, *MNIST, generator=generator(0))  # pixels as the textbook has them, in [0, 1]


def test_the_tutorial_autoencoder_is_the_textbooks():
    model, pixels = tutorial(AE)
    flat = pixels.flatten(1)
    loss = F.mse_loss(torch.sigmoid(model.decoder.layers(model.encoder.layers(flat))), flat)
    torch.testing.assert_close(model.loss(Batch(2 * pixels - 1))["loss"], loss)


def test_the_tutorial_vae_is_the_textbooks():
    model, pixels = tutorial(VAE)
    flat = pixels.flatten(1)
    with seeded(1):
        mu, logvar = model.encoder.layers(flat).chunk(2, dim=1)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        bce = F.binary_cross_entropy(torch.sigmoid(model.decoder.layers(z)), flat, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    with seeded(1):
        torch.testing.assert_close(model.loss(Batch(2 * pixels - 1))["loss"], (bce + kl) / len(pixels))


def test_the_tutorial_gan_is_the_textbooks():
    model, pixels = tutorial(GAN)
    x = 2 * pixels - 1
    with seeded(1):
        fake = torch.tanh(model.generator.layers(torch.randn(5, 64)))
        scores = [torch.sigmoid(model.critic.layers(images.flatten(1))) for images in (x, fake)]
        ones, zeros = torch.ones(5, 1), torch.zeros(5, 1)
        critic = F.binary_cross_entropy(scores[0], ones) + F.binary_cross_entropy(scores[1], zeros)
    with seeded(1):
        torch.testing.assert_close(model.critic_loss(Batch(x))["loss"], critic)
    with seeded(1):
        torch.testing.assert_close(model.generator_loss(Batch(x))["loss"], F.binary_cross_entropy(scores[1], ones))
    assert list(model.players()) == ["critic", "generator"]  # D, then G, each step
    assert all(player.every == 1 for player in model.players().values())


def test_dcgans_noise_is_uniform_in_training_and_in_samples(monkeypatch):
    model, n = GAN(override(GAN.presets["dcgan"].model, {"network": LINEAR}), SMALL), 1000
    given = [model.prior(n, None, generator(0))]
    monkeypatch.setattr(model, "decode", lambda z, y: given.append(z))
    model.fakes(Batch(torch.zeros(n, *SMALL)))
    for z in given:
        assert z.shape == (n, 100)
        assert 0.99 < z.abs().max() <= 1
        assert within_five_errors(z.square().mean(), 1 / 3, torch.tensor((4 / 45 / z.numel()) ** 0.5))
