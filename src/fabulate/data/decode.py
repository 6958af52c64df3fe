"""One image file in, uint8 pixels out: every mode Pillow knows has one documented conversion.

| found                       | becomes                                                                    |
|-----------------------------|----------------------------------------------------------------------------|
| gray (L), colour (RGB)      | itself                                                                     |
| 1-bit                       | gray, 0 or 255                                                             |
| 16-bit gray                 | gray, divided by 257 and rounded                                           |
| 16-bit colour               | its upper 8 bits: more Pillow does not read; refused where a span is given |
| floats, 32-bit integers     | refused: they have no fixed range; gray where a span is given              |
| palette                     | colour; gray when all colours it uses are gray                             |
| alpha, transparent colour   | composited on white; gray with alpha stays gray; kept with 2 or 4 channels |
| CMYK, YCbCr, LAB, HSV       | RGB, by Pillow's formula (colour profiles are not applied)                 |
| several frames              | the first frame                                                            |
| EXIF or XMP orientation     | applied, so that the image stands upright                                  |
| more pixels than the cap    | refused on the word of the header, before anything is decoded              |
| `span` (low, high)          | of what holds more than 8 bits low becomes 0 and high 255, beyond: clipped |
| `size`                      | resized with antialiasing (Lanczos), weighed by alpha; see `fitted`        |
| `channels`                  | 1, 2: gray by luma (ITU-R 601); 3, 4: gray repeated; 2, 4: with alpha      |

The colour of what is fully transparent is white, for nothing is seen of it and a model would have to learn it.

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

from fabulate.config import Fit
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
Sides = tuple[int, int]  # height, width


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
    size: Sides | None = None,
    channels: int | None = None,
    only: Sides | None = None,
    span: Span | None = None,
    cap: int = PIXEL_CAP,
    fit: Fit = "crop",
) -> Decoded:
    """Decode one image, in the size (height, width) and channels asked for, or as it is.

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
        high, wide = image.size[::-1] if size is None else (2 * side for side in _lying(size, head))
        image.draft("L" if channels == 1 and head.mode == "RGB" else None, (wide, high))
        with _pixels_in_flight.holding(image.width * image.height):
            decoded = _develop(image, head, size, channels, span, fit)
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


def _lying(size: Sides, head: Header) -> Sides:
    """A size as it is before an image that lies on its side is turned."""
    return size[::-1] if head.orientation >= 5 else size


def _develop(
    image: Image.Image, head: Header, size: Sides | None, channels: int | None, span: Span | None, fit: Fit
) -> Decoded:
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
        image, change = _with_alpha(image) if channels in (2, 4) else _plain(image)
        if head.gray and channels not in (2, 4):
            image = image.getchannel(0)
    if head.cut:
        values = _values(image.convert(image.mode.removesuffix("A")))._replace(colour=True)
        changes.append("in 16-bit colour cut to their upper 8 bits")
    if change:
        changes.append(change)
    wanted = {None: image.mode, 1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode != wanted:
        if image.mode.removesuffix("A") != wanted.removesuffix("A"):
            changes.append(_LUMA if wanted in ("L", "LA") else "in gray repeated to three channels")
        image = image.convert(wanted)
    if size is not None:
        image = fitted(image, size if turn is None else _lying(size, head), fit)
    if turn is not None:
        image = image.transpose(turn)
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if channels in (2, 4):
        colour, alpha = pixels[:-1], pixels[-1:]
        pixels = np.concatenate([np.where(alpha > 0, colour, 255), alpha])
    return Decoded(pixels, head.size, head.mode, tuple(changes), values)


def fitted(image: Image.Image, size: Sides, fit: Fit) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA brought to a size (height, width) with antialiasing (Lanczos).

    `fit`: "crop", the centre as far as it has the size's proportions; "pad", all of it, in the middle of white bars, or
    of transparent ones where it has alpha; "stretch", all of it, distorted.

    >>> fitted(Image.new("L", (40, 20)), (8, 12), "crop").size
    (12, 8)
    """
    high, wide = size
    if fit == "pad":
        scale = min(high / image.height, wide / image.width)
        inner = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        nothing: dict[str, Any] = {"LA": (255, 0), "RGBA": (255, 255, 255, 0)}
        canvas = Image.new(image.mode, (wide, high), nothing.get(image.mode, "white"))
        canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
        return canvas
    height, width = centre((image.height, image.width), size) if fit == "crop" else (image.height, image.width)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize((wide, high), Image.Resampling.LANCZOS, (left, top, left + width, top + height))


def centre(found: Sides, size: Sides) -> tuple[float, float]:
    """Height and width of the largest part of an image that has the proportions of a size.

    >>> centre((480, 640), (96, 96)), centre((480, 640), (96, 128))
    ((480, 480.0), (480, 640.0))
    """
    (height, width), (high, wide) = found, size
    return (height, height * wide / high) if height * wide <= width * high else (width * high / wide, width)


def cut_away(found: Sides, size: Sides) -> float:
    """The share of an image's area that cropping it to the proportions of a size loses.

    >>> cut_away((480, 640), (96, 96))
    0.25
    """
    height, width = centre(found, size)
    return 1 - height * width / (found[0] * found[1])


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


def _with_alpha(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in mode LA or RGBA, and the words for what was done to it ("" for nothing)."""
    if "transparency" not in image.info and image.mode not in ("PA", "LA", "La", "RGBA", "RGBa"):
        image, change = _plain(image)
        return image.convert(f"{image.mode}A"), change
    if image.mode in ("LA", "RGBA"):
        return image, ""
    if image.mode == "La":
        return image.convert("LA"), ""
    return _by_bands(image, lambda band: band.convert("RGBA")), _PALETTE if image.mode in ("P", "PA") else ""


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
