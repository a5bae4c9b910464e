"""Limits of decoding: bytes, pixels, frames, tags, scans, memory, and truncated files."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.decode import FORMATS, EncodedImage, Limits, decode
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

# Pillow warns of broken EXIF and of large sizes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

LIMITS = Limits(max_bytes=1_000_000, max_pixels=100_000)
RGB = picture(40, 30)
IMAGE = Image.fromarray(RGB)
GREY = np.array(IMAGE.convert("L"))


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
