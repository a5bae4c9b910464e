"""Images that go together: who joins whom, and that one who leaves or fails takes nobody along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

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
from service.segmentation.pipeline import GPU_RUNS, ClientDisconnected, Pipeline
from service.settings import Settings
from tests.service.conftest import sample
from tests.service.tiny_bundle import COLORS, nearest, picture


@pytest.fixture
def engine(bundle: Path) -> Engine:
    opened = Engine(bundle / "model.onnx", threads=1)
    # As on a GPU.
    opened.max_batch = 3
    return opened


class Held:
    """Runs batcher when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.sizes: list[int] = []

    async def __call__(self, engine: Predictor, _urgency: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        await self.go.wait()
        batch = images()
        self.sizes.append(len(batch))
        return engine.run_batch(batch)


async def connected() -> bool:
    return False


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_of_one_size_go_together_up_to_the_most(engine: Engine) -> None:
    held, visits = Held(), [RequestContext(Metrics()) for _ in range(6)]
    batcher = MicroBatcher(held, delay_s=0)
    images = [picture(seed=seed) for seed in range(5)] + [picture(50, 20)]
    asked = [
        asyncio.create_task(batcher.predict(image, engine, context))
        for image, context in zip(images, visits, strict=True)
    ]
    await _settle()
    held.go.set()
    for image, prediction in zip(images, await asyncio.gather(*asked), strict=True):
        np.testing.assert_array_equal(prediction.mask_HW, nearest(image, COLORS))
    assert sorted(held.sizes) == [1, 2, 3]
    assert all(list(context.seconds) == ["queue", "infer"] for context in visits)


async def test_who_left_is_not_run(engine: Engine) -> None:
    held = Held()
    batcher = MicroBatcher(held, delay_s=0)
    asked = [asyncio.create_task(batcher.predict(picture(), engine, RequestContext(Metrics()))) for _ in range(2)]
    await _settle()
    asked[0].cancel()
    await _settle()
    held.go.set()
    await asked[1]
    assert held.sizes == [1]


async def test_a_failure_is_told_to_all_and_the_next_batch_is_another(engine: Engine) -> None:
    async def fails(engine: Predictor, urgency: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        images()
        raise OutOfMemory("none left")

    batcher = MicroBatcher(fails, delay_s=0)
    for _ in range(2):
        found = await asyncio.gather(
            *(batcher.predict(picture(), engine, RequestContext(Metrics())) for _ in range(2)),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [OutOfMemory, OutOfMemory]


async def test_a_full_batch_does_not_wait_for_its_delay(engine: Engine) -> None:
    held = Held()
    held.go.set()
    batcher = MicroBatcher(held, delay_s=60)
    async with asyncio.timeout(10):
        await asyncio.gather(*(batcher.predict(picture(), engine, RequestContext(Metrics())) for _ in range(3)))
    assert held.sizes == [3]


async def test_the_segmenter_batches_where_the_engine_wants_it(engine: Engine) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Settings(max_batch_delay_ms=50), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one(seed: int) -> None:
        async with pipeline.admission() as context:
            found = await pipeline.predict(picture(seed=seed), engine, context, connected)
        np.testing.assert_array_equal(found.mask_HW, nearest(picture(seed=seed), COLORS))

    await asyncio.gather(*(one(seed) for seed in range(5)))
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 5
    assert sample(metrics, "maskloop_segment_batch_images_count") == 2


async def test_who_hangs_up_while_a_batch_waits_is_left_out_of_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.segmentation.pipeline.DISCONNECT_POLL_S", 0.01)
    metrics = Metrics()
    pipeline = Pipeline(Settings(), metrics, Limits(max_bytes=10**6, max_pixels=10**6))
    hung_up = asyncio.Event()

    async def gone() -> bool:
        return hung_up.is_set()

    async def one(leaves: Callable[[], Awaitable[bool]]) -> Prediction:
        async with pipeline.admission() as context:
            return await pipeline.predict(picture(), engine, context, leaves)

    taken = [await pipeline._gpu.acquire(0) for _ in range(GPU_RUNS)]
    leaving, staying = asyncio.create_task(one(gone)), asyncio.create_task(one(connected))
    await _settle()
    hung_up.set()
    with pytest.raises(ClientDisconnected):
        async with asyncio.timeout(60):
            await leaving
    for places in taken:
        pipeline._gpu.release(places)
    await staying
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="client_gone") == 1


def test_where_a_batch_has_no_memory_each_has_its_own_try(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine._run

    def small(image_NHW3: Pixels, threads: int | None) -> list[Prediction]:
        if len(image_NHW3) > 1:
            raise OutOfMemory("none left")
        return run(image_NHW3, threads)

    monkeypatch.setattr(engine, "_run", small)
    assert len(engine.run_batch([picture(), picture(seed=1)])) == 2


async def test_who_waited_too_long_is_told_so_and_left_out(engine: Engine) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Settings(), metrics, Limits(max_bytes=10**6, max_pixels=10**6))

    async def one(longest_s: float | None) -> Prediction:
        async with pipeline.admission() as context:
            context.max_wait_s = longest_s
            return await pipeline.predict(picture(), engine, context, connected)

    taken = [await pipeline._gpu.acquire(0) for _ in range(GPU_RUNS)]
    hurried, patient = asyncio.create_task(one(0.02)), asyncio.create_task(one(None))
    with pytest.raises(Overloaded, match="MASKLOOP_MAX_WAIT_S"):
        async with asyncio.timeout(60):
            await hurried
    for places in taken:
        pipeline._gpu.release(places)
    await patient
    pipeline.close()
    assert sample(metrics, "maskloop_segment_batch_images_sum") == 1
    assert sample(metrics, "maskloop_segment_rejected_total", reason="overloaded") == 1


async def test_whose_turn_has_come_is_waited_for(engine: Engine) -> None:
    """The limit is for the wait, and not for the inference."""

    async def slowly(engine: Predictor, _: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        batch = images()
        await asyncio.sleep(0.6)
        return engine.run_batch(batch)

    context = RequestContext(Metrics())
    context.max_wait_s = 0.5
    await MicroBatcher(slowly, delay_s=0).predict(picture(), engine, context)
    assert context.seconds["infer"] > context.max_wait_s


async def test_the_door_learns_from_batches_how_fast_a_gpu_gets_on(engine: Engine) -> None:
    settings = Settings(max_batch_delay_ms=50, inference_threads=2)
    pipeline = Pipeline(settings, Metrics(), Limits(max_bytes=10**6, max_pixels=10**6))
    took = list[float]()

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.predict(picture(), engine, context, connected)
        took.append(context.seconds["infer"])

    await asyncio.gather(*(one() for _ in range(3)))
    pipeline.close()
    # Three together, and another three beside them.
    assert 0 < pipeline._wait_estimator.mean_s <= max(took) / 3 / GPU_RUNS


async def test_no_more_go_together_than_have_memory(bundle: Path) -> None:
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

    held = Held()
    batcher = MicroBatcher(held, delay_s=0)
    asked = [asyncio.create_task(batcher.predict(image, small, RequestContext(Metrics()))) for _ in range(5)]
    await _settle()
    held.go.set()
    await asyncio.gather(*asked)
    assert sorted(held.sizes) == [1, 2, 2]
