"""Large images share one memory limit for inference and one for decoding; small images are not delayed by them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.segmentation.decode import DecodedImage, EncodedImage, Limits, Pixels
from service.segmentation.formats.rgb import ValueRange
from service.segmentation.inference.cancellation import CancelCheck, never_cancelled
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Prediction
from service.segmentation.pipeline import Pipeline
from service.settings import Settings
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

LARGE, SMALL = encoded(picture(200, 100)), encoded(picture(20, 100))


async def still_connected() -> bool:
    return False


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


class RecordingEngine(Engine):
    """A real engine that records the widths of the images that it runs at the same time."""

    def __init__(self, graph: Path, budget: MemoryBudget) -> None:
        super().__init__(graph, threads=2, budget=budget)
        self.running: list[int] = []
        self.seen: set[tuple[int, ...]] = set()
        self.threads: list[int | None] = []

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        self.running.append(image_HW3.shape[1])
        self.threads.append(threads)
        # Long enough for other inferences to start.
        time.sleep(0.05)
        self.seen.add(tuple(sorted(self.running)))
        prediction = super().run(image_HW3, threads, is_cancelled)
        self.running.remove(image_HW3.shape[1])
        return prediction


@pytest.fixture
def engine(bundle: Path) -> RecordingEngine:
    budget = MemoryBudget(max_bytes=10_000_000, max_native_pixels=10**6, classes=5, long_side=0)
    recording = RecordingEngine(bundle / "model.onnx", budget)
    assert budget.max_bytes / 2 < recording.plan(100, 200).estimated_bytes < budget.max_bytes
    assert recording.plan(100, 20).estimated_bytes < budget.max_bytes / 4
    return recording


def _serve(engine: RecordingEngine, metrics: Metrics, requests: list[bytes]) -> None:
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    pipeline = Pipeline(Settings(inference_threads=2, max_inference_bytes=10_000_000), metrics, limits)

    async def one(data: bytes) -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(data, engine, context, still_connected)

    async def send_all() -> None:
        await asyncio.gather(*(one(data) for data in requests))

    asyncio.run(send_all())
    pipeline.close()


def test_large_images_run_one_at_a_time_and_small_images_next_to_them(
    metrics: Metrics, engine: RecordingEngine
) -> None:
    _serve(engine, metrics, [LARGE, LARGE, SMALL, SMALL, SMALL, SMALL, LARGE, SMALL, SMALL])
    assert len(engine.threads) == 9
    assert (200, 200) not in engine.seen
    # Decoding may change the order; there are six small images.
    assert {(20, 20), (20, 200)} & engine.seen


def test_large_images_that_wait_for_each_other_use_all_cores(metrics: Metrics, engine: RecordingEngine) -> None:
    _serve(engine, metrics, [LARGE] * 4)
    assert engine.seen == {(200,)}
    assert engine.threads == [2] * 4


def test_large_images_are_decoded_one_at_a_time(
    metrics: Metrics, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small images are decoded even while the large ones use the whole limit."""
    monkeypatch.setattr("service.segmentation.decode.PIXEL_BYTES", 300)
    running, seen = list[int](), set[tuple[int, ...]]()

    class RecordedImage(EncodedImage):
        def __init__(self, data: bytes, limits: Limits, value_range: ValueRange | None) -> None:
            super().__init__(data, limits, value_range)
            self.size = len(data)

        def decode(self) -> DecodedImage:
            running.append(self.size)
            time.sleep(0.02)
            seen.add(tuple(sorted(running)))
            image = super().decode()
            running.remove(self.size)
            return image

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", RecordedImage)
    _serve(engine, metrics, [LARGE] * 4 + [SMALL] * 4)
    assert (len(LARGE),) * 2 not in seen
    assert seen & {(len(SMALL),) * 2, tuple(sorted((len(SMALL), len(LARGE))))}
