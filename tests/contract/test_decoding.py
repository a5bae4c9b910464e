"""Trainer, service and Triton's model decode a file to the same pixels, for every row in trainer/data/decode.py."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from exporter.triton.programs import encoded as triton
from service.errors import MaskloopError
from service.segmentation import decode as service
from service.segmentation.decode import EXTENSIONS, Limits, decode
from tests.contract.image_files import (
    CASES,
    GREY16_HW,
    NUMBER_FILES,
    NUMBERS,
    REJECTED,
    RGB,
    RGBA,
    RGBA_HW4,
    TRANSPARENT_2_BITS,
    TWELVE_BITS,
    Range,
    encoded,
    tiff,
    with_range,
    without_adobe,
)
from trainer.data import decode as trainer
from trainer.data.decode import ImageError, image_size, read_image
from trainer.data.formats.rgb import rgb_conversion, to_rgb
from trainer.data.readers.directory_listing import SUFFIXES

LIMITS = Limits(max_bytes=2**22, max_pixels=10**6)
MODES = ["1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV"]
EACH = [(row, name) for row, cases in CASES.items() for name in cases]
EACH_REJECTED = [(row, name) for row, cases in REJECTED.items() for name in cases]
FORMATS_FOLDERS = ("trainer/data/formats", "service/segmentation/formats")

Pixels = npt.NDArray[np.uint8]

# Pillow warns about broken EXIF and damaged tags.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def by_trainer(data: bytes, value_range: Range | None, folder: Path) -> Pixels:
    (folder / "image").write_bytes(data)
    return read_image(folder / "image", value_range)


def by_service(data: bytes, value_range: Range | None, _folder: Path) -> Pixels:
    return decode(data, LIMITS, value_range).image_HW3


def by_triton(data: bytes, value_range: Range | None, _folder: Path) -> Pixels:
    return triton.decode(data, LIMITS.max_bytes, LIMITS.max_pixels, value_range)


Program = Callable[[bytes, Range | None, Path], Pixels]
PROGRAMS: list[Program] = [by_trainer, by_service, by_triton]


def test_every_row_of_the_table_is_tested() -> None:
    rows = re.findall(r"^\| (.+?) +\|", trainer.__doc__ or "", re.MULTILINE)
    assert set(rows[1:]) == (set(CASES) | set(REJECTED)) - {""}


def test_copies_of_the_shared_rules_are_equal() -> None:
    """The programs do not import each other, so each has a copy."""
    root = Path(__file__).parents[2]
    first, second = (
        {path.name: path.read_text().replace(folder.replace("/", "."), "") for path in (root / folder).glob("*.py")}
        for folder in FORMATS_FOLDERS
    )
    assert first == second


@pytest.mark.parametrize(("row", "name"), EACH)
def test_all_programs_decode_the_same_pixels(row: str, name: str, tmp_path: Path) -> None:
    data, value_range = with_range(CASES[row][name])
    first, *others = (program(data, value_range, tmp_path) for program in PROGRAMS)
    for found in others:
        assert np.array_equal(first, found)
        assert found.flags.c_contiguous


@pytest.mark.parametrize(("row", "name"), EACH)
def test_size_from_the_header_equals_the_decoded_size(row: str, name: str, tmp_path: Path) -> None:
    data, value_range = with_range(CASES[row][name])
    height, width, _ = by_trainer(data, value_range, tmp_path).shape
    assert image_size(tmp_path / "image", tmp_path / "image", value_range) == (height, width)
    header = service.EncodedImage(data, LIMITS, value_range).header
    assert (header.height, header.width) == (height, width)


@pytest.mark.parametrize("mode", MODES)
def test_all_programs_convert_every_mode_alike(mode: str) -> None:
    """Pillow cannot write files of some modes; other programs may."""
    image = RGB.quantize(8) if mode == "P" else RGBA.convert(mode)
    assert to_rgb(image.copy()).tobytes() == triton.rgb(image.copy(), None).tobytes()


def test_decoding_in_strips_gives_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STRIP_PIXELS", 50)
    several = 0
    for row, name in EACH:
        data, value_range = with_range(CASES[row][name])
        expected = by_trainer(data, value_range, tmp_path)
        several += expected.shape[0] * expected.shape[1] > 100
        np.testing.assert_array_equal(by_service(data, value_range, tmp_path), expected, err_msg=name)
    assert several > len(EACH) / 2
    for mode in MODES:
        image = RGB.quantize(8) if mode == "P" else RGBA.convert(mode)
        np.testing.assert_array_equal(service._upright(image, 1, None), np.asarray(to_rgb(image)), err_msg=mode)


@pytest.mark.parametrize(("row", "name"), EACH_REJECTED)
def test_all_programs_reject_the_same_files_with_the_reason(row: str, name: str, tmp_path: Path) -> None:
    data, value_range, reason = REJECTED[row][name]
    for program in PROGRAMS:
        with pytest.raises((ImageError, MaskloopError, triton.InvalidImageError), match=reason or None):
            program(data, value_range, tmp_path)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "AVIF"])
def test_trainer_reads_the_first_of_several_frames_and_the_others_reject_them(kind: str, tmp_path: Path) -> None:
    """A client must choose the frame; a data set is not rejected because a file has a second page."""
    data = encoded(RGB, kind, save_all=True, append_images=[RGB.rotate(180)])
    assert by_trainer(data, None, tmp_path).shape == (20, 30, 3)
    for program in (by_service, by_triton):
        with pytest.raises((MaskloopError, triton.InvalidImageError), match="several frames"):
            program(data, None, tmp_path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_overviews_masks_and_thumbnails_are_not_the_picture(program: Program, tmp_path: Path) -> None:
    for name in ("COG", "older tag", "thumbnail first", "overview of another kind", "only an overview"):
        data, _ = with_range(CASES["several frames or pages"][name])
        np.testing.assert_array_equal(program(data, None, tmp_path), np.asarray(RGB), err_msg=name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_transparent_grey_of_2_bits_becomes_white(program: Program, tmp_path: Path) -> None:
    assert program(TRANSPARENT_2_BITS, None, tmp_path)[0, :, 0].tolist() == [0, 255, 170, 255]


@pytest.mark.parametrize("program", PROGRAMS)
def test_unused_metadata_changes_no_pixel(program: Program, tmp_path: Path) -> None:
    for name in ("large profile PNG", "large texts PNG", "damaged metadata PNG", "large TIFF"):
        data, _ = with_range(CASES["unused metadata"][name])
        np.testing.assert_array_equal(program(data, None, tmp_path), np.asarray(RGB), err_msg=name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_fourth_band_of_a_geotiff_is_no_transparency(program: Program, tmp_path: Path) -> None:
    for name in CASES["fourth band of a GeoTIFF"]:
        data, _ = with_range(CASES["fourth band of a GeoTIFF"][name])
        np.testing.assert_array_equal(program(data, None, tmp_path), RGBA_HW4[..., :3], err_msg=name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_declared_range_gives_frames_of_one_scene_one_brightness(program: Program, tmp_path: Path) -> None:
    """The same value has the same grey in a dark and in a bright frame."""
    dark, bright = (tiff((np.array([[100, white]], np.float32), {})) for white in (200, 4000))
    frames = [program(data, (0.0, 4000.0), tmp_path)[0, :, 0].tolist() for data in (dark, bright)]
    assert frames == [[6, 12], [6, 255]]


@pytest.mark.parametrize("program", PROGRAMS)
def test_numbers_are_scaled_by_the_declared_range(program: Program, tmp_path: Path) -> None:
    for name, (values_HW, (black, white)) in NUMBERS.items():
        share_HW = np.clip((values_HW.astype(np.float64) - black) / (white - black), 0, 1)
        found_HW3 = program(*NUMBER_FILES[name], tmp_path)
        np.testing.assert_array_equal(found_HW3[..., 1], (share_HW * 255.999).astype(np.uint8), err_msg=name)
    twelve_HW3 = program(tiff((TWELVE_BITS, {258: 12})), (0.0, 4095.0), tmp_path)
    np.testing.assert_array_equal(twelve_HW3[..., 0], GREY16_HW >> 8)
    plane_HW3 = program(tiff((GREY16_HW, {284: 2})), None, tmp_path)
    np.testing.assert_array_equal(plane_HW3[..., 0], GREY16_HW >> 8)


def test_table_by_hand() -> None:
    """The shared result must also be the one that the table states."""
    assert first_pixel(to_rgb(Image.new("RGBA", (1, 1), (200, 100, 50, 0)))) == [255, 255, 255]
    assert first_pixel(to_rgb(Image.new("RGBA", (1, 1), (0, 100, 200, 128)))) == pytest.approx([127, 177, 227], abs=1)
    assert first_pixel(to_rgb(Image.new("RGBa", (1, 1), (100, 50, 0, 128)))) == pytest.approx([227, 177, 127], abs=2)
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert first_pixel(to_rgb(cyan)) == [0, 255, 255]
    jpeg = encoded(cyan, "JPEG")
    for data in (jpeg, without_adobe(jpeg), encoded(cyan, "TIFF")):
        assert decode(data, LIMITS).image_HW3[0, 0].tolist() == pytest.approx([0, 255, 255], abs=3)


def test_scaling_by_hand() -> None:
    def scaled(values: list[float], kind: type, value_range: Range | None) -> list[int]:
        image = Image.fromarray(np.array([values], dtype=kind))
        return np.asarray(rgb_conversion(image, value_range)(image))[0, :, 0].tolist()  # type: ignore[no-any-return]

    assert scaled([0, 0.25, 0.5, 1], np.float32, (0, 1)) == [0, 63, 127, 255]
    assert scaled([-5, -1, 0, 1, 9], np.float32, (-1, 1)) == [0, 0, 127, 255, 255]
    assert scaled([0, 7, 255], np.int32, (0, 255)) == [0, 7, 255]
    assert scaled([0, 16, 4095, 9000], np.uint16, (0, 4095)) == [0, 1, 255, 255]
    assert scaled([0, 255, 256, 65535], np.uint16, None) == [0, 0, 1, 255]
    assert scaled([0, 255, 256, 65535], np.uint16, (0, 65535)) == [0, 0, 1, 255]
    assert scaled([0, 7, 255], np.uint8, (0, 7)) == [0, 7, 255]


def test_range_of_16_bits_equals_the_upper_8_bits() -> None:
    values_HW = np.arange(65536, dtype=np.int32).reshape(256, 256)
    for kind in (np.int32, np.float32, np.uint16):
        image = Image.fromarray(values_HW.astype(kind))
        found_HW = np.asarray(rgb_conversion(image, (0.0, 65535.0))(image))[..., 0]
        np.testing.assert_array_equal(found_HW, values_HW >> 8)


def first_pixel(image: Image.Image) -> list[int]:
    return [int(value) for value in np.asarray(image)[0, 0]]


def test_trainer_reads_every_file_type_of_the_pool() -> None:
    assert {f".{extension}" for extension in EXTENSIONS.values()} <= set(SUFFIXES)
