"""The gate for arrays: whatever numbers a user gives as images become pixels here, or are refused with their range.

| given                              | read as                                                                  |
|------------------------------------|--------------------------------------------------------------------------|
| uint8                              | pixels                                                                   |
| bool                               | 0 and 255                                                                |
| floats in [0, 1]                   | 0 is black, 1 is white                                                   |
| floats in [-1, 1], some below 0    | as models make them, -1 is black; samples that lie a little beyond are clipped |
| 16-bit integers above 255          | divided by 257; refused where all would be dark                          |
| other numbers, and a span          | its first is black, its second white, what lies beyond is clipped        |
| anything else                      | refused: 0..255 as int64 or float may be pixels, counts or probabilities |

Layouts (N, H, W), (N, H, W, C) and (N, C, H, W), told apart by where 1, 3 or 4 stands; where it stands in both places
the array is refused.

Legend: N images, C H W image.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fabulate.config import DataSpec, written_range
from fabulate.data.decode import DARK, FEW, Span, Values, scaled
from fabulate.data.listing import Pixels
from fabulate.data.report import counted
from fabulate.errors import DarkError, DataError
from fabulate.types import ImageShape, meant

AnyArray = npt.NDArray[Any]

BEYOND = 0.5  # how far samples of a model may lie outside [-1, 1]: a decoder without a last tanh overshoots at edges
_CHANNELS = (1, 3, 4)
_DIM = 32768  # of 65,535: half of the gray levels are not used
_CHUNK = 1 << 24  # numbers converted at a time


def to_pixels(
    x: AnyArray, what: str, span: Span | None = None, beside: AnyArray | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Any accepted array as uint8 (N, C, H, W), C 1, 3 or 4, and notes on what was done.

    `span`: the values of black and white, for what holds more than 8 bits. `beside`: the other part of a data set, if
    there is one: both have one scale. Errors: `DataError` naming the type, shape and range that were given.

    >>> to_pixels(np.ones((2, 8, 8, 3), bool), "the array")[0].shape
    (2, 3, 8, 8)
    """
    return pixel_values(channels_first(x, what), what, span, beside)


def pixel_values(
    x: AnyArray, what: str, span: Span | None = None, beside: AnyArray | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """As `to_pixels`, for an array of any shape, which stays as it is."""
    if x.dtype == np.uint8:
        return x, ()
    alike = [part for part in (x, beside) if part is not None and part.dtype == x.dtype]
    values = [values_of(part) for part in alike]
    low, high = min(low for low, _ in values), max(high for _, high in values)
    chosen, note = _span(alike, low, high, what, span)
    if chosen is None:
        shape = (len(x), *x.shape[2:]) if x.ndim == 4 and x.shape[1] == 1 else x.shape  # gray ones as they are written
        raise DataError(
            f"{what}: pixels must be uint8, bool, floats in [0, 1] or [-1, 1], or 16-bit integers above 255; given: "
            f"{x.dtype} of shape {shape}, values {low:g}..{high:g}. If these are pixels 0..255, give them as "
            "x.astype(np.uint8)."
        )
    pixels = np.empty(x.shape, np.uint8)
    step = max(1, _CHUNK // max(1, x[0].size))
    for start in range(0, len(x), step):
        pixels[start : start + step] = np.rint(scaled(x[start : start + step], chosen))
    return pixels, (note,)


def channels_first(x: AnyArray, what: str) -> AnyArray:
    """An array of images as (N, C, H, W), a view. Errors: `DataError` for another shape, or one that could be two."""
    given = f"given: {x.dtype} of shape {x.shape}"
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in _CHANNELS:
        if x.shape[1] in _CHANNELS and x.shape[1:] != (1, 1, 1):
            raise DataError(
                f"{what} may have its channels first or last; {given}. Give (N, C, H, W) with more than 4 columns, or "
                "(N, H, W, C) with more than 4 rows, or (N, H, W)"
            )
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in _CHANNELS:
        raise DataError(f"{what} must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1, 3 or 4; {given}")
    if not x.size:
        raise DataError(f"{what} holds no images; {given}")
    return x


def values_of(x: AnyArray) -> Span:
    """The smallest and the largest number of an array; NaN for what are no numbers, and for arrays with a NaN."""
    if x.dtype.kind not in "biuf":
        return np.nan, np.nan
    return float(x.min()), float(x.max())


def _span(
    parts: Sequence[AnyArray], low: float, high: float, what: str, wanted: Span | None
) -> tuple[Span | None, str]:
    """The values of black and white, None where they cannot be told; and a note."""
    shown, kind, width = f"{low:g}..{high:g}", parts[0].dtype.kind, parts[0].dtype.itemsize
    if kind == "b":
        return (0, 1), "true and false turned into 255 and 0"
    if wanted is not None and np.isfinite([low, high]).all():
        return wanted, within(low, high, wanted, what)
    if kind == "f" and 0 <= low <= high <= 1:  # a NaN fails all comparisons
        return (0, 1), "floats in [0, 1] multiplied by 255 and rounded"
    if kind == "f" and -1 - BEYOND <= low < 0 and high <= 1 + BEYOND:
        return (-1, 1), "floats in [-1, 1] brought to 0..255"
    if kind in "iu" and width == 2 and low >= 0 and high > 255:
        if all(np.count_nonzero(x >= DARK) <= FEW * x.size for x in parts):
            raise dark(low, high, f"{what}: the 16-bit integers")
        return (0, 65535), f"16-bit integers divided by 257 (values found: {shown})"
    return None, ""


def within(low: float, high: float, span: Span, what: str) -> str:
    """The note on values that a span was given for. Errors: `DataError` where it leaves all black, or all white."""
    if high <= span[0] or low >= span[1]:
        raise DataError(
            f"{what}: the range {written_range(*span)} makes all {'black' if high <= span[0] else 'white'}: the values "
            f"found are {low:g}..{high:g}. Give another --range LOW:HIGH, or auto"
        )
    return f"values {low:g}..{high:g} found; {span[0]:g} is black and {span[1]:g} is white"


def scale(found: Sequence[Values], spec: DataSpec) -> list[str]:
    """A note on the values of images that held more than 8 bits, if there were any.

    Errors: `DarkError` when all of them would be black, or nearly; `DataError` when the range asked for makes them so.
    """
    gray = [values for values in found if not values.colour]
    low, high = min((v.low for v in gray), default=0.0), max((v.high for v in gray), default=0.0)
    if spec.span is not None:
        if not gray:
            return [f"the range {spec.range} is not used: it is for numbers of more than 8 bits, and there are none"]
        return [f"{counted(len(gray), 'image')} of more than 8 bits: {within(low, high, spec.span, spec.source)}"]
    if found and not any(values.bright for values in found):
        if gray:
            raise dark(low, high, f"the 16-bit images of {spec.source}")
        raise DataError(
            f"the 16-bit colour images of {spec.source} use less than a sixteenth of their range: by their upper 8 "
            "bits, which are all that can be read, they would be black. Bring them to 8 bits first"
        )
    if not gray:
        return []
    dim = "; --range auto would make the brightest white" if high < _DIM else ""
    return [f"values of the 16-bit images: {low:g}..{high:g} of 0..65535{dim}"]


def dark(low: float, high: float, what: str) -> DarkError:
    """The error for images of 16 bits that use a small part of their range."""
    found = written_range(low, high)
    bits = next(n for n in range(8, 17) if high < 2**n)
    return DarkError(
        f"{what} hold values {found.replace(':', '..')} of 0..65535 and would be black, or nearly so. Give the values "
        f"of black and white: --range {found} (what was found; --range auto finds it), --range 0:{2**bits - 1} (all of "
        f"{bits} bits), or --range 0:65535 to leave them dark (range=... in Python)",
        range=found,
    )


def to_images(x: Tensor | AnyArray, shape: ImageShape) -> Tensor:
    """Images of a shape for a model, (N, C, H, W): uint8, or floats in [-1, 1]; channels that are last come first.

    Errors: `DataError`, as `to_pixels` and `types.meant`.

    >>> to_images(np.zeros((2, 8, 8, 3), np.uint8), ImageShape(3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.array(x if x.dtype.kind == "f" else to_pixels(x, "the images")[0]))
    if x.ndim == 4 and tuple(x.shape[1:]) != shape and tuple(x.shape[1:]) == (*shape[1:], shape[0]):
        x = x.permute(0, 3, 1, 2)
    return meant(x.to(torch.uint8) * 255 if x.dtype == torch.bool else x)


Reading = Literal["pixels", "unit", "signed"]
"""How an array's numbers are images: as pixels, or as floats in [0, 1] or in [-1, 1]."""


def reading(x: AnyArray, what: str, known: Reading | None = None) -> Reading:
    """How an array of images, of any shape, is to be read, by its type and values; `known`: as one before it was.

    A whole set of floats in [0, 1] is that; a few images that are bright everywhere may be of [-1, 1] as well, so then
    it is what is known that decides. Errors: `DataError` where nothing does.

    >>> reading(np.array([0.2, 0.9]), "x"), reading(np.array([0.2, 0.9]), "x", "signed")
    ('unit', 'signed')
    """
    if x.dtype.kind != "f":
        return "pixels"
    low, high = values_of(x)
    signed = -1 - BEYOND <= low < 0 and high <= 1 + BEYOND
    if signed and known != "unit":
        return "signed"
    if low >= 0 and high <= 1:
        if known == "pixels":
            raise DataError(
                f"{what}: floats {low:g}..{high:g} may be of [0, 1] or of [-1, 1], and those before them were pixels; "
                "give uint8, such as (x * 255).round().astype(np.uint8)"
            )
        return known or "unit"
    raise DataError(
        f"{what}: images are uint8, or floats in {'[0, 1] as those before them' if known == 'unit' else '[-1, 1]'}; "
        f"given {x.dtype} of shape {x.shape}, values {low:g}..{high:g}. If these are pixels 0..255, give them as "
        "x.astype(np.uint8)"
    )
