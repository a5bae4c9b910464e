"""What an inference may cost: known before it is begun, and told with the size that would do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge
from service.segmentation.budget import Budget
from service.segmentation.engine import Engine
from service.settings import Settings

SIDES = st.integers(1, 20_000)
DEFAULT = Settings()


def budget(classes: int = 11, *, native: bool = False, patch: int = 14, max_bytes: int | None = None) -> Budget:
    return Budget(
        max_bytes=max_bytes or DEFAULT.max_inference_bytes,
        max_native_pixels=DEFAULT.max_native_pixels if native else None,
        classes=classes,
        patch=patch,
    )


def test_the_starter_takes_a_phones_photograph_of_12_megapixels() -> None:
    budget(11).check(3024, 4032)
    budget(11).check(4000, 3000)


def test_by_default_no_image_asks_for_more_than_a_small_machine_has() -> None:
    """At 16 bytes a pixel and class, as was measured."""
    for classes, height, width in ((11, 4000, 6000), (150, 3024, 4032), (1000, 1080, 1920)):
        assert 16 * classes * height * width > DEFAULT.max_inference_bytes
        with pytest.raises(ImageTooLarge, match="MASKLOOP_MAX_INFERENCE_BYTES"):
            budget(classes).check(height, width)


def test_patches_at_native_size_are_counted_by_pairs() -> None:
    budget(21, native=True).check(980, 980)
    with pytest.raises(ImageTooLarge, match="GB"):
        budget(21, native=True).check(1200, 1600)
    # The same pixels are fewer patches where these are larger, and no patches at all at a fixed size.
    budget(21, native=True, patch=32).check(1200, 1600)
    budget(21, native=True, patch=1).check(1200, 1600)
    budget(21).check(1200, 1600)
    with pytest.raises(ImageTooLarge, match="MASKLOOP_MAX_NATIVE_PIXELS"):
        budget(21, native=True, patch=32).check(1600, 1600)


@given(SIDES, SIDES, st.integers(1, 300), st.sampled_from([None, 1, 14, 32]))
def test_the_size_that_is_advised_is_taken(height: int, width: int, classes: int, patch: int | None) -> None:
    limits = Budget(max_bytes=10**9, max_native_pixels=patch and 10**9, classes=classes, patch=patch or 1)
    try:
        limits.check(height, width)
    except ImageTooLarge as error:
        advised = re.search(r"down to (\d+)x(\d+)", str(error))
        assert advised
        # Patches are whole ones: a pixel more or less may be one more of them.
        slack = patch or 0
        limits.check(max(1, int(advised[2]) - slack), max(1, int(advised[1]) - slack))


STARVED = """
import resource, sys
import numpy as np
from pathlib import Path
from service.errors import OutOfMemory
from service.segmentation.engine import Engine
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


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited and measured as Linux does it")
def test_memory_that_is_not_there_is_an_error_with_a_remedy_and_not_the_end(bundle: Path) -> None:
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


def test_the_engine_asks_its_budget(bundle: Path) -> None:
    engine = Engine(bundle / "model.onnx", threads=1, budget=budget(5, max_bytes=16 * 5 * 100))
    engine.run(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ImageTooLarge):
        engine.run(np.zeros((10, 11, 3), np.uint8))
