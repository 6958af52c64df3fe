"""An augmented data set on disk, real images apart from synthetic ones, with a record of how it came to be.

    DIR/
      real/CLASS/*.png         the images that were learnt from
      synthetic/CLASS/*.png    those that were made
      test/CLASS/*.png         those that nothing was learnt from: test with these, and with no others
      augment.json             source, cut, model's hash, seeds, rules, counts; the number of each synthetic image
      learnt-from.txt          a digest of the pixels of each image that was learnt from
      samples.png              some of each class
      run/                     the model, unless one was given

Legend: N images, C H W image.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fabulate.config import DataSpec, from_json, to_json
from fabulate.data import Data, Images
from fabulate.errors import DataError, RunError
from fabulate.files import read_json, write_file, write_json
from fabulate.folder_names import folder_name
from fabulate.pictures import to_image
from fabulate.uses.augment.split import Split, digests

MANIFEST, LEARNT_FROM = "augment.json", "learnt-from.txt"
KIND, FORMAT = "augmented images", 1
Progress = Callable[[int, int], None]


class Augmented(NamedTuple):
    """What the folder of an augmented data set says."""

    spec: DataSpec
    """How the real images were read."""
    fingerprint: str
    held_out: list[int]
    images: Images
    """The synthetic ones (N, C, H, W), numbered by `classes`."""
    classes: tuple[str, ...]
    gone: int
    """Synthetic images that were written and are no longer there."""
    learnt_from: set[str]
    """Digests of the images that the model learnt from."""
    manifest: dict[str, Any]

    def spec_of(self, source: str) -> DataSpec:
        """How to read a source so that its images are like these."""
        return replace(self.spec, source=source)

    @property
    def origin(self) -> dict[str, Any]:
        """What they were made from and by."""
        return {"made_from": self.manifest["data"], "model": self.manifest["model"]}


def claim(folder: Path, data: Data, cut: Split, overwrite: bool) -> None:
    """Make a folder this data set's, or see that it is: one that was interrupted goes on, a finished one is refused.

    With `overwrite` the synthetic images that an earlier manifest lists are removed; no other file ever is.
    Errors: `RunError` for a folder that holds anything else.
    """
    told = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give another --out")
    about = {"kind": KIND, "format": FORMAT, "data": origin(data, cut)}
    if told.is_file():
        before = _manifest(folder)
        if before["data"]["fingerprint"] != data.fingerprint or before["data"]["held_out"] != list(cut.held_out):
            raise RunError(f"{folder} holds images made from other data, or cut otherwise; give another --out")
        if before.get("finished") and not overwrite:
            raise RunError(f"{folder} exists; give --overwrite to replace its synthetic images, or another --out")
        for image in before.get("images", ()):
            (folder / image["file"]).unlink(missing_ok=True)
    elif folder.exists() and any(folder.iterdir()) and not overwrite:
        raise RunError(f"{folder} is not empty; give --overwrite to write into it, or another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(told, about)


def origin(data: Data, cut: Split) -> dict[str, Any]:
    """Which real images, how they were read and how they were cut."""
    spec = to_json(data.spec)
    return {"spec": spec, "name": data.name, "fingerprint": data.fingerprint, "held_out": list(cut.held_out)}


def write_part(
    folder: Path,
    part: str,
    images: Images,
    classes: tuple[str, ...],
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write labelled images as folder/part/CLASS/NUMBER.png; their paths there. Numbers: 0, 1, ... by default"""
    assert images.y is not None
    paths = []
    for i, k in enumerate(images.y.tolist()):
        number = i if numbers is None else int(numbers[i])
        path = Path(part) / folder_name(classes[k]) / f"{number:05}.png"
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        to_image(images.x[i]).save(folder / path)
        paths.append(path)
        if progress is not None:
            progress(i + 1, len(images))
    return paths


def finish(
    folder: Path,
    data: Data,
    cut: Split,
    files: Mapping[Path, tuple[str, int]],
    about: Mapping[str, Any],
) -> None:
    """Write the record. `files`: class and number of each synthetic image; `about`: model, seeds, rules, counts."""
    text = "".join(f"{digest}\n" for digest in digests(cut.train))
    write_file(folder / LEARNT_FROM, lambda file: file.write(text.encode()))
    images = [{"file": path.as_posix(), "class": name, "number": number} for path, (name, number) in files.items()]
    manifest = {"kind": KIND, "format": FORMAT, "finished": True, "data": origin(data, cut), **about}
    write_json(folder / MANIFEST, {**manifest, "images": images})


def read(folder: Path) -> Augmented:
    """The augmented data set of a folder; synthetic images that somebody removed are left out and counted.

    Errors: `RunError` for a folder that holds none, or an unfinished one; `DataError` when no synthetic image is left,
    or one cannot be read.
    """
    manifest = _manifest(folder)
    if not manifest.get("finished"):
        raise RunError(f"{folder} is not finished; give the `fabulate augment` command again to continue it")
    classes = tuple(manifest["classes"])
    there = [image for image in manifest["images"] if (folder / image["file"]).is_file()]
    if not there:
        raise DataError(f"{folder} holds none of the {len(manifest['images']):,} synthetic images its record lists")
    x = np.stack([_pixels(folder / image["file"]) for image in there])
    y = np.array([classes.index(image["class"]) for image in there], np.int64)
    try:
        learnt_from = set((folder / LEARNT_FROM).read_text(encoding="utf-8").split())
    except FileNotFoundError as error:
        raise RunError(f"{folder / LEARNT_FROM} is missing: which images the model saw cannot be told") from error
    return Augmented(
        from_json(DataSpec, manifest["data"]["spec"]),
        manifest["data"]["fingerprint"],
        manifest["data"]["held_out"],
        Images(x, y),
        classes,
        len(manifest["images"]) - len(there),
        learnt_from,
        manifest,
    )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_json(folder / MANIFEST, Any)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{folder} does not say which images it was made from ({MANIFEST} is missing), so no test image could be "
            "trusted; make one with `fabulate augment`"
        ) from error
    except ValueError as error:
        raise RunError(f"{folder / MANIFEST} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or manifest.get("format") != FORMAT:
        raise RunError(f"{folder / MANIFEST} is not a record that this version of fabulate reads")
    return manifest


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with Image.open(path) as image:
            array = np.asarray(image, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
