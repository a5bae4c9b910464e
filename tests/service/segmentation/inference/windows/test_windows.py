"""Sliding windows: compared with a naive reference and with identities, their memory, and cancellation."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import OutOfMemory
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled
from service.segmentation.inference.predictor import Embedding, Pixels, Plan
from service.segmentation.inference.windows.sliding import BATCH_VALUES, MAX_BATCH, Floats, WindowOutputs
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor

Network = Callable[[Pixels], Floats]
SIDES = st.integers(1, 40)
STRIDES = st.sampled_from([0.25, 0.5, 2 / 3, 1.0])
FEW = settings(max_examples=40, deadline=None)
MAP_BYTES = st.sampled_from([600, 10**9])  # about four columns; all columns


@dataclass(frozen=True)
class FakeGraph:
    """A `WindowGraph` that calls a function."""

    network: Network
    embed: Callable[[Pixels], Embedding] | None = None
    provider: str = "none"

    def threads_for(self, *, free: int, load: int) -> int:  # noqa: ARG002 - required by the protocol
        return 1

    def run(self, image_NTU3: Pixels, threads: int | None, is_cancelled: CancelCheck) -> WindowOutputs:  # noqa: ARG002 - as above
        return WindowOutputs(self.network(image_NTU3), self.embed and self.embed(image_NTU3))


def windows(network: Network, tiling: Tiling, classes: int = 3, **options: int) -> WindowedPredictor:
    return WindowedPredictor(graph=FakeGraph(network), tiling=tiling, classes=classes, **options)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def channels(image_NTU3: Pixels) -> Floats:
    """A network that returns the three channels of each pixel."""
    return np.ascontiguousarray(image_NTU3.transpose(0, 3, 1, 2) / np.float32(255))


def context_dependent(image_NTU3: Pixels) -> Floats:
    """Depends on a pixel's position in the window and on the whole window: softmax of 4 classes."""
    _, side, window_width, _ = image_NTU3.shape
    y, x = np.mgrid[:side, :window_width]
    logits = [
        channels(image_NTU3).sum(axis=1) + image_NTU3.mean(axis=(1, 2, 3))[:, None, None] / 255,
        np.broadcast_to(np.sin(y + 2 * x) * 2, image_NTU3.shape[:3]),
        np.broadcast_to(y / side * 2, image_NTU3.shape[:3]),
        channels(image_NTU3)[:, 0] + np.cos(x),
    ]
    powers_NKTU = np.exp(np.stack(logits, axis=1)).astype(np.float32)
    found: Floats = powers_NKTU / powers_NKTU.sum(axis=1, keepdims=True)
    return found


def naive(network: Network, tiling: Tiling, image_HW3: Pixels) -> npt.NDArray[np.float64]:
    """Straightforward implementation of the rule in exporter/BUNDLE.md, without resizing; float64 [K, H, W]."""
    height, width = image_HW3.shape[:2]
    side, window_width = tiling.window
    padded = np.zeros((max(height, side), max(width, window_width), 3), np.uint8)
    padded[:height, :width] = image_HW3
    total, count = np.zeros((1, *padded.shape[:2])), np.zeros(padded.shape[:2])
    for top in places(padded.shape[0], side, tiling.stride):
        for left in places(padded.shape[1], window_width, tiling.stride):
            found_KTU = network(padded[None, top : top + side, left : left + window_width])[0]
            total = np.zeros((len(found_KTU), *padded.shape[:2])) if len(total) != len(found_KTU) else total
            total[:, top : top + side, left : left + window_width] += found_KTU
            count[top : top + side, left : left + window_width] += 1
    mean: npt.NDArray[np.float64] = (total / count)[:, :height, :width]
    return mean


def places(length: int, side: int, stride: float) -> Iterator[int]:
    step, place = max(1, round(side * stride)), 0
    while place < length - side:
        yield place
        place += step
    yield length - side


@FEW
@given(SIDES, SIDES, STRIDES, MAP_BYTES)
def test_a_network_of_single_pixels_gives_the_same_for_the_image(
    height: int, width: int, stride: float, map_bytes: int
) -> None:
    image_HW3 = picture(height, width)
    tiling = Tiling(window=(7, 11), stride=stride, long_side=0)
    found = windows(channels, tiling, max_map_bytes=map_bytes).run(image_HW3)
    np.testing.assert_array_equal(found.confidence_HW, image_HW3.max(axis=2))
    np.testing.assert_array_equal(
        np.take_along_axis(image_HW3, found.mask_HW[..., None], 2)[..., 0], found.confidence_HW
    )
    assert found.mask_HW.dtype == np.uint8
    assert found.scale == 1.0


@FEW
@given(SIDES, SIDES, STRIDES, MAP_BYTES)
def test_probabilities_are_the_mean_of_all_windows_over_a_pixel(
    height: int, width: int, stride: float, map_bytes: int
) -> None:
    image_HW3 = picture(height, width, seed=height * width)
    tiling = Tiling(window=(9, 8), stride=stride, long_side=0)
    found = windows(context_dependent, tiling, classes=4, max_map_bytes=map_bytes).run(image_HW3)
    mean_KHW = naive(context_dependent, tiling, image_HW3)
    at_mask_HW = np.take_along_axis(mean_KHW, found.mask_HW[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(at_mask_HW, mean_KHW.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.confidence_HW, at_mask_HW * 255, atol=0.501)


@FEW
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), MAP_BYTES)
def test_a_scaled_image_gives_a_mask_of_its_own_size(height: int, width: int, long_side: int, map_bytes: int) -> None:
    """The two halves of the picture keep their class and place."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[:, : width // 2, 0] = 200
    image_HW3[:, width // 2 :, 2] = 200
    tiling = Tiling(window=(16, 16), stride=0.5, long_side=long_side)
    found = windows(channels, tiling, max_map_bytes=map_bytes).run(image_HW3)
    assert found.mask_HW.shape == found.confidence_HW.shape == (height, width)
    border = math.ceil(max(height, width) / long_side) + 1
    assert not found.mask_HW[:, : max(0, width // 2 - border)].any()
    assert (found.mask_HW[:, width // 2 + border :] == 2).all()


def test_more_than_256_classes_give_a_uint16_mask() -> None:
    def last(image_NTU3: Pixels) -> Floats:
        found_NKTU = np.zeros((len(image_NTU3), 300, *image_NTU3.shape[1:3]), np.float32)
        found_NKTU[:, 299] = 1
        return found_NKTU

    found = windows(last, Tiling(window=(8, 8), stride=1, long_side=0), classes=300).run(picture(10, 9))
    assert found.mask_HW.dtype == np.uint16
    assert (found.mask_HW == 299).all()


@pytest.mark.parametrize("long_side", [0, 700])
def test_memory_is_independent_of_the_image_size(long_side: int) -> None:
    """Without the image and its result; all class maps of the larger image would take 110 MB."""
    classes, tiling = 19, Tiling(window=(64, 64), stride=0.5, long_side=long_side)

    def even(image_NTU3: Pixels) -> Floats:
        return np.full((len(image_NTU3), classes, *tiling.window), 1 / classes, np.float32)

    def peak(height: int, width: int) -> int:
        predictor = windows(even, tiling, classes, max_map_bytes=2**20)
        image_HW3 = np.zeros((height, width, 3), np.uint8)
        tracemalloc.start()
        try:
            predictor.run(image_HW3)
            return tracemalloc.get_traced_memory()[1] - 2 * height * width
        finally:
            tracemalloc.stop()

    small, large = peak(300, 300), peak(1200, 1200)
    assert large < small + 30_000_000


class LimitedNetwork:
    """A network that runs out of memory above `room` windows, and in its first `bad_starts` runs."""

    def __init__(self, room: int, bad_starts: int = 0) -> None:
        self.room, self.bad_starts = room, bad_starts
        self.batches: list[int] = []

    def __call__(self, image_NTU3: Pixels) -> Floats:
        self.batches.append(len(image_NTU3))
        if len(image_NTU3) > self.room or len(self.batches) <= self.bad_starts:
            raise OutOfMemory("none left", retry_after_s=7)
        return channels(image_NTU3)


TILING = Tiling(window=(10, 10), stride=1, long_side=0)


def test_windows_run_in_batches() -> None:
    network = LimitedNetwork(room=MAX_BATCH)
    windows(network, TILING).run(picture(20, 10 * (MAX_BATCH + 1)))
    assert network.batches == [MAX_BATCH, 1] * 2
    assert 3 * 10 * 10 * MAX_BATCH < BATCH_VALUES


def test_a_batch_out_of_memory_runs_one_by_one_and_no_window_twice() -> None:
    image_HW3, network = picture(10, 60), LimitedNetwork(room=1)
    found = windows(network, TILING).run(image_HW3)
    assert network.batches == [MAX_BATCH, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(found.confidence_HW, image_HW3.max(axis=2))


def test_a_single_window_out_of_memory_is_retried_once() -> None:
    network = LimitedNetwork(room=1, bad_starts=1)
    windows(network, TILING).run(picture(10, 10))
    assert network.batches == [1, 1]


def test_a_single_window_out_of_memory_twice_is_an_error() -> None:
    network = LimitedNetwork(room=0)
    with pytest.raises(OutOfMemory, match="one window of 10x10 pixels") as raised:
        windows(network, TILING).run(picture(10, 60))
    assert raised.value.retry_after_s == 7
    assert network.batches == [MAX_BATCH, 1]


def test_no_window_runs_after_cancellation() -> None:
    network, answers = LimitedNetwork(room=4), iter([False, False, True])
    with pytest.raises(InferenceCancelled):
        windows(network, TILING).run(picture(100, 40), is_cancelled=lambda: next(answers))
    assert len(network.batches) == 2


@FEW
@given(st.integers(1, 10**6), st.integers(1, 2000), STRIDES)
def test_windows_cover_every_pixel(length: int, side: int, stride: float) -> None:
    starts = Tiling(window=(side, 1), stride=stride, long_side=0).tops(length)
    assert starts[0] == 0
    assert starts[-1] + side == max(length, side)
    assert all(0 < after - before <= side for before, after in itertools.pairwise(starts))


def test_the_plan_states_the_scaled_size_and_the_memory_of_the_class_maps() -> None:
    predictor = windows(channels, Tiling(window=(10, 8), stride=1, long_side=100), max_map_bytes=6000)
    assert predictor.plan(200, 400) == Plan(size=(50, 100), estimated_bytes=6000, max_batch=1)
    assert predictor.plan(400, 200) == Plan(size=(100, 50), estimated_bytes=4 * 3 * 10 * 50, max_batch=1)


@FEW
@given(height=SIDES, width=SIDES, stride=STRIDES, map_bytes=MAP_BYTES)
def test_embedding_is_the_mean_over_windows_each_once(height: int, width: int, stride: float, map_bytes: int) -> None:
    """Also if windows run twice, because the image is processed in blocks of columns."""
    tiling = Tiling(window=(12, 10), stride=stride, long_side=0)

    def embed(image_NTU3: Pixels) -> Embedding:
        mean_N3 = image_NTU3.mean(axis=(1, 2)) + 1
        vectors: Embedding = (mean_N3 / np.linalg.norm(mean_N3, axis=1, keepdims=True)).astype(np.float16)
        return vectors

    predictor = WindowedPredictor(graph=FakeGraph(channels, embed), tiling=tiling, classes=3, max_map_bytes=map_bytes)
    image_HW3 = picture(height, width)
    padded = np.zeros((max(height, 12), max(width, 10), 3), np.uint8)
    padded[:height, :width] = image_HW3
    all_windows = [
        padded[top : top + 12, left : left + 10]
        for top in places(padded.shape[0], 12, stride)
        for left in places(padded.shape[1], 10, stride)
    ]
    mean_D = embed(np.stack(all_windows)).astype(np.float64).mean(axis=0)
    found_D = predictor.run(image_HW3).embedding_D
    assert found_D is not None
    np.testing.assert_allclose(found_D, mean_D / np.linalg.norm(mean_D), atol=2e-3)


def test_without_embeddings_of_windows_there_is_none() -> None:
    tiling = Tiling(window=(12, 10), stride=0.5, long_side=0)
    assert windows(channels, tiling).run(picture(20, 30)).embedding_D is None
