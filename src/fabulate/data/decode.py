"""One image file in, uint8 pixels out: every mode Pillow knows has one documented conversion.

| found                       | becomes                                                                    |
|-----------------------------|----------------------------------------------------------------------------|
| gray (L), colour (RGB)      | itself                                                                     |
| 1-bit                       | gray, 0 or 255                                                             |
| 16-bit gray                 | gray, divided by 257 and rounded                                           |
| palette                     | colour; gray when all colours it uses are gray                             |
| alpha, transparent colour   | composited on white; gray with alpha stays gray                            |
| CMYK, YCbCr, LAB, HSV       | RGB, by Pillow's formula (colour profiles are not applied)                 |
| several frames              | the first frame                                                            |
| EXIF orientation            | applied, so that the image stands upright                                  |
| floats, 32-bit integers     | refused: they have no fixed range                                          |
| more than 50 million pixels | refused on the word of the header, before anything is decoded              |
| `size`                      | centre square, resized with antialiasing (Lanczos); see `fit`              |
| `channels`                  | 1: gray by luma (ITU-R 601); 3: gray repeated                              |

A file that cannot be read raises `UnreadableError` with a short reason for people. Legend: C, H, W image.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from fabulate.data.listing import Pixels, Raw
from fabulate.errors import DataError

VERSION = 1  # part of every fingerprint: raise it when a conversion changes, and cached pixels are made anew

PIXEL_CAP = 50_000_000
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# What Pillow's readers raise on damaged files: their own errors and those of the bytes they trip over.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableError(DataError):
    """A file that is no image we can read; the message is a short reason."""


class Decoded(NamedTuple):
    """One image: its pixels (C, H, W), and its size (height, width) and Pillow mode as found; what was converted."""

    pixels: Pixels | None
    size: tuple[int, int]
    mode: str
    changes: tuple[str, ...] = ()


def decode(
    raw: Raw, size: int | None = None, channels: int | None = None, only: tuple[int, int] | None = None
) -> Decoded:
    """Decode one image, in the size and channels asked for, or as it is.

    `only` (height, width): an image of any other size is measured by its header and not decoded (pixels None).
    Errors: `UnreadableError`.
    """
    try:
        with _open(raw) as image:
            if image.width * image.height > PIXEL_CAP:
                raise UnreadableError(
                    f"decompression bomb: {image.height}x{image.width} pixels, the limit is {PIXEL_CAP:,} pixels"
                )
            found, mode = _upright_size(image), image.mode
            if only is not None and found != only:
                return Decoded(None, found, mode)
            return _develop(image, found, size, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"decompression bomb: the limit is {PIXEL_CAP:,} pixels") from error
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("not an image, whatever its name says") from error
    except DAMAGE as error:
        strerror = getattr(error, "strerror", None)
        reason = f"cannot be opened: {strerror}" if strerror else f"damaged: {str(error) or type(error).__name__}"
        raise UnreadableError(reason) from error


def _open(raw: Raw) -> Image.Image:
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[0] if len(raw) == 1 else np.ascontiguousarray(raw.transpose(1, 2, 0)))
    if (raw.stat().st_size if isinstance(raw, Path) else len(raw)) == 0:
        raise UnreadableError("empty file (0 bytes)")
    return Image.open(raw if isinstance(raw, Path) else io.BytesIO(raw), formats=FORMATS)


def _develop(image: Image.Image, found: tuple[int, int], size: int | None, channels: int | None) -> Decoded:
    mode, changes = image.mode, []
    if size is not None:
        image.draft(None, (2 * size, 2 * size))  # JPEG: a half, quarter or eighth, never below twice the target
    image.load()
    if getattr(image, "is_animated", False):
        changes.append("with several frames (animated): first frame taken")
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
        changes.append("rotated by their EXIF orientation")
    image, change = _plain(image)
    if change:
        changes.append(change)
    wanted = {None: image.mode, 1: "L", 3: "RGB"}[channels]
    if image.mode != wanted:
        image = image.convert(wanted)
        changes.append("converted to gray by luma" if wanted == "L" else "in gray repeated to three channels")
    if size is not None:
        image = fit(image, size)
    pixels = np.asarray(image)
    return Decoded(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), found, mode, tuple(changes))


def fit(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an L or RGB image, resized to size x size with antialiasing (Lanczos).

    The field of view is that of resizing the shorter side to `size` and cropping the centre, in one step.

    >>> fit(Image.new("L", (40, 20)), 8).size
    (8, 8)
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGE:  # a sound image with unsound EXIF: it stays as it stands
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # Without this condition PNG would decode the whole image in search of EXIF after the pixels.
    sideways = "exif" in image.info and _orientation(image) >= 5
    return (image.width, image.height) if sideways else (image.height, image.width)


def _on_white(image: Image.Image) -> Image.Image:
    gray = image.mode in ("1", "L", "LA", "La", "I;16")
    source = image.convert("LA") if image.mode == "La" else image
    rgba = source.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return flat.getchannel(0) if gray else flat


def _from_palette(image: Image.Image) -> Image.Image:
    flat = _on_white(image) if image.mode == "PA" or "transparency" in image.info else image.convert("RGB")
    pixels = np.asarray(flat)
    return flat.getchannel(0) if (pixels == pixels[..., :1]).all() else flat


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableError(f"32-bit integers {values.min()}..{values.max()} have no fixed range; 0..65535 would")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


_ALPHA = "with transparency composited on white"
_PALETTE = "with a palette turned into colours"
_SIXTEEN = "in 16-bit gray divided by 257"
_CONVERSIONS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "1": ("in 1 bit turned into 0 and 255", lambda image: image.convert("L")),
    "P": (_PALETTE, _from_palette),
    "PA": (_PALETTE, _from_palette),
    "I": (_SIXTEEN, _from_16_bit),
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), (_SIXTEEN, _from_16_bit)),
    **dict.fromkeys(("LA", "La", "RGBA", "RGBa"), (_ALPHA, _on_white)),
    **{mode: (f"converted from {mode} to RGB", _to_rgb) for mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX")},
}


def _plain(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in mode L or RGB, and the words for what was done to it ("" for nothing)."""
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        return _on_white(image), _ALPHA
    if image.mode in ("L", "RGB"):
        return image, ""
    if image.mode not in _CONVERSIONS:
        kind = "floating-point pixels have" if image.mode == "F" else f"pixel mode {image.mode} has"
        raise UnreadableError(f"{kind} no fixed range")
    change, convert = _CONVERSIONS[image.mode]
    return convert(image), change
