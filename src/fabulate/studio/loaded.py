"""Models and images that the page works with, kept in memory: the few that were used last, each with a lock."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from fabulate.config import DataSpec
from fabulate.data import Data, load_spec
from fabulate.models.base import GenerativeModel
from fabulate.training import load, own_data

T = TypeVar("T")

MODELS, SETS = 6, 3  # kept in memory


class Kept(Generic[T]):
    """The values that were asked for last, by key; each is made once, however many ask at the same time."""

    def __init__(self, most: int) -> None:
        self.most, self.lock = most, threading.Lock()
        self.values: OrderedDict[Hashable, tuple[threading.Lock, list[T]]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made where it is not kept."""
        with self.lock:
            entry = self.values.setdefault(key, (threading.Lock(), []))
            self.values.move_to_end(key)
            while len(self.values) > self.most:
                self.values.popitem(last=False)
        lock, held = entry
        with lock:
            if not held:
                held.append(make())
            return held[0]


class Model(NamedTuple):
    """A model and the lock that who uses it holds: how samples are drawn is a state of the model."""

    model: Any
    lock: threading.Lock


_models: Kept[Model] = Kept(MODELS)
_sets: Kept[Data] = Kept(SETS)


def stamp(file: Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    about = file.stat()
    return about.st_mtime_ns, about.st_ino


def version(run: Path) -> Hashable:
    """What changes when a run's model is written anew."""
    weights = run / "model" / "model.safetensors"
    return str(run), stamp(weights) if weights.exists() else None


def model_of(run: Path) -> Model:
    """The model of a run as it is now. Errors: `RunError` where it has none yet."""

    def make() -> Model:
        model: GenerativeModel = load(run)
        return Model(model.eval(), threading.Lock())

    return _models.get(version(run), make)


def data_of(spec: DataSpec) -> Data:
    """The images of a spec. Errors: `DataError`."""
    source = Path(spec.source)
    return _sets.get((spec, stamp(source) if source.exists() else None), lambda: load_spec(spec))


def data_of_run(run: Path) -> Data:
    """The images that a run was trained on."""
    return data_of(own_data(run))
