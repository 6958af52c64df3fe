"""What an image of the tail is extreme in: scores s(x, z) of images and their codes, higher = nearer to the event.

    surprise      -log p(x), or minus the bound or the score that stands for it: how unusual the model finds its image
    brightness    the mean pixel in [0, 1], and darkness, 1 minus it
    odds          log p(c | x) / (1 - p(c | x)) of a class by a classifier: above 0 it is the likeliest answer of two
    along         z . v: how far the code lies in a direction v

Any function of this form will do. An event is what its score says and nothing else: log p(x) of images is highest where
they are simple (Nalisnick et al., "Do deep generative models know what they don't know?", 2019,
https://arxiv.org/abs/1810.09136), so `surprise` finds cluttered images; and a classifier has an opinion of images that
it never learnt about.

Legend: N images, C H W image, Z latent, K classes.
"""

import torch
from torch import Tensor, nn

from fabulate.config import nearest
from fabulate.data import Data
from fabulate.errors import CapabilityError, ConfigError
from fabulate.features import ClassifierFeatures, features_for
from fabulate.models.base import GenerativeModel, Labels, able
from fabulate.models.capabilities import HasBound, HasLatent, HasLikelihood, Scores
from fabulate.models.directions import check_size, of_samples
from fabulate.types import Progress, unit
from fabulate.uses.rare.simulator import Score


def brightness(x: Tensor, z: Tensor) -> Tensor:
    """The mean of images' pixels (N, C, H, W), 0 black to 1 white: (N,).

    >>> brightness(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1), torch.zeros(3, 2))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return unit(x).mean((1, 2, 3))


def darkness(x: Tensor, z: Tensor) -> Tensor:
    """1 minus the brightness: (N,)."""
    return 1 - brightness(x, z)


def surprise(model: GenerativeModel, y: Labels = None) -> Score:
    """Minus the model's score, where it has one: nats of log p(x), or of its bound.

    `y`: the class that samples are drawn of, for a model with classes. Errors: `CapabilityError` for other families.
    """
    if not isinstance(model, Scores):
        raise CapabilityError(
            f"{model.family} knows no p(x), so it cannot say which images are rare; {able(Scores)}. Or ask for a tail "
            f"that needs no p(x): a class, a direction of the code, brightness"
        )
    return lambda x, z: -model.score(x, None if y is None else model.labels(y, len(x)))


def odds(classifier: nn.Module, number: int) -> Score:
    """The log odds of a class, by a classifier from images (N, C, H, W) in [-1, 1] to logits (N, K).

    >>> score = odds(nn.Flatten(), 1)  # its logits are the pixels
    >>> score(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), torch.zeros(1, 3))
    tensor([2.])
    """

    def score(x: Tensor, z: Tensor) -> Tensor:
        logits = classifier(x)
        others = logits.clone()
        others[:, number] = -torch.inf
        return logits[:, number] - others.logsumexp(1)

    return score


def along(direction: Tensor) -> Score:
    """How far codes (N, Z) lie along a direction (Z,).

    Errors: `ConfigError` for codes of another length.
    """

    def score(x: Tensor, z: Tensor) -> Tensor:
        if direction.shape != z.shape[1:]:
            raise ConfigError(f"the direction has shape {tuple(direction.shape)}, and codes have {z.shape[1]} numbers")
        return z.double() @ direction.to(z).double()

    return score


def named(name: str, model: GenerativeModel, label: str | None) -> tuple[Score, str]:
    """A score that needs no data, and what it is in words. Errors: as of `surprise`."""
    if name == "surprise":
        kinds = {HasLikelihood: "-log p(x) in nats", HasBound: "minus the bound of log p(x) in nats"}
        kind = next(
            (words for kind, words in kinds.items() if isinstance(model, kind)), "minus the score of the family"
        )
        return surprise(model, label), f"surprise: {kind}"
    if name == "brightness":
        return brightness, "brightness: mean pixel, 0 to 1"
    return darkness, "darkness: 1 - mean pixel, 0 to 1"


def towards(
    model: GenerativeModel,
    data: Data,
    name: str,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Score, str]:
    """The log odds of a class, by a classifier that is trained on labelled images, and that in words.

    Errors: `ConfigError` for a class that the data do not have, and images of another shape than the model's.
    """
    if name not in data.classes:
        hint = nearest(name, list(data.classes))
        raise ConfigError(f"{data.name} has no class {name!r}{hint} (classes: {', '.join(data.classes) or 'none'})")
    if data.shape != model.shape:
        raise ConfigError(f"{data.name} has images of {data.shape}, and the model draws {model.shape}")
    features = features_for(data, "classifier", device=device, progress=progress)
    assert isinstance(features, ClassifierFeatures)
    return odds(features.classifier, data.classes.index(name)), f"log odds of class {name}"


def along_direction(model: HasLatent, k: int, label: str | None) -> tuple[Score, str]:
    """How far codes lie along the k-th direction of those that change the image most (-k: against it), and in words.

    Directions are those of `fabulate traverse`. Errors: `ConfigError` for a direction that there is not.
    """
    check_size(model, model.code(0, label))
    directions = of_samples(model, y=label)[1].vectors  # as of `fabulate traverse`: direction 3 is the same there
    count = len(directions)
    if not 1 <= abs(k) <= count:
        raise ConfigError(f"--direction is 1 to {count}, or -1 to -{count} for its other end, not {k}")
    vector = directions[abs(k) - 1]
    way = "along" if k > 0 else "against"
    return along(vector if k > 0 else -vector), f"how far the code lies {way} direction {abs(k)}"
