"""Every way of writing that the benchmark compares gives the same mask."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.benchmarks.png_level import pngs


def test_every_way_writes_the_mask() -> None:
    mask_HW = np.random.default_rng(0).integers(0, 32, (37, 53), dtype=np.uint8)
    ways = pngs(mask_HW)
    assert {"the service's PNG", "Pillow, level 1", "bare writer, up filter, zlib, RLE"} <= set(ways)
    for how, write in ways.items():
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(write()))), mask_HW, err_msg=how)
