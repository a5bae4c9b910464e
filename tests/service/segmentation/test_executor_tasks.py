"""Work in thread pools, and requests that end before their work."""

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


async def test_work_cancelled_before_it_starts_does_not_run() -> None:
    cancelled, release, calls = threading.Event(), threading.Event(), list[str]()

    with ThreadPoolExecutor(1) as pool:
        first = submit(pool, lambda: release.wait(20))
        second = submit(pool, lambda: calls.append("second"), cancelled.is_set)
        cancelled.set()
        release.set()
        assert await first
        with pytest.raises(InferenceCancelled):
            await second
    assert calls == []


async def test_callback_runs_after_failed_work_and_its_error_is_dropped() -> None:
    release, calls = threading.Event(), list[str]()

    def fails() -> None:
        assert release.wait(20)
        raise ValueError("not awaited")

    with ThreadPoolExecutor(1) as pool:
        call_when_done(None, lambda: calls.append("no work"))
        work = submit(pool, fails)
        call_when_done(work, lambda: calls.append("done"))
        assert calls == ["no work"]
        release.set()
        await asyncio.wait([work])
    await asyncio.sleep(0)
    assert calls == ["no work", "done"]


async def test_request_cancelled_while_decoding_keeps_its_slot_until_the_thread_ends(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise more images would be decoded while its memory is still in use."""
    started, release = threading.Event(), threading.Event()

    class SlowImage(EncodedImage):
        def decode(self) -> DecodedImage:
            started.set()
            assert release.wait(20)
            return super().decode()

    monkeypatch.setattr("service.segmentation.pipeline.EncodedImage", SlowImage)
    pipeline = Pipeline(Settings(), Metrics(), Limits(max_bytes=10**6, max_pixels=10**6))
    engine = Engine(bundle / "model.onnx", threads=1)

    async def connected() -> bool:
        return False

    async def segment() -> None:
        async with pipeline.admission() as context:
            await pipeline.segment(encoded(picture()), engine, context, connected)

    task = asyncio.create_task(segment())
    await asyncio.to_thread(started.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pipeline._decoding.active == 1
    release.set()
    await asyncio.to_thread(eventually, lambda: not pipeline._decoding.active)
    pipeline.close()
