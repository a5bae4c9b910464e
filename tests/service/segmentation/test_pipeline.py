"""Admission, the queue, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import DeadlinePassed, ImageTooLarge, Overloaded
from service.metrics import Metrics
from service.segmentation.decode import Limits, Pixels, decode
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.engine import Engine, Prediction
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.providers import CUDA
from service.segmentation.pipeline import DECODED_AHEAD, GPU_RUNS, ClientDisconnected, Pipeline
from service.settings import Settings
from tests.service.conftest import encoded, eventually, sample
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

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        self.runs += 1
        self.begun.set()
        assert self.go.wait(20)
        return super().run(image_HW3, threads, is_cancelled)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def segmenter(metrics: Metrics) -> Iterator[Pipeline]:
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    opened = Pipeline(Settings(max_concurrent_requests=3, inference_threads=1), metrics, limits)
    yield opened
    opened.close()


@pytest.fixture
def engine(bundle: Path) -> HeldEngine:
    return HeldEngine(bundle / "model.onnx")


def test_one_too_many_is_told_at_once(segmenter: Pipeline, engine: HeldEngine, metrics: Metrics) -> None:
    async def one() -> Prediction:
        async with segmenter.admission() as visit:
            return (await segmenter.segment(DATA, engine, visit, stays)).prediction

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
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1
    assert sample(metrics, "maskloop_segment_admitted") == 0


def test_nobody_waits_longer_than_allowed_before_a_pace_is_known(metrics: Metrics, engine: HeldEngine) -> None:
    """All come at once, to a service that has seen nothing yet, and to a model that turns out to be slow."""
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    segmenter = Pipeline(Settings(inference_threads=1, max_wait_s=0.3), metrics, limits)

    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)

    async def scene() -> None:
        crowd = [asyncio.create_task(one()) for _ in range(12)]
        # The engine is held all the while; two for each core may wait for any time.
        for told in asyncio.as_completed(crowd[2:]):
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await told
        assert not any(task.done() for task in crowd[:2])
        # A batch has time, whoever else has none.
        async with segmenter.admission(urgency=6, wait_s=60) as visit:
            assert visit.max_wait_s is None
        engine.go.set()
        await asyncio.gather(*crowd[:2])
        await one()

    asyncio.run(asyncio.wait_for(scene(), 20))
    segmenter.close()
    assert engine.runs == 3
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 10
    assert sample(metrics, "maskloop_segment_admitted") == 0


def test_who_left_the_queue_is_not_inferred(segmenter: Pipeline, engine: HeldEngine, metrics: Metrics) -> None:
    async def scene() -> None:
        async with segmenter.admission() as visit:
            with pytest.raises(ClientDisconnected):
                await segmenter.segment(DATA, engine, visit, left)
        engine.go.set()
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)
        assert list(visit.seconds) == ["decode", "queue", "infer"]

    asyncio.run(scene())
    assert engine.runs == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


def test_few_images_are_decoded_ahead(metrics: Metrics, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in the queue cost the encoded bytes, not the pixels."""
    decoded = 0

    def counted(data: bytes, limits: Limits) -> Pixels:
        nonlocal decoded
        decoded += 1
        return decode(data, limits)

    monkeypatch.setattr("service.segmentation.pipeline.decode", counted)
    segmenter = Pipeline(
        Settings(max_concurrent_requests=9, inference_threads=1), metrics, Limits(max_bytes=10**6, max_pixels=10**6)
    )

    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)

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


def test_what_costs_too_much_waits_for_nobody(segmenter: Pipeline, bundle: Path, engine: HeldEngine) -> None:
    tight = MemoryBudget(max_bytes=1, max_native_pixels=1, classes=5, long_side=0)
    refusing = Engine(bundle / "model.onnx", threads=1, budget=tight)

    async def one(asked: Engine) -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, asked, visit, stays)

    async def scene() -> None:
        first = asyncio.create_task(one(engine))
        assert await asyncio.to_thread(engine.begun.wait, 20)
        with pytest.raises(ImageTooLarge):
            await asyncio.wait_for(one(refusing), 10)
        engine.go.set()
        await first

    asyncio.run(scene())


def test_a_cancelled_request_gives_its_place_back(segmenter: Pipeline, engine: HeldEngine) -> None:
    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)

    async def scene() -> None:
        waiting = [asyncio.create_task(one()) for _ in range(3)]
        assert await asyncio.to_thread(engine.begun.wait, 20)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        engine.go.set()
        await asyncio.gather(*(one() for _ in range(3)))

    asyncio.run(scene())


def test_the_urgent_go_first(segmenter: Pipeline, engine: HeldEngine) -> None:
    answered: list[int] = []

    async def one(urgency: int) -> None:
        async with segmenter.admission(urgency=urgency) as visit:
            await segmenter.predict(picture(), engine, visit, stays)
        answered.append(urgency)

    async def scene() -> None:
        waiting = [asyncio.create_task(one(urgency)) for urgency in (0, 6, 3)]
        assert await asyncio.to_thread(engine.begun.wait, 20)
        await asyncio.sleep(0.05)
        engine.go.set()
        await asyncio.gather(*waiting)

    asyncio.run(scene())
    assert answered == [0, 3, 6]


def test_a_deadline_passes_and_the_core_is_free_when_its_thread_is(
    segmenter: Pipeline, engine: HeldEngine, metrics: Metrics
) -> None:
    async def one(timeout_s: float | None) -> None:
        async with segmenter.admission(timeout_s=timeout_s) as visit:
            await segmenter.predict(picture(), engine, visit, stays)

    async def scene() -> None:
        with pytest.raises(DeadlinePassed, match=r"within the 0\.2 s"):
            await one(0.2)
        # It left the door, and its thread still computes: the next one waits for the core.
        second = asyncio.create_task(one(None))
        await asyncio.sleep(0.1)
        assert engine.runs == 1
        engine.go.set()
        await second
        assert engine.runs == 2

    asyncio.run(scene())
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1


def test_somebody_elses_timeout_is_no_deadline(segmenter: Pipeline) -> None:
    async def scene() -> None:
        async with segmenter.admission(timeout_s=20):
            raise TimeoutError("of a disk")

    with pytest.raises(TimeoutError, match="of a disk"):
        asyncio.run(scene())


def test_a_lone_inference_has_all_cores_and_several_share_them(metrics: Metrics, bundle: Path) -> None:
    seen: list[int | None] = []

    class Watched(Engine):
        def run(
            self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
        ) -> Prediction:
            seen.append(threads)
            time.sleep(0.05)
            return super().run(image_HW3, threads, is_cancelled)

    engine = Watched(bundle / "model.onnx", threads=2)
    segmenter = Pipeline(Settings(inference_threads=2), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)

    async def scene() -> None:
        await one()
        await asyncio.gather(*(one() for _ in range(4)))

    asyncio.run(scene())
    segmenter.close()
    # The last of four may be alone again.
    assert seen[:4] == [2, 1, 1, 1]


@pytest.mark.parametrize("cores", [1, 4])
def test_a_gpu_that_takes_images_one_by_one_has_the_next_copied_meanwhile(
    cores: int, metrics: Metrics, bundle: Path
) -> None:
    class OnGpu(Engine):
        def run(
            self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
        ) -> Prediction:
            assert threads is None
            inside.append(1)
            time.sleep(0.05)
            seen.append(len(inside))
            prediction = super().run(image_HW3, threads, is_cancelled)
            inside.pop()
            return prediction

    inside, seen = list[int](), list[int]()
    engine = OnGpu(bundle / "model.onnx", threads=cores)
    assert engine.max_batch == 1
    engine.provider = CUDA
    segmenter = Pipeline(Settings(inference_threads=cores), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, engine, visit, stays)
        assert visit.seconds["infer"] >= 0.05

    async def scene() -> None:
        await asyncio.gather(*(one() for _ in range(8)))

    asyncio.run(scene())
    segmenter.close()
    assert max(seen) == GPU_RUNS
    assert len(seen) == 8


def test_a_deadline_may_be_known_later(segmenter: Pipeline) -> None:
    async def scene() -> None:
        async with segmenter.admission() as visit:
            visit.set_deadline(1e15)
            visit.set_deadline(0.05)
            await asyncio.sleep(20)

    with pytest.raises(DeadlinePassed, match=r"within the 0\.05 s"):
        asyncio.run(scene())


class Endless(Engine):
    """A real engine that computes until it hears that nobody waits."""

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        assert self.cores == threads
        assert image_HW3.shape == picture().shape
        eventually(is_cancelled)
        raise InferenceCancelled


def test_who_leaves_in_the_middle_ends_it(
    metrics: Metrics, bundle: Path, segmenter: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.segmentation.pipeline.WATCH_S", 0.01)
    asked = 0

    async def leaves() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    async def scene() -> None:
        async with segmenter.admission() as visit:
            with pytest.raises(ClientDisconnected):
                await segmenter.segment(DATA, Endless(bundle / "model.onnx", threads=1), visit, leaves)
        # Its core is free again.
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, Engine(bundle / "model.onnx", threads=1), visit, stays)

    asyncio.run(scene())
    assert asked == 4
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


def test_a_deadline_ends_it(metrics: Metrics, bundle: Path, segmenter: Pipeline) -> None:
    engine = Endless(bundle / "model.onnx", threads=1)

    async def scene() -> None:
        with pytest.raises(DeadlinePassed):
            async with segmenter.admission(timeout_s=0.2) as visit:
                await segmenter.segment(DATA, engine, visit, stays)
        async with segmenter.admission() as visit:
            await segmenter.segment(DATA, Engine(bundle / "model.onnx", threads=1), visit, stays)

    asyncio.run(scene())
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1
