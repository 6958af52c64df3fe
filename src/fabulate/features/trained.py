"""Small networks, trained in a minute on one processor core: a classifier, and an encoder for images without classes.

Both stand on one trunk. A first layer with a wide kernel brings any image to 8 to 16 pixels a side, so that large
images cost hardly more than small ones; three stages halve what is left while channels double, each convolution
followed by batch normalisation (Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167) and a ReLU; the mean over all
places is the features. As in ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) there is no layer of full size
at the end: features do not know where they were found.

The classifier serves three times. Its features tell the classes of these very images apart, not those of ImageNet.
Trained on a model's samples and tested on real images it gives the classification accuracy score (Ravuri, Vinyals 2019,
https://arxiv.org/abs/1905.10887). Trained on real images with and without samples it proves or refutes that samples
help. Labels are smoothed (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567): an image of class y counts 0.9 for
it, the rest is spread over all.

The encoder should tell the same of two random changes of one image, and something else of other images: VICReg
(Bardes, Ponce, LeCun 2022, https://arxiv.org/abs/2105.04906). Both changed images go through the trunk f and an
expander h; of z = h(f(T(x))) and z' = h(f(T'(x))) the loss is

    25 |z - z'|^2 / D  +  25 [v(z) + v(z')]  +  [c(z) + c(z')],
    v(z) = mean_j max(0, 1 - deviation(z_j)) / 2,        each number of the code varies over the batch,
    c(z) = sum_{i != j} cov(z)_ij^2 / D,                 and no two of them say the same.

Afterwards h is thrown away. What the changes leave as it is (shape and texture) the features keep, and what they change
(place, size, brightness) the features lose; so a model that draws all its images too dark is not found out by them.

Legend: N images, B batch, C H W image, K classes, D features.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from fabulate.data import Images
from fabulate.errors import ConfigError, DataError, DivergedError
from fabulate.metrics.intervals import Estimate
from fabulate.nets import transforms
from fabulate.nets.blocks import check_sides, keep_variance
from fabulate.seeds import generator, permutation, seeded
from fabulate.types import ImageShape, Progress

RECIPE = 1  # raised when anything here makes another network of the same images
BATCH = 128
RATE = 0.01
LARGEST_MAP = 16  # pixels a side after the first layer, at most
SMALL_IMAGE = 16  # images with no longer side have half as many features
SMOOTHING = 0.1
Change = Callable[[Tensor, torch.Generator], Tensor]
"""Images (B, C, H, W), changed at random."""

CODE = 256  # numbers in which the encoder's loss compares
FEWEST_STEPS, EPOCHS = 300, 40
MOST_STEPS, MOST_ENCODER_STEPS = 2000, 600


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


class Classifier(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to logits (N, K).

    >>> classifier = Classifier(ImageShape(1, 8, 8), ["cat", "dog"]).eval()
    >>> classifier(torch.zeros(5, 1, 8, 8)).shape, classifier.features(torch.zeros(5, 1, 8, 8)).shape
    (torch.Size([5, 2]), torch.Size([5, 64]))
    """

    def __init__(self, shape: ImageShape, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.trunk = Trunk(shape)
        self.last = nn.Linear(self.trunk.dim, len(self.classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.trunk(x))

    def features(self, x: Tensor) -> Tensor:
        """Features (N, D): what the last layer sees."""
        return self.trunk(x)


def enough_steps(n: int, most: int = MOST_STEPS) -> int:
    """Steps that n images are worth: 40 epochs, but 300 to 2,000 steps (of an encoder 600)."""
    return min(most, max(FEWEST_STEPS, EPOCHS * n // BATCH))


def train_classifier(
    images: Images,
    classes: Sequence[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    weights: Tensor | None = None,
    change: Change | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Classifier:
    """A classifier of labelled images, in evaluation mode; equal arguments give equal weights.

    `steps`: of 128 images each; None: 40 epochs, but 300 to 2,000 steps. `weights` (K,): how much an image of a class
    counts. `change`: what is done to images at random, as `transforms.shifts`. `progress`: called with (steps done,
    all steps).
    Errors: `DataError` without labels; `ConfigError` for fewer than two classes, wrong weights or sides outside 8..256.
    """
    if images.y is None:
        raise DataError("a classifier needs the classes of its images, and these have none")
    if len(classes) < 2:
        raise ConfigError(f"a classifier needs at least two classes; given {len(classes)}")
    labels = torch.tensor(images.y)
    weighting = torch.ones(len(classes)) if weights is None else weights.float()
    fits = weighting.shape == (len(classes),) and bool((weighting >= 0).all() and weighting[labels].any())
    if not fits:
        raise ConfigError(
            f"class weights are {len(classes)} numbers >= 0, one for each class, not 0 for all images; given {weights}"
        )
    weighting = (weighting / weighting[labels].mean()).to(device)
    with seeded(seed, "classifier"):
        classifier = Classifier(images.shape, classes).to(device)

    def loss(step: int, indices: Tensor) -> Tensor:
        x, y = images.batch(indices)
        assert y is not None
        if change is not None:
            x = change(x, generator(seed, "changes", step))
        y = y.to(device)
        # Each image is weighed as a whole: cross_entropy's own weights would weigh the smoothed part of its target by
        # class, and with it even plain images of a common class would be drawn to a rare one.
        each = F.cross_entropy(classifier(x.to(device)), y, label_smoothing=SMOOTHING, reduction="none")
        return (weighting[y] * each).mean()

    fit(classifier, loss, len(images), seed=seed, steps=steps or enough_steps(len(images)), progress=progress)
    return classifier


@torch.no_grad()
def predict(classifier: Classifier, images: Images) -> Tensor:
    """The class (N,) int64 that each image is given."""
    device = classifier.last.weight.device
    parts = torch.split(torch.arange(len(images)), 500)
    return torch.cat([classifier(images.batch(part).x.to(device)).argmax(1).cpu() for part in parts])


def accuracy(classifier: Classifier, images: Images) -> Estimate:
    """The share of images given their own class, with its 95 % interval. Errors: `DataError` without labels."""
    if images.y is None:
        raise DataError("accuracy needs the classes of the images, and these have none")
    right = predict(classifier, images).numpy() == images.y
    return Estimate.of_share(int(right.sum()), len(right))


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

    steps = steps or enough_steps(len(images), MOST_ENCODER_STEPS)
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

    By AdamW (Loshchilov, Hutter 2019, https://arxiv.org/abs/1711.05101) at a rate that rises over a fifth of the steps
    and then falls to nearly nothing, which makes a few epochs enough (Smith, Topin 2018,
    https://arxiv.org/abs/1708.07120). Only the seed, the images and the number of steps decide the result, which is in
    evaluation mode. Errors: `DivergedError` when a loss is not finite.
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
