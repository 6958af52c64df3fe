"""A small classifier, trained in a minute on one processor core.

It serves three times. Its last hidden layer gives the features in which images are compared: what tells the classes of
these very images apart, not those of ImageNet. Trained on a model's samples and tested on real images it gives the
classification accuracy score (Ravuri, Vinyals 2019, https://arxiv.org/abs/1905.10887). Trained on real images with and
without samples it proves or refutes that samples help.

Labels are smoothed (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567): an image of class y counts 0.9 for it, the
rest is spread over all. Legend: N images, B batch, C H W image, K classes, D features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.features.trunk import BATCH, Trunk, fit
from fabulate.metrics.intervals import Estimate
from fabulate.nets import transforms
from fabulate.seeds import generator, seeded
from fabulate.types import ImageShape, Progress

RECIPE = 1  # raised when anything here makes another classifier of the same images
SMOOTHING = 0.1
MOST_STEPS, FEWEST_STEPS, EPOCHS = 2000, 300, 40


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


def enough_steps(n: int) -> int:
    """Steps that n images are worth: 40 epochs, but 300 to 2,000 steps."""
    return min(MOST_STEPS, max(FEWEST_STEPS, EPOCHS * n // BATCH))


def train_classifier(
    images: Images,
    classes: Sequence[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    weights: Tensor | None = None,
    augment: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Classifier:
    """A classifier of labelled images, in evaluation mode; equal arguments give equal weights.

    `steps`: of 128 images each; None: 40 epochs, but 300 to 2,000 steps. `weights` (K,): how much an image of a class
    counts. `augment`: images are shifted, and colour ones mirrored. `progress`: called with (steps done, all steps).
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
        if augment:
            chance = generator(seed, "changes", step)
            x = transforms.shift(x, chance)
            x = transforms.flip(x, chance) if images.shape.channels >= 3 else x
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
