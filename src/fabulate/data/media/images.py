"""Images: uint8 (C, H, W) on the disk, floats in [-1, 1] in models, PNGs as samples. How they are read is in
`intake.py`, `decode.py` and the files that these name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fabulate.data.arrays import to_images
from fabulate.data.media.base import Medium
from fabulate.errors import ConfigError
from fabulate.pictures import Pixels, from_image, pairs, place_png, sheet
from fabulate.types import ImageShape, to_float, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_EXTRA = 200  # bytes of a PNG beside its pixels and the filter of each row, at most


class ImageMedium(Medium):
    """Images."""

    name = "images"
    ending = ".png"

    def given(self, x: Tensor | npt.NDArray[Any], shape: ImageShape) -> Tensor:
        """Floats in [-1, 1] (N, C, H, W). Errors: `ConfigError` for another shape, `DataError` for other values."""
        images = to_images(x, shape)
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            raise ConfigError(f"the model takes images (N, {', '.join(map(str, shape))}), given {tuple(images.shape)}")
        return to_float(images)

    def items(self, x: Tensor, shape: ImageShape) -> Any:
        """uint8 (N, C, H, W)."""
        return to_uint8(x).cpu().numpy()

    def sheet(
        self,
        items: Sequence[Any],
        title: str,
        legend: str = "",
        y: npt.NDArray[Any] | None = None,
        classes: Sequence[str] = (),
    ) -> "Image":
        return sheet(np.asarray(items), title, legend, y, classes)

    def pairs(self, real: Sequence[Any], made: Sequence[Any], title: str, legend: str = "") -> "Image":
        return pairs(np.asarray(real), np.asarray(made), title, legend)

    def place(self, item: Pixels, path: Path) -> None:
        place_png(item, path)

    def read(self, path: Path) -> Pixels:
        from PIL import Image

        return from_image(Image.open(path))

    def file_size(self, shape: ImageShape) -> int:
        return shape.size + shape.height + PNG_EXTRA
