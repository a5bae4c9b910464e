"""Micro-batches: which images share one, and that a cancelled image does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import OutOfMemory, Overloaded
from service.metrics import Metrics
from service.segmentation.admission.micro_batcher import MicroBatcher
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.decode import Limits
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Pixels, Prediction, Predictor
from service.segmentation.pipeline import CONCURRENT_GPU_BATCHES, ClientDisconnected, Pipeline
from service.settings import Settings
from tests.service.conftest import sample
from tests.service.tiny_bundle import COLORS, mean_color, nearest, picture, write_bundle


@pytest.fixture
def engine(bundle: Path) -> Engine:
    opened = Engine(bundle / "model.onnx", threads=1)
    # As on a GPU.
    opened.max_batch = 3
    return opened


class HeldRunner:
    """Run batches once `release` is set; record their sizes."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.sizes: list[int] = []

    async def __call__(self, engine: Predictor, _urgency: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        await self.release.wait()
        batch = images()
        self.sizes.append(len(batch))
        return engine.run_batch(batch)


async def connected() -> bool:
    return False


async def _run_other_tasks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_image_of_a_batch_gets_its_own_embedding(tmp_path: Path) -> None:
    engine = Engine(write_bundle(tmp_path / "embedder", embedding=True) / "model.onnx", threads=1, embedding=3)
    engine.max_batch = 3
    runner, images = HeldRunner(), [picture(seed=seed) for seed in range(3)]
    batcher = MicroBatcher(runner, delay_s=0)
    runner.release.set()
    found = await asyncio.gather(*(batcher.predict(image, engine, RequestContext(Metrics())) for image in images))
    assert runner.sizes == [3]
    for prediction, image_HW3 in zip(found, images, strict=True):
        assert prediction.embedding_D is not None
        np.testing.assert_allclose(prediction.embedding_D, mean_color(image_HW3), atol=1e-3)


async def test_images_of_one_size_share_a_batch_up_to_its_maximum(engine: Engine) -> None:
    runner, contexts = HeldRunner(), [RequestContext(Metrics()) for _ in range(6)]
    batcher = MicroBatcher(runner, delay_s=0)
    images = [picture(seed=seed) for seed in range(5)] + [picture(50, 20)]
    tasks = [
        asyncio.create_task(batcher.predict(image, engine, context))
        for image, context in zip(images, contexts, strict=True)
    ]
    await _run_other_tasks()
    runner.release.set()
    for image, prediction in zip(images, await asyncio.gather(*tasks), strict=True):
        np.testing.assert_array_equal(prediction.mask_HW, nearest(image, COLORS))
    assert sorted(runner.sizes) == [1, 2, 3]
    assert all(list(context.seconds) == ["queue", "infer"] for context in contexts)


async def test_cancelled_image_is_left_out_of_the_batch(engine: Engine) -> None:
    runner = HeldRunner()
    batcher = MicroBatcher(runner, delay_s=0)
    tasks = [asyncio.create_task(batcher.predict(picture(), engine, RequestContext(Metrics()))) for _ in range(2)]
    await _run_other_tasks()
    tasks[0].cancel()
    await _run_other_tasks()
    runner.release.set()
    await tasks[1]
    assert runner.sizes == [1]


async def test_failure_reaches_all_images_of_the_batch_and_the_next_batch_is_new(engine: Engine) -> None:
    async def fails(engine: Predictor, urgency: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        images()
        raise OutOfMemory("none left")

    batcher = MicroBatcher(fails, delay_s=0)
    for _ in range(2):
        errors = await asyncio.gather(
            *(batcher.predict(picture(), engine, RequestContext(Metrics())) for _ in range(2)),
            return_exceptions=True,
        )
        assert [type(error) for error in errors] == [OutOfMemory, OutOfMemory]


async def test_full_batch_starts_before_the_delay_ends(engine: Engine) -> None:
    runner = HeldRunner()
    runner.release.set()
    batcher = MicroBatcher(runner, delay_s=60)
    async with asyncio.timeout(10):
        await asyncio.gather(*(batcher.predict(picture(), engine, RequestContext(Metrics())) for _ in range(3)))
    assert runner.sizes == [3]


async def test_pipeline_batches_if_the_engine_supports_it(engine: Engine) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Settings(max_batch_delay_ms=50), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def predict(seed: int) -> None:
        async with pipeline.admission() as context:
            prediction = await pipeline.predict(picture(seed=seed), engine, context, connected)
        np.testing.assert_array_equal(prediction.mask_HW, nearest(picture(seed=seed), COLORS))

    await asyncio.gather(*(predict(seed) for seed in range(5)))
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 5
    assert sample(metrics, "maskloop_segment_batch_images_count") == 2


async def test_image_of_a_disconnected_client_is_left_out_of_the_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.segmentation.pipeline.DISCONNECT_POLL_S", 0.01)
    metrics = Metrics()
    pipeline = Pipeline(Settings(), metrics, Limits(max_bytes=10**6, max_pixels=10**6))
    disconnect = asyncio.Event()

    async def disconnected() -> bool:
        return disconnect.is_set()

    async def predict(client_disconnected: Callable[[], Awaitable[bool]]) -> Prediction:
        async with pipeline.admission() as context:
            return await pipeline.predict(picture(), engine, context, client_disconnected)

    acquired = [await pipeline._gpu.acquire(0) for _ in range(CONCURRENT_GPU_BATCHES)]
    ending, remaining = asyncio.create_task(predict(disconnected)), asyncio.create_task(predict(connected))
    await _run_other_tasks()
    disconnect.set()
    with pytest.raises(ClientDisconnected):
        async with asyncio.timeout(60):
            await ending
    for slots in acquired:
        pipeline._gpu.release(slots)
    await remaining
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


def test_images_run_one_by_one_if_the_batch_runs_out_of_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine._run

    def run_single(image_NHW3: Pixels, *arguments: Any) -> list[Prediction]:
        if len(image_NHW3) > 1:
            raise OutOfMemory("none left")
        return run(image_NHW3, *arguments)

    monkeypatch.setattr(engine, "_run", run_single)
    assert len(engine.run_batch([picture(), picture(seed=1)])) == 2


async def test_image_that_waited_too_long_is_rejected_and_left_out_of_the_batch(engine: Engine) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Settings(), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def predict(max_wait_s: float | None) -> Prediction:
        async with pipeline.admission() as context:
            context.max_wait_s = max_wait_s
            return await pipeline.predict(picture(), engine, context, connected)

    acquired = [await pipeline._gpu.acquire(0) for _ in range(CONCURRENT_GPU_BATCHES)]
    limited, unlimited = asyncio.create_task(predict(0.02)), asyncio.create_task(predict(None))
    with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
        async with asyncio.timeout(60):
            await limited
    for slots in acquired:
        pipeline._gpu.release(slots)
    await unlimited
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1


async def test_wait_limit_does_not_count_the_inference(engine: Engine) -> None:
    async def run_slowly(engine: Predictor, _: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        batch = images()
        await asyncio.sleep(0.6)
        return engine.run_batch(batch)

    context = RequestContext(Metrics())
    context.max_wait_s = 0.5
    await MicroBatcher(run_slowly, delay_s=0).predict(picture(), engine, context)
    assert context.seconds["infer"] > context.max_wait_s


async def test_wait_estimate_divides_a_batch_by_its_images_and_the_gpu_runs(engine: Engine) -> None:
    settings = Settings(max_batch_delay_ms=50, inference_threads=2)
    pipeline = Pipeline(settings, Metrics(), Limits(max_bytes=10**6, max_pixels=10**6))
    infer_s = list[float]()

    async def predict() -> None:
        async with pipeline.admission() as context:
            await pipeline.predict(picture(), engine, context, connected)
        infer_s.append(context.seconds["infer"])

    await asyncio.gather(*(predict() for _ in range(3)))
    pipeline.close()
    # Three images share a batch, and two batches run at once.
    assert 0 < pipeline._wait_estimator.mean_s <= max(infer_s) / 3 / CONCURRENT_GPU_BATCHES


async def test_batch_size_is_limited_by_memory(bundle: Path) -> None:
    def budget(max_bytes: int) -> MemoryBudget:
        return MemoryBudget(max_bytes=max_bytes, max_native_pixels=10**6, classes=3, long_side=0)

    image = picture()
    height, width = image.shape[:2]
    one = budget(10**9).estimate(height, width)
    small = Engine(bundle / "model.onnx", threads=1, budget=budget(5 * one // 2))
    assert small.plan(height, width).max_batch == 1
    # As on a GPU.
    small.max_batch = 3
    assert small.plan(height, width).max_batch == 2
    assert small.plan(2 * height, width).max_batch == 1

    runner = HeldRunner()
    batcher = MicroBatcher(runner, delay_s=0)
    tasks = [asyncio.create_task(batcher.predict(image, small, RequestContext(Metrics()))) for _ in range(5)]
    await _run_other_tasks()
    runner.release.set()
    await asyncio.gather(*tasks)
    assert sorted(runner.sizes) == [1, 2, 2]
