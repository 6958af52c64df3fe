"""`OutlierDetector`: learns normals only, tells how normal anything is, and calls outliers at a promised rate.

Each normal is judged by a fit without it, and these scores make the p-values and the threshold of `conformal.py`. Of
images the scores know themselves what they would say had it been left out (`distances.py`); of rows a twentieth is left
out at a time, and fits are made anew. So the fit to all normals judges others, and all normals calibrate. This is the
jackknife's promise: it holds nearly, as few normals among many move a fit little. What a model of normals says cannot
be had without another training. There, or where `folds` is given, one fold is held out and the fit to the others judges
it: split conformal prediction, whose promise is a theorem.

What belongs together, by `groups=` or as `groups.py` finds it, is left out or held out together.

Legend: N rows or images, M held-out normals, D numbers, C H W image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self
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
from fabulate.uses.outliers import groups as grouping
from fabulate.uses.outliers.features import Inputs, State
from fabulate.uses.outliers.scores import SCORES, Kind, default, named

Numbers = npt.NDArray[np.float64]
PORTION = 2000  # rows judged at a time
GUARDED, LOUD = 0.02, 2.0  # a guard is heard about what is so rare among normals, and so much louder than a score
STEPS = 1500  # of training where no budget is given: a detector has to be quick, and copies need not be sharp
TRIMS = 3  # fits, at most: each leaves out what the one before found too far out
STRAY, DOUBT = 0.01, 0.02  # of the normals left out, or doubtful: worth a warning
PARTS = 20  # of rows, each of which is left out in turn
FOLDS = 5  # one of which is held out where a model is trained
SUSPECT = 0.2  # of the normals in groups that nobody named: worth a warning, as fewer hardly move a rate


class Fitted(NamedTuple):
    """What was fitted to normals."""

    states: dict[str, State]
    """Of each score."""
    model: GenerativeModel | None
    columns: State
    """Of rows: what makes each column Gaussian. Empty for images."""

    def view(self, seen: Inputs) -> Inputs:
        """Rows (N, D) or images as this fit sees them."""
        if seen.x.ndim == 2:
            seen = replace(seen, x=normal_scores(self.columns, seen.x))
        return seen if self.model is None else replace(seen, model=self.model)


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An ensemble of scores of normality, calibrated on held-out normals (scikit-learn's contract).

    Parameters. `scores`: names from `fabulate.uses.outliers.scores.SCORES`, None for the default of images or of rows.
    `features`: which images are judged by then: "scattering"; "lite0", of ImageNet's photographs, with the extra
    `features`; "auto": lite0 for colour images of 32 pixels or more a side where it is installed, else scattering.
    `image_shape`: (C, H, W) when rows of X are images, uint8 or floats in [0, 1] or [-1, 1]; None when they are rows of
    features, or X is (N, C, H, W) or (N, H, W, C). `false_alarm`: the share of normals that may be called outliers.
    `folds`: hold out one of so many parts of the normals; None: judge each by the fit without it, and with a
    model hold out one of 5. `strays`: the share of the normals that are none, 0 to 0.5; those farthest from the
    others are left out; "auto": what lies farther out than tails reach is. `family`, `hyperparameters`: the generative
    model behind the scores that need one, and what
    `fabulate.train` takes. `variants`: how many slightly moved and turned copies of each image are learnt from beside
    it.

    After `fit`: `groups_` (of each normal (N,): its group, as given or found), `strays_` (which were left out
    as no normals), `threshold_` (also `offset_`),
    `normals_` (the scores of normals that calibrate) and `weights_` (1 over how many of them are of one group),
    `false_alarm_` (the rate and the interval that holds it 95 times in 100), `false_alarm_interval_`.

    >>> X = np.random.default_rng(0).normal(size=(400, 3))
    >>> detector = OutlierDetector(false_alarm=0.05).fit(X)
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    array([ 1, -1])
    """

    shape_: tuple[int, ...]  # of an image; () for rows
    reading_: Reading = "pixels"  # of the images that were learnt
    fitted_: Fitted

    def __init__(
        self,
        scores: Sequence[str] | str | None = None,
        *,
        features: Kind = "auto",
        image_shape: tuple[int, int, int] | None = None,
        false_alarm: float = 0.05,
        folds: int | None = None,
        family: str = "ae",
        hyperparameters: Mapping[str, Any] | None = None,
        variants: int = 0,
        strays: float | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.scores = scores
        self.features = features
        self.image_shape = image_shape
        self.false_alarm = false_alarm
        self.folds = folds
        self.family = family
        self.hyperparameters = hyperparameters
        self.variants = variants
        self.strays = strays
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, progress: Progress | None = None) -> Self:  # noqa: N803
        """Learn normals X (N, D) or (N, C, H, W), at least 2; `y` is ignored. `progress`: (steps done, in all).

        `groups`: a label (N,) for each normal; those with one label are of one thing, person or burst, and are left out
        together; None: they are looked for. The promise is then of normals of new groups.
        Warns when there are too few groups to promise `false_alarm`, and when groups were found. Errors: `ConfigError`
        for parameters that do not fit, `CapabilityError` for a family that cannot give a score, `ValueError` for what
        is no finite array, `DataError` where all normals are equal or of one group.
        """
        x = self._taken(X, fitting=True)
        images = x.ndim == 4
        self.names_ = named(self.scores, self.family, images, default(self.features, x))
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"of at least 2 folds of the normals one is held out; given folds={self.folds}")
        if self.strays != "auto" and not 0 <= self.strays <= 0.5:
            raise ConfigError(f"strays is a share of the normals, 0 to 0.5, or 'auto'; given {self.strays}")
        conformal.rank(len(x), self.false_alarm)  # refuses a rate that is none
        if bool((x == x[:1]).all()):
            raise DataError("all normals are equal: give at least two that differ")
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        seen = self._seen(x, progress)
        group = self._found(x) if groups is None else grouping.labelled(groups, len(x))
        self.groups_ = group.numpy()
        parts = permutation(int(group.max()) + 1, self.seed_, "outliers", "folds").chunk(self.folds or FOLDS)
        held = torch.isin(group, parts[0])
        self.strays_ = np.zeros(len(x), bool)
        learns = any(SCORES[name].needs for name in self.names_)
        if self.folds or learns:
            self.fitted_ = self._fit(seen[~held], progress)[0]
            self.raw_normals_, calibrating = self._raw(self.fitted_, seen[held]), group[held]
        else:
            self._fit_left_out(seen, group, progress)
            calibrating = group[torch.from_numpy(~self.strays_)]
        self.weights_ = conformal.weights(calibrating.numpy())
        self.calibrate()
        if images:
            self._fit_heat(x, held)
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
        return conformal.p_values(scores, self.normals_, self.weights_)

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

    def _fit_left_out(self, seen: Inputs, group: Tensor, progress: Progress | None) -> None:
        """Fit to all normals but strays, and judge each by the fit without its group."""
        rows = seen.x.ndim == 2
        guards = np.array([SCORES[name].guards for name in self.names_])
        told = ~guards if not guards.all() else guards  # guards tell how an image was taken, which has heavy tails
        for trim in range(TRIMS):
            kept = torch.from_numpy(~self.strays_)
            self.fitted_, learnt = self._fit(seen if kept.all() else seen[kept], progress)
            labels = torch.unique(group[kept], return_inverse=True)[1]
            self.raw_normals_ = self._crossed(seen[kept], labels) if rows else self._left_out(learnt, labels)
            if self.strays == "auto":
                found = np.any([conformal.strays(-raw) for raw in self.raw_normals_.T[told]], axis=0)
            else:
                found = np.zeros(len(self.raw_normals_), bool)
                count = 0 if trim else round(self.strays * len(group))
                found[np.argsort(self._combined(self.raw_normals_), kind="stable")[:count]] = True
            left = group[kept][torch.from_numpy(~found)]
            if trim == TRIMS - 1 or not found.any() or not (left != left[0]).any():
                break
            self.strays_[np.flatnonzero(~self.strays_)[found]] = True
        share = float(self.strays_.mean())
        if self.strays != "auto":
            return
        if share >= STRAY:
            warn(
                f"{int(self.strays_.sum()):,} of the normals, {share:.1%}, lie as far from the others as outliers do: "
                "they were left out, of the promise too. Look at them (`strays_`); strays=0 keeps them",
                stacklevel=4,
            )
        doubt = max(conformal.doubtful(-raw) for raw in self.raw_normals_.T[told])
        if doubt >= DOUBT:
            warn(
                f"about {doubt:.0%} of the normals lie farther out than is usual. If they are outliers, fewer will be "
                f"found than could be: look at the strangest, take out what is none, or leave them out by "
                f"strays={doubt:.2f}",
                stacklevel=4,
            )

    def _left_out(self, learnt: Inputs, group: Tensor) -> Numbers:
        """Scores of normals (N, scores) by the fit without their group; behind them come their variants."""
        every, parts = group.repeat(1 + self.variants), []
        for name in self.names_:
            out = SCORES[name].left_out
            assert out is not None  # `fit` asked
            parts.append(out(self.fitted_.states[name], learnt, every)[: len(group)])
        return np.asarray(torch.stack(parts, dim=1).numpy(), float)

    def _crossed(self, seen: Inputs, group: Tensor) -> Numbers:
        """The same of rows, by as many fits as there are parts: how columns are bent and divided depends on each."""
        raw = np.empty((len(group), len(self.names_)))
        count = int(group.max()) + 1
        for part in permutation(count, self.seed_, "outliers", "parts").chunk(min(PARTS, count)):
            held = torch.isin(group, part)
            raw[held.numpy()] = self._raw(self._fit(seen[~held], None)[0], seen[held])
        return raw

    def _found(self, x: Tensor) -> Tensor:
        """The groups of normals (N,), as their likeness tells."""
        group = grouping.of_images(x) if x.ndim == 4 else grouping.of_rows(x / torch.from_numpy(spread(x.numpy())))
        count = int(group.max()) + 1
        if count == 1:
            warn(
                "all normals look like pictures of one thing, or copies: what is promised holds for such", stacklevel=3
            )
            return torch.arange(len(group))
        share = grouping.alike(group)
        if share >= SUSPECT:
            warn(
                f"{share:.0%} of the normals look like several pictures of one thing, or copies. They were taken for "
                f"{count:,} groups, each of which counts once; say what belongs together by groups",
                stacklevel=3,
            )
        return group

    def _fit(self, seen: Inputs, progress: Progress | None) -> tuple[Fitted, Inputs]:
        """A fit to normals, and they as it sees them, with their variants behind them."""
        if self.variants:
            seen = self._seen(with_variants(seen.x, self.variants, self.seed_))
        view = Fitted({}, None, fit_columns(seen.x) if seen.x.ndim == 2 else {})
        fitted, shown = view, view.view(seen)
        if any(SCORES[name].needs for name in self.names_):
            x, values = shown.images, dict(self.hyperparameters or {})
            if all(values.get(budget) is None for budget in BUDGETS):
                values["steps"] = STEPS
            config, training = configure(self.family, values.pop("preset", "default"), values | {"seed": self.seed_})
            shape = ImageShape(*x.shape[1:])
            model = train(self.family, config, training, Tensors(x), shape, device=self.device, progress=progress)
            fitted = view._replace(model=model)
            shown = fitted.view(seen)
        return fitted._replace(states={name: SCORES[name].fit(shown) for name in self.names_}), shown

    def _raw(self, fitted: Fitted, seen: Inputs) -> Numbers:
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
        return self._combined(self._raw(self.fitted_, self._seen(x)))

    def calibrate(self) -> None:
        """Set the threshold from the normals; call it after a change of `false_alarm`: nothing is fitted anew.

        Warns when there are too few of them, or of their groups, for the rate.
        """
        self.normals_ = self._combined(self.raw_normals_)
        n, count = len(self.normals_), float(self.weights_.sum())
        if not conformal.rank(round(count), self.false_alarm):
            needed = int(np.ceil(1 / self.false_alarm - 1 - 1e-9))
            what = "held-out normals" if round(count) == n else "groups of held-out normals"
            warn(
                f"a false-alarm rate of {self.false_alarm:g} needs {needed:,} {what}, and there are {count:,.0f}: "
                f"the rate will be about {1 / (count + 1):.2g}. Give more normals, or a higher false_alarm",
                UserWarning,
                stacklevel=3,
            )
        self.threshold_, k = conformal.threshold(self.normals_, self.false_alarm, self.weights_)
        self.false_alarm_: Estimate = conformal.false_alarms(k, count)

    def _reconstructions(self, x: Tensor) -> Tensor:
        view = self.fitted_.view(Inputs(x))
        model: object = view.model
        if isinstance(model, Reconstructs):
            return view.reconstructions
        return heat.linear_reconstructions(self.linear_, x)

    def _fit_heat(self, x: Tensor, held: Tensor) -> None:
        """What reconstructions of normals that were held out look like."""
        self.linear_ = heat.fit_linear(x[~held], self.seed_)
        self.usual_ = heat.usual(heat.errors(x[held], self._reconstructions(x[held])))
