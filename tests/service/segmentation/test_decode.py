"""Every row of the table in the docstring of `service/segmentation/decode.py`."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from service.errors import ImageUnreadable, ImageUnsupported
from service.segmentation.decode import EncodedImage, Limits, decode
from tests.contract.image_files import tiff
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

# Pillow warns of broken EXIF and of large sizes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

LIMITS = Limits(max_bytes=1_000_000, max_pixels=100_000)
RGB = picture(40, 30)
IMAGE = Image.fromarray(RGB)
GREY = np.array(IMAGE.convert("L"))


def rgba(alpha: int) -> Image.Image:
    image = IMAGE.convert("RGBA")
    image.putalpha(alpha)
    return image


def png16(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> bytes:
    """Encode a 16-bit RGB PNG, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_lossless_formats_decode_exactly(kind: str, options: dict[str, str | bool]) -> None:
    np.testing.assert_array_equal(decode(encoded(IMAGE, kind, **options), LIMITS).image_HW3, RGB)


@pytest.mark.parametrize(
    ("kind", "media_type"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("AVIF", "image/avif")]
)
def test_lossy_formats_decode_approximately(kind: str, media_type: str) -> None:
    data = encoded(IMAGE, kind, quality=95, **({"subsampling": 0} if kind == "JPEG" else {}))
    assert np.abs(decode(data, LIMITS).image_HW3.astype(int) - RGB).mean() < 15
    assert EncodedImage(data, LIMITS).header.media_type == media_type


def test_grey_becomes_three_equal_channels() -> None:
    np.testing.assert_array_equal(decode(encoded(GREY), LIMITS).image_HW3, np.stack([GREY] * 3, axis=-1))


def test_one_bit_becomes_black_and_white() -> None:
    bits = GREY > 100
    np.testing.assert_array_equal(decode(encoded(bits), LIMITS).image_HW3[..., 0], np.where(bits, 255, 0))


def test_palette_is_applied() -> None:
    palette = IMAGE.quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette), LIMITS).image_HW3, np.array(palette.convert("RGB")))


@pytest.mark.parametrize("depth", ["I;16", "I;16B"])
def test_16_bit_grey_keeps_its_upper_8_bits(depth: str) -> None:
    """Pillow's conversion would turn all values above 255 white."""
    data = encoded(GREY.astype(np.uint16) * 256 + 77, "PNG" if depth == "I;16" else "TIFF")
    np.testing.assert_array_equal(decode(data, LIMITS).image_HW3[..., 1], GREY)


def test_16_bit_colour_keeps_its_upper_8_bits() -> None:
    np.testing.assert_array_equal(decode(png16(RGB.astype(np.uint16) * 256 + 5), LIMITS).image_HW3, RGB)


def test_transparent_pixels_become_white() -> None:
    assert (decode(encoded(rgba(0)), LIMITS).image_HW3 == 255).all()
    np.testing.assert_array_equal(decode(encoded(rgba(255)), LIMITS).image_HW3, RGB)


def test_half_transparent_pixels_are_blended_with_white() -> None:
    half = decode(encoded(rgba(128)), LIMITS).image_HW3.astype(int)
    assert np.abs(half - (RGB * 128.0 + 255 * 127.0) / 255).max() <= 1.5


def test_grey_with_alpha_is_composited() -> None:
    image = Image.fromarray(GREY).convert("LA")
    image.putalpha(0)
    assert (decode(encoded(image), LIMITS).image_HW3 == 255).all()


def test_palette_with_a_transparent_entry_is_composited() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode(encoded(image, transparency=1), LIMITS).image_HW3 == 255).all()


def test_rgb_with_a_transparent_colour_is_composited() -> None:
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    assert (decode(encoded(image, transparency=(10, 20, 30)), LIMITS).image_HW3 == 255).all()


def test_cmyk_is_converted() -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (8, 8), v) for v in (0, 255, 255, 0)])
    red = decode(encoded(cmyk, "JPEG", quality=100), LIMITS).image_HW3[4, 4].astype(int)
    assert red[0] > 230
    assert red[1:].max() < 40


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    """Each quarter has its own colour. Pillow's `transpose` gives the expected picture."""
    image = Image.new("RGB", (48, 32))
    for i, corner in enumerate([(0, 0), (24, 0), (0, 16), (24, 16)]):
        image.paste(
            [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)][i], (*corner, corner[0] + 24, corner[1] + 16)
        )
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # the values of Image.Transpose for each orientation
    upright = image if orientation == 1 else image.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    header = EncodedImage(data, LIMITS).header
    assert (header.width, header.height) == upright.size
    assert header.orientation == orientation
    assert np.abs(decode(data, LIMITS).image_HW3.astype(int) - np.array(upright)).mean() < 12


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"]
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert decode(encoded(IMAGE, "JPEG", exif=exif), LIMITS).image_HW3.shape == RGB.shape


def test_first_jpeg_of_an_mpo_is_decoded() -> None:
    """MPO: several JPEGs in one file, written by phones; viewers show the first."""
    data = encoded(IMAGE, "MPO", save_all=True, append_images=[IMAGE])
    assert decode(data, LIMITS).image_HW3.shape == RGB.shape
    assert EncodedImage(data, LIMITS).header.media_type == "image/jpeg"


def test_header_says_that_a_fourth_band_was_not_used() -> None:
    tags = ImageFileDirectory_v2()
    tags[33550], tags.tagtype[33550] = (1.0, 1.0, 0.0), TiffTags.DOUBLE
    geotiff = encoded(rgba(7), "TIFF", tiffinfo=tags)
    assert EncodedImage(geotiff, LIMITS).header.ignored == "fourth band"
    np.testing.assert_array_equal(decode(geotiff, LIMITS).image_HW3, RGB)
    assert not EncodedImage(encoded(rgba(7), "TIFF"), LIMITS).header.ignored
    assert not EncodedImage(encoded(rgba(7)), LIMITS).header.ignored


def test_damage_of_the_header_gets_400_with_its_name() -> None:
    data = encoded(IMAGE)
    with pytest.raises(ImageUnreadable, match=r"^The PNG is damaged \(the checksum of its IHDR chunk is wrong\): send"):
        EncodedImage(data[:29] + b"1234" + data[33:], LIMITS)
    with pytest.raises(ImageUnreadable, match=r"^The PNG is damaged: broken PNG file \(incomplete checksum"):
        EncodedImage(data[:30], LIMITS)


def test_unsupported_file_gets_415_with_its_kind() -> None:
    with pytest.raises(ImageUnsupported, match=r"^The file is a TIFF with 1 band of 64-bit floats, marked as grey: sa"):
        EncodedImage(tiff((GREY.astype(np.float64), {})), LIMITS)
    with pytest.raises(ImageUnsupported, match=r"^The file is not JPEG, PNG, WEBP, BMP, TIFF or AVIF: convert the"):
        EncodedImage(b"\0no image", LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO"])
def test_other_formats_are_rejected(kind: str) -> None:
    with pytest.raises(ImageUnsupported):
        decode(encoded(IMAGE, kind), LIMITS)


@pytest.mark.parametrize(("dtype", "white"), [(np.float32, 1), (np.float32, 65535), (np.int32, 255), (np.int32, 65535)])
def test_32_bit_values_are_scaled_by_the_range_of_the_model(dtype: type, white: int) -> None:
    values = GREY.astype(np.float64) / GREY.max() * white
    data = encoded(Image.fromarray(values.astype(dtype)), "TIFF")
    scaled = decode(data, LIMITS, (0.0, white)).image_HW3[..., 0]
    assert np.abs(scaled.astype(int) - GREY.astype(float) / GREY.max() * 255).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_scaling_makes_no_large_copies(dtype: type) -> None:
    values: Any = np.linspace(0, 65535, 4_000_000).reshape(2000, 2000).astype(dtype)
    data = encoded(Image.fromarray(values), "TIFF")
    tracemalloc.start()
    try:
        scaled = decode(data, Limits(max_bytes=10**8, max_pixels=10**7), (0.0, 65535.0)).image_HW3
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(scaled[..., 0], (values.astype(np.float64) * (255.999 / 65535)).astype(np.uint8))
    # Without Pillow's own memory: the encoded bytes, the values, the grey and the RGB arrays.
    assert peak_bytes < 10 * values.size


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_count_as_damage(value: float) -> None:
    with pytest.raises(ImageUnreadable, match="finite"):
        decode(encoded(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF"), LIMITS, (0.0, 1.0))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bit_image_without_a_range_gets_415_before_it_is_decoded(dtype: type) -> None:
    with pytest.raises(ImageUnsupported, match=r"data\.range = \[BLACK, WHITE\]"):
        EncodedImage(encoded(Image.fromarray(GREY.astype(dtype)), "TIFF"), LIMITS)
