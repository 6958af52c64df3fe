"""Images: one uint8 array that batches are sliced from, without per-sample Python.

Legend: N images, B batch, C H W image.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fabulate.data.gate import to_pixels
from fabulate.data.listing import Labels, Pixels
from fabulate.data.mapped import FileRows
from fabulate.errors import DataError
from fabulate.types import Batch, BatchSource, ImageShape


@dataclass(frozen=True, eq=False, repr=False)
class Images(BatchSource):
    """Images x, uint8 (N, C, H, W), in memory or memory-mapped, and classes y, int64 (N,), or None.

    Arrays of other layouts and numbers are made such, or refused with a `DataError`, by the rules of `gate.py`.

    >>> images = Images(np.zeros((10, 1, 8, 8), np.uint8))
    >>> images, len(images), images.shape.size
    (Images(10 of 8x8 gray), 10, 64)
    >>> images.batch(torch.tensor([3, 1])).x.shape
    torch.Size([2, 1, 8, 8])
    """

    x: Pixels
    y: Labels | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype != np.uint8 or self.x.shape[1] not in (1, 3):
            object.__setattr__(self, "x", to_pixels(self.x, "the images")[0])
        if self.y is None:
            return
        y = np.asarray(self.y)
        if y.shape != (len(self.x),) or y.dtype.kind not in "iu":
            raise DataError(f"{len(self.x):,} images have as many integers as classes; given {y.dtype} {y.shape}")
        object.__setattr__(self, "y", y.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.shape})"

    @property
    def shape(self) -> ImageShape:
        """Channels, height and width of one image."""
        return ImageShape(*self.x.shape[1:])

    @property
    def class_numbers(self) -> Labels:
        """The classes (N,) of images that are known to have them."""
        assert self.y is not None, "whoever asks has seen to it that these images have classes"
        return self.y

    def pixels(self, indices: Tensor) -> Pixels:
        """The images at `indices` (B,) as they are stored: uint8 (B, C, H, W), a copy."""
        return self._taken(indices).numpy()

    def stored(self, indices: Tensor) -> Batch:
        """The images at `indices` (B,), uint8 (B, C, H, W), and their classes (B,) int64 or None."""
        return Batch(
            self._taken(indices), None if self.y is None else torch.from_numpy(np.take(self.y, indices.numpy()))
        )

    @cached_property
    def _file(self) -> FileRows | None:
        return FileRows(self.x) if FileRows.of(self.x) else None

    def _taken(self, indices: Tensor) -> Tensor:
        if self._file is not None:
            return torch.from_numpy(self._file[indices.numpy()])
        if self.x.flags.writeable:  # torch gathers with all its threads; whole rows: 5 times faster than [indices]
            return torch.from_numpy(self.x).index_select(0, indices)
        return torch.from_numpy(np.take(self.x, indices.numpy(), axis=0))
