"""Many images in one PNG, as the page cuts them out again: a square of cells without gaps, as many columns as rows."""

from io import BytesIO
from math import ceil, sqrt

import numpy as np

from fabulate.pictures import Pixels, in_colour, to_image


def atlas(images: Pixels) -> bytes:
    """Images uint8 (N, C, H, W), C 1 to 4, in rows of ceil(sqrt(N)) cells, as a PNG in colour.

    >>> atlas(np.zeros((3, 1, 8, 8), np.uint8))[:4]
    b'\\x89PNG'
    """
    seen = in_colour(images)
    n, channels, height, width = seen.shape
    columns = ceil(sqrt(n))
    rows = ceil(n / columns)
    cells = np.zeros((rows * columns, channels, height, width), np.uint8)
    cells[:n] = seen
    table = cells.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    buffer = BytesIO()
    to_image(table.reshape(channels, rows * height, columns * width)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
