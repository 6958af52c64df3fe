"""Reference statistics: the features of real images, computed once and shared.

A distance between samples and real images needs the real images' features each time, and their first two moments where
it is Fréchet's. They are kept in the cache by data, part, features and number, and can be written to a file for others:
an `.npz` with `mu`, `sigma` and `n`, as Fréchet distances are published with (Heusel et al. 2017,
https://arxiv.org/abs/1706.08500), and the features themselves beside them, which k-nearest-neighbour metrics need.

Legend: N images, D features.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import torch
from torch import Tensor

from fabulate.data import Data, Images, cache
from fabulate.errors import ConfigError, DataError
from fabulate.features import Features
from fabulate.files import key, parse_json, write_file
from fabulate.metrics.distances import Moments
from fabulate.seeds import permutation
from fabulate.types import Progress

Part = Literal["train", "test"]
CHUNK = 2000  # images in memory at once, as a data set may be larger


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are compared with."""

    moments: Moments
    """n, mean (D,) and covariance (D, D), float64; n is 0 in files of others that do not tell it."""
    features: Tensor | None = None
    """(N, D) float32; None in files of others, which hold only the moments."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Whose features these are and of which images: data, fingerprint, part, seed, features."""

    def save(self, path: str | Path) -> Path:
        """Write an `.npz` that `load` and other packages read; returns its path. Errors: `DataError` from the disk."""
        path = Path(path).expanduser().with_suffix(".npz")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(self, path)
        except OSError as error:
            raise DataError(f"the reference statistics cannot be written to {path}: {error}") from error
        return path


def load(path: str | Path) -> Reference:
    """Reference statistics from an `.npz` with `mu` and `sigma` at least, by fabulate or by others.

    Errors: `DataError` when it cannot be read or holds something else, saying what.
    """
    path = Path(path).expanduser()
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, BadZipFile, ZlibError) as error:
        raise DataError(
            f"{path} holds no reference statistics: {error}. Expected an .npz with mu (D,) and sigma (D, D)"
        ) from error


def reference(
    data: Data,
    part: Part = "test",
    *,
    features: Features,
    n: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reference:
    """The statistics of n images of a data set (None: all), chosen by the seed; from the cache where they are kept.

    Features without a key (a user's own module) are computed each time. `progress`: called with (images done, all).
    Errors: `ConfigError` when there is no such part, or it has fewer than n images, or n is below 2.
    """
    images = _part(data, part)
    indices = chosen(len(images), n, seed)
    address = (data.fingerprint, part, features.key, len(indices), seed if n is not None else None)
    name = f"stats-{key(address)}.npz"
    place = None if features.key is None else cache.root() / "features" / name
    if place is not None:
        with suppress(
            OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, BadZipFile, ZlibError
        ):  # absent, or damaged: made anew
            kept = _read(place)
            cache.touched(place)
            return kept
    vectors, done = [], 0
    for batch in torch.split(indices, CHUNK):
        vectors.append(features(torch.from_numpy(images.pixels(batch))))
        done += len(batch)
        if progress is not None:
            progress(done, len(indices))
    about = {"data": data.name, "fingerprint": data.fingerprint, "part": part, "seed": seed, **features.describe()}
    result = Reference(Moments.of(torch.cat(vectors)), torch.cat(vectors), about)
    if place is not None and cache.folder("features") is not None:
        with suppress(OSError):  # a cache that cannot be written is done without
            _write(result, place)
    return result


def chosen(size: int, n: int | None, seed: int = 0) -> Tensor:
    """Which of `size` images are taken for n of them, int64 (n,): all in order for None, else by the seed.

    Of one seed fewer are the first of more, so that a longer evaluation contains a shorter one.

    >>> chosen(4, None), torch.equal(chosen(100, 20)[:10], chosen(100, 10))
    (tensor([0, 1, 2, 3]), True)
    """
    if n is None:
        n, order = size, torch.arange(size)
    else:
        order = permutation(size, seed, "reference")
    if not 2 <= n <= size:
        raise ConfigError(f"statistics need 2 to {size:,} of the {size:,} images there are; asked for {n:,}")
    return order[:n]


def _part(data: Data, part: str) -> Images:
    images = {"train": data.train, "test": data.test}.get(part)
    if images is None:
        raise ConfigError(
            f"{data.name} has no {part} images" + ("; use part='train'" if part == "test" else "; parts: train, test")
        )
    return images


def _write(ref: Reference, path: Path) -> None:
    arrays: dict[str, Any] = {"mu": ref.moments.mean.numpy(), "sigma": ref.moments.cov.numpy(), "n": ref.moments.n}
    if ref.features is not None:
        arrays["features"] = ref.features.numpy()
    write_file(path, lambda file: np.savez(file, **arrays, about=json.dumps(dict(ref.about))))


def _read(path: Path) -> Reference:
    # A zip file knows the checksum of what is in it, so damage is found out.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        mean, cov = (torch.from_numpy(np.asarray(file[name], np.float64)) for name in ("mu", "sigma"))
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ValueError(f"mu is {tuple(mean.shape)} and sigma {tuple(cov.shape)}")
        features = torch.from_numpy(file["features"]) if "features" in file else None
        about = parse_json(str(file["about"]), dict[str, Any], str(path)) if "about" in file else {}
        return Reference(Moments(int(file["n"]) if "n" in file else 0, mean, cov), features, about)
