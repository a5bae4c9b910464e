"""Admission, the queue, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import ImageTooLarge, Overloaded
from service.metrics import Metrics
from service.segmentation.budget import Budget
from service.segmentation.decode import Limits, Pixels, decode
from service.segmentation.engine import Engine, Prediction
from service.segmentation.segmenter import DECODED_AHEAD, ClientGone, Segmenter
from service.settings import Settings
from tests.service.conftest import encoded
from tests.service.tiny_bundle import COLORS, nearest, picture

DATA = encoded(picture())


async def stays() -> bool:
    return False


async def left() -> bool:
    return True


class HeldEngine(Engine):
    """A real engine that waits at the door until it is let go."""

    def __init__(self, graph: Path) -> None:
        super().__init__(graph, threads=1)
        self.go = threading.Event()
        self.begun = threading.Event()
        self.runs = 0

    def run(self, image_HW3: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Prediction:
        self.runs += 1
        self.begun.set()
        assert self.go.wait(20)
        return super().run(image_HW3)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def segmenter(metrics: Metrics) -> Iterator[Segmenter]:
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    opened = Segmenter(Settings(max_concurrent_requests=3), metrics, limits)
    yield opened
    opened.close()


@pytest.fixture
def engine(bundle: Path) -> HeldEngine:
    return HeldEngine(bundle / "model.onnx")


def test_one_too_many_is_told_at_once(segmenter: Segmenter, engine: HeldEngine, metrics: Metrics) -> None:
    async def one() -> Prediction:
        async with segmenter.admission() as timings:
            return (await segmenter.segment(DATA, engine, timings, stays)).prediction

    async def scene() -> None:
        admitted = [asyncio.create_task(one()) for _ in range(3)]
        assert await asyncio.to_thread(engine.begun.wait, 20)
        with pytest.raises(Overloaded) as refused:
            await asyncio.wait_for(one(), 1)
        assert refused.value.retry_after_s == 1
        # The event loop was free all the while: this test ran in it.
        engine.go.set()
        for prediction in await asyncio.gather(*admitted):
            np.testing.assert_array_equal(prediction.mask_HW, nearest(picture(), COLORS))
        await one()

    asyncio.run(scene())
    assert b"maskloop_segment_refused_total 1.0" in metrics.exposition()
    assert b"maskloop_segment_admitted 0.0" in metrics.exposition()


def test_who_left_the_queue_is_not_inferred(segmenter: Segmenter, engine: HeldEngine, metrics: Metrics) -> None:
    async def scene() -> None:
        async with segmenter.admission() as timings:
            with pytest.raises(ClientGone):
                await segmenter.segment(DATA, engine, timings, left)
        engine.go.set()
        async with segmenter.admission() as timings:
            await segmenter.segment(DATA, engine, timings, stays)
        assert list(timings.seconds) == ["decode", "queue", "infer"]

    asyncio.run(scene())
    assert engine.runs == 1
    assert b"maskloop_segment_dropped_total 1.0" in metrics.exposition()


def test_few_images_are_decoded_ahead(metrics: Metrics, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in the queue cost the encoded bytes, not the pixels."""
    decoded = 0

    def counted(data: bytes, limits: Limits) -> Pixels:
        nonlocal decoded
        decoded += 1
        return decode(data, limits)

    monkeypatch.setattr("service.segmentation.segmenter.decode", counted)
    segmenter = Segmenter(Settings(max_concurrent_requests=9), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one() -> None:
        async with segmenter.admission() as timings:
            await segmenter.segment(DATA, engine, timings, stays)

    async def scene() -> None:
        waiting = [asyncio.create_task(one()) for _ in range(9)]
        assert await asyncio.to_thread(engine.begun.wait, 20)
        await asyncio.sleep(0.2)
        assert decoded <= 1 + DECODED_AHEAD
        engine.go.set()
        await asyncio.gather(*waiting)

    asyncio.run(scene())
    segmenter.close()
    assert decoded == 9


def test_what_costs_too_much_waits_for_nobody(segmenter: Segmenter, bundle: Path, engine: HeldEngine) -> None:
    tight = Budget(max_bytes=1, max_native_pixels=None, classes=5)
    refusing = Engine(bundle / "model.onnx", threads=1, budget=tight)

    async def one(asked: Engine) -> None:
        async with segmenter.admission() as timings:
            await segmenter.segment(DATA, asked, timings, stays)

    async def scene() -> None:
        first = asyncio.create_task(one(engine))
        assert await asyncio.to_thread(engine.begun.wait, 20)
        with pytest.raises(ImageTooLarge):
            await asyncio.wait_for(one(refusing), 10)
        engine.go.set()
        await first

    asyncio.run(scene())


def test_a_cancelled_request_gives_its_place_back(segmenter: Segmenter, engine: HeldEngine) -> None:
    async def one() -> None:
        async with segmenter.admission() as timings:
            await segmenter.segment(DATA, engine, timings, stays)

    async def scene() -> None:
        waiting = [asyncio.create_task(one()) for _ in range(3)]
        assert await asyncio.to_thread(engine.begun.wait, 20)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        engine.go.set()
        await asyncio.gather(*(one() for _ in range(3)))

    asyncio.run(scene())
