"""Work in threads, and a request that ends before its own does."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.segmentation.decode import DecodedImage, EncodedImage, Limits
from service.segmentation.executor_tasks import call_when_done, submit
from service.segmentation.inference.cancellation import InferenceCancelled
from service.segmentation.inference.engine import Engine
from service.segmentation.pipeline import Pipeline
from service.settings import Settings
from tests.service.conftest import encoded, eventually
from tests.service.tiny_bundle import picture


async def test_what_nobody_waits_for_when_a_thread_is_free_is_not_begun() -> None:
    left, go, done = threading.Event(), threading.Event(), list[str]()

    with ThreadPoolExecutor(1) as pool:
        first = submit(pool, lambda: go.wait(20))
        second = submit(pool, lambda: done.append("second"), left.is_set)
        left.set()
        go.set()
        assert await first
        with pytest.raises(InferenceCancelled):
            await second
    assert done == []


async def test_leaving_waits_for_the_thread_and_hears_no_error() -> None:
    go, seen = threading.Event(), list[str]()

    def fails() -> None:
        assert go.wait(20)
        raise ValueError("nobody is there to be told")

    with ThreadPoolExecutor(1) as pool:
        call_when_done(None, lambda: seen.append("nothing was begun"))
        work = submit(pool, fails)
        call_when_done(work, lambda: seen.append("over"))
        assert seen == ["nothing was begun"]
        go.set()
        await asyncio.wait([work])
    await asyncio.sleep(0)
    assert seen == ["nothing was begun", "over"]


async def test_a_request_that_ends_while_it_is_decoded_keeps_its_place_until_its_thread_is_free(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else others would be decoded beside it, in memory that it still holds."""
    begun, go = threading.Event(), threading.Event()

    class SlowImage(EncodedImage):
        def decode(self) -> DecodedImage:
            begun.set()
            assert go.wait(20)
            return super().decode()

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", SlowImage)
    pipeline = Pipeline(Settings(), Metrics(), Limits(max_bytes=10**6, max_pixels=10**6))
    engine = Engine(bundle / "model.onnx", threads=1)

    async def connected() -> bool:
        return False

    async def one() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(encoded(picture()), engine, context, connected)

    asked = asyncio.create_task(one())
    await asyncio.to_thread(begun.wait, 20)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert pipeline._decoding.active == 1
    go.set()
    await asyncio.to_thread(eventually, lambda: not pipeline._decoding.active)
    pipeline.close()
