"""Trainer and service decode an image file to the same pixels, for every row of the table in trainer/data/decode.py."""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from service.errors import MaskloopError
from service.segmentation import decode as service
from service.segmentation.decode import EXTENSIONS, FORMATS, Limits, decode
from trainer.data import decode as trainer
from trainer.data.decode import ImageError, image_size, read_image, to_rgb
from trainer.data.directory_listing import SUFFIXES

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)
RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
SMOOTH = Image.fromarray(np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8))
GREY16_HW = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
ORIENTATION = 0x0112
EXTRA_SAMPLES = 338


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(RGB, kind, exif=exif)


def png_16_bit(pixels_HWC: npt.NDArray[np.uint16]) -> bytes:
    height, width, channels = pixels_HWC.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels_HWC)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(pixels_HWC: npt.NDArray[np.integer[Any]], *, bits: int, signed: bool = False) -> bytes:
    """Encode an uncompressed TIFF of a kind that Pillow can read but not write."""
    height, width, channels = pixels_HWC.shape
    if bits == 12:
        halves = np.unpackbits(pixels_HWC.astype(">u2").view(np.uint8).reshape(height, -1, 2), axis=-1)[..., 4:]
        strip = np.packbits(halves.reshape(height, -1), axis=-1).tobytes()
    else:
        strip = pixels_HWC.astype("<u2").tobytes()
    # A tag holds the offset of a value that is longer than four bytes.
    bits_at = 8 + 2 + 11 * 12 + 4
    tags = [(256, 4, 1, width), (257, 4, 1, height)]
    tags += [(258, 3, 1, bits) if channels == 1 else (258, 3, channels, bits_at)]
    tags += [(259, 3, 1, 1), (262, 3, 1, 1 if channels == 1 else 2), (273, 4, 1, bits_at + 8), (277, 3, 1, channels)]
    tags += [(278, 4, 1, height), (279, 4, 1, len(strip)), (284, 3, 1, 1)]
    tags += [(338, 3, 1, 2)] if channels == 4 else [(339, 3, 1, 2 if signed else 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return head + struct.pack("<4H", *[bits] * 4) + strip


def without_adobe(jpeg: bytes) -> bytes:
    """Remove the Adobe segment, which marks CMYK as stored inverted."""
    start = jpeg.index(b"\xff\xee")
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + jpeg[start + 2 + length :]


NUMBERS: dict[str, npt.NDArray[Any]] = {
    "floats of 1": GREY16_HW.astype(np.float32) / np.float32(65535),
    "floats of 255": GREY16_HW.astype(np.float32) / np.float32(257),
    "floats of 65535": GREY16_HW.astype(np.float32),
    "floats, some negative": GREY16_HW.astype(np.float32) - 99.5,
    "large floats": GREY16_HW.astype(np.float32) * 1e30,
    "integers": GREY16_HW.astype(np.int32),
    "small integers": (GREY16_HW >> 8).astype(np.int32),
    "large integers": GREY16_HW.astype(np.int32) * 30_000,
    "negative integers": GREY16_HW.astype(np.int32) - 70_000,
}
CASES: dict[str, dict[str, bytes]] = {
    "EXIF orientation": {
        f"{turn} {kind}": rotated_by_exif(kind, turn)
        for turn in range(2, 9)
        for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
    }
    | {"broken": encoded(RGB, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")},
    "16 bits, grey": {
        "PNG": encoded(Image.fromarray(GREY16_HW), "PNG"),
        "TIFF": encoded(Image.fromarray(GREY16_HW), "TIFF"),
        "big-endian TIFF": encoded(Image.fromarray(GREY16_HW.astype(">u2")), "TIFF"),
    },
    "12 bits, grey": {"TIFF": tiff((GREY16_HW >> 4)[..., None], bits=12)},
    "32-bit integers, floats": {
        name: encoded(Image.fromarray(values_HW), "TIFF") for name, values_HW in NUMBERS.items()
    }
    | {"signed 16 bits": tiff(GREY16_HW[..., None] >> 1, bits=16, signed=True)},
    "16 bits, colour": {
        "RGB": png_16_bit(RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)),
        "RGBA": png_16_bit(RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16)),
        "grey with alpha": png_16_bit(RNG.integers(0, 65536, (20, 30, 2), dtype=np.uint16)),
        "RGB TIFF": tiff(RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16), bits=16),
        "RGBA TIFF": tiff(RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16), bits=16),
    },
    "alpha": {
        "RGBA PNG": encoded(RGBA, "PNG"),
        "RGBA WEBP": encoded(RGBA, "WEBP"),
        "RGBA TIFF": encoded(RGBA, "TIFF"),
        "RGBA AVIF": encoded(RGBA, "AVIF"),
        "LA": encoded(RGBA.convert("LA"), "PNG"),
        "PA": encoded(RGBA.convert("PA"), "TIFF"),
    },
    "premultiplied alpha": {"TIFF": encoded(RGBA, "TIFF", tiffinfo={EXTRA_SAMPLES: 1})},
    "transparent colour or entries": {
        "RGB": encoded(RGB, "PNG", transparency=RGB.getpixel((3, 3))),
        "grey": encoded(RGB.convert("L"), "PNG", transparency=100),
        "1 bit": encoded(RGB.convert("1"), "PNG", transparency=0),
        "palette, one": encoded(RGB.quantize(8), "PNG", transparency=0),
        "palette, some": encoded(RGB.quantize(8), "PNG", transparency=bytes([0, 128, 255, 255])),
    },
    "palette": {"PNG": encoded(RGB.quantize(8), "PNG"), "BMP": encoded(RGB.quantize(8), "BMP")},
    "1 bit, grey": {
        "1 bit": encoded(RGB.convert("1"), "PNG"),
        "1 bit TIFF": encoded(RGB.convert("1"), "TIFF"),
        "grey PNG": encoded(RGB.convert("L"), "PNG"),
        "grey JPEG": encoded(RGB.convert("L"), "JPEG"),
        "grey AVIF": encoded(RGB.convert("L"), "AVIF"),
        "grey WEBP": encoded(RGB.convert("L"), "WEBP"),
    },
    "CMYK": {
        "Adobe JPEG": encoded(RGB.convert("CMYK"), "JPEG"),
        "plain JPEG": without_adobe(encoded(RGB.convert("CMYK"), "JPEG")),
        "TIFF": encoded(RGB.convert("CMYK"), "TIFF"),
    },
    "YCbCr, Lab, HSV": {
        "YCbCr": encoded(RGB.convert("YCbCr"), "TIFF"),
        "Lab": encoded(Image.frombytes("LAB", RGB.size, RGB.tobytes()), "TIFF"),
    },
    "an unused fourth channel": {"TIFF": encoded(RGB.convert("RGBX"), "TIFF")},
    "": {kind: encoded(RGB, kind) for kind in FORMATS}
    | {
        "progressive JPEG": encoded(SMOOTH, "JPEG", progressive=True),
        "lossless WEBP": encoded(RGB, "WEBP", lossless=True),
        "two JPEGs in one": encoded(RGB, "MPO", save_all=True, append_images=[SMOOTH]),
    }
    | {
        f"{how} TIFF": encoded(SMOOTH, "TIFF", compression=how)
        for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    },
}
"""Files by row of the table; "" = plain RGB, which has no row."""

REJECTED: dict[str, dict[str, bytes]] = {
    "damaged, truncated": {"no image": b"no image", "empty": b""}
    | {f"cut off {kind}": encoded(RGB, kind)[:200] for kind in FORMATS}
    | {
        f"{value} in floats": encoded(Image.fromarray(np.array([[0, value]], dtype=np.float32)), "TIFF")
        for value in (float("nan"), float("inf"))
    },
}
FRAMES = "several frames or pages"

EACH = [(row, name) for row, cases in CASES.items() for name in cases]


def test_every_row_of_the_table_is_tested() -> None:
    rows = re.findall(r"^\| (.+?) +\|", trainer.__doc__ or "", re.MULTILINE)
    assert set(rows[1:]) == (set(CASES) | set(REJECTED) | {FRAMES}) - {""}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's warning about the broken EXIF
@pytest.mark.parametrize(("row", "name"), EACH)
def test_trainer_and_service_decode_the_same_pixels(row: str, name: str, tmp_path: Path) -> None:
    data = CASES[row][name]
    (tmp_path / "image").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "image"), decode(data, LIMITS).image_HW3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(("row", "name"), EACH)
def test_size_from_the_header_equals_the_decoded_size(row: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(CASES[row][name])
    assert image_size(tmp_path / "image", tmp_path / "image") == read_image(tmp_path / "image").shape[:2]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV"])
def test_trainer_and_service_convert_every_mode_alike(mode: str) -> None:
    """Pillow cannot write files of some modes; other programs may."""
    image = RGB.quantize(8) if mode == "P" else RGBA.convert(mode)
    assert to_rgb(image).tobytes() == service._rgb(image).tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_decoding_in_strips_gives_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STRIP_PIXELS", 50)
    several = 0
    for row, name in EACH:
        (tmp_path / "image").write_bytes(CASES[row][name])
        expected = read_image(tmp_path / "image")
        several += expected.shape[0] * expected.shape[1] > 100
        np.testing.assert_array_equal(decode(CASES[row][name], LIMITS).image_HW3, expected, err_msg=name)
    assert several > len(EACH) / 2
    for mode in ("1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV"):
        image = RGB.quantize(8) if mode == "P" else RGBA.convert(mode)
        np.testing.assert_array_equal(service._upright(image, 1), np.asarray(to_rgb(image)), err_msg=mode)


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, cases in REJECTED.items() for name in cases])
def test_trainer_and_service_reject_the_same_files(row: str, name: str, tmp_path: Path) -> None:
    data = REJECTED[row][name]
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(ImageError):
        read_image(tmp_path / "image")
    with pytest.raises(MaskloopError):
        decode(data, LIMITS)


def test_trainer_reads_the_first_of_several_frames_and_service_rejects_them(tmp_path: Path) -> None:
    """A client must choose the frame; a data set is not rejected because a file has a second page."""
    data = encoded(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)])
    (tmp_path / "image").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "image"), np.asarray(RGB))
    with pytest.raises(MaskloopError):
        decode(data, LIMITS)


def test_table_by_hand() -> None:
    """The shared result must also be the one that the table states."""
    assert first_pixel(to_rgb(Image.new("RGBA", (1, 1), (200, 100, 50, 0)))) == [255, 255, 255]
    assert first_pixel(to_rgb(Image.new("RGBA", (1, 1), (0, 100, 200, 128)))) == pytest.approx([127, 177, 227], abs=1)
    assert first_pixel(to_rgb(Image.new("RGBa", (1, 1), (100, 50, 0, 128)))) == pytest.approx([227, 177, 127], abs=2)
    grey = Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))
    assert np.asarray(to_rgb(grey))[0, :, 0].tolist() == [0, 0, 1, 255]
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert first_pixel(to_rgb(cyan)) == [0, 255, 255]
    jpeg = encoded(cyan, "JPEG")
    for data in (jpeg, without_adobe(jpeg), encoded(cyan, "TIFF")):
        assert decode(data, LIMITS).image_HW3[0, 0].tolist() == pytest.approx([0, 255, 255], abs=3)


def test_scaling_of_unknown_ranges_by_hand() -> None:
    def scaled(values: list[float], kind: type) -> list[int]:
        array_HW: npt.NDArray[Any] = np.array([values], dtype=kind)
        return np.asarray(to_rgb(Image.fromarray(array_HW)))[0, :, 0].tolist()  # type: ignore[no-any-return]

    assert scaled([0, 0.25, 0.5, 1], np.float32) == [0, 63, 127, 255]
    assert scaled([0, 1.5, 128, 255], np.float32) == [0, 1, 128, 255]
    assert scaled([0, 255, 256, 65535], np.float32) == [0, 0, 1, 255]
    assert scaled([-1, 0, 1], np.float32) == [0, 127, 255]
    assert scaled([-7, -7], np.float32) == [0, 0]
    assert scaled([0, 7, 255], np.int32) == [0, 7, 255]
    assert scaled([1, 65535], np.int32) == [0, 255]
    assert scaled([0, 2**30, 2**31 - 1], np.int32) == [0, 127, 255]


def test_integers_up_to_65535_are_scaled_like_16_bit_images() -> None:
    values_HW = np.arange(65536, dtype=np.int32).reshape(256, 256)
    for kind in (np.int32, np.float32):
        found_HW = np.asarray(to_rgb(Image.fromarray(values_HW.astype(kind))))[..., 0]
        np.testing.assert_array_equal(found_HW, values_HW >> 8)


def first_pixel(image: Image.Image) -> list[int]:
    return [int(value) for value in np.asarray(image)[0, 0]]


def test_trainer_reads_every_file_type_of_the_pool() -> None:
    assert {f".{extension}" for extension in EXTENSIONS.values()} <= set(SUFFIXES)
