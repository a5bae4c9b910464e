"""Every row of the table in the docstring of `service/segmentation/decode.py`."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffTags
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.decode import FORMATS, EncodedImage, Limits, decode
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


def test_file_above_the_byte_limit_is_rejected() -> None:
    with pytest.raises(ImageTooLarge, match="MASKLOOP_MAX_IMAGE_BYTES"):
        decode(encoded(IMAGE), Limits(max_bytes=100, max_pixels=10**9))


def test_decompression_bomb_is_rejected_by_its_header() -> None:
    """The header declares 4 gigapixels and no data follows: decoding would report a damaged file instead."""
    header = struct.pack(">IIBBBBB", 65_535, 65_535, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data += b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageTooLarge):
        decode(data, LIMITS)
    with pytest.raises(ImageTooLarge):
        EncodedImage(data, Limits(max_bytes=1000, max_pixels=100_000_000))


def test_image_with_several_frames_is_rejected() -> None:
    for kind in ("TIFF", "WEBP", "PNG", "AVIF"):
        data = encoded(IMAGE, kind, save_all=True, append_images=[IMAGE.rotate(90)])
        with pytest.raises(ImageUnsupported, match="frames"):
            decode(data, LIMITS)


def test_tiff_with_very_many_pages_is_rejected_without_counting_them() -> None:
    """Counting the pages takes quadratic time: seconds for 30 000 of them."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1))
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    ends = range(8, 30_000 * 102, 102)
    data = struct.pack("<2sHI", b"II", 42, 8) + b"".join(page + struct.pack("<I", begin + 102) for begin in ends)
    data += page + bytes(4)
    start = time.process_time()
    with pytest.raises(ImageUnsupported, match="several frames"):
        EncodedImage(data, Limits(max_bytes=10**7, max_pixels=100))
    assert time.process_time() - start < 1


def test_tiff_whose_overviews_have_very_many_tags_is_opened_quickly() -> None:
    """Pillow reads all tags of a page: 6 million in this file of 1 MB, whose pages share them."""
    tags, pages = 65_000, 90
    picture_tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1))
    first = struct.pack("<H", len(picture_tags))
    first += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in picture_tags)
    begin = 8 + len(first) + 4
    # The last bytes of each tag are the number of tags of the page that begins there.
    entry = struct.pack("<HHIHH", 254, 4, 1, 1, tags)
    head = struct.pack("<2sHI", b"II", 42, 8) + first + struct.pack("<I", begin) + struct.pack("<H", tags)
    data = bytearray(head + entry * (tags + pages + 2))
    for page in range(pages):
        following = begin + 12 * (page + 1) if page < pages - 1 else 0
        struct.pack_into("<I", data, begin + 12 * page + 2 + 12 * tags, following)
    start = time.process_time()
    header = EncodedImage(bytes(data), Limits(max_bytes=10**7, max_pixels=100)).header
    assert time.process_time() - start < 0.5
    assert (header.width, header.height) == (1, 1)


def test_first_jpeg_of_an_mpo_is_decoded() -> None:
    """MPO: several JPEGs in one file, written by phones; viewers show the first."""
    data = encoded(IMAGE, "MPO", save_all=True, append_images=[IMAGE])
    assert decode(data, LIMITS).image_HW3.shape == RGB.shape
    assert EncodedImage(data, LIMITS).header.media_type == "image/jpeg"


def test_header_says_that_a_fourth_band_was_not_used() -> None:
    tags = ImageFileDirectory_v2()
    tags[33550], tags.tagtype[33550] = (1.0, 1.0, 0.0), TiffTags.DOUBLE
    geotiff = encoded(rgba(7), "TIFF", tiffinfo=tags)
    assert EncodedImage(geotiff, LIMITS).header.ignores_fourth_band
    np.testing.assert_array_equal(decode(geotiff, LIMITS).image_HW3, RGB)
    assert not EncodedImage(encoded(rgba(7), "TIFF"), LIMITS).header.ignores_fourth_band
    assert not EncodedImage(encoded(rgba(7)), LIMITS).header.ignores_fourth_band


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


def test_tiff_with_a_huge_tile_is_rejected() -> None:
    """A tile is decoded as a whole; Pillow compares only the size of the picture with its limit."""
    tags = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 32768),
        (323, 32768),
        (324, 200),
        (325, 99),
    ]
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack("<2sHI", b"II", 42, 8) + page + bytes(4) + zlib.compress(bytes(2**20))
    for read in (EncodedImage, decode):
        with pytest.raises(ImageTooLarge, match="tiles of 1073741824 pixels"):
            read(data, LIMITS)


def test_jpeg_with_very_many_scans_is_rejected() -> None:
    """Each scan is a pass over all pixels: a file of kilobytes could keep a core busy for hours."""
    data = encoded(IMAGE, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode(data, LIMITS).image_HW3.shape == RGB.shape
    with pytest.raises(ImageUnreadable, match="scans"):
        decode(data[:last] + data[last:-2] * 200 + data[-2:], LIMITS)


def test_bmp_with_very_many_run_lengths_is_rejected() -> None:
    """Pillow decodes run lengths in Python, a few per microsecond."""
    for rows, fits in ((10, True), (10_500, False)):
        codes = (b"\x01\x07" * 100 + bytes(2)) * rows
        head = struct.pack("<IiiHHIIiiII", 40, 100, 10, 1, 8, 1, len(codes), 0, 0, 0, 0) + bytes(1024)
        data = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(head)) + head + codes
        if fits:
            assert decode(data, Limits(10**7, 10**4)).image_HW3.shape == (10, 100, 3)
        else:
            with pytest.raises(ImageTooLarge, match="save it as PNG"):
                decode(data, Limits(10**7, 10**4))


def test_memory_error_is_reported_as_image_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: Image.Image) -> None:
        raise MemoryError

    data = encoded(IMAGE)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
    with pytest.raises(ImageTooLarge, match="memory"):
        decode(data, LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_file_is_rejected_at_every_length(kind: str) -> None:
    data = encoded(IMAGE, kind)
    for length in range(1, len(data) - 16, 1 + len(data) // 40):
        try:
            decode(data[:length], LIMITS)
        except (ImageUnreadable, ImageUnsupported):
            continue
        pytest.fail(f"{length} of {len(data)} bytes were decoded as an image")


PEAK = """
import sys
from pathlib import Path
from service.segmentation.decode import Limits, decode
def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decode(small, Limits(10**9, 10**9)).image_HW3
before = peak_bytes()
height, width, _ = decode(large, Limits(10**9, 10**9)).image_HW3.shape
print((peak_bytes() - before) / (height * width))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory is read from /proc")
@pytest.mark.parametrize(
    ("mode", "kind", "max_pixel_bytes"),
    [("RGBA", "PNG", 9), ("LA", "PNG", 9), ("RGB", "JPEG", 9), ("RGBA", "WEBP", 17)],
)
def test_peak_memory_of_decoding_is_bounded(mode: str, kind: str, max_pixel_bytes: int, tmp_path: Path) -> None:
    """4 bytes per pixel in Pillow, 3 in the result, and strips; the WebP decoder holds four copies."""
    for name, side in (("small", 8), ("large", 3000)):
        rotated = Image.Exif()
        rotated[0x112] = 6
        Image.new(mode, (side, side), "navy").save(tmp_path / name, kind, exif=rotated)
    process = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 3 <= float(process.stdout) < max_pixel_bytes
    large = (tmp_path / "large").read_bytes()
    assert float(process.stdout) * 3000 * 3000 < EncodedImage(large, Limits(10**9, 10**9)).decode_bytes


def test_result_is_contiguous_rgb() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.new(mode, (5, 3))
        sink = io.BytesIO()
        image.save(sink, "PNG")
        pixels = decode(sink.getvalue(), LIMITS).image_HW3
        assert pixels.shape == (3, 5, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags["C_CONTIGUOUS"]


def test_pixels_are_decoded_only_on_request_and_then_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes a whole PNG to look for metadata behind its pixels: not before the image has its turn."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x/>")
    loads: list[Image.Image] = []
    load = PngImageFile.load

    def recorded(image: PngImageFile) -> Any:
        loads.append(image)
        return load(image)

    monkeypatch.setattr(PngImageFile, "load", recorded)
    waiting = EncodedImage(encoded(IMAGE, "PNG", pnginfo=info), LIMITS)
    assert loads == []
    assert waiting.decode().header.orientation == 1
    assert loads
    with pytest.raises(ValueError, match="closed"):
        waiting._image.getpixel((0, 0))
