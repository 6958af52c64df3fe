"""A detector on disk: a folder with config.json and detector.safetensors; never a pickle.

All that was fitted is tensors by name, so one file holds it: `mahalanobis/mean` is the normals' mean,
`model/...` are the weights of the model, whose hyperparameters stand in config.json. config.json is
written first and says whose the folder is; its hash stands in the header of the other file, so that the two cannot be
of different fits, whenever a write was interrupted.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, with_config
from torch import Tensor
from typing_extensions import TypedDict

from fabulate.config import DataSpec, PositiveInt, data_spec, override, to_json, written_size
from fabulate.errors import ConfigError, RunError
from fabulate.files import own_folder, read_json, read_weights, sha256, write_json, write_weights
from fabulate.models import GenerativeModel, family
from fabulate.models.saving import restored
from fabulate.nets.lite0 import SHA256
from fabulate.types import ImageShape
from fabulate.uses.outliers.detector import Fitted, OutlierDetector
from fabulate.uses.outliers.scores import SCORES, Kind

CONFIG, STATE = "config.json", "detector.safetensors"
KIND: Literal["outliers"] = "outliers"
FORMAT: Literal[5] = 5  # raised when a newer fabulate could misread an older folder
OF = "config_sha256"  # in the header of the tensors
PLAIN = ("names_", "shape_", "seed_", "n_features_in_")  # what was fitted and is JSON

Share = Annotated[float, Field(gt=0, lt=1)]
Shape = tuple[PositiveInt, PositiveInt, PositiveInt]


class Parameters(TypedDict):
    """What the detector was made with."""

    scores: list[str] | str | None
    features: Kind
    image_shape: Shape | None
    false_alarm: Share
    folds: Annotated[int, Field(ge=2)] | None
    family: str
    hyperparameters: dict[str, Any] | None
    variants: Annotated[int, Field(ge=0)]
    strays: Annotated[float, Field(ge=0, le=0.5)] | Literal["auto"]
    device: str
    random_state: int | None


class Learnt(TypedDict):
    """What it learnt beside tensors."""

    names_: Annotated[list[str], Field(min_length=1)]
    shape_: Shape | tuple[()]
    seed_: int
    n_features_in_: PositiveInt


class Model(TypedDict):
    """The generative model."""

    config: dict[str, Any]
    shape: Shape


@with_config(ConfigDict(extra="ignore"))
class Mark(TypedDict):
    """What tells a detector of any version from other folders that have a config.json."""

    kind: Literal["outliers"]
    format: int


@with_config(ConfigDict(extra="allow"))
class Config(TypedDict):
    """config.json; what else stands there is the caller's."""

    kind: Literal["outliers"]
    format: Literal[5]
    parameters: Parameters
    fitted: Learnt
    model: Model | None
    pretrained: str | None
    """The SHA-256 of the weights behind the features lite0, where a score looks at them."""


def save_detector(detector: OutlierDetector, folder: Path, **about: Any) -> None:
    """Write a fitted detector into a folder, made if need be; `about` is kept in config.json beside it.

    Errors: `ConfigError` for a random_state that is a generator: its seed cannot be told.
    """
    parameters = detector.get_params()
    if not isinstance(parameters["random_state"], int | None):
        raise ConfigError("a detector is saved with a number as its random_state, or None; given a generator")
    fitted = detector.fitted_
    parts = {**fitted.states, "columns": fitted.columns}
    parts |= {} if fitted.model is None else {"model": fitted.model.state_dict()}
    state = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    state |= {"normals": torch.from_numpy(detector.raw_normals_), "weights": torch.from_numpy(detector.weights_)}
    if detector.shape_:
        state |= {f"heat/{name}": value for name, value in {**detector.linear_, "usual": detector.usual_}.items()}
    config = {
        **about,
        "kind": KIND,
        "format": FORMAT,
        "parameters": parameters,
        "fitted": {name: getattr(detector, name) for name in PLAIN},
        "pretrained": SHA256 if any(SCORES[name].deep for name in detector.names_) else None,
        "model": None
        if fitted.model is None
        else {"config": to_json(fitted.model.config), "shape": list(fitted.model.shape)},
    }
    write_json(own_folder(folder) / CONFIG, config)
    write_weights(folder / STATE, state, {OF: sha256(folder / CONFIG)})


def load_detector(folder: Path) -> OutlierDetector:
    """The detector of a folder, as it was fitted.

    Errors: `RunError` when there is none, or it is damaged or of another format.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder} holds no detector ({CONFIG} is missing); make one with `fabulate outliers fit`")
    if read_json(folder / CONFIG, Mark)["format"] != FORMAT:
        raise RunError(f"{folder} is a detector of another version of fabulate; make one: `fabulate outliers fit`")
    config: Config = read_json(folder / CONFIG, Config)
    if config["pretrained"] not in (None, SHA256):
        raise RunError(
            f"{folder} learnt features of other weights (SHA-256 {config['pretrained'][:12]}, here {SHA256[:12]}); "
            "fit again with --overwrite"
        )
    state, about = read_weights(folder / STATE)
    if about.get(OF) != sha256(folder / CONFIG):
        raise RunError(
            f"{folder}: {CONFIG} is not as it was written, or {STATE} is of another fit; fit again with --overwrite"
        )
    detector = OutlierDetector(**config["parameters"])
    for name, value in config["fitted"].items():
        setattr(detector, name, value)
    detector.names_ = tuple(detector.names_)
    detector.fitted_ = _fitted(folder, state, detector, config["model"])
    detector.raw_normals_, detector.weights_ = state["normals"].numpy(), state["weights"].numpy()
    detector.calibrate()
    if detector.shape_:
        detector.linear_ = _under(state, "heat/")
        detector.usual_ = detector.linear_.pop("usual")
    return detector


def spec_of(detector: OutlierDetector, folder: Path, source: str, limit_broken: float) -> DataSpec:
    """How to read a source so that its images are like those that the detector of a folder learnt.

    Errors: `RunError` for a detector of rows.
    """
    if not detector.shape_:
        raise RunError(f"{folder} learnt rows of numbers; score them from Python: load_detector(...).predict(rows)")
    channels, height, width = detector.shape_
    own = data_spec(read_json(folder / CONFIG, dict[str, Any]).get("data", {}))  # with the range of its values
    size = own.size or written_size(height, width)
    return override(own, {"source": source, "channels": channels, "size": size, "limit_broken": limit_broken})


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _fitted(folder: Path, state: dict[str, Tensor], detector: OutlierDetector, about: Model | None) -> Fitted:
    states = {name: _under(state, f"{name}/") for name in detector.names_ if name in SCORES}
    model: GenerativeModel | None = None
    if about is not None:
        weights, shape = _under(state, "model/"), ImageShape(*about["shape"])
        model = restored(family(detector.family), about["config"], shape, [], weights, str(folder))
    return Fitted(states, model, _under(state, "columns/"))
