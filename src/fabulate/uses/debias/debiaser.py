"""`Debiaser`: learns what varies in images, finds who is rare in its class by a factor, and makes up for it.

It learns a model of structure and palette without labels of any bias (`recolour.py`), and with it gives

* weights: how much each image has to count so that the factor and the class are independent (`densities.py`);
* counterfactuals: the same images with the factor of others, so that it tells nothing of the class (`recoloured`).

The model is shown more often what is rare, as in DB-VAE (Amini et al. 2019, https://doi.org/10.1145/3306618.3314243):
after each epoch all images are encoded, the density of their codes is fitted again, and half of the images of the next
epoch are drawn by the new weights; the other half stays as it is, or it would forget what is common. Densities are
always those of all images as they are.

Which factor is the bias is a matter of what is meant: a colour may be the accident or the very thing. The default is
the factor that tells most of the class, whatever its kind. It may be what makes the class; then weights by it lift no
group, and the test says so (`proof.py`). Images from several environments answer the question themselves
(`factors.py`).

Legend: N images, B batch, Z latent, K classes.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from fabulate.config import Training, nearest, override
from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.prob import systematic
from fabulate.seeds import generator, seeded
from fabulate.training.devices import pick_device
from fabulate.training.loop import Learner
from fabulate.types import Progress, Selected
from fabulate.uses.debias import densities, factors
from fabulate.uses.debias.densities import DENSITIES, TARGETS, Labels, Numbers
from fabulate.uses.debias.recolour import Duotone, DuotoneConfig, Shrunk, counterfactual, looked_at, shrunk

FEWEST = 50  # images from which anything can be told of densities
FEWEST_STEPS, STEPS, EPOCHS = 500, 2000, 150  # of training where nobody says: so many epochs, within these
FIRST = 0.3  # of the steps go by before the first weights: codes of an untrained model mean nothing
MOST = 8  # times that weights are renewed, at most
KEPT = 0.5  # share of an epoch's images that are drawn without weights
PORTION = 2000  # images encoded at a time


class Debiaser:
    """Finds images that are rare in their class by a factor of variation, and makes the factor tell nothing of it.

    `by`: names of factors: palette, structure, structure-3, ...; None: the factor that tells most of the class (without
    classes the palette), or with environments the one whose relation to the class differs most between them. `density`,
    `target`: names from `densities.DENSITIES` and `densities.TARGETS`; the default target is "overall", without classes
    "even". `steps`: of training
    (None: 150 epochs, but 500 to 2,000 steps).
    `hyperparameters`: of the model (`DuotoneConfig`).

    After `fit`: `model_`, `factors_` (a list of `Factor`), `chosen_` (names of the factors made independent),
    `weights_` (N,), on average 1.

    >>> from fabulate import load_data
    >>> images = load_data("digits").train
    >>> debiaser = Debiaser(steps=20).fit(images)
    >>> debiaser.weights_.shape, len(debiaser.sampler())
    ((1618,), 1618)
    """

    def __init__(
        self,
        by: Sequence[str] | str | None = None,
        *,
        density: str = "mixture",
        target: str | None = None,
        steps: int | None = None,
        hyperparameters: dict[str, Any] | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.by = (by,) if isinstance(by, str) else None if by is None else tuple(by)
        self.density, self.target = density, target
        self.steps, self.device, self.seed = steps, device, seed
        self.config = override(DuotoneConfig(), hyperparameters or {})
        for what, name, table in (("density", density, DENSITIES), ("target", target, TARGETS)):
            if name is not None and name not in table:
                raise ConfigError(f"there is no {what} {name!r}{nearest(name, [*table])} ({', '.join(table)})")
        if self.by is not None:
            factors.columns(self.by, self.config)
        if steps is not None and steps < 1:
            raise ConfigError(f"the model needs at least 1 training step; given {steps}")

    def fit(self, images: Images, *, environments: Labels | None = None, progress: Progress | None = None) -> Self:
        """Learn images, of classes or of none; `environments` (N,) numbers where each comes from.

        Errors: `DataError` for fewer than 50 images; `ConfigError` for environments that fit nothing, and when none of
        the factors has another relation to the class in one of them than in the others.
        """
        if len(images) < FEWEST:
            raise DataError(f"debiasing needs at least {FEWEST} training images, and there are {len(images)}")
        if environments is not None:
            check_environments(environments, images)
        self.y_ = np.zeros(len(images), np.int64) if images.y is None else images.y
        self.classes_ = int(self.y_.max()) + 1
        self.target_ = self.target or ("even" if self.classes_ == 1 else "overall")
        self.place_ = factors.columns(self.by or ("palette",), self.config)
        self.model_ = self._learn(images, progress)
        self.codes_ = codes(self.model_, images)  # (N, Z)
        self.factors_ = factors.found(
            self.codes_, self.y_, self.classes_, self.config, DENSITIES["mixture"], environments, self.seed
        )
        self.chosen_ = self.by or (factors.telling(self.factors_).name if self.classes_ > 1 else "palette",)
        if self.by is None and environments is not None:
            worst = factors.spurious(self.factors_)
            if worst is None:
                raise ConfigError(
                    "no factor has another relation to the class in one environment than in the others, so there is no "
                    "bias that environments could show; name a factor yourself (by, --by)"
                )
            self.chosen_ = (worst.name,)
        self.place_ = factors.columns(self.chosen_, self.config)
        self.weights_ = self._weights(self.codes_, self.y_, self.density)
        return self

    def sampler(self, n: int | None = None) -> WeightedRandomSampler:
        """For a `DataLoader` over the images that were learnt: n of them (default: as many as there are) by weight."""
        chance = generator(self.seed, "debias", "sampler")
        return WeightedRandomSampler(self.weights_.tolist(), n or len(self.weights_), generator=chance)

    def weigh(self, images: Images) -> Numbers:
        """Weights that undo the bias of other images (N,), on average 1: their own, which may be another one."""
        y = np.zeros(len(images), np.int64) if images.y is None else images.y
        return self._weights(codes(self.model_, images), y, self.density)

    @torch.no_grad()
    def recoloured(self, x: Tensor, *address: int | str) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] with the factor of learnt images drawn at an address of chance."""
        donors = torch.randint(len(self.codes_), (len(x),), generator=generator(self.seed, "debias", *address))
        return counterfactual(self.model_, x, self.codes_[donors], self.place_)

    def _weights(self, z: Tensor, y: Labels, density: str) -> Numbers:
        """The weights (N,) of images by their codes (N, Z), with the densities of these codes."""
        f, classes = z[:, self.place_].double().numpy(), int(y.max()) + 1
        log_density = DENSITIES[density](f, y, classes, self.seed)(f)
        return densities.weights(log_density, y, densities.log_prior_of(y, classes), self.target_)

    def _learn(self, images: Images, progress: Progress | None) -> Duotone:
        """A model of the images that is shown more often what is rare."""
        with seeded(self.seed, "debias", "weights"):
            model = Duotone(self.config, looked_at(images.shape))
        source = Selected(Shrunk(images, model.shape), torch.arange(len(images)))
        batch = min(128, len(images))
        steps = self.steps or min(STEPS, max(FEWEST_STEPS, EPOCHS * len(images) // batch))
        training = Training(steps=steps, lr=2e-3, batch_size=batch, seed=self.seed)
        learner = Learner(model.to(pick_device(self.device)), training, source)
        every = max(len(images) // batch, int((1 - FIRST) * steps) // MOST, 1)
        for _ in learner.steps():
            step = learner.step
            if step >= FIRST * steps and step % every == 0 and step < steps:
                now: Any = learner.sampler()  # the average is a Duotone too
                weights = self._weights(codes(now, images), self.y_, "mixture")
                shown = torch.from_numpy(KEPT + (1 - KEPT) * weights / weights.mean())
                source.numbers = systematic(shown, len(images), generator(self.seed, "debias", "shown", step))
            if progress is not None:
                progress(step, steps)
        found = learner.sampler().eval().requires_grad_(False)
        assert isinstance(found, Duotone)
        return found


def codes(model: Duotone, images: Images) -> Tensor:
    """The codes of all images (N, Z), on the CPU."""
    parts = torch.split(torch.arange(len(images)), images.shape.together(PORTION))
    return torch.cat([model.encode(shrunk(images.batch(part).x, model.shape)).cpu() for part in parts])


def check_environments(environments: Labels, images: Images) -> None:
    """Refuse what cannot be compared."""
    if images.y is None:
        raise ConfigError("environments show whose relation to the class differs, and these images have no classes")
    if len(environments) != len(images) or len(np.unique(environments)) < 2:
        raise ConfigError(
            f"environments name at least two places, one for each of {len(images):,} images; given "
            f"{len(np.unique(environments))} in {len(environments):,} labels"
        )
