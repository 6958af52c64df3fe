"""One image file in, uint8 pixels out: every mode Pillow knows has one documented conversion.

| found                       | becomes                                                                    |
|-----------------------------|----------------------------------------------------------------------------|
| gray (L), colour (RGB)      | itself                                                                     |
| 1-bit                       | gray, 0 or 255                                                             |
| 16-bit gray                 | gray, divided by 257 and rounded                                           |
| 16-bit colour               | its upper 8 bits: more Pillow does not read; refused where a span is given |
| floats, 32-bit integers     | refused: they have no fixed range; gray where a span is given              |
| palette                     | colour; gray when all colours it uses are gray                             |
| alpha, transparent colour   | composited on white; gray with alpha stays gray                            |
| CMYK, YCbCr, LAB, HSV       | RGB, by Pillow's formula (colour profiles are not applied)                 |
| several frames              | the first frame                                                            |
| EXIF or XMP orientation     | applied, so that the image stands upright                                  |
| more pixels than the cap    | refused on the word of the header, before anything is decoded              |
| `span` (low, high)          | of what holds more than 8 bits low becomes 0 and high 255, beyond: clipped |
| `size`                      | centre square, resized with antialiasing (Lanczos); see `fit`              |
| `channels`                  | 1: gray by luma (ITU-R 601); 3: gray repeated                              |

Memory: an image takes up to 16 bytes a pixel while it is decoded. However many threads decode, their images together
have at most `IN_FLIGHT` pixels; a larger one is decoded alone. Conversions go by bands of rows. A JPEG that is to be
small is decoded at a half, a quarter or an eighth of its sides, and one that is to be gray without its colours.

Legend: C, H, W image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fabulate.data.listing import Pixels, Raw
from fabulate.data.reading import PIXEL_CAP, Header, UnreadableError, header, opened

VERSION = 2  # part of every fingerprint: raise it when a conversion changes, and cached pixels are made anew

IN_FLIGHT = 64_000_000  # pixels: four threads with a phone's photograph each
DARK = 4096  # of 65,535: what stays below a sixteenth looks black
FEW = 1e-3  # of an image's pixels: a sensor's hot ones do not make it bright
_BAND = 1 << 20  # pixels converted at a time

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Span = tuple[float, float]


class Values(NamedTuple):
    """What was in an image that held more than 8 bits: its range, and whether more than `FEW` of it reaches `DARK`."""

    low: float
    high: float
    bright: bool
    colour: bool = False
    """Of 16 bits, cut to 8 by the reader: the range is that of the upper bits, and no other can be taken of it."""


class Decoded(NamedTuple):
    """One image: its pixels (C, H, W), and its size (height, width) and Pillow mode as found; what was converted.

    `values`: of images that hold more than 8 bits.
    """

    pixels: Pixels | None
    size: tuple[int, int]
    mode: str
    changes: tuple[str, ...] = ()
    values: Values | None = None


class Budget:
    """Lets threads in while what they take together stays below a limit; what alone is above it goes in alone."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken, self.changed = limit, 0, Condition()

    @contextmanager
    def holding(self, n: int) -> Iterator[None]:
        """Within the block `n` of the limit are taken; waits until they can be."""
        with self.changed:
            self.changed.wait_for(lambda: self.taken == 0 or self.taken + n <= self.limit)
            self.taken += n
        try:
            yield
        finally:
            with self.changed:
                self.taken -= n
                self.changed.notify_all()


_pixels_in_flight = Budget(IN_FLIGHT)


def decode(
    raw: Raw,
    size: int | None = None,
    channels: int | None = None,
    only: tuple[int, int] | None = None,
    span: Span | None = None,
    cap: int = PIXEL_CAP,
) -> Decoded:
    """Decode one image, in the size and channels asked for, or as it is.

    `only` (height, width): an image of any other size is measured by its header and not decoded (pixels None).
    `span`: the values that become 0 and 255 in an image of more than 8 bits. `cap`: the most pixels that it may have.
    Errors: `UnreadableError`.
    """
    with opened(raw, cap) as image:
        head = header(image)
        if only is not None and head.size != only:
            return Decoded(None, head.size, head.mode)
        if head.cut and span is not None:
            raise UnreadableError(_CUT_FOR_GOOD)
        # Of a JPEG only: a part of its sides, never below twice the target; and no colours where none are wanted.
        sides = image.size if size is None else (2 * size, 2 * size)
        image.draft("L" if channels == 1 and head.mode == "RGB" else None, sides)
        with _pixels_in_flight.holding(image.width * image.height):
            decoded = _develop(image, head, size, channels, span)
    assert decoded.pixels is not None
    if size is None and decoded.pixels.shape[1:] != head.size:
        raise UnreadableError("damaged: its header tells another size than its pixels have")
    return decoded


def measured(raw: Raw, cap: int = PIXEL_CAP) -> Values | None:
    """What is in an image of more than 8 bits, None for any other. Errors: `UnreadableError`."""
    with opened(raw, cap) as image:
        if header(image).cut:
            raise UnreadableError(_CUT_FOR_GOOD)
        if image.mode not in _DEEP:
            return None
        with _pixels_in_flight.holding(image.width * image.height):
            image.load()
            return _values(image)


def _develop(image: Image.Image, head: Header, size: int | None, channels: int | None, span: Span | None) -> Decoded:
    changes = []
    if image.mode != head.mode:
        changes.append(_LUMA)
    image.load()
    if getattr(image, "is_animated", False):
        changes.append("with several frames (animated): first frame taken")
    turn = _UPRIGHT.get(head.orientation)
    if turn is not None:
        changes.append("rotated by their EXIF or XMP orientation")
    if image.format == "TIFF":  # it has turned itself
        turn = None
    values = None
    if image.mode in _DEEP:
        values = _values(image)
        image, change = _from_numbers(image, values, span)
    else:
        image, change = _plain(image)
        if head.gray:
            image = image.getchannel(0)
    if head.cut:
        values = _values(image)._replace(colour=True)
        changes.append("in 16-bit colour cut to their upper 8 bits")
    if change:
        changes.append(change)
    wanted = {None: image.mode, 1: "L", 3: "RGB"}[channels]
    if image.mode != wanted:
        image = image.convert(wanted)
        changes.append(_LUMA if wanted == "L" else "in gray repeated to three channels")
    if size is not None:
        image = fit(image, size)
    if turn is not None:
        image = image.transpose(turn)
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return Decoded(pixels, head.size, head.mode, tuple(changes), values)


def fit(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an L or RGB image, resized to size x size with antialiasing (Lanczos).

    The field of view is that of resizing the shorter side to `size` and cropping the centre, in one step.

    >>> fit(Image.new("L", (40, 20)), 8).size
    (8, 8)
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The rows of an image from a first one on, some at a time."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted a band at a time: what lies between is never as large as the image."""
    made: Image.Image | None = None
    for top, band in _bands(image):
        part = convert(band)
        made = made or Image.new(part.mode, image.size)
        made.paste(part, (0, top))
    assert made is not None
    return made


def _values(image: Image.Image) -> Values:
    """The range of the values in an image, and whether they are many that are not dark (of 65,535, or of 255)."""
    low, high, bright = np.inf, -np.inf, 0
    dark = DARK if image.mode in _DEEP else DARK // 256
    for _, band in _bands(image):
        x = np.asarray(band)
        low, high = min(low, float(x.min())), max(high, float(x.max()))  # a NaN is neither
        bright += int(np.count_nonzero(x >= dark))
        if np.isnan(x).any():
            raise UnreadableError("has pixels that are no numbers (NaN)")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableError("has pixels that are not finite")
    return Values(low, high, bright > FEW * image.width * image.height * len(image.getbands()))


def scaled(x: npt.NDArray[Any], span: Span) -> npt.NDArray[np.float64]:
    """Values from the span to 0..255; what lies beyond is clipped."""
    low, high = span
    return np.clip((x.astype(np.float64) - low) * 255 / (high - low), 0, 255)


def _from_numbers(image: Image.Image, values: Values, span: Span | None) -> tuple[Image.Image, str]:
    if span is None and image.mode == "F":
        raise UnreadableError(f"floating-point pixels have no fixed range: {values.low:g}..{values.high:g} (--range)")
    if span is None and not 0 <= values.low <= values.high <= 65535:
        raise UnreadableError(f"32-bit integers {values.low:.0f}..{values.high:.0f} have no fixed range (--range)")
    to = span or (0, 65535)
    made = _by_bands(image, lambda band: Image.fromarray(np.rint(scaled(np.asarray(band), to)).astype(np.uint8)))
    return made, "in 16-bit gray divided by 257" if span is None else ""


def _on_white(image: Image.Image) -> Image.Image:
    gray = image.mode in ("1", "L", "LA", "La")
    source = image.convert("LA") if image.mode == "La" else image
    rgba = source.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return flat.getchannel(0) if gray else flat


def _from_palette(image: Image.Image) -> Image.Image:
    clear = image.mode == "PA" or "transparency" in image.info
    flat = _by_bands(image, _on_white if clear else _to_rgb)
    channels = (np.asarray(band) for _, band in _bands(flat))
    return flat.getchannel(0) if all((x == x[..., :1]).all() for x in channels) else flat


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


_LUMA = "converted to gray by luma"
_CUT_FOR_GOOD = "16-bit colour is read by its upper 8 bits only, so no range can be taken of it"
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_ALPHA = "with transparency composited on white"
_PALETTE = "with a palette turned into colours"
_CONVERSIONS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "1": ("in 1 bit turned into 0 and 255", lambda image: image.convert("L")),
    "P": (_PALETTE, _from_palette),
    "PA": (_PALETTE, _from_palette),
    **dict.fromkeys(("LA", "La", "RGBA", "RGBa"), (_ALPHA, lambda image: _by_bands(image, _on_white))),
    **{mode: (f"converted from {mode} to RGB", _to_rgb) for mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX")},
}


def _plain(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in mode L or RGB, and the words for what was done to it ("" for nothing)."""
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        return _by_bands(image, _on_white), _ALPHA
    if image.mode in ("L", "RGB"):
        return image, ""
    if image.mode not in _CONVERSIONS:
        raise UnreadableError(f"pixel mode {image.mode} has no fixed range")
    change, convert = _CONVERSIONS[image.mode]
    return convert(image), change
