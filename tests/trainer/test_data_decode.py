"""Decoding of images and masks; tests/contract covers the rules shared with the service."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.decode import ImageError, decode_colors, decode_values, image_size, read_image

RNG = np.random.default_rng(0)


def test_image_is_decoded_to_hwc_uint8_rgb(tmp_path: Path) -> None:
    pixels_HWC = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels_HWC).save(tmp_path / "image.png")
    read_HWC = read_image(tmp_path / "image.png")
    assert read_HWC.dtype == np.uint8
    assert np.array_equal(read_HWC, pixels_HWC)


def test_unreadable_or_missing_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"image\.png: cannot be decoded"):
        read_image(path)
    with pytest.raises(ImageError, match=r"image\.png: is not an image"):
        image_size(path, path)
    for read in (lambda: read_image(tmp_path / "none"), lambda: image_size(tmp_path / "none", tmp_path / "none")):
        with pytest.raises(ImageError, match="no such image"):
            read()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_image_and_size(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    expected = (40, 20) if orientation >= 5 else (20, 40)
    assert read_image(tmp_path / "turned.jpg").shape[:2] == expected
    assert image_size(tmp_path / "turned.jpg", tmp_path) == expected


def grey_png(bits: int, stored: bytes, width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" + stored)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(
    ("bits", "stored", "ids"),
    [
        (1, b"\x40", [0, 1]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x0f", [0, 15]),
        (8, b"\x00\xff", [0, 255]),
        (16, b"\x00\x01\x01\x00", [1, 256]),
    ],
)
def test_grey_masks_of_any_bit_depth_give_stored_ids(bits: int, stored: bytes, ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(grey_png(bits, stored, len(ids)))
    assert decode_values(path, path).tolist() == [ids]


def test_colour_mask_ignores_alpha(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("RGBA", (1, 1), (10, 20, 30, 40)).save(path)
    assert decode_colors(path, path).tolist() == [[[10, 20, 30]]]


def test_damaged_or_missing_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(b"not an image")
    for read in (decode_values, decode_colors):
        with pytest.raises(ImageError, match=r"mask\.png: cannot be decoded"):
            read(path, path)
        with pytest.raises(ImageError, match="the mask is missing"):
            read(tmp_path / "none.png", tmp_path / "none.png")
