"""Large images that come at one time: what they share, and who goes past them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.segmentation.decode import DecodedImage, EncodedImage, Limits, Pixels
from service.segmentation.inference.cancellation import Gone, never_cancelled
from service.segmentation.inference.engine import Engine, Prediction
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.pipeline import Pipeline
from service.settings import Settings
from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

LARGE, SMALL = encoded(picture(200, 100)), encoded(picture(20, 100))


async def connected() -> bool:
    return False


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


class Counted(Engine):
    """A real engine that notes which images it runs at one time."""

    def __init__(self, graph: Path, budget: MemoryBudget) -> None:
        super().__init__(graph, threads=2, budget=budget)
        self.inside: list[int] = []
        self.seen: set[tuple[int, ...]] = set()
        self.threads: list[int | None] = []

    def run(self, image_HW3: Pixels, threads: int | None = None, is_cancelled: Gone = never_cancelled) -> Prediction:
        self.inside.append(image_HW3.shape[1])
        self.threads.append(threads)
        # Whoever may come beside it has come by then.
        time.sleep(0.05)
        self.seen.add(tuple(sorted(self.inside)))
        prediction = super().run(image_HW3, threads, is_cancelled)
        self.inside.remove(image_HW3.shape[1])
        return prediction


@pytest.fixture
def counted(bundle: Path) -> Counted:
    budget = MemoryBudget(max_bytes=10_000_000, max_native_pixels=10**6, classes=5, long_side=0)
    found = Counted(bundle / "model.onnx", budget)
    assert budget.max_bytes / 2 < found.cost(100, 200) < budget.max_bytes
    assert found.cost(100, 20) < budget.max_bytes / 4
    return found


def _serve(engine: Counted, metrics: Metrics, people: list[bytes]) -> None:
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    pipeline = Pipeline(Settings(inference_threads=2, max_inference_bytes=10_000_000), metrics, limits)

    async def one(data: bytes) -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(data, engine, context, connected)

    async def scene() -> None:
        await asyncio.gather(*(one(data) for data in people))

    asyncio.run(scene())
    pipeline.close()


def test_two_large_ones_never_run_at_one_time_and_small_ones_beside_them(metrics: Metrics, counted: Counted) -> None:
    _serve(counted, metrics, [LARGE, LARGE, SMALL, SMALL, SMALL, SMALL, LARGE, SMALL, SMALL])
    assert len(counted.threads) == 9
    assert (200, 200) not in counted.seen
    # They may be decoded in any order; there are six.
    assert {(20, 20), (20, 200)} & counted.seen


def test_large_ones_that_wait_for_each_other_have_all_cores(metrics: Metrics, counted: Counted) -> None:
    _serve(counted, metrics, [LARGE] * 4)
    assert counted.seen == {(200,)}
    assert counted.threads == [2] * 4


def test_large_ones_are_decoded_as_memory_allows(
    metrics: Metrics, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the large hold what may be held, the small are decoded all the same."""
    monkeypatch.setattr("service.segmentation.decode.PIXEL_BYTES", 300)
    inside, seen = list[int](), set[tuple[int, ...]]()

    class ObservedImage(EncodedImage):
        def __init__(self, data: bytes, limits: Limits) -> None:
            super().__init__(data, limits)
            self.size = len(data)

        def decode(self) -> DecodedImage:
            inside.append(self.size)
            time.sleep(0.02)
            seen.add(tuple(sorted(inside)))
            image = super().decode()
            inside.remove(self.size)
            return image

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", ObservedImage)
    _serve(counted, metrics, [LARGE] * 4 + [SMALL] * 4)
    assert (len(LARGE),) * 2 not in seen
    assert seen & {(len(SMALL),) * 2, tuple(sorted((len(SMALL), len(LARGE))))}
