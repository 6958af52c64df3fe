"""The gradient of the importance-weighted bound that has less noise, against the whole one.

Maths in float64, on the linear-Gaussian model whose posterior is known exactly.

Legend: N images, D pixels, Z latent.
"""

import pytest
import torch

from fabulate.models.families.vae import VAE
from fabulate.seeds import seeded
from fabulate.types import Batch
from test_oracles import linear_vae
from tiny import SMALL

pytestmark = pytest.mark.usefixtures("float64")


def gradients(model: VAE, batch: Batch, k: int, gradient: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the mean bound: to the encoder's parameters, and to the decoder's."""
    model.zero_grad()
    with seeded(seed):
        model.bound(batch, k, gradient).mean().backward()
    return tuple(torch.cat([p.grad.flatten() for p in part.parameters()]) for part in (model.encoder, model.decoder))


@pytest.mark.parametrize("k", [1, 4])
def test_the_bound_and_the_decoders_gradient_do_not_depend_on_the_encoders(k):
    model, exact = linear_vae(0.5)
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    with seeded(1):
        full = model.bound(batch, k)
    with seeded(1):
        torch.testing.assert_close(model.bound(batch, k, "path"), full)
    torch.testing.assert_close(gradients(model, batch, k, "path", 1)[1], gradients(model, batch, k, "full", 1)[1])


@pytest.mark.parametrize("k", [1, 4])
def test_at_the_true_posterior_the_path_gradient_is_still_and_the_whole_one_is_noise(k):
    model, exact = linear_vae()
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    assert gradients(model, batch, k, "path", 1)[0].abs().max() < 1e-9
    assert gradients(model, batch, k, "full", 1)[0].abs().max() > 1e-2


@pytest.mark.parametrize("k", [1, 4])
def test_both_gradients_agree_on_average_and_the_path_has_less_noise(k):
    model, exact = linear_vae(0.8)
    batch = Batch(exact.sample((10,)).view(-1, *SMALL))
    n = 200  # draws of the codes
    draws = {
        kind: torch.stack([gradients(model, batch, k, kind, seed)[0] for seed in range(n)]) for kind in ("full", "path")
    }
    error = torch.stack([draw.var(0) for draw in draws.values()]).sum(0).div(n).sqrt()
    assert ((draws["full"].mean(0) - draws["path"].mean(0)).abs() < 5 * error).all()
    assert draws["path"].var(0).mean() < draws["full"].var(0).mean() / 2
