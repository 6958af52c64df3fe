"""The importance-weighted bound of log p(x), and a gradient of it with less noise.

K codes z_k = mu + sigma * eps_k of each image give a lower bound that K tightens (Burda, Grosse, Salakhutdinov,
"Importance weighted autoencoders", 2016, https://arxiv.org/abs/1509.00519):

    log p(x) >= E log 1/K sum_k w_k,     w_k = p(x | z_k) p(z_k) / q(z_k | x).

The encoder's parameters enter through the codes and, once more, through the density q(z_k | x). The second way adds
nothing to the gradient on average for K = 1, only noise (Roeder, Wu, Duvenaud, "Sticking the landing", 2017,
https://arxiv.org/abs/1703.09194); for more codes it drowns the signal the more of them there are, and turns into a way
through the codes when integrated by parts. With v_k = w_k / sum w the encoder then learns from

    sum_k v_k^2  d log w_k / d z_k  d z_k

(Tucker, Lawson, Gu, Maddison, "Doubly reparameterized gradient estimators", 2019, https://arxiv.org/abs/1810.04152)
and the decoder, as ever, from sum_k v_k d log w_k.

Legend: B batch, Z latent, K codes of each image.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fabulate.errors import ConfigError
from fabulate.prob import log_mean_exp, log_normal

ROWS = 500  # codes decoded together in a bound: memory is that of so many, however many codes an image has

LogJoint = Callable[[Tensor, int], Tensor]
"""log p(x | z) + log p(z) of k codes of each image, (K B, Z) -> (K B,), and k."""


def drawn(mean: Tensor, logvar: Tensor, k: int) -> Tensor:
    """k codes from each q(z | x) = N(mean, exp(logvar)): (K B, Z)."""
    # Drawn one code after the other: the noise is the same however many are decoded together.
    eps = torch.stack([torch.randn_like(mean) for _ in range(k)])
    return (mean + torch.exp(logvar / 2) * eps).flatten(0, 1)


def log_weights(log_joint: LogJoint, z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log w of codes z (K B, Z) of each image: (K, B)."""
    k = len(z) // len(mean)
    log_q_z = log_normal(z, mean.repeat(k, 1), logvar.repeat(k, 1)).sum(1)
    return (log_joint(z, k) - log_q_z).view(k, -1)


def bound(log_joint: LogJoint, mean: Tensor, logvar: Tensor, k: int) -> Tensor:
    """The bound with k codes of each image, in nats: (B,). Errors: `ConfigError` for k below 1."""
    if k < 1:
        raise ConfigError(f"the importance-weighted bound needs at least 1 code of each image, given k={k}")
    together = max(1, ROWS // len(mean))  # codes of each image
    parts = [
        log_weights(log_joint, drawn(mean, logvar, min(together, k - first)), mean, logvar)
        for first in range(0, k, together)
    ]
    return log_mean_exp(torch.cat(parts), dim=0)


def path_bound(log_joint: LogJoint, mean: Tensor, logvar: Tensor, k: int) -> Tensor:
    """The bound again, (B,), whose gradient reaches `mean` and `logvar` through the codes alone."""
    z = drawn(mean, logvar, k)
    log_w = log_weights(log_joint, z, mean.detach(), logvar.detach())
    v = torch.softmax(log_w.detach(), dim=0)
    if z.requires_grad:
        # The second v_k, for the encoder only.
        z.register_hook(lambda gradient: gradient * v.view(-1, 1))  # type: ignore[no-untyped-call]
    weighted = (v * log_w).sum(0)
    return weighted + (log_mean_exp(log_w.detach(), dim=0) - weighted.detach())
