"""Decoding of images and masks; tests/contract covers the rules shared with the service."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.contract.image_files import packed, tiff
from trainer.data.decode import (
    ImageError,
    UndeclaredRangeError,
    decode_colors,
    decode_values,
    image_size,
    read_image,
)
from trainer.data.mask_encoding import MaskEncoding

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


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_masks_of_few_bits_give_stored_ids(bits: int, photometric: int, tmp_path: Path) -> None:
    """Pillow stretches them to 0..255, and inverts them where white is zero."""
    path, ids_HW = tmp_path / "mask.tif", RNG.integers(0, 2**bits, (3, 8), dtype=np.uint8)
    path.write_bytes(tiff((packed(ids_HW, bits), {258: bits, 262: photometric}), size=(8, 3)))
    assert decode_values(path, path).tolist() == ids_HW.tolist()


def test_white_is_zero_mask_of_8_bits_gives_stored_ids(tmp_path: Path) -> None:
    path, ids_HW = tmp_path / "mask.tif", np.array([[0, 1, 255]], np.uint8)
    path.write_bytes(tiff((ids_HW, {262: 0})))
    assert decode_values(path, path).tolist() == ids_HW.tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("orientation", "expected"), [(3, [[4, 3], [2, 1], [0, 0]]), (6, [[3, 1, 0], [4, 2, 0]])])
def test_orientation_of_a_mask_is_applied(
    kind: str, orientation: int, expected: list[list[int]], tmp_path: Path
) -> None:
    """Else a label is upside down against its photograph, which is rotated."""
    path, exif = tmp_path / "mask", Image.Exif()
    exif[0x0112] = orientation
    ids_HW = np.array([[0, 0], [1, 2], [3, 4]], np.uint8)
    for mask in (Image.fromarray(ids_HW), with_palette(ids_HW)):
        mask.save(path, kind, exif=exif)
        assert decode_values(path, path).tolist() == expected
    Image.new("RGB", (3, 1), (1, 2, 3)).save(path, kind, exif=exif)
    assert decode_colors(path, path).shape == ((3, 1, 3) if orientation == 6 else (1, 3, 3))


def with_palette(ids_HW: np.ndarray[Any, Any]) -> Image.Image:
    image = Image.fromarray(ids_HW)
    image.putpalette(bytes(768))
    return image


def test_mask_with_large_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[1, 2]], np.uint8)).save(path, icc_profile=bytes(2**21))
    assert decode_values(path, path).tolist() == [[1, 2]]


def test_sideways_mask_is_an_error_that_names_exif(tmp_path: Path) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "mask.png")
    encoding = MaskEncoding.identity(2, 255)
    with pytest.raises(ImageError, match=r"mask has 40x30 pixels and its upright image 30x40 .*EXIF"):
        encoding.decode(tmp_path / "mask.png", tmp_path / "mask.png", (40, 30))
    with pytest.raises(ImageError, match=r"mask has 40x30 pixels, its image 41x30 \(width x height\); export it"):
        encoding.decode(tmp_path / "mask.png", tmp_path / "mask.png", (30, 41))


def test_damage_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (9, 9)).save(path)
    path.write_bytes(path.read_bytes()[:30] + b"1234" + path.read_bytes()[34:])
    with pytest.raises(ImageError, match=r"image\.png: cannot be decoded \(the checksum of its IHDR chunk is wrong\)"):
        read_image(path)


def test_undeclared_range_is_an_error_with_the_usual_values(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    values_HW = np.arange(10_001, dtype=np.float32).reshape(1, -1)
    Image.fromarray(values_HW).save(path)
    for read in (lambda: read_image(path), lambda: image_size(path, path)):
        with pytest.raises(UndeclaredRangeError, match=r"32-bit floats.*set data\.range") as error:
            read()
        assert (error.value.low, error.value.high) == pytest.approx((10, 9990))
    assert read_image(path, (0, 10_000))[0, [0, 5000, 10_000], 0].tolist() == [0, 127, 255]


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
