"""Label masks: pixel values are class ids, without conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from service.classes.class_list import ClassList, Ids
from service.errors import MaskInvalid
from service.images.label_doubts import find_doubt
from service.images.label_masks import encode_mask, read_label, read_mask
from tests.service.class_lists import TINY, list_of
from tests.service.conftest import encoded, read

MANY = list_of([str(i) for i in range(65_535)], ignore_index=65_535)
IDS = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)


def accept(data: bytes, classes: int = 5, ignore_index: int = 255) -> Ids:
    return read_mask(
        data, width=3, height=2, classes=list_of([str(i) for i in range(classes)], ignore_index=ignore_index)
    )


def test_grey_values_are_ids() -> None:
    np.testing.assert_array_equal(accept(encoded(IDS)), IDS)


def test_palette_indices_are_ids() -> None:
    image = Image.fromarray(IDS)
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    np.testing.assert_array_equal(accept(encoded(image)), IDS)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_indices_of_few_bits_are_ids(bits: int) -> None:
    ids = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([9, 9, 9, 8, 8, 8])
    np.testing.assert_array_equal(accept(encoded(image, bits=bits)), ids)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_scaled(bits: int) -> None:
    ids = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    # Pillow writes the upper bits of the values.
    data = encoded(Image.fromarray(ids * np.uint8(255 // (2**bits - 1))), bits=bits)
    assert data[24] == bits
    np.testing.assert_array_equal(accept(data), ids)


def test_one_bit_gives_ids_0_and_1() -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    np.testing.assert_array_equal(accept(encoded(bits)), bits)


def test_16_bit_ids() -> None:
    ids = np.array([[0, 300, 2], [3, 65_535, 255]], np.uint16)
    ids_read = accept(encoded(ids), classes=301, ignore_index=65_535)
    np.testing.assert_array_equal(ids_read, ids)
    assert ids_read.dtype == np.uint16


def test_16_bit_file_with_small_ids_gives_8_bits() -> None:
    assert accept(encoded(IDS.astype(np.uint16))).dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_orientation_of_the_mask_is_applied(orientation: int, mode: str) -> None:
    """Else the label is upside down against its photograph, silently."""
    stored = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0]][: 3 if orientation < 5 else 2], np.uint8)
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored.T[:, ::-1],
        7: stored[::-1, ::-1].T,
        8: stored.T[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored.astype({"1": bool, "I;16": np.uint16}.get(mode, np.uint8)))
    if mode == "P":
        image.putpalette(bytes(768))
    height, width = turned[orientation].shape
    ids = read_mask(encoded(image, exif=exif), width=width, height=height, classes=list_of("ab"))
    np.testing.assert_array_equal(ids, turned[orientation])


def test_large_and_damaged_metadata_does_not_cost_the_mask() -> None:
    np.testing.assert_array_equal(accept(encoded(IDS, icc_profile=bytes(2**21))), IDS)
    data = encoded(IDS)
    text = b"\0\0\0\7tEXtKey\0txt" + b"\0\0\0\0"
    np.testing.assert_array_equal(accept(data[:33] + text + data[33:]), IDS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.fromarray(IDS), "BMP"), "not a PNG"),
        (b"", "not a PNG"),
        (encoded(IDS)[:45], "damaged"),
        (encoded(IDS.T.copy()), "2x3 pixels .* EXIF orientation"),
        (encoded(np.zeros((3, 3), np.uint8)), "3x3 pixels"),
        (encoded(IDS)[:50] + b"!" + encoded(IDS)[51:], "checksum of its IDAT chunk is wrong"),
        (encoded(Image.fromarray(IDS).convert("RGB")), "RGB with equal channels.*save one channel as grey"),
        (encoded(Image.fromarray(IDS).convert("LA")), "LA.*one channel"),
        (encoded(np.array([[[1, 1, 1], [2, 2, 2], [0, 0, 0]]] * 2, np.uint8)), "RGB with equal channels"),
        (encoded(np.full((2, 3, 3), (9, 8, 7), np.uint8)), "1 colours that no class has, such as #090807"),
        (encoded(np.full((2, 3), 5, np.uint8)), r"ids \[5\]"),
        (encoded(np.full((2, 3), 254, np.uint8)), r"ids \[254\]"),
    ],
)
def test_invalid_mask_is_rejected_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(MaskInvalid, match=message):
        accept(data)


def test_colours_of_the_class_list_are_named() -> None:
    mask = np.array([[(255, 0, 0), (0, 255, 0), (255, 0, 0)]] * 2, np.uint8)
    with pytest.raises(MaskInvalid, match=r"colours of the class list \(#ff0000 red, #00ff00 green\).*COCO RLE"):
        read_mask(encoded(mask), width=3, height=2, classes=TINY)


@pytest.mark.parametrize(
    ("mask", "classes", "message"),
    [
        (np.array([[0, 255]], np.uint8), 5, r"0 and 255 only.*is it a class\?.*\?partial=true"),
        (np.array([[0, 65_535]], np.uint16), 300, "0 and 65535 only"),
        # Here 255 is a class.
        (np.array([[0, 255]], np.uint8), 300, "black and white, which would mean '0' and '255'"),
        (np.array([[False, True]]), 3, "black and white, which would mean '0' and '1'"),
    ],
)
def test_black_and_white_mask_needs_a_confirmation(mask: np.ndarray[Any, Any], classes: int, message: str) -> None:
    listed = list_of([str(i) for i in range(classes)], ignore_index=255 if classes < 256 else 65_535)
    with pytest.raises(MaskInvalid, match=message):
        read_label(encoded(mask), width=2, height=1, classes=listed)
    np.testing.assert_array_equal(read_label(encoded(mask), width=2, height=1, classes=listed, partial=True), mask)


@pytest.mark.parametrize(
    "mask", [np.array([values], np.uint8) for values in ((1, 255), (0, 0), (255, 255), (0, 1))] + [np.array([[True]])]
)
def test_other_masks_are_not_taken_for_black_and_white(mask: np.ndarray[Any, Any]) -> None:
    height, width = mask.shape
    classes = list_of("abc" if mask.dtype == np.uint8 else "ab")
    np.testing.assert_array_equal(read_label(encoded(mask), width=width, height=height, classes=classes), mask)


def test_grey_levels_of_a_soft_edge_are_recognised() -> None:
    grey = np.linspace(0, 255, 16).astype(np.uint8)[None]
    with pytest.raises(MaskInvalid, match="one object with soft edges: set a threshold"):
        read_mask(encoded(grey), width=16, height=1, classes=TINY)


def doubt(mask: Any, classes: ClassList = TINY) -> str | None:
    ids = np.unique(np.asarray(mask))
    labelled = [i for i in ids.tolist() if i != classes.ignore_index]
    return find_doubt(encoded(mask), labelled, classes, unlabelled=int((np.asarray(mask) == 255).sum()))


def test_mask_that_may_be_meant_otherwise_gets_a_doubt() -> None:
    assert "Every pixel is 'red'" in (doubt(np.zeros((2, 2), np.uint8)) or "")
    assert "0 and 1 only, 'red' and 'green'" in (doubt(np.array([[0, 1]], np.uint8)) or "")
    assert doubt(np.array([[255]], np.uint8)) == "No pixel has a label."
    for clear in ([[0, 2]], [[0, 1, 2]], [[0, 1, 255]], [[0, 255]]):
        assert doubt(np.array(clear, np.uint8)) is None
    assert doubt(np.array([[0, 1]], np.uint8), list_of("ab")) is None


def test_palette_in_the_colours_of_other_classes_gets_a_doubt() -> None:
    """A converter has made a palette of its own from a mask in the colours of the classes."""
    mask = Image.fromarray(np.array([[0, 1]], np.uint8))
    mask.putpalette([*TINY.classes[1].color, *TINY.classes[0].color])
    assert "paints the id 0, 'red', in the colour of 'green', whose id is 1" in (doubt(mask) or "")
    mask.putpalette([*TINY.classes[0].color, *TINY.classes[1].color])
    assert "0 and 1 only" in (doubt(mask) or "")
    # Voc's palette: black is no class, so the colours mean nothing.
    mask.putpalette([7, 7, 7, *TINY.classes[0].color])
    assert "0 and 1 only" in (doubt(mask) or "")


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))) | arrays(np.uint16, (3, 4)))
@settings(deadline=None)
def test_encoded_mask_round_trip(ids: np.ndarray[Any, Any]) -> None:
    height, width = ids.shape
    data = encode_mask(ids)
    np.testing.assert_array_equal(read(data), ids)
    decoded = read_mask(data, width=width, height=height, classes=MANY)
    np.testing.assert_array_equal(decoded, ids)
