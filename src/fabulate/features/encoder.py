"""Features without classes: two random changes of one image should be told the same, and other images something else.

VICReg (Bardes, Ponce, LeCun 2022, https://arxiv.org/abs/2105.04906). Both changed images go through the trunk f and an
expander h; of z = h(f(T(x))) and z' = h(f(T'(x))) the loss is

    25 |z - z'|^2 / D  +  25 [v(z) + v(z')]  +  [c(z) + c(z')],
    v(z) = mean_j max(0, 1 - deviation(z_j)) / 2,        each number of the code varies over the batch,
    c(z) = sum_{i != j} cov(z)_ij^2 / D,                 and no two of them say the same.

Afterwards h is thrown away. What the changes leave as it is (shape and texture) the features keep, and what they change
(place, size, brightness) the features lose; so a model that draws all its images too dark is not found out by them.

Legend: B batch, N images, C H W image, D numbers of the code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.data import Images
from fabulate.errors import DataError
from fabulate.features.trunk import BATCH, Trunk, fit
from fabulate.nets import transforms
from fabulate.seeds import generator, seeded
from fabulate.types import Progress

RECIPE = 1  # raised when anything here makes another encoder of the same images
CODE = 256
MOST_STEPS, FEWEST_STEPS, EPOCHS = 600, 300, 40


def train_encoder(
    images: Images,
    *,
    seed: int = 0,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Trunk:
    """A network from images (N, C, H, W) in [-1, 1] to features (N, D), in evaluation mode, learnt without classes.

    Equal arguments give equal weights. `steps`: of 128 images each; None: 40 epochs, but 300 to 600 steps. `progress`:
    called with (steps done, all steps). Errors: `ConfigError` for sides outside 8..256; `DataError` for a
    single image.
    """
    if len(images) < 2:
        raise DataError("an encoder learns to tell images apart and needs at least two images")
    with seeded(seed, "encoder"):
        trunk = Trunk(images.shape)
        expander = nn.Sequential(
            *(nn.Linear(trunk.dim, CODE), nn.BatchNorm1d(CODE), nn.ReLU(), nn.Linear(CODE, CODE)),
        )
        model = nn.Sequential(trunk, expander).to(device)

    def loss(step: int, indices: Tensor) -> Tensor:
        x, chance = images.batch(indices).x, generator(seed, "changes", step)
        views = torch.cat([changed(x, chance), changed(x, chance)]).to(device)
        return vicreg(*model(views).chunk(2))

    steps = steps or min(MOST_STEPS, max(FEWEST_STEPS, EPOCHS * len(images) // BATCH))
    fit(model, loss, len(images), seed=seed, steps=steps, progress=progress)
    return trunk


def changed(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each zoomed into, lit otherwise and noisier, colour ones mirrored too."""
    x = transforms.light(transforms.zoom(x, chance), chance)
    if x.shape[1] >= 3:
        x = transforms.flip(x, chance)
    return transforms.noise(x, chance)


def vicreg(z: Tensor, other: Tensor) -> Tensor:
    """The loss of two codes (B, D) of the same images: alike, of deviation 1, uncorrelated."""
    spread = sum(F.relu(1 - (code.var(0) + 1e-4).sqrt()).mean() for code in (z, other)) / 2
    return 25 * F.mse_loss(z, other) + 25 * spread + correlation(z) + correlation(other)


def correlation(z: Tensor) -> Tensor:
    """The sum of the squared covariances between different numbers of a code (B, D), over D."""
    cov = z.T.cov()
    return (cov.square().sum() - cov.diagonal().square().sum()) / z.shape[1]
