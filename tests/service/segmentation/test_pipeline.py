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
from service.segmentation.decode import DecodedImage, EncodedImage, Limits, Pixels
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Prediction
from service.segmentation.inference.providers import CUDA
from service.segmentation.pipeline import DECODED_AHEAD, GPU_RUNS, ClientDisconnected, Pipeline
from service.settings import Settings
from tests.service.conftest import encoded, eventually, sample
from tests.service.tiny_bundle import COLORS, nearest, picture

DATA = encoded(picture())


async def connected() -> bool:
    return False


async def disconnected() -> bool:
    return True


class HeldEngine(Engine):
    """A real engine that waits at the gate until it is let go."""

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
def pipeline(metrics: Metrics) -> Iterator[Pipeline]:
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    opened = Pipeline(Settings(max_concurrent_requests=3, inference_threads=1), metrics, limits)
    yield opened
    opened.close()


@pytest.fixture
def engine(bundle: Path) -> HeldEngine:
    return HeldEngine(bundle / "model.onnx")


async def test_one_too_many_is_told_at_once(pipeline: Pipeline, engine: HeldEngine, metrics: Metrics) -> None:
    async def one() -> Prediction:
        async with pipeline.admission() as context:
            return (await pipeline.segment(DATA, engine, context, connected)).prediction

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
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1
    assert sample(metrics, "maskloop_segment_admitted") == 0


async def test_nobody_waits_longer_than_allowed_before_a_pace_is_known(metrics: Metrics, engine: HeldEngine) -> None:
    """All come at once, to a service that has seen nothing yet, and to a model that turns out to be slow."""
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    pipeline = Pipeline(Settings(inference_threads=1, max_wait_s=0.3), metrics, limits)

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    async with asyncio.timeout(20):
        crowd = [asyncio.create_task(one()) for _ in range(12)]
        # The engine is held all the while; two for each core may wait for any time.
        for told in asyncio.as_completed(crowd[2:]):
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await told
        assert not any(task.done() for task in crowd[:2])
        # A batch has time, whoever else has none.
        async with pipeline.admission(urgency=6, wait_s=60) as context:
            assert context.max_wait_s is None
        engine.go.set()
        await asyncio.gather(*crowd[:2])
        await one()
    pipeline.close()
    assert engine.runs == 3
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 10
    assert sample(metrics, "maskloop_segment_admitted") == 0


async def test_who_left_the_queue_is_not_inferred(pipeline: Pipeline, engine: HeldEngine, metrics: Metrics) -> None:
    async with pipeline.admission() as context:
        with pytest.raises(ClientDisconnected):
            await pipeline.segment(DATA, engine, context, disconnected)
    engine.go.set()
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, engine, context, connected)
    assert list(context.seconds) == ["decode", "queue", "infer"]
    assert engine.runs == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


async def test_few_images_are_decoded_ahead(
    metrics: Metrics, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places in the queue cost the encoded bytes, not the pixels."""
    decoded = 0

    class CountedImage(EncodedImage):
        def decode(self) -> DecodedImage:
            nonlocal decoded
            decoded += 1
            return super().decode()

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", CountedImage)
    pipeline = Pipeline(
        Settings(max_concurrent_requests=9, inference_threads=1), metrics, Limits(max_bytes=10**6, max_pixels=10**6)
    )

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    waiting = [asyncio.create_task(one()) for _ in range(9)]
    assert await asyncio.to_thread(engine.begun.wait, 20)
    await asyncio.sleep(0.2)
    assert decoded <= 1 + DECODED_AHEAD
    engine.go.set()
    await asyncio.gather(*waiting)
    pipeline.close()
    assert decoded == 9


async def test_what_costs_too_much_waits_for_nobody(pipeline: Pipeline, bundle: Path, engine: HeldEngine) -> None:
    tight = MemoryBudget(max_bytes=1, max_native_pixels=1, classes=5, long_side=0)
    refusing = Engine(bundle / "model.onnx", threads=1, budget=tight)

    async def one(asked: Engine) -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, asked, context, connected)

    first = asyncio.create_task(one(engine))
    assert await asyncio.to_thread(engine.begun.wait, 20)
    with pytest.raises(ImageTooLarge):
        await asyncio.wait_for(one(refusing), 10)
    engine.go.set()
    await first


async def test_a_cancelled_request_gives_its_place_back(pipeline: Pipeline, engine: HeldEngine) -> None:
    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    waiting = [asyncio.create_task(one()) for _ in range(3)]
    assert await asyncio.to_thread(engine.begun.wait, 20)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    engine.go.set()
    await asyncio.gather(*(one() for _ in range(3)))


async def test_the_urgent_go_first(pipeline: Pipeline, engine: HeldEngine) -> None:
    answered: list[int] = []

    async def one(urgency: int) -> None:
        async with pipeline.admission(urgency=urgency) as context:
            await pipeline.predict(picture(), engine, context, connected)
        answered.append(urgency)

    waiting = [asyncio.create_task(one(urgency)) for urgency in (0, 6, 3)]
    assert await asyncio.to_thread(engine.begun.wait, 20)
    await asyncio.sleep(0.05)
    engine.go.set()
    await asyncio.gather(*waiting)
    assert answered == [0, 3, 6]


async def test_a_deadline_passes_and_the_core_is_free_when_its_thread_is(
    pipeline: Pipeline, engine: HeldEngine, metrics: Metrics
) -> None:
    async def one(timeout_s: float | None) -> None:
        async with pipeline.admission(timeout_s=timeout_s) as context:
            await pipeline.predict(picture(), engine, context, connected)

    with pytest.raises(DeadlinePassed, match=r"of 0\.2 s passed"):
        await one(0.2)
    # It left the gate, and its thread still computes: the next one waits for the core.
    second = asyncio.create_task(one(None))
    await asyncio.sleep(0.1)
    assert engine.runs == 1
    engine.go.set()
    await second
    assert engine.runs == 2
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1


async def test_somebody_elses_timeout_is_no_deadline(pipeline: Pipeline) -> None:
    with pytest.raises(TimeoutError, match="of a disk"):
        async with pipeline.admission(timeout_s=20):
            raise TimeoutError("of a disk")


async def test_a_lone_inference_has_all_cores_and_several_share_them(metrics: Metrics, bundle: Path) -> None:
    seen: list[int | None] = []

    class Watched(Engine):
        def run(
            self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
        ) -> Prediction:
            seen.append(threads)
            time.sleep(0.05)
            return super().run(image_HW3, threads, is_cancelled)

    engine = Watched(bundle / "model.onnx", threads=2)
    pipeline = Pipeline(Settings(inference_threads=2), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    await one()
    await asyncio.gather(*(one() for _ in range(4)))
    pipeline.close()
    # The last of four may be alone again.
    assert seen[:4] == [2, 1, 1, 1]


@pytest.mark.parametrize("cores", [1, 4])
async def test_a_gpu_that_takes_images_one_by_one_has_the_next_copied_meanwhile(
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
    pipeline = Pipeline(Settings(inference_threads=cores), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)
        assert context.seconds["infer"] >= 0.05

    await asyncio.gather(*(one() for _ in range(8)))
    pipeline.close()
    assert max(seen) == GPU_RUNS
    assert len(seen) == 8


async def test_a_deadline_may_be_known_later(pipeline: Pipeline) -> None:
    async def set_twice() -> None:
        async with pipeline.admission() as context:
            context.set_deadline(1e15)
            context.set_deadline(0.05)
            await asyncio.sleep(20)

    with pytest.raises(DeadlinePassed, match=r"of 0\.05 s passed"):
        await set_twice()


class Endless(Engine):
    """A real engine that computes until it hears that nobody waits."""

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        assert self.cores == threads
        assert image_HW3.shape == picture().shape
        eventually(is_cancelled)
        raise InferenceCancelled


async def test_who_leaves_in_the_middle_ends_it(
    metrics: Metrics, bundle: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.segmentation.pipeline.DISCONNECT_POLL_S", 0.01)
    asked = 0

    async def leaves() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    async with pipeline.admission() as context:
        with pytest.raises(ClientDisconnected):
            await pipeline.segment(DATA, Endless(bundle / "model.onnx", threads=1), context, leaves)
    # Its core is free again.
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, Engine(bundle / "model.onnx", threads=1), context, connected)
    assert asked == 4
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


async def test_a_deadline_ends_it(metrics: Metrics, bundle: Path, pipeline: Pipeline) -> None:
    engine = Endless(bundle / "model.onnx", threads=1)

    with pytest.raises(DeadlinePassed):
        async with pipeline.admission(timeout_s=0.2) as context:
            await pipeline.segment(DATA, engine, context, connected)
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, Engine(bundle / "model.onnx", threads=1), context, connected)
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1
