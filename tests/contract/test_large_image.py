"""A service process keeps its memory bounded for an image that is too large for the graph at its own size."""

import io
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.settings import PACKAGE
from tests.benchmarks.large_image import image_file, peak_rss, service

SIDE = 4000
MAX_BYTES = 1_500_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory is read from /proc")
def test_large_image_is_segmented_at_a_lower_resolution(tmp_path: Path) -> None:
    """`make bench-large` measures 8000x8000 pixels in several formats."""
    data = image_file(SIDE, "PNG")
    with service(PACKAGE / "starter", tmp_path) as (address, pid):
        request = urllib.request.Request(f"{address}/v1/segment", data, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=250) as response:
            mask, scale = response.read(), float(response.headers["X-Mask-Scale"])
        peak_bytes = peak_rss(pid)
    with Image.open(io.BytesIO(mask)) as image:
        assert image.size == (SIDE, SIDE)
        ids_HW = np.asarray(image)
    assert scale < 0.8
    assert peak_bytes < MAX_BYTES
    # The small mask is enlarged by repeating pixels, so adjacent pixels seldom differ.
    assert np.mean(ids_HW[:, 1:] == ids_HW[:, :-1]) > 1 - scale
    assert len(np.unique(ids_HW)) > 1
