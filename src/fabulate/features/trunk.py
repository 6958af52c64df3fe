"""The small convolutional network behind trained features, for sides from 8 to 256 and any channels.

A first layer with a wide kernel brings any image to 8 to 16 pixels a side, so that large images cost hardly more than
small ones; three stages halve what is left while channels double, each convolution followed by batch normalisation
(Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167) and a ReLU; the mean over all places is the features. As in
ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) there is no layer of full size at the end: features do not
know where they were found.

`fit` is the loop in which it learns: batches by addressed permutations, AdamW (Loshchilov, Hutter 2019,
https://arxiv.org/abs/1711.05101), and a rate that rises over a fifth of the steps and then falls to nearly nothing,
which makes a few epochs enough (Smith, Topin 2018, https://arxiv.org/abs/1708.07120). Only the seed, the images and the
number of steps decide the result.

Legend: N images, C H W image, D features.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from fabulate.errors import DivergedError
from fabulate.nets.blocks import check_sides, keep_variance
from fabulate.seeds import permutation
from fabulate.types import ImageShape, Progress

BATCH = 128
RATE = 0.01
LARGEST_MAP = 16  # pixels a side after the first layer, at most
SMALL_IMAGE = 16  # images with no longer side have half as many features


class Trunk(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to features (N, D), D = `dim`.

    >>> trunk = Trunk(ImageShape(1, 28, 28)).eval()
    >>> trunk(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 128])

    Errors: `ConfigError` for sides outside 8..256.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        check_sides("the network of trained features", shape, otherwise=", or the features 'pixels'")
        self.shape = ImageShape(*shape)
        width = 16 if max(shape.height, shape.width) <= SMALL_IMAGE else 32
        self.dim = 4 * width
        down, across = (-(-side // LARGEST_MAP) for side in (shape.height, shape.width))
        first = nn.Conv2d(
            shape.channels,
            width,
            (2 * down + 1, 2 * across + 1),
            stride=(down, across),
            padding=(down, across),
            bias=False,
        )
        self.layers = nn.Sequential(
            *(first, nn.BatchNorm2d(width), nn.ReLU()),
            *stage(width, 2 * width),
            *stage(2 * width, 4 * width),
        )
        keep_variance(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented, but not in its types

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))  # (N, D)


def stage(before: int, after: int) -> list[nn.Module]:
    """Half the size, rounded up, and then a convolution that keeps it."""
    return [
        *(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    ]


def fit(
    module: nn.Module,
    loss: Callable[[int, Tensor], Tensor],
    n: int,
    *,
    seed: int,
    steps: int,
    progress: Progress | None = None,
) -> None:
    """Minimise `loss(step, indices)` over the module's parameters; indices (B,) go through 0..n-1 in random order.

    Afterwards the module is in evaluation mode. Errors: `DivergedError` when a loss is not finite.
    """
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.05)
    rising = 0.2 if steps != 4 else 0.25  # of 5 steps a fifth is one, and torch divides by one less
    schedule = OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=rising)
    for step, indices in zip(range(steps), batches(n, seed), strict=False):
        value = loss(step, indices)
        if not value.isfinite():
            raise DivergedError(f"training the feature network met a loss of {float(value)} at step {step + 1}")
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    module.eval()


def batches(n: int, seed: int) -> Iterator[Tensor]:
    """Batches of indices without end; each epoch has an order of its own and leaves its last few out."""
    size, epoch = min(BATCH, n), 0
    while True:
        yield from torch.split(permutation(n, seed, "features", epoch), size)[: n // size]
        epoch += 1
