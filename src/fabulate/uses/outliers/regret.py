"""Likelihood regret: how much better would the model explain an image, had its encoder looked at this one only?

The encoder of a VAE was trained on normals, and finds codes for them that are nearly the best. For anything else it
guesses badly, and searching for q(z | x) anew improves the bound by much (Xiao, Yan, Amit, "Likelihood regret: an
out-of-distribution detection score for variational auto-encoder", 2020, https://arxiv.org/abs/2003.02977):

    regret(x) = max_q ELBO(x; q) - ELBO(x; encoder(x)) >= 0.

The noise of both bounds is the same few numbers for every image and every step, so that the difference is exact and
does not depend on the images beside it.

Legend: N images, Z latent, K codes.
"""

import torch
from torch import Tensor

from fabulate.models.base import evaluating
from fabulate.models.families.vae import VAE
from fabulate.seeds import generator
from fabulate.types import Batch

STEPS, RATE = 50, 0.05  # of Adam
CODES = 4


def regret(model: VAE, x: Tensor) -> Tensor:
    """The likelihood regret of images (N, C, H, W) in [-1, 1], in nats, at least 0: (N,)."""
    # One generator on the CPU gives the same numbers on every device.
    eps = torch.randn(CODES, 1, model.config.latent_dim, generator=generator("regret")).to(x)
    with evaluating(model):
        batch = Batch(model.binarise(x))
        with torch.no_grad():
            start = model.posterior(batch)
            before = bound(model, batch, *start, eps)
        mean, logvar = (value.clone().requires_grad_() for value in start)
        optimizer, best = torch.optim.Adam([mean, logvar], lr=RATE), before
        for _ in range(STEPS):
            value = bound(model, batch, mean, logvar, eps)
            best = torch.maximum(best, value.detach())
            # Of these two only: the model's own gradients stay as they are.
            mean.grad, logvar.grad = torch.autograd.grad(-value.sum(), [mean, logvar])
            optimizer.step()
    return best - before


def bound(model: VAE, batch: Batch, mean: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """The ELBO (N,) under q(z | x) = N(mean, exp(logvar)), by K codes of each image."""
    total = torch.zeros(len(mean), device=mean.device, dtype=mean.dtype)
    for noise in eps:
        z = mean + torch.exp(logvar / 2) * noise  # (N, Z)
        price = model.p_z.kl(z, mean, logvar, None).sum(1)
        total = total + model.likelihood.log_prob(batch.x, model.raw(z, None)) - price
    return total / len(eps)
