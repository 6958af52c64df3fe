"""`OutlierDetector`: learns normals only, tells how normal anything is, and calls outliers at a promised rate.

Of the normals each fold in turn is held out; scores are fitted to the others and taken on it. So every normal gets
scores from a fit that has not seen it, and these make the p-values and the threshold of `conformal.py`. With one round
only one fold is held out: split conformal prediction, whose promise is a theorem. With all of them (cross-conformal:
Vovk, "Cross-conformal predictors", 2015, https://doi.org/10.1007/s10472-013-9368-4) every normal calibrates, the mean
of all fits judges, and the promise holds nearly: that is for few normals, which cannot spare a fold.

Legend: N rows or images, M held-out normals, D numbers, C H W image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self
from warnings import warn

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fabulate.config import BUDGETS
from fabulate.data.arrays import Reading, channels_first, pixel_values, reading
from fabulate.errors import ConfigError, DataError
from fabulate.features.base import lite0
from fabulate.metrics.intervals import Estimate
from fabulate.models import GenerativeModel
from fabulate.models.capabilities import Reconstructs
from fabulate.nets.transforms import with_variants
from fabulate.seeds import permutation
from fabulate.training import configure
from fabulate.training import fit as train
from fabulate.training.devices import pick_device
from fabulate.types import ImageShape, Progress, Tensors, to_float
from fabulate.uses.normal_scores import fit_columns, normal_scores, spread
from fabulate.uses.outliers import conformal, heat
from fabulate.uses.outliers.features import Inputs, State
from fabulate.uses.outliers.scores import SCORES, Kind, default, named

Numbers = npt.NDArray[np.float64]
PORTION = 2000  # rows judged at a time
GUARDED, LOUD = 0.02, 2.0  # a guard is heard about what is so rare among normals, and so much louder than a score
STEPS = 1500  # of training where no budget is given: a detector has to be quick, and copies need not be sharp
MANY = 2000  # normals of which one fold in five is enough to promise a rate of 1 / 400


class Round(NamedTuple):
    """One fit: to all normals but a fold."""

    states: dict[str, State]
    """Of each score."""
    model: GenerativeModel | None
    columns: State
    """Of rows: what makes each column Gaussian. Empty for images."""

    def view(self, seen: Inputs) -> Inputs:
        """Rows (N, D) or images as this fit sees them."""
        x = normal_scores(self.columns, seen.x) if seen.x.ndim == 2 else seen.x
        return replace(seen, x=x, model=self.model)


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An ensemble of scores of normality, calibrated on held-out normals (scikit-learn's contract).

    Parameters. `scores`: names from `fabulate.uses.outliers.scores.SCORES`, None for the default of images or of rows.
    `features`: which images are judged by then: "scattering"; "lite0", of ImageNet's photographs, with the extra
    `features`; "auto": lite0 for colour images of 32 pixels or more a side where it is installed, else scattering.
    `image_shape`: (C, H, W) when rows of X are images, uint8 or floats in [0, 1] or [-1, 1]; None when they are rows of
    features, or X is (N, C, H, W) or (N, H, W, C). `false_alarm`: the share of normals that may be called outliers.
    `folds`, `rounds`: parts of the normals, and how many of them are held out in turn; None: all, but 1 with a model or
    2,000 normals. `family`, `hyperparameters`: the generative model behind the scores that need one, and what
    `fabulate.train` takes. `variants`: how many slightly moved and turned copies of each image are learnt from beside
    it.

    Normals that repeat others, exactly or nearly, count once (`conformal.py`).

    After `fit`: `repeated_` (how many were left out for that), `threshold_` (also `offset_`), `normals_` (the held-out
    normals' scores), `false_alarm_` (the rate and the interval that holds it 95 times in 100),
    `false_alarm_interval_`.

    >>> X = np.random.default_rng(0).normal(size=(400, 3))
    >>> detector = OutlierDetector(false_alarm=0.05).fit(X)
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    array([ 1, -1])
    """

    shape_: tuple[int, ...]  # of an image; () for rows
    reading_: Reading = "pixels"  # of the images that were learnt
    rounds_: list[Round]

    def __init__(
        self,
        scores: Sequence[str] | str | None = None,
        *,
        features: Kind = "auto",
        image_shape: tuple[int, int, int] | None = None,
        false_alarm: float = 0.05,
        folds: int = 5,
        rounds: int | None = None,
        family: str = "ae",
        hyperparameters: Mapping[str, Any] | None = None,
        variants: int = 0,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.scores = scores
        self.features = features
        self.image_shape = image_shape
        self.false_alarm = false_alarm
        self.folds = folds
        self.rounds = rounds
        self.family = family
        self.hyperparameters = hyperparameters
        self.variants = variants
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> Self:  # noqa: N803
        """Learn normals X (N, D) or (N, C, H, W), at least 2; `y` is ignored. `progress`: (steps done, in all).

        Warns when there are too few normals to promise `false_alarm`. Errors: `ConfigError` for parameters that do not
        fit, `CapabilityError` for a family that cannot give a score, `ValueError` for what is no finite array,
        `DataError` where all normals are equal.
        """
        x = self._taken(X, fitting=True)
        self.names_ = named(self.scores, self.family, x.ndim == 4, default(self.features, x))
        if self.folds < 2 or (self.rounds is not None and not 1 <= self.rounds <= self.folds):
            raise ConfigError(
                f"normals are cut into at least 2 folds, of which 1 to all are held out in turn; given "
                f"folds={self.folds}, rounds={self.rounds}"
            )
        conformal.rank(len(x), self.false_alarm)  # refuses a rate that is none
        again = conformal.repeats(Inputs(x).plain if x.ndim == 4 else x / torch.from_numpy(spread(x.numpy())))
        self.repeated_, x = int(again.sum()), x[~again]
        if len(x) < 2:
            raise DataError("all normals are equal or nearly so: give at least two that differ")
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        folds = permutation(len(x), self.seed_, "outliers", "folds").chunk(min(self.folds, len(x)))
        learns = any(SCORES[name].needs for name in self.names_)
        seen = self._seen(x, progress)
        rounds = self.rounds or (1 if learns or len(x) >= MANY else len(folds))
        self.rounds_, held_out = [], []
        for i, held in enumerate(folds[:rounds]):
            others = torch.cat([fold for j, fold in enumerate(folds) if j != i])
            self.rounds_.append(self._fit_round(seen[others.sort().values], learns, i, progress))
            held_out.append(self._raw(self.rounds_[-1], seen[held]))
        self.raw_normals_ = np.concatenate(held_out)  # (M, scores)
        self.calibrate()
        if x.ndim == 4:
            self._fit_heat(x, folds[0])
        return self

    def score_samples(self, X: Any) -> Numbers:  # noqa: N803
        """How normal each of X is: the mean over the scores of log p, higher = more normal, at most 0 (N,)."""
        check_is_fitted(self)
        return self._score(self._taken(X))

    def decision_function(self, X: Any) -> Numbers:  # noqa: N803
        """`score_samples` less the threshold: below 0 for outliers (N,)."""
        return self.score_samples(X) - self.threshold_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803
        """-1 for outliers, 1 for normals (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Numbers:  # noqa: N803
        """Conformal p-values: at most alpha for a share of at most alpha of normals (N,)."""
        return self.p_values_of(self.score_samples(X))

    def p_values_of(self, scores: Numbers) -> Numbers:
        """The p-values (N,) of what `score_samples` gave."""
        return conformal.p_values(scores, self.normals_)

    def heat_maps(self, X: Any) -> Numbers:  # noqa: N803
        """Where images depart from their reconstructions, 1 being as much as normals do at that pixel: (N, H, W).

        Errors: `DataError` for a detector of rows.
        """
        check_is_fitted(self)
        x = self._taken(X)
        if x.ndim != 4:
            raise DataError("heat maps are of images, and this detector learnt rows of numbers")
        maps: Numbers = (heat.errors(x, self._reconstructions(x)) / self.usual_).numpy()
        return maps

    @property
    def offset_(self) -> float:
        """scikit-learn's name of the threshold."""
        return float(self.threshold_)

    @property
    def false_alarm_interval_(self) -> tuple[float, float]:
        """The interval that holds the rate of false alarms 95 times in 100."""
        return self.false_alarm_.low, self.false_alarm_.high

    def _taken(self, X: Any, fitting: bool = False) -> Tensor:  # noqa: N803
        """Rows (N, D), float64, or images (N, C, H, W), float32, checked and learnt from by scikit-learn."""
        given = getattr(X, "shape", ())
        shape = tuple(self.image_shape or ()) if fitting else self.shape_
        if len(given) == 4 and (shape or fitting):
            X = np.asarray(X)  # noqa: N806  # scikit-learn's name
            if not shape and X.shape[3] in (1, 3, 4):
                X = channels_first(X, "the images")  # noqa: N806
            elif shape and X.shape[1:] != shape and X.shape[1:] == (*shape[1:], shape[0]):
                X = X.transpose(0, 3, 1, 2)  # noqa: N806
            shape = shape or X.shape[1:]
            if X.shape[1:] != shape:
                raise DataError(f"images must have the shape {shape}, and these have {X.shape[1:]}")
            X = X.reshape(len(X), -1)  # noqa: N806
        if shape and not issparse(X):
            rows = np.asarray(X)
            X = self._pixels(rows, fitting) if rows.shape[1:] == (np.prod(shape),) else rows  # noqa: N806
        kinds = [np.uint8, np.float64, np.float32] if shape else np.float64
        rows = validate_data(self, X, reset=fitting, dtype=kinds, ensure_min_samples=2 if fitting else 1)
        if fitting:
            self.shape_ = shape
        if shape:
            if rows.shape[1] != np.prod(shape):
                raise DataError(f"image_shape {shape} has {np.prod(shape)} numbers, and rows of X have {rows.shape[1]}")
            return to_float(torch.from_numpy(np.ascontiguousarray(rows.reshape(-1, *shape)))).float()
        return torch.from_numpy(np.array(rows))

    def _pixels(self, x: npt.NDArray[Any], fitting: bool) -> npt.NDArray[Any]:
        """Images of any accepted numbers as uint8 or as floats in [-1, 1], read as those that were learnt."""
        read = reading(x, "the images", None if fitting else self.reading_)
        if fitting:
            self.reading_ = read
        if read == "pixels":
            return pixel_values(x, "the images")[0]
        return x * 2 - 1 if read == "unit" else x.astype(np.promote_types(x.dtype, np.float32), copy=False)

    def _seen(self, x: Tensor, progress: Progress | None = None) -> Inputs:
        """Rows or images, with what all fits share of them. `progress`: called with (images seen, in all)."""
        if not any(SCORES[name].deep for name in self.names_):
            return Inputs(x)
        return Inputs(x, deep=lite0(pick_device(self.device))(x, progress))

    def _fit_round(self, seen: Inputs, learns: bool, i: int, progress: Progress | None) -> Round:
        if self.variants:
            seen = self._seen(with_variants(seen.x, self.variants, self.seed_ + i))
        columns = fit_columns(seen.x) if seen.x.ndim == 2 else {}
        view = Round({}, None, columns).view(seen)
        if learns:
            x, values = view.images, dict(self.hyperparameters or {})
            if all(values.get(budget) is None for budget in BUDGETS):
                values["steps"] = STEPS
            config, training = configure(
                self.family, values.pop("preset", "default"), values | {"seed": self.seed_ + i}
            )
            shape = ImageShape(*x.shape[1:])
            model = train(self.family, config, training, Tensors(x), shape, device=self.device, progress=progress)
            view = replace(view, model=model)
        return Round({name: SCORES[name].fit(view) for name in self.names_}, view.model, columns)

    def _raw(self, fitted: Round, seen: Inputs) -> Numbers:
        """Each score of one fit: (N, scores)."""
        parts = []
        for first in range(0, len(seen), PORTION):
            view = fitted.view(seen[first : first + PORTION])
            parts.append(torch.stack([SCORES[name].score(fitted.states[name], view) for name in self.names_], dim=1))
        found: Numbers = torch.cat(parts).detach().numpy()
        return found

    def _combined(self, raw: Numbers) -> Numbers:
        """The mean of log p over the scores, and less what the guards among them find far too strange: (N,)."""
        columns = zip(raw.T, self.raw_normals_.T, strict=True)
        logs = np.stack([conformal.log_tails(scores, normals) for scores, normals in columns])  # (scores, N)
        guards = np.array([SCORES[name].guards for name in self.names_])
        if guards.all():
            return logs.mean(0)
        heard: Numbers = LOUD * np.minimum(logs[guards] - np.log(GUARDED), 0)
        return logs[~guards].mean(0) + heard.sum(0)

    def _score(self, x: Tensor) -> Numbers:
        seen = self._seen(x)
        return self._combined(np.mean([self._raw(fitted, seen) for fitted in self.rounds_], axis=0))

    def calibrate(self) -> None:
        """Set the threshold from the held-out normals; call it after a change of `false_alarm`: nothing is fitted anew.

        Warns when there are too few of them for the rate.
        """
        self.normals_ = self._combined(self.raw_normals_)
        n = len(self.normals_)
        k = conformal.rank(n, self.false_alarm)
        if not k:
            k, needed = 1, int(np.ceil(1 / self.false_alarm - 1 - 1e-9))
            warn(
                f"a false-alarm rate of {self.false_alarm:g} needs {needed:,} held-out normals, and there are {n:,}: "
                f"the rate will be about {1 / (n + 1):.2g}. Give more normals, fewer folds or more rounds, or a higher "
                "false_alarm",
                UserWarning,
                stacklevel=3,
            )
        self.threshold_ = float(np.sort(self.normals_)[k - 1])
        self.false_alarm_: Estimate = conformal.false_alarms(k, n)

    def _reconstructions(self, x: Tensor) -> Tensor:
        view = self.rounds_[0].view(Inputs(x))
        model: object = view.model
        if isinstance(model, Reconstructs):
            return view.reconstructions
        return heat.linear_reconstructions(self.linear_, x)

    def _fit_heat(self, x: Tensor, held: Tensor) -> None:
        """What reconstructions of normals that the first fit has not seen look like."""
        seen = torch.ones(len(x), dtype=torch.bool)
        seen[held] = False
        self.linear_ = heat.fit_linear(x[seen], self.seed_)
        self.usual_ = heat.usual(heat.errors(x[held], self._reconstructions(x[held])))
