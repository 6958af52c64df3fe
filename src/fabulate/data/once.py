"""Every image of parquet files once, in the order of their rows, some at a time: to judge more than memory holds.

In a stream that is trained on others stand in for images that cannot be read. Here each row counts by itself and has
its name, its file and its number there; what cannot be read is left out and told. Pages of a file are read one after
another, so that little is held however large its row groups are.

Legend: N images, B images of a portion, C H W image.
"""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from fabulate.config import DataSpec
from fabulate.data.decode import decode
from fabulate.data.intake import WORKERS, check_broken
from fabulate.data.listing import Label, Pixels
from fabulate.data.parquet import Shard, Shards, read_rows
from fabulate.data.reading import UnreadableError
from fabulate.data.report import listed
from fabulate.types import ImageShape

CERTAIN = 1000  # images that must have been seen before a share of them is held against the rest
PORTION, PORTION_BYTES = 500, 64 << 20  # images at once, at most, in so many bytes of pixels


class Portion(NamedTuple):
    """Some images with their names and the names of their classes, "" where there is none."""

    names: list[str]
    classes: list[str]
    x: Pixels
    """uint8 (B, C, H, W)."""


class Once:
    """The images of parquet files, read as `spec` says and brought to a `shape`, which is of its size and channels.

    Going through them anew begins anew.
    """

    def __init__(self, name: str, shards: Shards, spec: DataSpec, shape: ImageShape) -> None:
        self.name, self.shards, self.spec, self.shape = name, shards, spec, shape
        self.broken: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return sum(group.rows for groups in self.shards.parts.values() for group in groups)

    def __iter__(self) -> Iterator[Portion]:
        """All images that can be read. Errors: `DataError` where more than `limit_broken` cannot, or none can."""
        self.broken, seen = [], 0
        most = max(1, min(PORTION, PORTION_BYTES // self.shape.size))
        files = dict.fromkeys(group.shard for groups in self.shards.parts.values() for group in groups)
        with ThreadPoolExecutor(WORKERS, "fabulate-decode") as pool:
            for shard in files:
                first = 0
                for cells, labels in read_rows(shard, self.shards.columns, most):
                    portion = self._portion(shard, first, cells, labels, pool)
                    first, seen = first + len(labels), seen + len(labels)
                    certain = max(seen, min(len(self), CERTAIN))
                    check_broken(self.broken, certain, self.spec.limit_broken)
                    if portion.names:
                        yield portion
        check_broken(self.broken, seen, 0 if len(self.broken) == seen else self.spec.limit_broken)

    @property
    def warning(self) -> str | None:
        """A sentence about the images of the last pass that cannot be read."""
        if not self.broken:
            return None
        told = "; ".join(listed([f"{name}: {reason}" for name, reason in self.broken], limit=5))
        return f"Warning: {len(self.broken):,} of {len(self):,} images cannot be read and are left out: {told}"

    def _portion(
        self, shard: Shard, first: int, cells: Any, labels: list[Label | None], pool: ThreadPoolExecutor
    ) -> Portion:
        with warnings.catch_warnings():  # the filters are the process's, so this holds in the threads too
            warnings.simplefilter("ignore")
            found = list(pool.map(self._decoded, cells))
        names, classes, images = [], [], []
        for i, (image, label) in enumerate(zip(found, labels, strict=True)):
            name = f"{shard.name}[{first + i}]"
            if isinstance(image, str):
                self.broken.append((name, image))
                continue
            names.append(name)
            classes.append(self._class(label))
            images.append(image)
        return Portion(names, classes, np.stack(images) if images else np.empty((0, *self.shape), np.uint8))

    def _decoded(self, cell: Any) -> Pixels | str:
        """An image (C, H, W), or why there is none."""
        spec = self.spec
        try:
            found = decode(cell.as_py() or b"", spec.sides, self.shape.channels, None, spec.span, spec.cap, spec.fit)
        except UnreadableError as error:
            return str(error)
        assert found.pixels is not None, "an image that is fitted to a size has pixels"
        return found.pixels

    def _class(self, label: Label | None) -> str:
        names = self.shards.columns.names
        known = isinstance(label, int) and 0 <= label < len(names)
        return "" if label is None else names[int(label)] if known else str(label)
