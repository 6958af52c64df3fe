"""The table of scores. Each is two functions: what to keep of normals, and how normal something else is, given that.

    gaussian, neighbours               of rows, or of an image's pixels
    gaussian:scattering, ...           of an image's scattering coefficients
    reconstruction                     how well a model's copy agrees, pixel by pixel
    reconstruction:scattering          the same in scattering coefficients: shape counts, place hardly
    likelihood                         what the family's `score` says: log p(x), a bound, or minus an error
    likelihood:complexity              the same, corrected by the image's complexity
    likelihood:regret                  minus the likelihood regret
    latent                             the Gaussian judge of codes

What needs a model says which capability; a family without it is refused by name. A new score is one more row.

Legend: N rows or images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from fabulate.config import nearest
from fabulate.errors import CapabilityError, ConfigError
from fabulate.models import family
from fabulate.models.base import able
from fabulate.models.capabilities import Encodes, Reconstructs, Scores
from fabulate.models.families.vae import VAE
from fabulate.uses.outliers import judges
from fabulate.uses.outliers.complexity import code_length
from fabulate.uses.outliers.regret import regret
from fabulate.uses.outliers.views import State, View, scattered


class Score(NamedTuple):
    """A way of telling how normal something is."""

    fit: Callable[[View], State]
    """What to keep of normals."""
    score: Callable[[State, View], Tensor]
    """How normal others are: (N,), float64, higher = more normal."""
    needs: type | None = None
    """The capability its model must have; None: it needs no model."""
    of: Literal["images", "both"] = "both"
    """Whether rows can be judged as well."""


def nothing(view: View) -> State:
    """For scores that are a model's alone."""
    return {}


def reconstruction(state: State, view: View) -> Tensor:
    """Minus the root of the mean squared error of the copies (N,)."""
    return -(view.copies - view.images.double()).square().flatten(1).mean(1).sqrt()


def scattered_reconstruction(state: State, view: View) -> Tensor:
    """Minus the distance between the scattering coefficients of images and of their copies (N,)."""
    return -(scattered(view.copies) - view.scattered).norm(dim=1)


def likelihood(state: State, view: View) -> Tensor:
    """The family's own score (N,)."""
    model: object = view.model
    assert isinstance(model, Scores)
    return view.through(model.score)


def complexity(state: State, view: View) -> Tensor:
    """The family's own score and the image's complexity, both in nats, added (N,)."""
    return likelihood(state, view) + code_length(view.images)


def minus_regret(state: State, view: View) -> Tensor:
    """Minus the likelihood regret (N,)."""
    assert isinstance(view.model, VAE)
    return -view.through(partial(regret, view.model))


def codes(view: View) -> Tensor:
    """Codes (N, Z)."""
    assert isinstance(view.model, Encodes)
    return view.through(view.model.encode)


SCORES: dict[str, Score] = {
    "gaussian": Score(lambda view: judges.fit_gaussian(view.plain), lambda s, view: judges.gaussian(s, view.plain)),
    "neighbours": Score(
        lambda view: judges.fit_neighbours(view.plain), lambda s, view: judges.neighbours(s, view.plain)
    ),
    "gaussian:scattering": Score(
        lambda view: judges.fit_gaussian(view.scattered, equal=True),
        lambda s, view: judges.gaussian(s, view.scattered),
        of="images",
    ),
    "neighbours:scattering": Score(
        lambda view: judges.fit_neighbours(view.scattered),
        lambda s, view: judges.neighbours(s, view.scattered),
        of="images",
    ),
    "reconstruction": Score(nothing, reconstruction, needs=Reconstructs),
    "reconstruction:scattering": Score(nothing, scattered_reconstruction, needs=Reconstructs, of="images"),
    "likelihood": Score(nothing, likelihood, needs=Scores),
    "likelihood:complexity": Score(nothing, complexity, needs=Scores, of="images"),
    "likelihood:regret": Score(nothing, minus_regret, needs=VAE),
    "latent": Score(
        lambda view: judges.fit_gaussian(codes(view)), lambda s, view: judges.gaussian(s, codes(view)), needs=Encodes
    ),
}

# Chosen on the digits inside scikit-learn and on letters of printed fonts, bent at random: one kind against the others.
# Pixels as a second judge help small images a little (0.1 points of AUROC) and harm larger ones (2.5).
FOR_IMAGES = ("gaussian:scattering",)
FOR_ROWS = ("gaussian", "neighbours")


def chosen(names: Sequence[str] | str | None, name: str, images: bool) -> tuple[str, ...]:
    """The scores asked for, or the default ones, checked against the family `name` before anything is trained.

    Errors: `ConfigError` for unknown scores (naming the nearest) and for those of images when there are rows;
    `CapabilityError` for a family that lacks what a score needs, naming those that have it.
    """
    if names is None:
        return FOR_IMAGES if images else FOR_ROWS
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ConfigError(f"a detector needs a score, one or several of {', '.join(SCORES)}")
    for each in names:
        if each not in SCORES:
            raise ConfigError(f"there is no score {each!r}{nearest(each, [*SCORES])} (scores: {', '.join(SCORES)})")
        score = SCORES[each]
        if score.of == "images" and not images:
            raise ConfigError(
                f"the score {each!r} is of images, and these are rows of numbers; give image_shape=(C, H, W)"
            )
        if score.needs is not None and not issubclass(family(name), score.needs):
            raise CapabilityError(f"the score {each!r} cannot be had from the family {name!r}; {able(score.needs)}")
    return names
