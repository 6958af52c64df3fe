"""A mixture of Gaussians over codes, fitted once a model's weights stand still: the second stage of two.

    q(z) = sum_k w_k N(z; m_k, S_k),                            one mixture for each class

An autoencoder has no p(z); a VAE has one, and yet the codes of real images, its aggregate posterior, follow it only
roughly. A density fitted to the codes afterwards closes that gap and leaves the loss alone: the two-stage VAE (Dai,
Wipf, "Diagnosing and enhancing VAE models", 2019, https://arxiv.org/abs/1903.05789); a mixture of ten full Gaussians
serves as well (Ghosh et al., "From variational to deterministic autoencoders", 2020, https://arxiv.org/abs/1903.12436).

The fit is expectation-maximisation (Dempster, Laird, Rubin 1977), scikit-learn's, in float64 and by one thread, so that
it repeats to the last bit. It runs in the principal components of the codes, each scaled to variance 1; directions in
which codes do not vary are left out, so that constant codes and a class of one image are no special cases. Samples take
z = m_k + R_k eps with R_k R_k' = S_k.

Legend: N codes, Z latent, R rows (one for each class, or one), K components.
"""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fabulate.models.base import GenerativeModel, evaluating
from fabulate.prob import chosen
from fabulate.types import Batch, BatchSource, some_of

MOST_CODES = 8_000  # that a mixture is fitted to: 20 covariances of 32 numbers then take 1.2 s
AT_ONCE = 500  # images encoded together, fewer of large ones
ROUNDS = 20  # of expectation-maximisation at most: fresh codes of MNIST get no likelier after them
SMALLEST = 1e-6  # a direction varies if its standard deviation is above this share of the largest code

Array = npt.NDArray[np.float64]


class Mixture(nn.Module):
    """A mixture of Gaussians for each row; N(0, 1) until it is fitted."""

    def __init__(self, dim: int, components: int, rows: int = 1) -> None:
        super().__init__()
        first = torch.zeros(rows, components)
        first[:, 0] = 1
        self.register_buffer("weights", first)  # (R, K)
        self.register_buffer("means", torch.zeros(rows, components, dim))  # (R, K, Z)
        roots = torch.zeros(rows, components, dim, dim)
        roots.diagonal(dim1=-2, dim2=-1).fill_(1)  # torch.eye on the device "meta" would import sympy: two seconds
        self.register_buffer("roots", roots)  # (R, K, Z, Z)

    weights: Tensor
    means: Tensor
    roots: Tensor

    def fit(self, codes: Tensor, rows: Tensor | None = None) -> None:
        """Fit to codes (N, Z), each of a row (N,); a row without codes stays as it is."""
        numbers = torch.zeros(len(codes), dtype=torch.int64) if rows is None else rows.cpu()
        for row in range(len(self.weights)):
            own = codes.detach().cpu()[numbers == row].double().numpy()
            if not len(own):
                continue
            weights, means, roots = fitted(own, self.weights.shape[1])
            used = len(weights)
            self.weights[row] = 0
            self.weights[row, :used] = torch.from_numpy(weights)
            self.means[row, :used] = torch.from_numpy(means)
            self.roots[row, :used] = torch.from_numpy(roots)

    def draw(self, n: int, rows: Tensor | None, generator: torch.Generator) -> Tensor:
        """n codes (N, Z), each from its row's mixture, all chance from the (CPU) generator."""
        eps = torch.randn(n, self.means.shape[2], generator=generator).to(self.means)
        row = torch.zeros(n, dtype=torch.int64, device=eps.device) if rows is None else rows
        k = torch.multinomial(self.weights[row].cpu(), 1, generator=generator).squeeze(1).to(eps.device)
        return self.means[row, k] + (self.roots[row, k] @ eps[:, :, None]).squeeze(2)

    def from_noise(self, eps: Tensor, choice: Tensor, rows: Tensor | None) -> Tensor:
        """Codes (N, Z) made of N(0, 1) numbers (N, Z), and of uniform ones (N,) that choose the Gaussian."""
        row = torch.zeros_like(choice, dtype=torch.int64) if rows is None else rows
        k = chosen(self.weights[row], choice)
        return self.means[row, k] + (self.roots[row, k] @ eps[:, :, None]).squeeze(2)


def fitted(codes: Array, components: int) -> tuple[Array, Array, Array]:
    """Weights (K,), means (K, Z) and square roots of covariances (K, Z, Z) for codes (N, Z), K at most `components`.

    Each component has at least twice as many codes as the latent dimension, or it would memorise them.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    with threadpool_limits(1):  # numpy's threads spin when they are done, and would take the cores from torch's
        return _fitted(codes, components)


def _fitted(codes: Array, components: int) -> tuple[Array, Array, Array]:
    centre = codes.mean(0)
    variances, axes = np.linalg.eigh((codes - centre).T @ (codes - centre) / len(codes))
    deviations, axes = np.sqrt(variances.clip(min=0)), axes.T  # (Z,), (Z, Z)
    varying = deviations > SMALLEST * np.abs(codes).max()
    deviations, axes = deviations[varying], axes[varying]
    if not varying.any():
        return np.ones(1), centre[None], np.zeros((1, codes.shape[1], codes.shape[1]))
    back = axes * deviations[:, None]  # from the scaled components to codes
    most = max(1, min(components, len(codes) // (2 * codes.shape[1])))
    if most == 1:
        return np.ones(1), centre[None], (back.T @ axes)[None]

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(most, max_iter=ROUNDS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is meant
        mixture.fit((codes - centre) @ axes.T / deviations)
    # Square roots in the directions that vary, made Z x Z by turning them back: eps @ axes' is N(0, 1) there too.
    roots = back.T @ np.linalg.cholesky(mixture.covariances_) @ axes
    return mixture.weights_, centre + mixture.means_ @ back, roots


@torch.no_grad()
def encoded(
    model: GenerativeModel, images: BatchSource, encode: Callable[[Batch], Tensor]
) -> tuple[Tensor, Tensor | None]:
    """What `encode` makes of training images, at most `MOST_CODES` of them, and their classes if the model has any."""
    chosen = some_of(images, MOST_CODES, "settle").sort().values
    codes, classes = [], []
    with evaluating(model):
        for indices in torch.split(chosen, model.shape.together(AT_ONCE)):
            x, y = images.batch(indices)
            batch = model.given(x, y if model.classes else None)
            codes.append(encode(batch))
            classes += [] if batch.y is None else [batch.y]
    return torch.cat(codes), torch.cat(classes) if classes else None
