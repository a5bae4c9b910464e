"""Files that are broken, cut, grown or lying about themselves: refused or read, and never anything else."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.decode import EncodedImage, Limits, decode
from tests.service.broken_files import FILES, ORDERS, damaged
from tests.service.fuzzing import effort

pytestmark = [
    # Pillow warns of what it finds odd: of sizes, of EXIF, of cut TIFFs.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:PIL"),
]

LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000)
# Of one file, however broken. They take milliseconds; a slow machine is no failure, and a file without end is.
TIME_LIMIT_S = 5


def read(data: bytes) -> None:
    """Header and pixels come, or one of the three refusals."""
    begin = time.monotonic()
    for reader in (EncodedImage, decode):
        try:
            found = reader(data, LIMITS)
        except (ImageUnreadable, ImageUnsupported, ImageTooLarge):
            continue
        if isinstance(found, np.ndarray):
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)
    assert time.monotonic() - begin < TIME_LIMIT_S


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_read(name: str) -> None:
    @given(damaged(FILES[name]))
    @effort(150)
    def try_one(data: bytes) -> None:
        read(data)

    try_one()


@pytest.mark.parametrize("name", FILES)
def test_every_awkward_number_in_every_place_of_the_header(name: str) -> None:
    data = FILES[name]
    for at in range(0, min(120, len(data) - 4), 2):
        for value in (0, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
            for order in ORDERS:
                width = 2 if value == 0xFFFF else 4
                number = value.to_bytes(width, order)
                read(data[:at] + number + data[at + width :])


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_in_its_head(name: str) -> None:
    data = FILES[name]
    for begin, end in pairwise(range(0, min(len(data), 400), 7)):
        read(data[:begin])
        read(data[:begin] + data[end:])


@given(st.sampled_from([data[:16] for data in FILES.values()]), st.binary(max_size=200))
@effort(300)
def test_a_true_beginning_with_anything_behind_it(head: bytes, tail: bytes) -> None:
    read(head + tail)
