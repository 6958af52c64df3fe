"""Every conversion that `decode` documents, against pixels worked out by hand, and a reason for every bad file."""

import importlib.util
import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from data_files import bomb, encoded, picture, pixels
from fabulate.data import decode as decoding
from fabulate.data.decode import Budget, UnreadableError, Values, cut_away, decode, fitted


def stand(image: Image.Image, format: str = "PNG", **options: object) -> np.ndarray:
    """The pixels (C, H, W) of an image after it went through a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    decoded = decode(buffer.getvalue()).pixels
    assert decoded is not None and decoded.dtype == np.uint8
    return decoded


def test_gray_and_colour_are_themselves():
    assert (stand(picture(0)) == pixels(0)[None]).all()
    assert (stand(picture(0, channels=3)) == pixels(0, channels=3).transpose(2, 0, 1)).all()
    assert stand(picture(0, 1, 1)).shape == (1, 1, 1)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_divided_by_257(format):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    assert stand(Image.fromarray(values), format).tolist() == [[[0, 0, 1, 1, 128, 255]]]


def test_8_bits_widened_to_16_come_back_exactly():
    assert (stand(Image.fromarray(pixels(0).astype(np.uint16) * 257)) == pixels(0)).all()


def test_one_bit_becomes_0_and_255():
    bits = pixels(0) > 127
    assert (stand(Image.fromarray(bits)) == bits[None] * 255).all()


def test_a_palette_becomes_its_colours_or_gray_when_they_are():
    colour = Image.new("P", (2, 1))
    colour.putpalette([10, 20, 30, 200, 100, 0])
    colour.putpixel((1, 0), 1)
    assert stand(colour).transpose(1, 2, 0).tolist() == [[[10, 20, 30], [200, 100, 0]]]
    colour.putpalette([10, 10, 10, 200, 200, 200, 255, 0, 0])  # the red one is not used
    assert stand(colour).tolist() == [[[10, 200]]]


def test_alpha_is_composited_on_white():
    rgba = Image.new("RGBA", (3, 1), (100, 0, 50, 255))
    rgba.putpixel((1, 0), (100, 0, 50, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black
    assert stand(rgba).transpose(1, 2, 0).tolist() == [[[100, 0, 50], [255, 255, 255], [204, 204, 204]]]
    gray = Image.new("LA", (2, 1), (100, 255))
    gray.putpixel((1, 0), (100, 0))
    assert stand(gray).tolist() == [[[100, 255]]]


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 1)])
def test_a_transparent_colour_is_white(mode, clear):
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([9, 9, 9, 7, 7, 7])
    image.putpixel((1, 0), clear)
    assert stand(image, transparency=clear)[0, 0, 1] == 255
    assert stand(image, transparency=clear)[0, 0, 0] != 255


def test_cmyk_becomes_rgb():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found = stand(cyan, "TIFF")
    assert found[:, 0, 0].tolist() == [0, 255, 255]
    assert np.abs(stand(cyan, "JPEG").astype(int) - found).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_exif_rotated_equals_upright(orientation, format):
    upright = picture(0, 6, 4, 3)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    decoded = decode(buffer.getvalue())
    assert decoded.size == (6, 4)
    assert (decoded.pixels == np.asarray(upright).transpose(2, 0, 1)).all()
    assert decode(buffer.getvalue(), only=(6, 4)).pixels is not None  # the header alone tells the upright size
    assert decode(buffer.getvalue(), only=(4, 6)).pixels is None


def test_of_an_animation_the_first_frame():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    decoded = decode(buffer.getvalue())
    assert (decoded.pixels == 10).all() and "first frame" in decoded.changes[0]


def test_channels():
    colour = encoded(picture(0, channels=3))
    luma = pixels(0, channels=3) @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    gray = decode(colour, channels=1).pixels
    assert gray.shape == (1, 8, 8) and np.abs(gray[0] - luma).max() <= 1
    assert (decode(encoded(picture(0)), channels=3).pixels == pixels(0)).all()


def test_resizing_keeps_the_mean_and_crops_the_centre():
    left, right = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    middle = pixels(0)
    assert (np.asarray(fitted(Image.fromarray(np.hstack([left, middle, right])), (8, 8), "crop")) == middle).all()
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    small = np.asarray(fitted(checks, (8, 8), "crop"))  # without antialiasing this would be all black or all white
    assert np.abs(small.astype(int) - 127).max() <= 8
    assert decode(encoded(picture(0, 100, 300, 3), "JPEG"), size=(8, 8)).pixels.shape == (3, 8, 8)
    assert decode(encoded(picture(0, 1, 1)), size=(8, 8)).pixels.shape == (1, 8, 8)


def test_pad_keeps_the_whole_image_between_white_or_transparent_bars():
    x = decode(encoded(picture(0, 4, 8)), size=(8, 8), fit="pad").pixels[0]
    assert (x[2:6] == pixels(0, 4, 8)).all() and (x[[0, 1, 6, 7]] == 255).all()
    x = decode(encoded(picture(0, 8, 4, 3)), size=(8, 8), channels=4, fit="pad").pixels
    assert (x[:3, :, 2:6] == pixels(0, 8, 4, 3).transpose(2, 0, 1)).all() and (x[3, :, 2:6] == 255).all()
    assert (x[:3, :, [0, 1, 6, 7]] == 255).all() and not x[3, :, [0, 1, 6, 7]].any()


def test_stretch_takes_all_of_the_image_and_crop_its_middle():
    halves = encoded(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 16, axis=1).repeat(8, axis=0)))  # 8x32
    stretched = decode(halves, size=(8, 8), fit="stretch").pixels[0].astype(int)
    assert abs(stretched.mean() - 127.5) < 2 and (stretched[:, 0] == 0).all() and (stretched[:, -1] == 255).all()
    assert decode(halves, size=(8, 16)).pixels.shape == (1, 8, 16)
    assert (decode(halves, size=(8, 16)).pixels[0][:, [0, 7, 8, 15]] == [0, 0, 255, 255]).all()
    assert (cut_away((8, 32), (8, 16)), cut_away((8, 32), (4, 16)), cut_away((32, 8), (8, 8))) == (0.5, 0, 0.75)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_what_lies_on_its_side_is_turned_before_it_is_fitted(fit, format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = Image.fromarray(np.linspace(0, 255, 40).astype(np.uint8)[:, None].repeat(24, axis=1))  # 40x24
    buffer = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, format=format, exif=exif)
    x = decode(buffer.getvalue(), size=(16, 24), fit=fit).pixels[0].astype(int)
    expected = np.asarray(fitted(upright, (16, 24), fit)).astype(int)
    assert x.shape == (16, 24) and np.abs(x - expected).max() <= 6  # of a JPEG; the others are equal
    assert format == "JPEG" or (x == expected).all()


# Alpha


def with_alpha(mode: str) -> np.ndarray:
    """Random pixels (H, W, C) with alpha, opaque on the left, and a column that is transparent."""
    x = pixels(0, 6, 8, len(mode))
    x[:, :4, -1], x[:, 6, -1] = 255, 0
    return x


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_alpha_is_kept_and_what_is_transparent_is_white(mode, channels):
    given = with_alpha(mode)
    x = decode(encoded(Image.fromarray(given)), channels=channels).pixels.transpose(1, 2, 0)
    seen = given[..., -1] > 0
    assert (x[seen] == given[seen]).all() and (x[..., -1] == given[..., -1]).all()
    assert (x[~seen, :-1] == 255).all() and not seen.all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [2, 4])
def test_what_has_no_alpha_is_opaque(mode, channels):
    image = (
        Image.fromarray(pixels(0).astype(np.uint16) * 257) if mode == "I;16" else picture(0, channels=3).convert(mode)
    )
    data = encoded(image, "TIFF")
    x = decode(data, channels=channels).pixels
    assert (x[-1] == 255).all() and (x[:-1] == decode(data, channels=channels - 1).pixels).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_becomes_alpha(mode):
    image = Image.new(mode, (4, 4), 7 if mode != "RGB" else (7, 7, 7))
    image.paste(9 if mode != "RGB" else (9, 9, 9), (0, 0, 2, 4))
    if mode == "P":
        image.putpalette(bytes(np.arange(256, dtype=np.uint8).repeat(3)))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=9 if mode != "RGB" else (9, 9, 9))
    x = decode(buffer.getvalue(), channels=4).pixels
    assert (x[3, :, :2] == 0).all() and (x[3, :, 2:] == 255).all() and (x[:3, :, :2] == 255).all()


def test_alpha_weighs_what_is_resized():
    x = np.zeros((16, 16, 4), np.uint8)
    x[:, :8] = (200, 100, 50, 255)  # the rest is black, and not seen
    small = decode(encoded(Image.fromarray(x)), size=(4, 4), channels=4).pixels
    seen = small[3] > 40
    assert seen.any() and np.abs(small[:3, seen].astype(int) - [[200], [100], [50]]).max() <= 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"This is a text, whatever its name says.", "not an image"),
        (encoded(picture(0, 64, 64))[:-200], "damaged: .*(truncated|broken)"),
        (encoded(picture(0, 64, 64), "JPEG")[:-200], "damaged: .*truncated"),
        (encoded(picture(0))[:20], "(not an image|damaged)"),
        (bomb(), "decompression bomb: .*200,000,000"),
        (bomb(14200, 14200), "decompression bomb: 14200x14200 pixels"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point pixels have no fixed range"),
        (encoded(Image.fromarray(np.array([[70_000]], np.int32)), "TIFF"), "32-bit integers 70000"),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_bad_files_have_a_short_reason(data, reason):
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode(data)
    assert len(str(caught.value)) < 120


# Orientation, wherever it stands


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def late(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with a chunk after its pixels, before its end."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:-12] + chunk + png[-12:]


def sideways(form: str) -> bytes:
    """A stored image of 4x6 that stands upright as 6x4, told in one of several ways."""
    stored, buffer = picture(0, 4, 6, 3), io.BytesIO()
    if form == "jpeg":
        stored.save(buffer, "JPEG", xmp=XMP.format(6).encode(), quality=100, subsampling=0)
    elif form == "webp":
        stored.save(buffer, "WEBP", xmp=XMP.format(6).encode(), lossless=True)
    elif form == "tiff":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = XMP.format(6).encode()
        stored.save(buffer, "TIFF", tiffinfo=tags)
    elif form == "png":
        about = PngImagePlugin.PngInfo()
        about.add_itxt("XML:com.adobe.xmp", XMP.format(6))
        stored.save(buffer, "PNG", pnginfo=about)
    elif form == "avif":
        exif = Image.Exif()
        exif[0x0112] = 6
        stored.save(buffer, "AVIF", exif=exif, quality=100, subsampling="4:4:4")
    elif form == "late exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        return late(encoded(stored), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    else:
        return late(encoded(stored), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(6).encode())
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["jpeg", "webp", "tiff", "png", "avif", "late exif", "late xmp"])
def test_orientation_in_xmp_and_after_the_pixels(form):
    expected = pixels(0, 4, 6, 3).transpose(1, 0, 2)[:, ::-1].transpose(2, 0, 1)  # a quarter turn clockwise
    data = sideways(form)
    decoded = decode(data)
    assert decoded.size == (6, 4) and decoded.pixels.shape == (3, 6, 4)
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= (30 if form in ("jpeg", "avif") else 0)
    assert decode(data, only=(6, 4)).pixels is not None and decode(data, only=(4, 6)).pixels is None
    assert "orientation" in " ".join(decoded.changes)


# More than 8 bits


def deep(values: np.ndarray, format: str = "PNG") -> bytes:
    return encoded(Image.fromarray(values), format)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_span_says_what_is_black_and_white(format):
    x = np.array([[290, 482, 674, 100, 900]], np.uint16)
    decoded = decode(deep(x, format), span=(290, 674))
    assert decoded.pixels.tolist() == [[[0, 128, 255, 0, 255]]]
    assert decoded.values == Values(100, 900, False)
    assert decode(deep(x, format)).pixels.max() == 4  # without: 900 / 257


def test_floats_and_32_bit_integers_have_the_range_that_is_given():
    hounsfield = np.array([[-1000, 0, 1000, 3000]], np.int32)
    assert decode(deep(hounsfield, "TIFF"), span=(-1000, 1000)).pixels.tolist() == [[[0, 128, 255, 255]]]
    floats = np.array([[0.0, 0.25, 0.5]], np.float32)
    assert decode(deep(floats, "TIFF"), span=(0, 0.5)).pixels.tolist() == [[[0, 128, 255]]]
    floats[0, 0] = np.nan
    with pytest.raises(UnreadableError, match="NaN"):
        decode(deep(floats, "TIFF"), span=(0, 0.5))


def test_a_span_leaves_8_bits_as_they_are():
    assert (decode(encoded(picture(0)), span=(290, 674)).pixels == pixels(0)).all()


def colour16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow reads and does not write."""
    height, width, _ = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_16_bit_colour_is_told_to_be_cut():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    ppm = b"P6 5 4 65535\n" + values.astype(">u2").tobytes()
    for data, tolerance in ((colour16(values), 0), (ppm, 1)):
        decoded = decode(data)
        assert np.abs(decoded.pixels.transpose(1, 2, 0).astype(int) - (values >> 8)).max() <= tolerance
        assert decoded.changes == ("in 16-bit colour cut to their upper 8 bits",) and decoded.values.colour
        with pytest.raises(UnreadableError, match="16-bit colour"):
            decode(data, span=(0, 4095))
    assert decode(encoded(picture(0, channels=3), "PPM")).changes == ()


# Formats, sizes and memory


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "MPO", "PPM"])
def test_other_formats(format):
    decoded = decode(encoded(picture(0, 16, 16, 3), format))
    assert decoded.pixels.shape == (3, 16, 16)


def test_heic_says_what_is_missing_or_is_read():
    with pytest.raises(UnreadableError, match=r"pip install pillow-heif|damaged|not an image"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    if importlib.util.find_spec("pillow_heif") is None:
        with pytest.raises(UnreadableError, match=r"pip install pillow-heif"):
            decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_a_png_with_much_text_and_a_large_profile_is_a_fine_image():
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "x" * 3_000_000, zip=True)
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG", pnginfo=about, icc_profile=b"\0" * 3_000_000)
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
    assert (decode(buffer.getvalue()).pixels == pixels(0)).all()
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)


def test_the_cap_can_be_set():
    data = encoded(picture(0, 20, 20))
    with pytest.raises(UnreadableError, match=r"20x20 pixels, the limit is 399 \(--max-megapixels\)"):
        decode(data, cap=399)
    assert decode(data, cap=400).pixels is not None


def test_a_jpeg_for_a_small_target_is_decoded_small(monkeypatch):
    taken = []
    holding = Budget.holding
    monkeypatch.setattr(Budget, "holding", lambda self, n: taken.append(n) or holding(self, n))
    smooth = Image.fromarray(np.tile(np.arange(800) // 4, (800, 1)).astype(np.uint8)).convert("RGB")
    data = encoded(smooth, "JPEG")
    small = decode(data, size=(16, 16))
    whole = fitted(smooth, (16, 16), "crop")
    assert taken == [100 * 100]  # an eighth of each side
    assert np.abs(small.pixels.transpose(1, 2, 0).astype(int) - np.asarray(whole)).max() <= 3
    gray = decode(data, channels=1)
    assert gray.pixels.shape == (1, 800, 800) and gray.changes == ("converted to gray by luma",)
    assert np.abs(gray.pixels[0].astype(int) - np.asarray(smooth.convert("L"))).max() <= 3


def test_pixels_in_flight_are_bounded_and_a_larger_image_goes_alone():
    room, most, lock = Budget(100), [0], threading.Lock()
    inside: list[int] = []

    def enter(n: int) -> None:
        with room.holding(n):
            with lock:
                inside.append(n)
                assert sum(inside) <= 100 or inside == [n]
                most[0] = max(most[0], len(inside))
            time.sleep(0.001)
            with lock:
                inside.remove(n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, [30, 30, 30, 250, 60, 40, 100, 1] * 10))
    assert most[0] > 1 and room.taken == 0


def test_conversions_by_bands_are_the_same(monkeypatch):
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8), "RGBA")
    colours = picture(0, 50, 40, 3).quantize(16)
    sixteen = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (50, 40)).astype(np.uint16))
    files = [encoded(image) for image in (alpha, colours, sixteen)]
    whole = [decode(data).pixels for data in files]
    monkeypatch.setattr(decoding, "_BAND", 200)
    assert all((decode(data).pixels == x).all() for data, x in zip(files, whole, strict=True))
