"""A request's way from bytes to an answer: admitted or refused, decoded, queued, inferred, encoded.

The event loop never does the work: decoding and encoding have a small thread pool, inference has its own, so that
one huge JPEG does not hold up the model nor the model the health checks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from service.cores import usable_cores
from service.metrics import Metrics
from service.segmentation.decode import Limits, Pixels, decode
from service.segmentation.door import Door
from service.segmentation.engine import Engine, Prediction
from service.settings import Settings

T = TypeVar("T")

# Decoded images that wait for their inference, so that it never waits for them. A large one has 72 MB.
DECODED_AHEAD = 2


class ClientGone(Exception):  # noqa: N818 - no error of ours: nobody is there to be told
    """The client hung up while its image waited; nothing was inferred."""


@dataclass(slots=True)
class Timings:
    """Seconds by stage, in the order of the stages."""

    metrics: Metrics
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, *, already_s: float = 0.0) -> Iterator[None]:
        """Measure one stage, of which so much is over already."""
        begin = time.perf_counter() - already_s
        yield
        self.seconds[name] = time.perf_counter() - begin
        self.metrics.stage_seconds.labels(name).observe(self.seconds[name])

    def header(self) -> str:
        """As a `Server-Timing` header: milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.seconds.items())


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The upright image (uint8 [H, W, 3], RGB) and what the model said about it."""

    image_HW3: Pixels
    prediction: Prediction


class Segmenter:
    """The two thread pools and the door in front of them. Belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, limits: Limits) -> None:
        self._limits = limits
        self._metrics = metrics
        self._door = Door(settings.max_concurrent_requests, metrics.admitted, metrics.refused)
        self._decoded = asyncio.Semaphore(settings.inference_workers + DECODED_AHEAD)
        self._turn = asyncio.Semaphore(settings.inference_workers)
        self._images = ThreadPoolExecutor(max(2, min(8, usable_cores())), thread_name_prefix="images")
        self._inference = ThreadPoolExecutor(settings.inference_workers, thread_name_prefix="inference")

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[Timings]:
        """A place among those that are served at one time, for as long as the block runs.

        Raises:
            Overloaded: All places are taken.
        """
        async with self._door.place():
            yield Timings(self._metrics)

    async def segment(
        self, data: bytes, engine: Engine, timings: Timings, gone: Callable[[], Awaitable[bool]]
    ) -> Segmentation:
        """Decode an encoded image and run it through the engine.

        Args:
            data: The image as it was sent.
            engine: Who answers; a swap meanwhile does not change it.
            timings: Gets `decode`, `queue` and `infer`.
            gone: Whether the client has hung up; asked once, when the image's turn has come.

        Raises:
            ClientGone: It has.
            ImageTooLarge: As `decode` and the engine's budget say.
            ImageUnsupported, ImageUnreadable: As `decode` says.
            OutOfMemory: The machine had none left.
        """
        begin = time.perf_counter()
        async with self._decoded:
            waited_s = time.perf_counter() - begin
            with timings.stage("decode"):
                image_HW3 = await self._in(self._images, lambda: decode(data, self._limits))
            return Segmentation(image_HW3, await self.predict(image_HW3, engine, timings, gone, waited_s=waited_s))

    async def predict(
        self,
        image_HW3: Pixels,
        engine: Engine,
        timings: Timings,
        gone: Callable[[], Awaitable[bool]],
        *,
        waited_s: float = 0.0,
    ) -> Prediction:
        """Run a decoded image through the engine when its turn comes.

        Args:
            image_HW3: uint8 [H, W, 3], RGB.
            engine: Who answers; a swap meanwhile does not change it.
            timings: Gets `queue` and `infer`.
            gone: Whether the client has hung up; asked once, when the image's turn has come.
            waited_s: What it has waited already.

        Raises:
            ClientGone: It has.
            ImageTooLarge: As the engine's budget says.
            OutOfMemory: The machine had none left.
        """
        # Before it waits for a turn that it will not need.
        engine.check(*image_HW3.shape[:2])
        with timings.stage("queue", already_s=waited_s):
            await self._turn.acquire()
        try:
            if await gone():
                self._metrics.dropped.inc()
                raise ClientGone
            with timings.stage("infer"):
                return await self._in(self._inference, lambda: engine.run(image_HW3))
        finally:
            self._turn.release()

    async def encode(self, render: Callable[[], T], timings: Timings) -> T:
        """Do the rendering of an answer beside the event loop; `timings` gets `encode`."""
        with timings.stage("encode"):
            return await self._in(self._images, render)

    def close(self) -> None:
        """Wait for what is running, and drop what is not."""
        for pool in (self._images, self._inference):
            pool.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
