"""What all tests share: one thread per process, a cache of their own, the digits, and the real data sets if present."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fabulate.data import Data, load_data

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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets, from FABULATE_DATA or beside the checkout; skips where there is none."""
    places = [os.environ.get("FABULATE_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "mnist").is_dir():
            return Path(place)
    pytest.skip("no real data sets: set FABULATE_DATA to a folder that has mnist/ and cifar10/")
