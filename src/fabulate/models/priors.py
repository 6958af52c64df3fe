"""What p(z) is in a VAE: N(0, 1), or K Gaussians that are learned with everything else.

The bound charges KL(q(z | x) || p(z)), and averaged over images this is smallest when p(z) is the aggregate posterior,
the mean of q(z | x) over all images. N(0, 1) asks that this mean be one Gaussian. With a second level above z, a choice
c among K, it need not be:

    p(z) = sum_c p(c) p(z | c) = sum_c w_c N(z; m_c, v_c)

(Dilokthanakul et al., "Deep unsupervised clustering with Gaussian mixture variational autoencoders", 2016,
https://arxiv.org/abs/1611.02648; compared with others in Tomczak, Welling, "VAE with a VampPrior", 2018,
https://arxiv.org/abs/1705.07120). The KL from a Gaussian to a mixture has no closed form; it is estimated at the same
code z ~ q(z | x) that is decoded,

    KL = E_q log q(z | x) - log p(z).

The weights w are learned too: a Gaussian that no code comes near would else be drawn as often as the others. With
classes p(z | y) has K Gaussians of each class. N(0, 1) is the case K = 1, m = 0, v = 1, and its KL is exact.

Legend: B batch, N codes, Z latent, R rows (one for each class, or one), K components.
"""

from abc import ABC, abstractmethod
from math import log, pi

import torch
from torch import Tensor, nn

from fabulate.prob import LEAD, chosen, kl_to_standard_normal, log_normal


class Prior(nn.Module, ABC):
    """p(z), or p(z | y): a mixture of Gaussians."""

    def __init__(self, dim: int, components: int, classes: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (R, K), and means and log-variances, each (R, K, Z)."""

    def log_prob(self, z: Tensor, y: Tensor | None) -> Tensor:
        """log p(z) of codes (B, Z), in nats: (B,)."""
        log_weight, mean, logvar = self.components()
        # sum_z (z - m)^2 / v, multiplied out: two matrix products instead of B x R x K x Z numbers in memory
        precision = torch.exp(-logvar)
        squares = z.square() @ precision.flatten(0, 1).T - 2 * z @ (mean * precision).flatten(0, 1).T  # (B, R K)
        squares = squares.view(len(z), *mean.shape[:2]) + (mean.square() * precision).sum(2)  # (B, R, K)
        log_normals = -0.5 * (self.dim * log(2 * pi) + logvar.sum(2) + squares)
        return (log_weight + log_normals)[torch.arange(len(z), device=z.device), _rows(y, z)].logsumexp(1)

    def kl(self, z: Tensor, mean: Tensor, logvar: Tensor, y: Tensor | None) -> Tensor:
        """KL(N(mean, exp(logvar)) || p(z)) in nats, estimated at one code z of each Gaussian: (B, 1)."""
        return (log_normal(z, mean, logvar).sum(1) - self.log_prob(z, y))[:, None]

    def draw(self, n: int, y: Tensor | None, generator: torch.Generator) -> Tensor:
        """n codes (N, Z), all chance from the (CPU) generator."""
        log_weight, mean, logvar = self.components()
        eps = torch.randn(n, self.dim, generator=generator).to(mean)
        row = _rows(y, eps)
        k = torch.multinomial(log_weight[row].exp().cpu(), 1, generator=generator).squeeze(1).to(mean.device)
        return mean[row, k] + torch.exp(logvar[row, k] / 2) * eps

    def from_noise(self, eps: Tensor, choice: Tensor, y: Tensor | None) -> Tensor:
        """Codes (N, Z) made of N(0, 1) numbers (N, Z), and of uniform ones (N,) that choose the Gaussian."""
        log_weight, mean, logvar = self.components()
        row = torch.zeros_like(choice, dtype=torch.int64) if y is None else y
        k = chosen(log_weight[row].exp(), choice)
        return mean[row, k] + torch.exp(logvar[row, k] / 2) * eps


class StandardNormal(Prior):
    """N(0, 1): one component, and the KL of each dimension in closed form."""

    zeros: Tensor

    def __init__(self, dim: int, components: int, classes: int) -> None:
        super().__init__(dim, components, classes)
        self.register_buffer("zeros", torch.zeros(max(classes, 1), 1, dim), persistent=False)

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.zeros[:, :, 0], self.zeros, self.zeros

    def kl(self, z: Tensor, mean: Tensor, logvar: Tensor, y: Tensor | None) -> Tensor:
        return kl_to_standard_normal(mean, logvar)  # (B, Z)


class Gaussians(Prior):
    """K learned Gaussians (of each class). They begin together as about N(0, 1), and move as noise levels do."""

    def __init__(self, dim: int, components: int, classes: int) -> None:
        super().__init__(dim, components, classes)
        rows = max(classes, 1)
        self.means = nn.Parameter(torch.randn(rows, components, dim) / (2 * LEAD))
        self.logvars = nn.Parameter(torch.zeros(rows, components, dim))
        self.logits = nn.Parameter(torch.zeros(rows, components))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.log_softmax(LEAD * self.logits, 1), LEAD * self.means, LEAD * self.logvars


def _rows(y: Tensor | None, z: Tensor) -> Tensor:
    """The row of each code: its class, or the only one."""
    return torch.zeros(len(z), dtype=torch.int64, device=z.device) if y is None else y


PRIORS: dict[str, type[Prior]] = {"normal": StandardNormal, "gaussians": Gaussians}
