"""Trainer and service decode alike: a model is asked about what it was trained on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import MaskloopError
from service.segmentation.decode import EXTENSIONS, Limits, decode
from trainer.data.decode import ImageError, read_image
from trainer.data.folder import SUFFIXES

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)
RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8))
GREY16 = Image.fromarray(RNG.integers(0, 65536, (20, 30), dtype=np.uint16))


def encoded(image: Image.Image, kind: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif) if orientation != 1 else image.save(buffer, kind)
    return buffer.getvalue()


def palette_with_transparency() -> bytes:
    image = RGB.quantize(8)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    return buffer.getvalue()


def broken_exif() -> bytes:
    buffer = io.BytesIO()
    RGB.save(buffer, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    return buffer.getvalue()


CASES: dict[str, Callable[[], bytes]] = {
    "RGB PNG": lambda: encoded(RGB, "PNG"),
    "RGB JPEG": lambda: encoded(RGB, "JPEG"),
    "RGB WEBP": lambda: encoded(RGB, "WEBP"),
    "RGB BMP": lambda: encoded(RGB, "BMP"),
    "RGB TIFF": lambda: encoded(RGB, "TIFF"),
    "grey": lambda: encoded(RGB.convert("L"), "PNG"),
    "1 bit": lambda: encoded(RGB.convert("1"), "PNG"),
    "16 bit": lambda: encoded(GREY16, "PNG"),
    "16 bit TIFF": lambda: encoded(GREY16, "TIFF"),
    "palette": lambda: encoded(RGB.quantize(8), "PNG"),
    "palette with transparency": palette_with_transparency,
    "RGBA": lambda: encoded(RGBA, "PNG"),
    "RGBA WEBP": lambda: encoded(RGBA, "WEBP"),
    "LA": lambda: encoded(RGBA.convert("LA"), "PNG"),
    "CMYK": lambda: encoded(RGB.convert("CMYK"), "JPEG"),
    "CMYK TIFF": lambda: encoded(RGB.convert("CMYK"), "TIFF"),
    "broken EXIF": broken_exif,
} | {
    f"turned {turn} {kind}": lambda turn=turn, kind=kind: encoded(RGB, kind, turn)
    for turn in range(2, 9)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP")
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's word on the broken EXIF; the picture is whole
@pytest.mark.parametrize("name", CASES)
def test_both_see_the_same_pixels(name: str, tmp_path: Path) -> None:
    data = CASES[name]()
    (tmp_path / "image").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "image"), decode(data, LIMITS))


def test_both_refuse_the_same(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(buffer, "TIFF")
    for data in (buffer.getvalue(), b"no image", encoded(RGB, "JPEG")[:200]):
        (tmp_path / "image").write_bytes(data)
        with pytest.raises(ImageError):
            read_image(tmp_path / "image")
        with pytest.raises(MaskloopError):
            decode(data, LIMITS)


def test_the_trainer_finds_every_kind_of_file_that_the_pool_keeps() -> None:
    assert {f".{extension}" for extension in EXTENSIONS.values()} <= set(SUFFIXES)
