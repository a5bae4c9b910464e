"""The starter model, a real process, and an image far beyond what the graph could take as it is."""

import io
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.settings import PACKAGE
from tests.benchmarks.large_image import image_file, peak_rss, service

SIDE = 8000
MOST_BYTES = 2_000_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process held at most is read from /proc")
def test_8000_by_8000_pixels_stay_below_2_gb(tmp_path: Path) -> None:
    data = image_file(SIDE, "PNG")
    with service(PACKAGE / "starter", tmp_path) as (address, pid):
        request = urllib.request.Request(f"{address}/v1/segment", data, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=250) as answer:
            mask, scale = answer.read(), float(answer.headers["X-Mask-Scale"])
        assert peak_rss(pid) < MOST_BYTES
    with Image.open(io.BytesIO(mask)) as image:
        assert image.size == (SIDE, SIDE)
        ids_HW = np.asarray(image)
    assert 0.2 < scale < 0.5
    # Enlarged: each pixel of the smaller mask is a block now, and neighbours are seldom of two classes.
    assert np.mean(ids_HW[:, 1:] == ids_HW[:, :-1]) > 1 - scale
    assert len(np.unique(ids_HW)) > 1
