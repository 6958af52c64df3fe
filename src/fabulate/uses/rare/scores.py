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

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fabulate.errors import CapabilityError, ConfigError
from fabulate.models.base import GenerativeModel, Labels, able
from fabulate.models.capabilities import Scores
from fabulate.types import unit
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


SCORES: dict[str, Callable[[GenerativeModel, Labels], Score]] = {
    "surprise": surprise,
    "brightness": lambda model, y: brightness,
    "darkness": lambda model, y: darkness,
}
"""Those that need no data, by name."""
