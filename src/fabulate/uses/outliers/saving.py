"""A detector on disk: a folder with config.json and detector.safetensors; never a pickle.

All that was fitted is tensors by name, so one file holds it: `0/gaussian/mean` is the mean of the Gaussian judge in the
first round, `0/model/...` are the weights of its model, whose hyperparameters stand in config.json.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from fabulate.config import from_json, to_json
from fabulate.errors import ConfigError, RunError
from fabulate.files import read_json, write_file, write_json
from fabulate.models import GenerativeModel, family
from fabulate.types import ImageShape
from fabulate.uses.outliers.detector import OutlierDetector, Round
from fabulate.uses.outliers.scores import SCORES

CONFIG, STATE = "config.json", "detector.safetensors"
KIND, FORMAT = "outliers", 1  # the format is raised when a newer fabulate could misread an older folder
PLAIN = ("names_", "shape_", "seed_", "n_features_in_")  # what was fitted and is JSON


def save_detector(detector: OutlierDetector, folder: Path, **about: Any) -> None:
    """Write a fitted detector into a folder, made if need be; `about` is kept in config.json beside it.

    Errors: `ConfigError` for a random_state that is a generator: its seed cannot be told.
    """
    parameters = detector.get_params()
    if not isinstance(parameters["random_state"], int | None):
        raise ConfigError("a detector is saved with a number as its random_state, or None; given a generator")
    model = detector.rounds_[0].model
    state: dict[str, Tensor] = {"normals": torch.from_numpy(detector.raw_normals_)}
    for i, fitted in enumerate(detector.rounds_):
        parts = {**fitted.states, "columns": fitted.columns}
        parts |= {} if fitted.model is None else {"model": fitted.model.state_dict()}
        state |= {f"{i}/{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    if detector.shape_:
        state |= {f"heat/{name}": value for name, value in {**detector.linear_, "usual": detector.usual_}.items()}
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_file(folder / STATE, lambda file: file.write(save_safetensors(state)))
    config = {
        "kind": KIND,
        "format": FORMAT,
        "parameters": parameters,
        "fitted": {name: getattr(detector, name) for name in PLAIN},
        "rounds": len(detector.rounds_),
        "model": None if model is None else {"config": to_json(model.config), "shape": list(model.shape)},
        **about,
    }
    write_json(folder / CONFIG, config)


def load_detector(folder: Path) -> OutlierDetector:
    """The detector of a folder, as it was fitted.

    Errors: `RunError` when there is none, or it is damaged or of a newer format.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder} holds no detector ({CONFIG} is missing); make one with `fabulate outliers fit`")
    config = read_json(folder / CONFIG, Any)
    if config.get("kind") != KIND or config.get("format") != FORMAT:
        raise RunError(f"{folder} is not a detector this version of fabulate reads; make one: `fabulate outliers fit`")
    try:
        state = load_safetensors((folder / STATE).read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder}: {STATE} is missing or damaged: {error}") from error
    detector = OutlierDetector(**config["parameters"])
    for name in PLAIN:
        setattr(detector, name, config["fitted"][name])
    detector.names_, detector.shape_ = tuple(detector.names_), tuple(detector.shape_)
    detector.rounds_ = [_round(state, i, detector, config["model"]) for i in range(config["rounds"])]
    detector.raw_normals_ = state["normals"].numpy()
    detector.calibrate()
    if detector.shape_:
        detector.linear_ = _under(state, "heat/")
        detector.usual_ = detector.linear_.pop("usual")
    return detector


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _round(state: dict[str, Tensor], i: int, detector: OutlierDetector, about: dict[str, Any] | None) -> Round:
    states = {name: _under(state, f"{i}/{name}/") for name in detector.names_ if name in SCORES}
    model: GenerativeModel | None = None
    if about is not None:
        cls = family(detector.family)
        model = cls(from_json(cls.Config, about["config"]), ImageShape(*about["shape"]))
        model.load_state_dict(_under(state, f"{i}/model/"))
        model.eval().requires_grad_(False)
    return Round(states, model, _under(state, f"{i}/columns/"))
