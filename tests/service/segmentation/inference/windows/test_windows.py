"""Windows over images: against a naive reference, an identity, and the limits of memory and patience."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import OutOfMemory
from service.segmentation.inference.cancellation import InferenceCancelled
from service.segmentation.inference.prediction import Pixels
from service.segmentation.inference.windows.sliding import VALUES_AT_ONCE, WINDOWS_AT_ONCE, Floats, Probabilities
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor

SIDES = st.integers(1, 40)
STRIDES = st.sampled_from([0.25, 0.5, 2 / 3, 1.0])
FEW = settings(max_examples=40, deadline=None)
HELD = st.sampled_from([600, 10**9])  # bytes: four columns or so, and all


@dataclass(frozen=True)
class SegmentQuery:
    """A network that is a function."""

    ask: Probabilities
    provider: str = "none"

    def width(self, *, free: int, load: int) -> int:  # noqa: ARG002 - a face
        return 1

    def probabilities(self, image_NTU3: Pixels, threads: int | None) -> Floats:  # noqa: ARG002
        return self.ask(image_NTU3)


def windows(ask: Probabilities, tiling: Tiling, classes: int = 3, **options: int) -> WindowedPredictor:
    return WindowedPredictor(graph=SegmentQuery(ask), tiling=tiling, classes=classes, **options)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def colours(image_NTU3: Pixels) -> Floats:
    """A network that says of each pixel what it is: its three channels."""
    return np.ascontiguousarray(image_NTU3.transpose(0, 3, 1, 2) / np.float32(255))


def moody(image_NTU3: Pixels) -> Floats:
    """A network whose answer depends on where in the window a pixel lies, and on all of the window: softmax of 4."""
    _, side, reach, _ = image_NTU3.shape
    y, x = np.mgrid[:side, :reach]
    logits = [
        colours(image_NTU3).sum(axis=1) + image_NTU3.mean(axis=(1, 2, 3))[:, None, None] / 255,
        np.broadcast_to(np.sin(y + 2 * x) * 2, image_NTU3.shape[:3]),
        np.broadcast_to(y / side * 2, image_NTU3.shape[:3]),
        colours(image_NTU3)[:, 0] + np.cos(x),
    ]
    powers_NKTU = np.exp(np.stack(logits, axis=1)).astype(np.float32)
    found: Floats = powers_NKTU / powers_NKTU.sum(axis=1, keepdims=True)
    return found


def naive(ask: Probabilities, tiling: Tiling, image_HW3: Pixels) -> npt.NDArray[np.float64]:
    """All of it at once and pixel by pixel, of the exporter's BUNDLE.md; float64 [K, H, W]. No resizing."""
    height, width = image_HW3.shape[:2]
    side, reach = tiling.window
    padded = np.zeros((max(height, side), max(width, reach), 3), np.uint8)
    padded[:height, :width] = image_HW3
    total, count = np.zeros((1, *padded.shape[:2])), np.zeros(padded.shape[:2])
    for top in places(padded.shape[0], side, tiling.stride):
        for left in places(padded.shape[1], reach, tiling.stride):
            found_KTU = ask(padded[None, top : top + side, left : left + reach])[0]
            total = np.zeros((len(found_KTU), *padded.shape[:2])) if len(total) != len(found_KTU) else total
            total[:, top : top + side, left : left + reach] += found_KTU
            count[top : top + side, left : left + reach] += 1
    mean: npt.NDArray[np.float64] = (total / count)[:, :height, :width]
    return mean


def places(length: int, side: int, stride: float) -> Iterator[int]:
    step, place = max(1, round(side * stride)), 0
    while place < length - side:
        yield place
        place += step
    yield length - side


@FEW
@given(SIDES, SIDES, STRIDES, HELD)
def test_what_each_window_says_of_a_pixel_alone_is_said_of_the_image(
    height: int, width: int, stride: float, held: int
) -> None:
    image_HW3 = picture(height, width)
    tiling = Tiling(window=(7, 11), stride=stride, long_side=0)
    found = windows(colours, tiling, held_bytes=held).run(image_HW3)
    np.testing.assert_array_equal(found.confidence_HW, image_HW3.max(axis=2))
    np.testing.assert_array_equal(
        np.take_along_axis(image_HW3, found.mask_HW[..., None], 2)[..., 0], found.confidence_HW
    )
    assert found.mask_HW.dtype == np.uint8
    assert found.scale == 1.0


@FEW
@given(SIDES, SIDES, STRIDES, HELD)
def test_the_mean_of_all_windows_that_see_a_pixel(height: int, width: int, stride: float, held: int) -> None:
    image_HW3 = picture(height, width, seed=height * width)
    tiling = Tiling(window=(9, 8), stride=stride, long_side=0)
    found = windows(moody, tiling, classes=4, held_bytes=held).run(image_HW3)
    mean_KHW = naive(moody, tiling, image_HW3)
    at_mask_HW = np.take_along_axis(mean_KHW, found.mask_HW[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(at_mask_HW, mean_KHW.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.confidence_HW, at_mask_HW * 255, atol=0.501)


@FEW
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), HELD)
def test_a_resized_image_comes_back_at_its_own_size(height: int, width: int, long_side: int, held: int) -> None:
    """One colour stays one colour, and each half of a picture stays where it is."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[:, : width // 2, 0] = 200
    image_HW3[:, width // 2 :, 2] = 200
    tiling = Tiling(window=(16, 16), stride=0.5, long_side=long_side)
    found = windows(colours, tiling, held_bytes=held).run(image_HW3)
    assert found.mask_HW.shape == found.confidence_HW.shape == (height, width)
    border = math.ceil(max(height, width) / long_side) + 1
    assert not found.mask_HW[:, : max(0, width // 2 - border)].any()
    assert (found.mask_HW[:, width // 2 + border :] == 2).all()


def test_the_last_of_many_classes_needs_two_bytes() -> None:
    def last(image_NTU3: Pixels) -> Floats:
        found_NKTU = np.zeros((len(image_NTU3), 300, *image_NTU3.shape[1:3]), np.float32)
        found_NKTU[:, 299] = 1
        return found_NKTU

    found = windows(last, Tiling(window=(8, 8), stride=1, long_side=0), classes=300).run(picture(10, 9))
    assert found.mask_HW.dtype == np.uint16
    assert (found.mask_HW == 299).all()


@pytest.mark.parametrize("long_side", [0, 700])
def test_memory_does_not_grow_with_the_image(long_side: int) -> None:
    """Beside the image and its answer: all class maps of the larger one would be 110 MB."""
    classes, tiling = 19, Tiling(window=(64, 64), stride=0.5, long_side=long_side)

    def even(image_NTU3: Pixels) -> Floats:
        return np.full((len(image_NTU3), classes, *tiling.window), 1 / classes, np.float32)

    def peak(height: int, width: int) -> int:
        asked = windows(even, tiling, classes, held_bytes=2**20)
        image_HW3 = np.zeros((height, width, 3), np.uint8)
        tracemalloc.start()
        try:
            asked.run(image_HW3)
            return tracemalloc.get_traced_memory()[1] - 2 * height * width
        finally:
            tracemalloc.stop()

    small, large = peak(300, 300), peak(1200, 1200)
    assert large < small + 30_000_000


class Fails:
    """A network with room for so many windows at a time, and without any room at its first runs."""

    def __init__(self, room: int, bad_starts: int = 0) -> None:
        self.room, self.bad_starts = room, bad_starts
        self.asked: list[int] = []

    def __call__(self, image_NTU3: Pixels) -> Floats:
        self.asked.append(len(image_NTU3))
        if len(image_NTU3) > self.room or len(self.asked) <= self.bad_starts:
            raise OutOfMemory("none left", retry_after_s=7)
        return colours(image_NTU3)


TILING = Tiling(window=(10, 10), stride=1, long_side=0)


def test_windows_go_together() -> None:
    ask = Fails(room=WINDOWS_AT_ONCE)
    windows(ask, TILING).run(picture(20, 10 * (WINDOWS_AT_ONCE + 1)))
    assert ask.asked == [WINDOWS_AT_ONCE, 1] * 2
    assert 3 * 10 * 10 * WINDOWS_AT_ONCE < VALUES_AT_ONCE


def test_what_does_not_fit_together_is_asked_one_by_one_and_nothing_twice() -> None:
    image_HW3, ask = picture(10, 60), Fails(room=1)
    found = windows(ask, TILING).run(image_HW3)
    assert ask.asked == [WINDOWS_AT_ONCE, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(found.confidence_HW, image_HW3.max(axis=2))


def test_one_window_alone_is_tried_twice() -> None:
    ask = Fails(room=1, bad_starts=1)
    windows(ask, TILING).run(picture(10, 10))
    assert ask.asked == [1, 1]


def test_a_window_that_does_not_fit_alone_is_an_error_that_says_so() -> None:
    ask = Fails(room=0)
    with pytest.raises(OutOfMemory, match="one window of 10x10 pixels") as raised:
        windows(ask, TILING).run(picture(10, 60))
    assert raised.value.retry_after_s == 7
    assert ask.asked == [WINDOWS_AT_ONCE, 1]


def test_nothing_is_asked_for_who_has_left() -> None:
    ask, answers = Fails(room=4), iter([False, False, True])
    with pytest.raises(InferenceCancelled):
        windows(ask, TILING).run(picture(100, 40), gone=lambda: next(answers))
    assert len(ask.asked) == 2


@FEW
@given(st.integers(1, 10**6), st.integers(1, 2000), STRIDES)
def test_windows_leave_no_pixel_out(length: int, side: int, stride: float) -> None:
    starts = Tiling(window=(side, 1), stride=stride, long_side=0).tops(length)
    assert starts[0] == 0
    assert starts[-1] + side == max(length, side)
    assert all(0 < after - before <= side for before, after in itertools.pairwise(starts))
