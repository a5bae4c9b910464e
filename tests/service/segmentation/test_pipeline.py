"""Pipeline: admission, queues, deadlines, disconnected clients, and the use of cores."""

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
from service.segmentation.pipeline import CONCURRENT_GPU_BATCHES, DECODED_AHEAD, ClientDisconnected, Pipeline
from service.settings import Settings
from tests.service.conftest import encoded, eventually, sample
from tests.service.tiny_bundle import COLORS, nearest, picture

DATA = encoded(picture())


async def connected() -> bool:
    return False


async def disconnected() -> bool:
    return True


class HeldEngine(Engine):
    """A real engine that runs once `release` is set."""

    def __init__(self, graph: Path) -> None:
        super().__init__(graph, threads=1)
        self.release = threading.Event()
        self.started = threading.Event()
        self.runs = 0

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        self.runs += 1
        self.started.set()
        assert self.release.wait(60)
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


async def test_request_above_capacity_gets_overloaded_at_once(
    pipeline: Pipeline, engine: HeldEngine, metrics: Metrics
) -> None:
    async def segment() -> Prediction:
        async with pipeline.admission() as context:
            return (await pipeline.segment(DATA, engine, context, connected)).prediction

    admitted = [asyncio.create_task(segment()) for _ in range(3)]
    assert await asyncio.to_thread(engine.started.wait, 20)
    with pytest.raises(Overloaded) as rejected:
        await asyncio.wait_for(segment(), 10)
    assert rejected.value.retry_after_s == 1
    # The event loop was never blocked: this test runs in it.
    engine.release.set()
    for prediction in await asyncio.gather(*admitted):
        np.testing.assert_array_equal(prediction.mask_HW, nearest(picture(), COLORS))
    await segment()
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1
    assert sample(metrics, "maskloop_segment_admitted") == 0


async def test_wait_limit_applies_before_the_first_estimate(metrics: Metrics, engine: HeldEngine) -> None:
    """All requests arrive at once, before any inference has ended, and the model is slow."""
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    pipeline = Pipeline(Settings(inference_threads=1, max_wait_s=0.3), metrics, limits)

    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    async with asyncio.timeout(50):
        tasks = [asyncio.create_task(segment()) for _ in range(12)]
        # The engine is held. Two requests per core have no limit on their wait.
        for task in asyncio.as_completed(tasks[2:]):
            with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
                await task
        assert not any(task.done() for task in tasks[:2])
        # Batch requests have no limit after admission.
        async with pipeline.admission(urgency=6, wait_s=60) as context:
            assert context.max_wait_s is None
        engine.release.set()
        await asyncio.gather(*tasks[:2])
        await segment()
    pipeline.close()
    assert engine.runs == 3
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 10
    assert sample(metrics, "maskloop_segment_admitted") == 0


async def test_image_of_a_disconnected_client_is_not_inferred(
    pipeline: Pipeline, engine: HeldEngine, metrics: Metrics
) -> None:
    async with pipeline.admission() as context:
        with pytest.raises(ClientDisconnected):
            await pipeline.segment(DATA, engine, context, disconnected)
    engine.release.set()
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, engine, context, connected)
    assert list(context.seconds) == ["decode", "queue", "infer"]
    assert engine.runs == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


async def test_number_of_images_decoded_ahead_is_limited(
    metrics: Metrics, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued requests hold the encoded bytes, not the pixels."""
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

    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    waiting = [asyncio.create_task(segment()) for _ in range(9)]
    assert await asyncio.to_thread(engine.started.wait, 20)
    await asyncio.sleep(0.2)
    assert decoded <= 1 + DECODED_AHEAD
    engine.release.set()
    await asyncio.gather(*waiting)
    pipeline.close()
    assert decoded == 9


async def test_image_above_the_memory_limit_is_rejected_without_queueing(
    pipeline: Pipeline, bundle: Path, engine: HeldEngine
) -> None:
    tight = MemoryBudget(max_bytes=1, max_native_pixels=1, classes=5, long_side=0)
    limited = Engine(bundle / "model.onnx", threads=1, budget=tight)

    async def segment(engine: Engine) -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    first = asyncio.create_task(segment(engine))
    assert await asyncio.to_thread(engine.started.wait, 20)
    with pytest.raises(ImageTooLarge):
        await asyncio.wait_for(segment(limited), 10)
    engine.release.set()
    await first


async def test_cancelled_requests_free_their_capacity(pipeline: Pipeline, engine: HeldEngine) -> None:
    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    waiting = [asyncio.create_task(segment()) for _ in range(3)]
    assert await asyncio.to_thread(engine.started.wait, 20)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    engine.release.set()
    await asyncio.gather(*(segment() for _ in range(3)))


async def test_urgent_requests_start_first(pipeline: Pipeline, engine: HeldEngine) -> None:
    answered: list[int] = []

    async def predict(urgency: int) -> None:
        async with pipeline.admission(urgency=urgency) as context:
            await pipeline.predict(picture(), engine, context, connected)
        answered.append(urgency)

    waiting = [asyncio.create_task(predict(urgency)) for urgency in (0, 6, 3)]
    assert await asyncio.to_thread(engine.started.wait, 20)
    await asyncio.sleep(0.05)
    engine.release.set()
    await asyncio.gather(*waiting)
    assert answered == [0, 3, 6]


async def test_core_stays_in_use_until_the_thread_of_an_expired_request_ends(
    pipeline: Pipeline, engine: HeldEngine, metrics: Metrics
) -> None:
    async def predict(timeout_s: float | None) -> None:
        async with pipeline.admission(timeout_s=timeout_s) as context:
            await pipeline.predict(picture(), engine, context, connected)

    with pytest.raises(DeadlinePassed, match=r"of 0\.2 s passed"):
        await predict(0.2)
    # The request has ended and its thread still computes, so the next request waits for the core.
    assert await asyncio.to_thread(engine.started.wait, 20)
    second = asyncio.create_task(predict(None))
    await asyncio.sleep(0.1)
    assert engine.runs == 1
    engine.release.set()
    await second
    assert engine.runs == 2
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1


async def test_other_timeout_errors_pass_through_unchanged(pipeline: Pipeline) -> None:
    with pytest.raises(TimeoutError, match="of a disk"):
        async with pipeline.admission(timeout_s=20):
            raise TimeoutError("of a disk")


async def test_single_inference_uses_all_cores_and_concurrent_ones_share_them(metrics: Metrics, bundle: Path) -> None:
    thread_counts: list[int | None] = []

    class RecordingEngine(Engine):
        def run(
            self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
        ) -> Prediction:
            thread_counts.append(threads)
            time.sleep(0.05)
            return super().run(image_HW3, threads, is_cancelled)

    engine = RecordingEngine(bundle / "model.onnx", threads=2)
    pipeline = Pipeline(Settings(inference_threads=2), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)

    await segment()
    await asyncio.gather(*(segment() for _ in range(4)))
    pipeline.close()
    # The last of the four may run alone.
    assert thread_counts[:4] == [2, 1, 1, 1]


@pytest.mark.parametrize("cores", [1, 4])
async def test_gpu_without_batches_runs_two_images_at_once(cores: int, metrics: Metrics, bundle: Path) -> None:
    class GpuEngine(Engine):
        def run(
            self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
        ) -> Prediction:
            assert threads is None
            running.append(1)
            time.sleep(0.05)
            concurrency.append(len(running))
            prediction = super().run(image_HW3, threads, is_cancelled)
            running.pop()
            return prediction

    running, concurrency = list[int](), list[int]()
    engine = GpuEngine(bundle / "model.onnx", threads=cores)
    assert engine.max_batch == 1
    engine.provider = CUDA
    pipeline = Pipeline(Settings(inference_threads=cores), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(DATA, engine, context, connected)
        assert context.seconds["infer"] >= 0.05

    await asyncio.gather(*(segment() for _ in range(8)))
    pipeline.close()
    assert max(concurrency) == CONCURRENT_GPU_BATCHES
    assert len(concurrency) == 8


async def test_deadline_can_be_changed_after_admission(pipeline: Pipeline) -> None:
    async def set_twice() -> None:
        async with pipeline.admission() as context:
            context.set_deadline(1e15)
            context.set_deadline(0.05)
            await asyncio.sleep(20)

    with pytest.raises(DeadlinePassed, match=r"of 0\.05 s passed"):
        await set_twice()


class EndlessEngine(Engine):
    """An engine that computes until it is cancelled."""

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        assert self.cores == threads
        assert image_HW3.shape == picture().shape
        eventually(is_cancelled)
        raise InferenceCancelled


async def test_disconnect_during_inference_cancels_it(
    metrics: Metrics, bundle: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.segmentation.pipeline.DISCONNECT_POLL_S", 0.01)
    checks = 0

    async def disconnected_later() -> bool:
        nonlocal checks
        checks += 1
        return checks > 3

    async with pipeline.admission() as context:
        with pytest.raises(ClientDisconnected):
            await pipeline.segment(DATA, EndlessEngine(bundle / "model.onnx", threads=1), context, disconnected_later)
    # The core is free again.
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, Engine(bundle / "model.onnx", threads=1), context, connected)
    assert checks == 4
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


async def test_deadline_cancels_the_inference(metrics: Metrics, bundle: Path, pipeline: Pipeline) -> None:
    engine = EndlessEngine(bundle / "model.onnx", threads=1)

    with pytest.raises(DeadlinePassed):
        async with pipeline.admission(timeout_s=0.2) as context:
            await pipeline.segment(DATA, engine, context, connected)
    async with pipeline.admission() as context:
        await pipeline.segment(DATA, Engine(bundle / "model.onnx", threads=1), context, connected)
    assert sample(metrics, "maskloop_segment_rejected_total", reason="deadline") == 1
