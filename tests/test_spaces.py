"""Spaces a flow works in: inverse, best basis, and the likelihood of what they leave out, in float64."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import fabulate
from fabulate.errors import ConfigError
from fabulate.models.families.flow import Flow, FlowConfig
from fabulate.models.small import SMALL, hyperparameters, pictures
from fabulate.models.spaces import PCA, VAE, LatentSpace, PCASpace, Pixels, PixelSpace
from fabulate.nets import UNet
from fabulate.seeds import generator, seeded
from fabulate.training import read_log
from fabulate.types import Batch, ImageShape, Tensors, to_float

SHAPE = ImageShape(3, 12, 8)


def fitted(shape=SHAPE, n=300, **options) -> tuple[PCASpace, torch.Tensor]:
    """A space fitted to images whose neighbouring pixels are alike, and these images."""
    noise = torch.randn(n, shape.channels, shape.height + 2, shape.width + 2, generator=generator("images"))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1)
    pixels = (127.5 + 120 * smooth).clamp(0, 255).to(torch.uint8)
    space = PCA(**options).of(shape).double()
    space.fit(Tensors(pixels))
    return space, to_float(pixels).double()


@pytest.mark.parametrize("shape", [SHAPE, (1, 9, 11), (4, 16, 16)], ids=str)
@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_with_all_components_nothing_is_lost(shape, whiten):
    shape = ImageShape(*shape)
    space, x = fitted(shape, patch=4, keep=16 * shape.channels, whiten=whiten)
    assert (
        space.encode(x).shape[1:] == space.shape == (16 * shape.channels, -(-shape.height // 4), -(-shape.width // 4))
    )
    torch.testing.assert_close(space.decode(space.encode(x)), x)


def test_what_is_lost_is_the_variance_of_the_components_left_out_and_no_basis_loses_less():
    space, x = fitted(patch=4, keep=10)
    lost = (space.decode(space.encode(x)) - x).square().sum((1, 2, 3)).mean()
    places = space.shape.height * space.shape.width
    torch.testing.assert_close(lost, places * 38 * space.left)
    other = torch.linalg.qr(torch.randn(48, 10, generator=generator("basis"), dtype=torch.float64)).Q
    rows = space.patches(x).movedim(1, -1) - space.mean
    assert (rows - rows @ other @ other.T).square().sum((1, 2, 3)).mean() > 2 * lost


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_components_vary_as_pixels_do_and_are_uncorrelated(whiten):
    space, x = fitted(patch=4, keep=10, whiten=whiten)
    u = space.encode(x).movedim(1, -1).flatten(0, 2)
    covariance = u.T.cov(correction=0)
    assert covariance.trace() / 10 == pytest.approx(0.25, rel=1e-6)
    torch.testing.assert_close(covariance, covariance.diagonal().diag(), atol=1e-9, rtol=0)
    spread = covariance.diagonal().max() / covariance.diagonal().min()
    assert spread == pytest.approx(float(space.variance[0] / space.variance[9]) ** (1 - whiten), rel=1e-6)


def test_the_rest_completes_the_log_density():
    """Where patches are Gaussian, log N(u) + rest is the log density of the image, whatever is kept and whitened.

    Their covariance is that of probabilistic PCA: Q diag(var) Q' + v (1 - Q Q').
    """
    for keep, whiten in ((1, 0.0), (10, 0.5), (48, 1.0)):
        space, x = fitted(patch=4, keep=keep, whiten=whiten)
        rows = space.patches(x).movedim(1, -1)  # (N, h, w, D)
        covariance = space.basis @ (space.variance - space.left).diag() @ space.basis.T + space.left * torch.eye(48)
        exact = MultivariateNormal(space.mean, covariance.double()).log_prob(rows)
        spread = (space.scale * space.variance.sqrt())[:, None, None]
        log_u = torch.distributions.Normal(0, spread).log_prob(space.encode(x)).sum((1, 2, 3))
        torch.testing.assert_close(log_u + space.rest(x), exact.sum((1, 2)))


def test_images_constant_in_places_have_a_finite_likelihood():
    space = PCA(patch=4, keep=10).of(ImageShape(1, 8, 8))
    space.fit(Tensors(torch.full((20, 1, 8, 8), 7, dtype=torch.uint8)))
    assert space.rest(torch.rand(2, 1, 8, 8)).isfinite().all()
    assert space.encode(torch.rand(2, 1, 8, 8)).isfinite().all()


def test_more_components_than_there_are_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"a patch of 2x2 pixels has 12 components; --space.keep 13 is more"):
        PCA(patch=2, keep=13).of(SHAPE)


def test_a_flow_reads_and_writes_components_alone():
    model = Flow(FlowConfig(space=PCA(patch=4, keep=5)), ImageShape(3, 16, 20))
    assert model.network.conv_in.in_channels == 5 and model.space.shape == (5, 4, 5)
    assert model.sample(2).shape == (2, 3, 16, 20)
    assert model.code(0).shape == (1, 100)


def test_a_basis_that_was_fitted_stays_with_the_network_that_was_trained_on_it():
    space, _ = fitted(patch=4, keep=10)
    basis = space.basis.clone()
    space.fit(Tensors(torch.randint(256, (50, *SHAPE), generator=generator("others")).to(torch.uint8)))
    assert torch.equal(space.basis, basis)


def test_large_images_are_worked_on_in_components_unless_pixels_are_asked_for():
    network = UNet(width=8)
    assert isinstance(Flow(FlowConfig(network=network), ImageShape(1, 32, 32)).space, PixelSpace)
    large = Flow(FlowConfig(network=network), ImageShape(3, 64, 48))
    assert isinstance(large.space, PCASpace) and large.config.space == PCA() and large.space.shape == (48, 8, 6)
    assert isinstance(Flow(FlowConfig(network=network, space=Pixels()), ImageShape(3, 64, 48)).space, PixelSpace)
    assert Flow(FlowConfig(network=network), ImageShape(1, 64, 64)).space.shape == (32, 8, 8)
    for preset in ("flow-matching", "diffusers", "tutorial"):
        assert Flow.presets[preset].model.space == Pixels()


def test_flows_saved_before_there_was_a_choice_of_space_work_on_pixels():
    network = {"kind": "unet", "width": 8, "blocks": 1, "patch": None}
    for saved in ({"network": network}, {"network": network, "error": "velocity"}):
        assert Flow.current(saved, ImageShape(3, 64, 64))["space"] == {"kind": "pixels"}
    assert Flow.current({"network": network, "space": {"kind": "pca"}}, ImageShape(3, 64, 64))["space"] == {
        "kind": "pca"
    }


def latents(n=300, **options) -> tuple[LatentSpace, Tensors]:
    """A space of latents whose components are fitted, and the images they are fitted to."""
    x = pictures(SHAPE, n)
    with seeded("weights"):
        space = VAE(**{"patch": 4, "keep": 6, "width": 16, "blocks": 1, **options}).of(SHAPE).double()
    space.fit(x)
    return space, x


def learnt(space: LatentSpace, images: Tensors, steps: int) -> float:
    """Move the autoencoder; the mean squared error of its reconstructions then."""
    adam = torch.optim.Adam(space.autoencoder.parameters(), 3e-3)
    x = images.batch(torch.arange(len(images))).x.double()
    with seeded("noise"):
        for _ in range(steps):
            adam.zero_grad()
            space.loss(Batch(x, None))["loss"].backward()
            adam.step()
    space.fit(images)
    return float(space.error)


def test_an_autoencoder_begins_as_principal_components_and_loses_less_once_it_has_learnt():
    space, images = latents(keep=2)
    plain = PCA(patch=4, keep=2).of(SHAPE).double()
    plain.fit(images)
    x = images.batch(torch.arange(40)).x.double()
    torch.testing.assert_close(space.decode(space.encode(x)), plain.decode(plain.encode(x)))
    before = float(space.error)
    assert learnt(space, images, 40) < 0.8 * before


def test_latents_vary_as_pixels_do_around_0_and_the_error_is_that_of_reconstructions():
    space, images = latents()
    learnt(space, images, 5)
    x = images.batch(torch.arange(len(images))).x.double()
    with torch.no_grad():
        u, copies = space.encode(x), space.decode(space.encode(x))
    torch.testing.assert_close(u.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-9, rtol=0)
    assert float(u.square().mean()) == pytest.approx(0.25, rel=1e-6)
    assert float((copies - x).square().mean()) == pytest.approx(float(space.error), rel=1e-6)


@torch.no_grad()
def test_the_bound_is_exact_where_q_is_the_posterior_and_lower_elsewhere():
    """One latent a place and no network: x = m + q z / s + noise is Gaussian, and so is the posterior of z."""
    space, images = latents(keep=1, whiten=1.0)
    space.error.fill_(1e-3)
    x = images.batch(torch.arange(200)).x.double()
    components, places = space.components, space.shape.height * space.shape.width
    latent, scale = space.latents(x).var(), float(components.scale)
    column = components.basis / scale
    gaussian = MultivariateNormal(components.mean, latent * column @ column.T + 1e-3 * torch.eye(48).double())
    exact = gaussian.log_prob(components.patches(x).movedim(1, -1).flatten(0, 2)).view(200, -1).sum(1)
    prior = Normal(-space.mean / space.scale, latent.sqrt() / space.scale)
    width = float((1 / latent + 1 / (scale**2 * space.error)) ** -0.5)
    gaps = {}
    for times in (0.5, 1.0, 2.0):
        space.noise = times * width
        u, rest = space.evidence(x, generator("chance"))
        gaps[times] = float((exact - rest - prior.log_prob(u).sum((1, 2, 3))).mean()) / places
    assert gaps[1.0] == pytest.approx(0, abs=0.01)
    assert gaps[0.5] == pytest.approx(math.log(2) - 3 / 8, abs=0.1)  # KL divergences of Gaussians
    assert gaps[2.0] == pytest.approx(3 / 2 - math.log(2), abs=0.1)


def test_a_space_that_was_trained_is_kept_where_it_has_no_share_of_the_budget():
    space, images = latents()
    learnt(space, images, 5)
    kept = VAE(patch=4, keep=6, width=16, blocks=1).kept().of(SHAPE).double()
    kept.load_state_dict(space.state_dict())
    kept.fit(Tensors(255 - images.x))
    assert all(torch.equal(value, space.state_dict()[name]) for name, value in kept.state_dict().items())
    assert kept.players()["autoencoder"].span == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"steps": 20}, {"steps": None, "epochs": 3.2}], ids=str)
def test_a_flow_in_latents_is_killed_and_goes_on_to_the_bit(budget, tmp_path):
    """Before the autoencoder's span is over, and after; no loss of the first is compared with one of the second."""
    options = {**hyperparameters(Flow, "unet", "vae"), **budget, "batch_size": 16, "validation": 0.25, "quiet": True}
    images = pictures(SMALL, 132).x.numpy()
    straight = fabulate.train("flow", images, out=tmp_path / "straight", **options)
    log = read_log(tmp_path / "straight")
    trains = [row["train"].keys() for row in log if "train" in row]
    assert trains[:5] == 5 * [{"autoencoder.loss", "autoencoder.error"}] and set(map(tuple, trains[5:])) == {
        ("model.loss",)
    }
    assert min(row["step"] for row in log if "validation" in row or "test" in row) > 5
    for left in (4, 5, 11):
        run = fabulate.steps("flow", images, out=tmp_path / f"left-{left}", **options)
        for row in run:
            if row["step"] == left:
                run.close()
                break
        again = fabulate.train("flow", images, out=tmp_path / f"left-{left}", **options)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in straight.state_dict().items())
