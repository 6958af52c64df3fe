"""`GenerativeOverSampler`: over-sampling for imbalanced-learn's pipelines, by a conditional generative model.

    make_pipeline(GenerativeOverSampler(image_shape=(1, 28, 28)), LogisticRegression()).fit(x, y)

`fit_resample` trains the model on the rows it is given and adds samples of it, as imblearn's own over-samplers add
points of theirs, so that in a cross-validation every fold has a model that saw only its own training part. Images pass
the filters of `filters.py`. Rows of features have none: each column is made Gaussian by its ranks and back
(`normal_scores.py`), so that neither its unit nor a far outlier matters; to the model a row is an image of one line.

Legend: N rows, D columns, C H W image, K classes.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from imblearn.over_sampling.base import BaseOverSampler
from scipy import sparse
from sklearn.utils import check_random_state

from fabulate.data import Images
from fabulate.data.arrays import Reading, pixel_values, reading
from fabulate.errors import DataError
from fabulate.models import GenerativeModel
from fabulate.seeds import permutation, seed_at
from fabulate.training import fit
from fabulate.types import BatchSource, ImageShape, Selected, Tensors, to_uint8
from fabulate.uses.augment.filters import Filters, rejection_sampling
from fabulate.uses.augment.pipeline import balanced_rows, conditional
from fabulate.uses.normal_scores import REACH, fit_columns, from_normal_scores, normal_scores

Rows = npt.NDArray[Any]
STEPS = 1000  # for rows of features, where no budget is given


class GenerativeOverSampler(BaseOverSampler):  # type: ignore[misc]  # imbalanced-learn has no types
    """Over-sampling with samples of a conditional generative model (imbalanced-learn's contract).

    Parameters. `sampling_strategy`: as for every over-sampler there: "auto" makes all classes as many as the largest, a
    dict says how many each shall have. `image_shape`: (C, H, W) when rows of X are images, uint8 or floats in [0, 1]
    or [-1, 1]; None for rows of features. `family`, `hyperparameters`: the model, and what `fabulate.train` takes.
    `device`: where it is trained. `random_state`: the seed.

    After `fit_resample`: `sampling_strategy_` (how many are added of each class), `model_`, and for images `tallies_`
    (what the filters turned away). Where too few samples pass them, real images fill the rest, with a warning.

    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> y = np.array([0] * 50 + [1] * 10)
    >>> x, y = GenerativeOverSampler(hyperparameters={"steps": 5}).fit_resample(x, y)
    >>> x.shape, np.bincount(y).tolist()
    ((100, 3), [50, 50])
    """

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        image_shape: tuple[int, int, int] | None = None,
        family: str = "vae",
        hyperparameters: Mapping[str, Any] | None = None,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.image_shape = image_shape
        self.family = family
        self.hyperparameters = hyperparameters
        self.device = device
        self.random_state = random_state

    def _fit_resample(self, X: Any, y: Rows) -> tuple[Any, Rows]:  # noqa: N803
        """The rows given, then those made, class after class. Errors: `ConfigError`, `DataError`, as of training."""
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        rows = X.toarray() if sparse.issparse(X) else X
        labels, numbers = np.unique(y, return_inverse=True)
        lacking = {int(np.flatnonzero(labels == label)[0]): int(n) for label, n in self.sampling_strategy_.items() if n}
        if not lacking:
            return X, y
        made = self._images(rows, numbers, lacking) if self.image_shape else self._table(rows, numbers, lacking)
        which = np.repeat(list(lacking), list(lacking.values()))
        joined = np.concatenate([rows, made])
        if sparse.issparse(X):
            joined = sparse.csr_matrix(joined) if X.format == "csr" else sparse.csc_matrix(joined)
        return joined, np.concatenate([y, labels[which].astype(y.dtype)])

    def _images(self, rows: Rows, y: Rows, lacking: dict[int, int]) -> Rows:
        """Images of the classes that lack some, as rows like those given."""
        assert self.image_shape is not None
        shape = ImageShape(*self.image_shape)
        if rows.shape[1] != shape.size:
            raise DataError(f"image_shape {tuple(shape)} has {shape.size} numbers, and rows of X have {rows.shape[1]}")
        read = reading(rows, "rows that are images")
        pixels = _pixels(rows, read).reshape(-1, *shape)
        images, names = Images(pixels, y.astype(np.int64)), tuple(map(str, range(int(y.max()) + 1)))
        self.model_ = self._learn(images, y, {}, shape, names)
        filters, wanted = Filters.of(images, names, seed=self.seed_), {names[k]: n for k, n in lacking.items()}
        found = rejection_sampling(self.model_, filters, wanted, names, seed=self.seed_)
        self.tallies_ = {int(name): tally for name, tally in found.tallies.items()}
        parts = []
        for k, n in lacking.items():
            own = found.images.x[found.images.y == k]
            if len(own) < n:
                warnings.warn(
                    f"class {k}: {len(own)} of {n} samples pass the filters; repeated real images fill the rest. More "
                    "steps, or another family, make better samples",
                    UserWarning,
                    stacklevel=4,
                )
                real = pixels[y == k]
                again = permutation(len(real), self.seed_, "augment", "repeat", k).numpy()
                own = np.concatenate([own, real[np.resize(again, n - len(own))]])
            parts.append(own.reshape(n, -1))
        made = np.concatenate(parts)
        if read == "pixels":
            return (
                made if rows.dtype == np.uint8 else made > 127 if rows.dtype == bool else made.astype(rows.dtype) * 257
            )
        return (made / 255 if read == "unit" else made / 127.5 - 1).astype(rows.dtype)

    def _table(self, rows: Rows, y: Rows, lacking: dict[int, int]) -> Rows:
        """Rows of features of the classes that lack some."""
        given = torch.from_numpy(rows.astype(np.float64))
        columns = fit_columns(given)
        scaled = (normal_scores(columns, given) / REACH).clamp(-1, 1).float()
        source = Tensors(scaled[:, None, None], torch.from_numpy(y.astype(np.int64)))
        names = tuple(map(str, range(int(y.max()) + 1)))
        self.model_ = self._learn(source, y, {"steps": STEPS}, ImageShape(1, 1, rows.shape[1]), names)
        parts = []
        for k, n in lacking.items():
            x = self.model_.sample(n, names[k], seed=seed_at(self.seed_, "augment", k))
            parts.append(from_normal_scores(columns, x.flatten(1).double().cpu() * REACH).numpy())
        made = np.clip(np.concatenate(parts), rows.min(0), rows.max(0))  # beyond what is known nothing is
        return (np.rint(made) if rows.dtype.kind in "iub" else made).astype(rows.dtype)

    def _learn(
        self, images: BatchSource, y: Rows, budget: dict[str, Any], shape: ImageShape, names: tuple[str, ...]
    ) -> GenerativeModel:
        """A conditional model, trained in memory on balanced batches and settled on the images as they are."""
        given = {**budget, **(self.hyperparameters or {}), "seed": self.seed_}
        config, training = conditional(self.family, given, recipe=bool(self.image_shape))
        shown = Selected(images, balanced_rows(y))
        return fit(self.family, config, training, shown, shape, names, device=self.device, latents_of=images)


def _pixels(rows: Rows, read: Reading) -> npt.NDArray[np.uint8]:
    """Rows of pixels as uint8. Errors: `DataError` for numbers that are no pixels."""
    if read == "signed":
        return np.asarray(to_uint8(torch.from_numpy(rows)))
    return pixel_values(rows, "rows that are images")[0]
