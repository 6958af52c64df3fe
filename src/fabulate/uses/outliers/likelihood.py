"""Two corrections of a likelihood, which alone is high for plain images, whatever they show.

The complexity of an image. Plain images are easy to predict, so a model of clothes gives digits more than clothes. What
a code without any training saves on a plain image should be taken off (Serrà et al., "Input complexity and
out-of-distribution detection with likelihood-based generative models", 2020, https://arxiv.org/abs/1909.11480):

    score(x) = log p(x) + L(x),         L the length of the code in nats.

The paper takes PNG or the like. The code here is of that kind, and counts all images at once. Each pixel is predicted
from those to its left and above (the median edge detector of JPEG-LS: Weinberger, Seroussi, Sapiro 2000,
https://doi.org/10.1109/83.855427), and the errors are coded by their frequencies so far (Krichevsky, Trofimov 1981,
https://doi.org/10.1109/TIT.1981.1056331), whose length has a closed form, with n errors, n_v of value v:

    L = log Gamma(n + 128) - log Gamma(128) - sum_v [log Gamma(n_v + 1/2) - log Gamma(1/2)].

The likelihood regret. How much better would the model explain an image, had its encoder looked at this one only? The
encoder of a VAE was trained on normals, and finds codes for them that are nearly the best. For anything else it guesses
badly, and searching for q(z | x) anew improves the bound by much (Xiao, Yan, Amit, "Likelihood regret: an
out-of-distribution detection score for variational auto-encoder", 2020, https://arxiv.org/abs/2003.02977):

    regret(x) = max_q ELBO(x; q) - ELBO(x; encoder(x)) >= 0.

The noise of both bounds is the same few numbers for every image and every step, so that the difference is exact and
does not depend on the images beside it.

Legend: N images, C H W image, Z latent, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fabulate.models.base import evaluating
from fabulate.models.families.vae import VAE
from fabulate.seeds import generator
from fabulate.types import Batch, to_uint8

VALUES = 256
REGRET_STEPS, REGRET_RATE = 50, 0.05  # of Adam
REGRET_CODES = 4


def code_length(images: Tensor) -> Tensor:
    """Nats (N,), float64, that images (N, C, H, W), uint8 or in [-1, 1], take in the code.

    >>> plain, noise = torch.zeros(1, 1, 16, 16), 2 * torch.rand(1, 1, 16, 16) - 1
    >>> bool(code_length(plain) < code_length(noise))
    True
    """
    errors = prediction_errors(to_uint8(images).cpu().long()).flatten(1)  # (N, n)
    counts = torch.zeros(len(errors), VALUES, dtype=torch.int64).scatter_add_(1, errors, torch.ones_like(errors))
    half, prior = torch.tensor(0.5, dtype=torch.float64), torch.tensor(VALUES / 2, dtype=torch.float64)
    coded = torch.lgamma(counts.double() + half) - torch.lgamma(half)
    return torch.lgamma(errors.shape[1] + prior) - torch.lgamma(prior) - coded.sum(1)


def prediction_errors(pixels: Tensor) -> Tensor:
    """The error of each pixel's prediction, modulo 256, of images (N, C, H, W) int64; outside them all is 0."""
    padded = F.pad(pixels, (1, 0, 1, 0))
    left, above, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    low, high = torch.minimum(left, above), torch.maximum(left, above)
    guess = torch.where(corner >= high, low, torch.where(corner <= low, high, left + above - corner))
    return (pixels - guess) % VALUES


def regret(model: VAE, x: Tensor) -> Tensor:
    """The likelihood regret of images (N, C, H, W) in [-1, 1], in nats, at least 0: (N,)."""
    # One generator on the CPU gives the same numbers on every device.
    eps = torch.randn(REGRET_CODES, 1, model.config.latent_dim, generator=generator("regret")).to(x)
    with evaluating(model):
        batch = Batch(model.binarise(x))
        with torch.no_grad():
            start = model.posterior(batch)
            before = bound(model, batch, *start, eps)
        mean, logvar = (value.clone().requires_grad_() for value in start)
        optimizer, best = torch.optim.Adam([mean, logvar], lr=REGRET_RATE), before
        for _ in range(REGRET_STEPS):
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
        kl = model.p_z.kl(z, mean, logvar, None).sum(1)
        total = total + model.likelihood.log_prob(batch.x, model.raw(z, None)) - kl
    return total / len(eps)
