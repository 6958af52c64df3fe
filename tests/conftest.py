"""What all tests share: one thread per process, quick looks at trainings, a cache, and the digits."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fabulate.data import Data, load_data
from fabulate.features import trained
from fabulate.models import mixture
from fabulate.models.families import flow
from fabulate.models.search import EncodesBySearch
from fabulate.pictures import save_png
from fabulate.samplers import grid
from fabulate.training import session

torch.set_num_threads(1)  # several test processes run beside each other, and one thread rounds the same everywhere
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, and tests of hanging up with it


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to a folder of this session, so that no test sees what another day left."""
    before = os.environ.get("FABULATE_CACHE")
    os.environ["FABULATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["FABULATE_CACHE"]
    else:
        os.environ["FABULATE_CACHE"] = before


def no_curves(rows: object, path: Path, *_: object) -> None:
    """Matplotlib's drawing of a training's losses takes longer than the training of a test."""
    save_png(Image.new("L", (1, 1)), path)


QUICK: list[tuple[object, str, object]] = [
    (session, "PICTURES", 2),
    (session, "save_curves", no_curves),
    (mixture, "MOST_CODES", 300),
    (EncodesBySearch.codes, "__defaults__", (10, 0)),  # steps and seed
    (EncodesBySearch.encode, "__kwdefaults__", {"steps": 10, "seed": 0}),
    (flow, "REVERSE", [*reversed(grid(5)[:-1])]),
    (trained, "FEWEST_STEPS", 60),
    (trained, "EPOCHS", 1),
]  # what costs most of a small training and of its use, and changes no law that is asked of it
WHOLE = [(module, name, getattr(module, name)) for module, name, _ in QUICK]


@pytest.fixture(autouse=True, scope="session")
def quick() -> Iterator[None]:
    """Trainings are looked at twice, codes are found in few steps."""
    with pytest.MonkeyPatch.context() as patch:
        for setting in QUICK:
            patch.setattr(*setting)
        yield


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is as it is for users, for tests of how good it is."""
    for setting in WHOLE:
        monkeypatch.setattr(*setting)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("FABULATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def float64() -> Iterator[None]:
    """Models, and the noise that a loss draws, in float64 where a test does not say otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def compiler() -> Iterator[None]:
    """A C++ compiler, and nothing left in memory of its work."""
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        pytest.skip("no C++ compiler here")
    yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def digits(cache: None) -> Data:
    """The embedded digits."""
    return load_data("digits")
