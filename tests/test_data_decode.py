"""Every conversion that `decode` documents, against pixels worked out by hand, and a reason for every bad file."""

import io

import numpy as np
import pytest
from PIL import Image

from data_files import bomb, encoded, picture, pixels
from fabulate.data.decode import UnreadableError, decode, fit


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
    assert (np.asarray(fit(Image.fromarray(np.hstack([left, middle, right])), 8)) == middle).all()
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    small = np.asarray(fit(checks, 8))  # without antialiasing this would be all black or all white
    assert np.abs(small.astype(int) - 127).max() <= 8
    assert decode(encoded(picture(0, 100, 300, 3), "JPEG"), size=8).pixels.shape == (3, 8, 8)
    assert decode(encoded(picture(0, 1, 1)), size=8).pixels.shape == (1, 8, 8)


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
