"""Reading an image file before it is decoded: what its header says, and limits that are ours instead of Pillow's.

Pillow guards programs that never look at sizes; here every header is looked at first, so that its limits are lifted
while a file is open, and come back afterwards. Where its readers leave something out of the header (a PNG may tell its
orientation after the pixels, a TIFF turns its own), it is put right here.

Legend: H, W image.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from fabulate.data.listing import Raw
from fabulate.errors import DataError

PIXEL_CAP = 200_000_000  # the largest sensors of phones and of medium-format cameras; `DataSpec.max_megapixels`
TEXT_CAP = 64 << 20  # bytes of text and colour profiles in a PNG, unpacked; printers' profiles have megabytes
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
_HEIF = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.S)
_XMP = b"XML:com.adobe.xmp"

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
    MemoryError,
)


class UnreadableError(DataError):
    """A file that is no image we can read; the message is a short reason."""


@contextmanager
def opened(raw: Raw, cap: int = PIXEL_CAP) -> Iterator[Image.Image]:
    """An image, opened and not decoded, of at most `cap` pixels.

    Within the block whatever a damaged file makes Pillow raise is an `UnreadableError` with a short reason.
    """
    try:
        with _limits, _open(raw) as image:
            if image.width * image.height > cap:
                raise UnreadableError(
                    f"decompression bomb: {image.height}x{image.width} pixels, the limit is {cap:,} (--max-megapixels)"
                )
            yield image
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError(_unknown(raw)) from error
    except DAMAGE as error:
        strerror = getattr(error, "strerror", None)
        reason = f"cannot be opened: {strerror}" if strerror else f"damaged: {str(error) or type(error).__name__}"
        raise UnreadableError(reason) from error


def _open(raw: Raw) -> Image.Image:
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[0] if len(raw) == 1 else np.ascontiguousarray(raw.transpose(1, 2, 0)))
    if (raw.stat().st_size if isinstance(raw, Path) else len(raw)) == 0:
        raise UnreadableError("empty file (0 bytes)")
    image = Image.open(raw if isinstance(raw, Path) else io.BytesIO(raw), formats=formats())
    if image.format == "PNG":
        with _stream(raw) as file:
            image.info |= _after_pixels(file)
    return image


@cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow reads here: all of ours that it was built with, and HEIF where there is a plug-in."""
    Image.init()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _stream(raw: Path | bytes) -> IO[bytes]:
    return raw.open("rb") if isinstance(raw, Path) else io.BytesIO(raw)


def _unknown(raw: Raw) -> str:
    if not isinstance(raw, np.ndarray):
        with _stream(raw) as file:
            head = file.read(12)
        if _HEIF.match(head) and "HEIF" not in formats():
            return "HEIC, which needs a plug-in: pip install pillow-heif"
    return "not an image, whatever its name says"


class _Limits:
    """While any thread is within the block Pillow's limits on pixels and texts are ours; then they are as they were."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = Lock(), 0, (Image.MAX_IMAGE_PIXELS, 0, 0)

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                formats()  # Pillow loads its readers on first use, and not safely from several threads
                texts = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
                self.before = (Image.MAX_IMAGE_PIXELS, *texts)
                self._set(None, TEXT_CAP, TEXT_CAP)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self._set(*self.before)

    @staticmethod
    def _set(pixels: int | None, chunk: int, memory: int) -> None:
        Image.MAX_IMAGE_PIXELS = pixels
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = chunk, memory


_limits = _Limits()


def _after_pixels(file: IO[bytes]) -> dict[str | tuple[int, int], Any]:
    """EXIF and XMP that a PNG holds after its pixels, which Pillow finds once it has decoded them: as `Image.info`.

    It looks at the heads of the chunks and seeks past what is in them.
    """
    found: dict[str | tuple[int, int], Any] = {}
    pixels = False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if pixels and kind in (b"eXIf", b"iTXt") and length <= TEXT_CAP:
            data = file.read(length)
            if kind == b"eXIf":
                found["exif"] = b"Exif\0\0" + data
            elif data.startswith(_XMP + b"\0\0"):  # compressed ones are left to Pillow
                found["xmp"] = data
            file.seek(4, io.SEEK_CUR)
        elif kind == b"IEND":
            break
        else:
            pixels |= kind == b"IDAT"
            file.seek(length + 4, io.SEEK_CUR)
    return found


class Header(NamedTuple):
    """What is known of an image before it is decoded."""

    size: tuple[int, int]
    """Height and width, as they are once it stands upright."""
    mode: str
    """Pillow's."""
    orientation: int
    """By EXIF, or else by XMP: 1 to 8."""
    cut: bool
    """It has 16 bits a colour, of which Pillow reads the upper 8."""
    gray: bool
    """It is gray, though Pillow makes colours of it: gray and alpha of 16 bits each."""


def header(image: Image.Image) -> Header:
    """What an image that was opened, and not decoded yet, says of itself."""
    try:
        orientation = int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))  # PNG's own would decode it all
    except DAMAGE:  # a sound image with unsound EXIF: it stays as it stands
        orientation = 1
    tags = getattr(image, "tag_v2", {})  # a TIFF that is turned by a tag of its own tells the upright size
    sideways = orientation >= 5 and tags.get(ExifTags.Base.Orientation, 1) < 5
    size = (image.width, image.height) if sideways else (image.height, image.width)
    tiles = [about if isinstance(about, tuple) else (about,) for _, _, _, about in getattr(image, "tile", ())]
    layouts = [word for about in tiles for word in about]
    deep = any(";16" in word for word in layouts if isinstance(word, str)) or (
        image.format == "PPM" and any(word > 255 for word in layouts if isinstance(word, int))
    )
    colour = image.mode in ("RGB", "RGBA", "RGBX", "CMYK")
    return Header(size, image.mode, orientation, deep and colour, "LA;16B" in layouts)
