"""`Debiaser`: learns what varies in images, finds who is rare in its class by a factor, and makes up for it.

It learns a model of structure and palette without labels of any bias (`duotone.py`), and with it gives

* weights: how much each image has to count so that the factor and the class are independent (`weights.py`);
* counterfactuals: the same images with the factor of others, so that it tells nothing of the class (`recoloured`).

Which factor is the bias is a matter of what is meant: a colour may be the accident or the very thing. The default is
the palette, for a class is most often a shape. Images from several environments answer the question themselves
(`factors.py`).

Legend: N images, B batch, Z latent, K classes.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from fabulate.config import nearest, override
from fabulate.data import Images
from fabulate.errors import ConfigError, DataError
from fabulate.seeds import generator
from fabulate.training.devices import pick_device
from fabulate.uses.debias import factors, weights
from fabulate.uses.debias.densities import DENSITIES, Labels, LogDensity, Numbers
from fabulate.uses.debias.duotone import Duotone, DuotoneConfig, paint, unpaint
from fabulate.uses.debias.learning import STEPS, Progress, codes, learn

FEWEST = 50  # images from which anything can be told of densities


class Debiaser:
    """Finds images that are rare in their class by a factor of variation, and makes the factor tell nothing of it.

    `by`: names of factors: palette, structure, structure-3, ...; None: the palette, or with environments the factor
    whose relation to the class differs most between them. `density`, `target`: names from `densities.DENSITIES` and
    `weights.TARGETS`; the default target is "overall", without classes "even". `steps`: of training (None: 2,000).
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
        self.steps, self.device, self.seed = STEPS if steps is None else steps, device, seed
        self.config = override(DuotoneConfig(), hyperparameters or {})
        for what, name, table in (("density", density, DENSITIES), ("target", target, weights.TARGETS)):
            if name is not None and name not in table:
                raise ConfigError(f"there is no {what} {name!r}{nearest(name, [*table])} ({', '.join(table)})")
        if self.by is not None:
            factors.columns(self.by, self.config)
        if self.steps < 1:
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
        self.log_prior_ = factors.prior(self.y_, self.classes_)
        self.target_ = self.target or ("even" if self.classes_ == 1 else "overall")
        device = pick_device(self.device)
        self.place_ = factors.columns(self.by or ("palette",), self.config)
        self.model_: Duotone = learn(
            images, self.config, self._weigh, seed=self.seed, steps=self.steps, device=device, progress=progress
        )
        self.codes_ = codes(self.model_, images)  # (N, Z)
        self.factors_ = factors.found(
            self.codes_, self.y_, self.classes_, self.config, DENSITIES["mixture"], environments, self.seed
        )
        self.chosen_ = self.by or ("palette",)
        if self.by is None and environments is not None:
            worst = factors.spurious(self.factors_)
            if worst is None:
                raise ConfigError(
                    "no factor has another relation to the class in one environment than in the others, so there is no "
                    "bias that environments could show; name a factor yourself (by, --by)"
                )
            self.chosen_ = (worst.name,)
        self.place_ = factors.columns(self.chosen_, self.config)
        self.log_density_: LogDensity = self._density(self.codes_, self.density)
        self.weights_ = self._weights(self.codes_, self.y_)
        return self

    def sampler(self, n: int | None = None) -> WeightedRandomSampler:
        """For a `DataLoader` over the images that were learnt: n of them by weight."""
        return weights.sampler(self.weights_, seed=self.seed, n=n)

    def weigh(self, images: Images) -> Numbers:
        """Weights that undo the bias of other images (N,), on average 1: their own, which may be another one."""
        y = np.zeros(len(images), np.int64) if images.y is None else images.y
        f = codes(self.model_, images)[:, torch.tensor(self.place_)].double().numpy()
        classes = int(y.max()) + 1
        log_density = DENSITIES[self.density](f, y, classes, self.seed)(f)
        return weights.weights(log_density, y, factors.prior(y, classes), self.target_)

    @torch.no_grad()
    def recoloured(self, x: Tensor, *address: int | str) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] with the factor of learnt images drawn at an address of chance."""
        donors = torch.randint(len(self.codes_), (len(x),), generator=generator(self.seed, "debias", *address))
        return counterfactual(self.model_, x, self.codes_[donors], self.place_)

    def _density(self, z: Tensor, name: str) -> LogDensity:
        f = z[:, torch.tensor(self.place_)].double().numpy()
        return DENSITIES[name](f, self.y_, self.classes_, self.seed)

    def _weights(self, z: Tensor, y: Labels) -> Numbers:
        f = z[:, torch.tensor(self.place_)].double().numpy()
        return weights.weights(self.log_density_(f), y, self.log_prior_, self.target_)

    def _weigh(self, z: Tensor) -> Numbers:
        """The weights of all images by the codes that they have now; a flow would take longer than all the rest."""
        self.log_density_ = self._density(z, "mixture")
        return self._weights(z, self.y_)


def counterfactual(model: Duotone, x: Tensor, donors: Tensor, place: tuple[int, ...]) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] with the numbers `place` of their codes taken from other codes (B, Z).

    What the model cannot draw stays as it is: each pixel keeps its place between dark and bright, or moves from there
    as far as the picture of the new structure does from the old one.
    """
    z = model.encode(x)
    new = factors.swapped(z, donors.to(z), place)
    (s, t), (s_new, t_new) = model.parts(z), model.parts(new)
    u = unpaint(x.to(z), model.ends(t))
    if not torch.equal(s, s_new):
        u = u + model.gray(s_new) - model.gray(s)
    return paint(u, model.ends(t_new)).clamp(-1, 1).to(x)


def check_environments(environments: Labels, images: Images) -> None:
    """Refuse what cannot be compared."""
    if images.y is None:
        raise ConfigError("environments show whose relation to the class differs, and these images have no classes")
    if len(environments) != len(images) or len(np.unique(environments)) < 2:
        raise ConfigError(
            f"environments name at least two places, one for each of {len(images):,} images; given "
            f"{len(np.unique(environments))} in {len(environments):,} labels"
        )
