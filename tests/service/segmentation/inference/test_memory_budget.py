"""Memory is estimated before an inference, and an image above the limit is rejected with a size that is allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import ImageTooLarge
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.settings import Settings
from tests.service.tiny_bundle import COLORS, nearest, picture

SIDES = st.integers(1, 20_000)
GRAPHS = st.tuples(st.sampled_from([1, 14, 32]), st.booleans(), st.sampled_from([0, 518]))
DEFAULT = Settings()


def budget(classes: int = 11, *, long_side: int = 480, max_bytes: int | None = None, **graph: Any) -> MemoryBudget:
    return MemoryBudget(
        max_bytes=max_bytes or DEFAULT.max_inference_bytes,
        max_native_pixels=DEFAULT.max_native_pixels,
        classes=classes,
        long_side=long_side,
        **graph,
    )


def test_the_starter_runs_six_megapixels_at_full_size() -> None:
    assert budget(11).largest_size(2120, 2830) == (2120, 2830)


@pytest.mark.parametrize(("classes", "measured"), [(2, 25), (11, 176), (150, 220), (1000, 220)])
def test_an_image_of_any_size_is_scaled_down_to_the_limit(classes: int, measured: int) -> None:
    """With the measured bytes per pixel, an inference stays below the default limit of 1.2 GB."""
    height, width = budget(classes).largest_size(8000, 12000)
    assert measured * height * width < DEFAULT.max_inference_bytes <= 1_200_000_000
    assert height * width > 4_000_000
    assert width / height == pytest.approx(1.5, rel=2e-3)


def test_an_image_is_never_scaled_below_the_long_side_of_the_graph() -> None:
    limits = budget(11, long_side=1536)
    assert max(limits.largest_size(8000, 6000)) > 1536
    assert limits.largest_size(1400, 1400) == (1400, 1400)
    with pytest.raises(ImageTooLarge, match="MASKLOOP_MAX_INFERENCE_BYTES"):
        budget(150, long_side=1536).largest_size(8000, 8000)
    with pytest.raises(ImageTooLarge, match="MASKLOOP_MAX_INFERENCE_BYTES"):
        budget(11, long_side=20_000).largest_size(10, 10)


def test_pairs_of_patches_count_unless_attention_is_fused() -> None:
    native = {"long_side": 0, "patch": 14}
    budget(21, **native).check(700, 700)
    with pytest.raises(ImageTooLarge, match="GB"):
        budget(21, **native).check(1200, 1600)
    budget(21, **native, fused_attention=True).check(1200, 1600)
    # Larger patches are fewer; a convolutional network has none.
    budget(21, long_side=0, patch=32).check(1000, 1400)
    budget(21, long_side=0, patch=1).check(1200, 1600)
    budget(21, patch=14).check(1200, 1600)


def test_a_graph_of_native_size_never_scales_an_image_down() -> None:
    for limits in (budget(21, long_side=0), budget(21, long_side=0, max_bytes=10**6)):
        with pytest.raises(ImageTooLarge, match="scale the image down"):
            limits.largest_size(1600, 1600)


@given(SIDES, SIDES, st.integers(1, 300), GRAPHS)
def test_the_advised_size_is_accepted(height: int, width: int, classes: int, graph: tuple[int, bool, int]) -> None:
    patch, fused, long_side = graph
    limits = MemoryBudget(
        max_bytes=10**9,
        max_native_pixels=10**9,
        classes=classes,
        long_side=long_side,
        patch=patch,
        fused_attention=fused,
    )
    try:
        limits.check(height, width)
    except ImageTooLarge as error:
        advised = re.search(r"down to (\d+)x(\d+)", str(error))
        assert advised
        # Sides are rounded up to whole patches, so allow for one patch less.
        limits.check(max(1, int(advised[2]) - patch), max(1, int(advised[1]) - patch))


@given(SIDES, SIDES, st.integers(1, 300), st.sampled_from([100, 518, 1024]))
@example(1024, 1866, 16, 1024)
def test_the_largest_size_is_within_the_limit_and_at_least_the_long_side(
    height: int, width: int, classes: int, long_side: int
) -> None:
    limits = budget(classes, long_side=long_side, max_bytes=400_000_000)
    try:
        size = limits.largest_size(height, width)
    except ImageTooLarge:
        return
    limits.check(*size)
    assert size == (height, width) or max(size) + 1 >= long_side
    assert all(0 < side <= full for side, full in zip(size, (height, width), strict=True))


STARVED = """
import resource, sys
import numpy as np
from pathlib import Path
from service.errors import OutOfMemory
from service.segmentation.inference.engine import Engine
engine = Engine(Path(sys.argv[1]), threads=1)
image = np.zeros((6000, 6000, 3), np.uint8)
engine.run(image[:64, :64])
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 200_000_000, resource.RLIM_INFINITY))
try:
    engine.run(image)
except OutOfMemory as error:
    print("OutOfMemory", error)
print(engine.run(image[:64, :64]).mask_HW.shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the test limits the address space with Linux calls")
def test_out_of_memory_is_an_error_with_a_remedy_and_the_process_goes_on(bundle: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STARVED, str(bundle / "model.onnx")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.strip().splitlines()
    assert first.startswith("OutOfMemory")
    assert "MASKLOOP_MAX_INFERENCE_BYTES" in first
    assert second == "(64, 64)"


def test_the_engine_rejects_images_above_its_budget(bundle: Path) -> None:
    engine = Engine(
        bundle / "model.onnx", threads=1, budget=budget(5, long_side=0, max_bytes=(12 + 16 * 5 + 256) * 100)
    )
    engine.run(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ImageTooLarge):
        engine.run(np.zeros((10, 11, 3), np.uint8))


def test_the_engine_scales_down_images_above_its_budget(bundle: Path) -> None:
    image_HW3 = picture(400, 300)
    limits = budget(5, long_side=100, max_bytes=256 * 100 * 100 + (12 + 16 * 5) * 200 * 150)
    found = Engine(bundle / "model.onnx", threads=1, budget=limits).run(image_HW3)
    assert found.mask_HW.shape == found.confidence_HW.shape == image_HW3.shape[:2]
    assert 0.5 <= found.scale < 0.6
    # The picture has blocks of ten pixels; their borders move.
    assert np.mean(found.mask_HW == nearest(image_HW3, COLORS)) > 0.7
    whole = Engine(bundle / "model.onnx", threads=1, budget=budget(5)).run(image_HW3)
    assert whole.scale == 1.0
    np.testing.assert_array_equal(whole.mask_HW, nearest(image_HW3, COLORS))
