"""Samples on disk: one PNG per image, in class folders when the model knows classes, a grid and a manifest; or an .npz.

Any number of images is written in constant memory: they are drawn a batch at a time, and which image sample i is does
not depend on the batch. Nor on the process: P of them draw P batches at a time, one each.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from torch import Tensor

from fabulate.compiling import Say, announced, compiled
from fabulate.config import Compile, override, to_json
from fabulate.errors import ConfigError, RunError
from fabulate.files import write_file, write_json
from fabulate.models import GenerativeModel
from fabulate.models.base import Labels
from fabulate.pictures import Pixels, save_png, sheet, to_image
from fabulate.processes import ALONE, Processes
from fabulate.types import to_uint8

ENOUGH_CALLS = 10_000  # of a network, that what compiling saves is more than what it costs

Progress = Callable[[int, int], None]
"""Called with (images drawn, images in all)."""


class Order:
    """Samples 0 .. n - 1 of a seed, as they were asked for; they are drawn a batch at a time, one in each process.

    Errors: `ConfigError` for classes that the model does not know, and for a way of sampling that it does not have.
    """

    def __init__(
        self,
        model: GenerativeModel,
        n: int,
        y: Labels = None,
        *,
        seed: int = 0,
        batch_size: int = 256,
        sampling: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.n, self.seed, self.progress, self.processes = model, n, seed, progress, processes
        self.labels = model.labels(y, n)
        self.sampling = sampling or {}
        self.drawn_with = override(model.sampling, self.sampling)
        even = -(-n // (processes.count * model.rows)) * model.rows  # for each, as many as are drawn together
        self.size = min(batch_size, even)

    def own(self) -> Iterator[tuple[int, Pixels]]:
        """This process's batches: (number of the first image, uint8 images (B, C, H, W))."""
        for first, batch in self._rounds():
            if batch is not None:
                yield first, batch.numpy()

    def whole(self) -> Iterator[tuple[int, Pixels]]:
        """All images in order, in every process, as many at a time as all draw together."""
        done = 0
        for _, batch in self._rounds():
            images = self.processes.gathered(batch).numpy()
            yield done, images
            done += len(images)

    def _rounds(self) -> Iterator[tuple[int, Tensor | None]]:
        """As many rounds as the others go: (number of the first image, images or None when none are left)."""
        together = self.size * self.processes.count
        for start in range(0, self.n, together):
            first = start + self.size * self.processes.rank
            yield first, self._batch(first, min(first + self.size, self.n)) if first < self.n else None
            if self.progress is not None:
                self.progress(min(start + together, self.n), self.n)

    def _batch(self, first: int, last: int) -> Tensor:
        labels = None if self.labels is None else self.labels[first:last]
        images = self.model.sample(last - first, labels, seed=self.seed, start=first, **self.sampling)
        return to_uint8(images).cpu()


def faster(
    model: GenerativeModel, n: int, choice: Compile, say: Say, sampling: Mapping[str, Any] | None = None
) -> AbstractContextManager[None]:
    """Within the block images are drawn by compiled networks, where that is wanted, or pays for n of them.

    What decides is how often networks are called, by n alone: how many processes share the images changes nothing in
    them. An image drawn by compiled networks differs from the same one drawn without in how sums round.
    Errors: `ConfigError` where it is wanted and the family has nothing to compile.
    """
    with model.drawing(sampling or {}):
        repeated = model.repeated()
    if choice == "on" and not repeated:
        raise ConfigError(f"drawing from {model.family} has nothing worth compiling; leave out --compile on")
    calls = -(-n // model.rows) * sum(repeated.values())
    if choice == "off" or (choice == "auto" and calls < ENOUGH_CALLS):
        return nullcontext()
    say(announced("the network"))
    return compiled(repeated, model.device, choice == "on", say)


def write_samples(
    model: GenerativeModel,
    folder: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    **sampling: Any,
) -> list[Path]:
    """Write samples 0 .. n - 1 of a seed as PNGs, with grid.png and manifest.json; returns the images' paths.

    A model with classes writes each image in the folder of its class, so that the folder is a data set to train on.
    Each of several processes writes the images that it draws, into a folder that all of them see; grid and manifest
    come when all are done. `sampling` are further arguments of `model.sample`.
    Errors: `RunError` when the folder holds something and `overwrite` is off. Nothing is ever deleted.
    """
    folder = Path(folder)
    order = Order(
        *(model, n, y), seed=seed, batch_size=batch_size, sampling=sampling, progress=progress, processes=processes
    )
    paths = places(folder, order)
    processes.leads(lambda: vacant_folder(folder, {path.parent for path in paths}, overwrite))
    shown: dict[int, Pixels] = {}
    for first, images in order.own():
        for i, image in enumerate(images, first):
            to_image(image).save(paths[i])
            if i < model.shown:
                shown[i] = image
    together = {i: image for part in processes.collected(shown) for i, image in part.items()}

    def finish() -> None:
        x, y = np.stack([together[i] for i in sorted(together)]), order.labels
        legend = f"{len(x):,} of {n:,} samples, seed {seed}"
        numbers = None if y is None else y[: len(x)].numpy()
        save_png(sheet(x, f"{model.about}: samples", legend, numbers, model.classes), folder / "grid.png")
        write_json(
            folder / "manifest.json",
            {
                "family": model.family,
                "model_sha256": model.weights_hash(),
                "seed": seed,
                "sampling": to_json(order.drawn_with),
                "n": n,
                "classes": list(model.classes),
                "images": [str(path.relative_to(folder).as_posix()) for path in paths],
            },
        )

    processes.leads(finish)
    return paths


def vacant_folder(folder: Path, within: Iterable[Path], overwrite: bool) -> None:
    """Make a folder and those in it; one that holds something is refused, unless told to write into it."""
    if not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; give --overwrite to write into it, or another --out")
    for place in within:
        place.mkdir(parents=True, exist_ok=True)


def places(folder: Path, order: Order) -> list[Path]:
    """Where the images go: folder/NUMBER.png, or folder/CLASS/NUMBER.png."""
    width = max(5, len(str(order.n - 1)))
    folders = [folder / folder_name(name) for name in order.model.classes]
    within = [folder] * order.n if order.labels is None else [folders[c] for c in order.labels.tolist()]
    return [place / f"{i:0{width}}.png" for i, place in enumerate(within)]


def write_npz(
    model: GenerativeModel,
    path: str | Path,
    n: int,
    y: Labels = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    **sampling: Any,
) -> Path:
    """Write samples 0 .. n - 1 of a seed as one .npz: images (N, C, H, W) uint8, labels (N,) and seed.

    Several processes draw, and the first one writes. Errors: `RunError` when the file exists and `overwrite` is off.
    """
    path = Path(path)
    order = Order(
        *(model, n, y), seed=seed, batch_size=batch_size, sampling=sampling, progress=progress, processes=processes
    )
    processes.leads(lambda: vacant_file(path, overwrite))
    images = (images for _, images in order.whole())
    if processes.first:
        arrays = {"seed": np.array(seed), "model_sha256": np.array(model.weights_hash())}
        if order.labels is not None:
            arrays |= {"labels": order.labels.numpy(), "classes": np.array(model.classes)}
        write_file(path, lambda file: stream_npz(file, "images", (n, *model.shape), images, arrays))
    else:
        for _ in images:  # they are drawn here, and written there
            pass
    processes.collected(None)  # none returns before the file is there
    return path


def vacant_file(path: Path, overwrite: bool) -> None:
    """Make a file's folder; a file that exists is refused, unless told to write over it."""
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists; give --overwrite to replace it, or another name")
    path.parent.mkdir(parents=True, exist_ok=True)


def stream_npz(
    file: IO[bytes], name: str, shape: tuple[int, ...], parts: Iterable[Pixels], others: Mapping[str, np.ndarray]
) -> None:
    """Write what `np.savez_compressed` would, of one uint8 array that comes a part at a time, and of other arrays.

    >>> from io import BytesIO
    >>> file = BytesIO()
    >>> stream_npz(file, "x", (3, 2), [np.zeros((2, 2), np.uint8), np.ones((1, 2), np.uint8)], {"seed": np.array(7)})
    >>> arrays = np.load(BytesIO(file.getvalue()))
    >>> arrays["x"].tolist(), int(arrays["seed"])
    ([[0, 0], [0, 0], [1, 1]], 7)
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for part in parts:
                member.write(np.ascontiguousarray(part).data)
        for other, array in others.items():
            with archive.open(f"{other}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def folder_name(label: str) -> str:
    """A class's name as a folder's: separators replaced, never empty or hidden.

    >>> folder_name("cat/dog"), folder_name(".."), folder_name("3")
    ('cat_dog', '_..', '3')
    """
    name = label.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return f"_{name}" if not name or name.startswith(".") else name
