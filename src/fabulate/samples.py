"""Samples on disk: one PNG per image, in class folders when the model knows classes, a grid and a manifest; or an .npz.

Any number of images is written in constant memory: they are drawn a batch at a time, and which image sample i is does
not depend on the batch.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fabulate.config import override, to_json
from fabulate.errors import RunError
from fabulate.files import write_file, write_json
from fabulate.models import GenerativeModel
from fabulate.models.base import Labels
from fabulate.pictures import Pixels, grid, save_png, to_image
from fabulate.types import to_uint8

GRID = 64  # images shown in grid.png


def draw(
    model: GenerativeModel, n: int, y: Labels, seed: int, batch_size: int, sampling: Mapping[str, Any]
) -> Iterator[tuple[int, Pixels, Tensor | None]]:
    """Samples 0 .. n - 1 of a seed, `batch_size` at a time: (number of the first, uint8 images, classes)."""
    labels = model.labels(y, n)
    for start in range(0, n, batch_size):
        part = None if labels is None else labels[start : start + batch_size]
        images = model.sample(min(batch_size, n - start), part, seed=seed, start=start, **sampling)
        yield start, to_uint8(images).cpu().numpy(), part


def write_samples(
    model: GenerativeModel,
    folder: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **sampling: Any,
) -> list[Path]:
    """Write samples 0 .. n - 1 of a seed as PNGs, with grid.png and manifest.json; returns the images' paths.

    A model with classes writes each image in the folder of its class, so that the folder is a data set to train on.
    `sampling` are further arguments of `model.sample`.
    Errors: `RunError` when the folder holds something and `overwrite` is off. Nothing is ever deleted.
    """
    folder = Path(folder)
    if not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; give --overwrite to write into it, or another --out")
    width = max(5, len(str(n - 1)))
    paths: list[Path] = []
    shown: list[Pixels] = []
    for start, images, labels in draw(model, n, y, seed, batch_size, sampling):
        for i, image in enumerate(images):
            place = folder if labels is None else folder / folder_name(model.classes[int(labels[i])])
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{start + i:0{width}}.png"
            to_image(image).save(path)
            paths.append(path)
        shown.extend(images[: max(0, GRID - start)])
        if progress is not None:
            progress(len(paths), n)
    save_png(grid(np.stack(shown)), folder / "grid.png")
    write_json(
        folder / "manifest.json",
        {
            "family": model.family,
            "model_sha256": model.weights_hash(),
            "seed": seed,
            "sampling": to_json(override(model.sampling, sampling)),
            "n": n,
            "classes": list(model.classes),
            "images": [str(path.relative_to(folder).as_posix()) for path in paths],
        },
    )
    return paths


def write_npz(
    model: GenerativeModel,
    path: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **sampling: Any,
) -> Path:
    """Write samples 0 .. n - 1 of a seed as one .npz: images (N, C, H, W) uint8, labels (N,) and seed.

    Errors: `RunError` when the file exists and `overwrite` is off.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists; give --overwrite to replace it, or another name")
    images = np.empty((n, *model.shape), np.uint8)
    for start, part, _ in draw(model, n, y, seed, batch_size, sampling):
        images[start : start + len(part)] = part
        if progress is not None:
            progress(start + len(part), n)
    labels = model.labels(y, n)
    arrays = {"images": images, "seed": np.array(seed), "model_sha256": np.array(model.weights_hash())}
    if labels is not None:
        arrays |= {"labels": labels.numpy(), "classes": np.array(model.classes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    return path


def folder_name(label: str) -> str:
    """A class's name as a folder's: separators replaced, never empty or hidden.

    >>> folder_name("cat/dog"), folder_name(".."), folder_name("3")
    ('cat_dog', '_..', '3')
    """
    name = label.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return f"_{name}" if not name or name.startswith(".") else name
