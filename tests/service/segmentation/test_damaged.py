"""Damaged files are decoded, or rejected with one of three errors; nothing else may happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.decode import DecodedImage, EncodedImage, Header, Limits
from tests.service.broken_files import FILES, ORDERS, damaged
from tests.service.fuzzing import effort

pytestmark = [
    # Pillow warns of large sizes, broken EXIF and truncated TIFFs.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:PIL"),
]

LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000)
# Limit for one file. It takes milliseconds, so a slow machine stays within the limit and an endless loop does not.
TIME_LIMIT_S = 20
JPEG_START = b"\xff\xd8"


def check(data: bytes) -> None:
    """Parse the header and decode the pixels: both succeed or raise one of the three errors."""
    begin = time.monotonic()
    found = outcome(data, lambda image: image.decode())
    if isinstance(found, DecodedImage):
        assert found.image_HW3.dtype == np.uint8
        assert found.image_HW3.shape == (found.header.height, found.header.width, 3)
    # Other formats are decoded to check their pixels.
    if data[:2] == JPEG_START:
        checked = outcome(data, lambda image: image.check_pixels())
        assert checked == (found.header if isinstance(found, DecodedImage) else found)
    assert time.monotonic() - begin < TIME_LIMIT_S


def outcome(data: bytes, read: Callable[[EncodedImage], DecodedImage | Header]) -> DecodedImage | Header | str:
    try:
        return read(EncodedImage(data, LIMITS))
    except (ImageUnreadable, ImageUnsupported, ImageTooLarge) as error:
        return repr(error)


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_rejected_or_decoded(name: str) -> None:
    @given(damaged(FILES[name]))
    @effort(150)
    def check_damaged(data: bytes) -> None:
        check(data)

    check_damaged()


@pytest.mark.parametrize("name", FILES)
def test_extreme_numbers_anywhere_in_the_header(name: str) -> None:
    data = FILES[name]
    for offset in range(0, min(120, len(data) - 4), 2):
        for value in (0, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
            for order in ORDERS:
                size = 2 if value == 0xFFFF else 4
                number = value.to_bytes(size, order)
                check(data[:offset] + number + data[offset + size :])


@pytest.mark.parametrize("name", FILES)
def test_file_truncated_or_with_bytes_missing_in_its_header(name: str) -> None:
    data = FILES[name]
    for begin, end in pairwise(range(0, min(len(data), 400), 7)):
        check(data[:begin])
        check(data[:begin] + data[end:])


@given(st.sampled_from([data[:16] for data in FILES.values()]), st.binary(max_size=200))
@effort(300)
def test_valid_signature_followed_by_random_bytes(head: bytes, tail: bytes) -> None:
    check(head + tail)
