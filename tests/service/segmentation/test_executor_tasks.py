"""Work in threads, and a request that ends before its own does."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.segmentation.decode import Limits, Pixels, decode
from service.segmentation.executor_tasks import after, begin
from service.segmentation.inference.cancellation import InferenceCancelled
from service.segmentation.inference.engine import Engine
from service.segmentation.pipeline import Pipeline
from service.settings import Settings
from tests.service.conftest import encoded, eventually
from tests.service.tiny_bundle import picture


def test_what_nobody_waits_for_when_a_thread_is_free_is_not_begun() -> None:
    left, go, done = threading.Event(), threading.Event(), list[str]()

    async def scene() -> None:
        with ThreadPoolExecutor(1) as pool:
            first = begin(pool, lambda: go.wait(20))
            second = begin(pool, lambda: done.append("second"), left.is_set)
            left.set()
            go.set()
            assert await first
            with pytest.raises(InferenceCancelled):
                await second

    asyncio.run(scene())
    assert done == []


def test_leaving_waits_for_the_thread_and_hears_no_error() -> None:
    go, seen = threading.Event(), list[str]()

    def fails() -> None:
        assert go.wait(20)
        raise ValueError("nobody is there to be told")

    async def scene() -> None:
        with ThreadPoolExecutor(1) as pool:
            after(None, lambda: seen.append("nothing was begun"))
            work = begin(pool, fails)
            after(work, lambda: seen.append("over"))
            assert seen == ["nothing was begun"]
            go.set()
            await asyncio.wait([work])
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert seen == ["nothing was begun", "over"]


def test_a_request_that_ends_while_it_is_decoded_keeps_its_place_until_its_thread_is_free(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else others would be decoded beside it, in memory that it still holds."""
    begun, go = threading.Event(), threading.Event()

    def slowly(data: bytes, limits: Limits) -> Pixels:
        begun.set()
        assert go.wait(20)
        return decode(data, limits)

    monkeypatch.setattr("service.segmentation.pipeline.decode", slowly)
    segmenter = Pipeline(Settings(), Metrics(), Limits(max_bytes=10**6, max_pixels=10**6))
    engine = Engine(bundle / "model.onnx", threads=1)

    async def stays() -> bool:
        return False

    async def one() -> None:
        async with segmenter.admission() as visit:
            await segmenter.segment(encoded(picture()), engine, visit, stays)

    async def scene() -> None:
        asked = asyncio.create_task(one())
        await asyncio.to_thread(begun.wait, 20)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert segmenter._decoding.inside == 1
        go.set()
        await asyncio.to_thread(eventually, lambda: not segmenter._decoding.inside)

    asyncio.run(scene())
    segmenter.close()
