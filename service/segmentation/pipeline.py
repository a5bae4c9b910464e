"""A request's way from bytes to an answer: admitted or refused, decoded, queued, inferred, encoded.

The event loop never does the work: decoding and encoding have a small thread pool, inference has its own, so that
one huge JPEG does not hold up the model nor the model the health checks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from service.cores import usable_cores
from service.errors import DeadlinePassed
from service.metrics import Metrics
from service.segmentation.admission.admission_gate import AdmissionGate, WaitPolicy
from service.segmentation.admission.micro_batcher import MicroBatcher
from service.segmentation.admission.priority_limiter import PriorityLimiter
from service.segmentation.admission.request_context import INTERACTIVE, RequestContext
from service.segmentation.admission.wait_estimator import WaitEstimator
from service.segmentation.decode import Limits, Pixels, decode, decoding_cost
from service.segmentation.executor_tasks import after, begin, within
from service.segmentation.inference.arena import release_memory
from service.segmentation.inference.predictor import Prediction, Predictor
from service.segmentation.inference.providers import CPU
from service.settings import Settings

T = TypeVar("T")
Gone = Callable[[], Awaitable[bool]]

# Decoded images that wait for their inference, so that it never waits for them. A large one has 72 MB.
DECODED_AHEAD = 2
# Parts of the memory limit that each of many may take without being counted: images as small as most are never held
# up by it, on however many cores.
LIGHT_DECODING, LIGHT_INFERENCE = 16, 4
# How often we look whether the client of a long inference is still there.
WATCH_S = 1.0
# On a GPU: while one batch, or image, computes, the next is copied.
GPU_RUNS = 2
# After so long without a request memory goes back to the system.
IDLE_S = 1.0


class ClientDisconnected(Exception):  # noqa: N818 - no error of ours: nobody is there to be told
    """The client hung up; its image is not inferred, or not to the end."""


@dataclass(frozen=True, slots=True)
class Result:
    """The upright image (uint8 [H, W, 3], RGB) and what the model said about it."""

    image_HW3: Pixels
    prediction: Prediction


class Pipeline:
    """The door, the turnstiles and the thread pools behind them. Belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, limits: Limits) -> None:
        cores = settings.threads
        self._limits = limits
        self._metrics = metrics
        self._pace = WaitEstimator(cores)
        patience = WaitPolicy(self._pace.wait_s, settings.max_wait_s, always=2 * cores)
        rejected = metrics.rejected.labels("overloaded")
        self._door = AdmissionGate(settings.max_concurrent_requests, metrics.admitted, rejected, patience)
        metrics.places.set(settings.max_concurrent_requests)
        # What is decoded and what is inferred may take as much memory each: the large among it share that.
        most = settings.max_inference_bytes
        self._light = most // LIGHT_DECODING
        self._ahead = cores + DECODED_AHEAD
        self._decoding = PriorityLimiter(self._ahead)
        self._decoding_large = PriorityLimiter(self._ahead, limit=most)
        self._cpu = PriorityLimiter(cores, limit=most, light=most // LIGHT_INFERENCE)
        self._gpu = PriorityLimiter(GPU_RUNS)
        # As the pace counts, which knows cores alone.
        self._gpu_share = max(1, cores // GPU_RUNS)
        self._batches = MicroBatcher(self._run_batch, settings.batch_delay_s)
        self._rest: asyncio.TimerHandle | None = None
        self._closed = False
        self._images = ThreadPoolExecutor(max(2, min(8, usable_cores())), thread_name_prefix="images")
        self._inference = ThreadPoolExecutor(max(cores, GPU_RUNS), thread_name_prefix="inference")

    @property
    def busy(self) -> int:
        """How many images under way keep a CPU busy."""
        return self._ahead

    def check_admission(self) -> None:
        """Ask whether one more would be admitted now, before anything is done for it; a refusal is counted.

        Raises:
            Overloaded: As `admission` says.
        """
        self._door.check()

    @asynccontextmanager
    async def admission(
        self,
        *,
        urgency: int = INTERACTIVE,
        timeout_s: float | None = None,
        model: str = "",
        wait_s: float | None = None,
    ) -> AsyncIterator[RequestContext]:
        """A place among those that are served at one time, for as long as the block runs.

        Args:
            urgency: 0 to 7, lower goes first.
            timeout_s: After which nobody wants the answer any more; None: they wait.
            model: The version that will answer, for the metrics.
            wait_s: How long to wait in line for a place; None: not at all.

        Raises:
            Overloaded: All places are taken, and were until then.
            DeadlinePassed: The block was not done in that time.
        """
        deadline = asyncio.timeout(None)
        visit = RequestContext(self._metrics, urgency, model, _deadline=deadline)
        place = self._door.place() if wait_s is None else self._door.admit_queued(urgency, wait_s)
        try:
            async with deadline:
                if timeout_s is not None:
                    visit.set_deadline(timeout_s)
                async with place as visit.max_wait_s, self._at_work():
                    yield visit
        except TimeoutError:
            if not deadline.expired():
                raise
            self._metrics.rejected.labels("deadline").inc()
            raise DeadlinePassed(
                f"There was no answer within the {visit.timeout_s:g} s that the request gave: give it more, or "
                "come back when less is going on."
            ) from None

    async def segment(self, data: bytes, engine: Predictor, visit: RequestContext, gone: Gone) -> Result:
        """Decode an encoded image and run it through the engine.

        Args:
            data: The image as it was sent.
            engine: Who answers; a swap meanwhile does not change it.
            visit: Gets `decode`, `queue` and `infer`.
            gone: Whether the client has hung up; asked when the image's turn has come, and every second after that.

        Raises:
            ClientDisconnected: It has.
            ImageTooLarge: As `decode` and the engine's budget say.
            ImageUnsupported, ImageUnreadable: As `decode` says.
            OutOfMemory: The machine had none left.
            Overloaded: Its turn did not come in the time for which it may wait.
        """
        since = time.perf_counter()
        weight = await within(self._images, lambda: decoding_cost(data, self._limits))
        # The large wait for each other in a row of their own, and not in the places of the small.
        decoding = self._decoding_large if weight > self._light else self._decoding
        taken = await self._turn(decoding, visit, weight=weight)
        work: asyncio.Future[Pixels] | None = None
        left = threading.Event()
        try:
            waited_s = time.perf_counter() - since
            with visit.stage("decode"):
                work = begin(self._images, lambda: decode(data, self._limits), left.is_set)
                image_HW3 = await asyncio.shield(work)
            decoding.lighten(weight, image_HW3.nbytes)
            weight = image_HW3.nbytes
            return Result(image_HW3, await self.predict(image_HW3, engine, visit, gone, waited_s=waited_s))
        finally:
            left.set()
            after(work, lambda: decoding.leave(taken, weight=weight))

    async def predict(
        self, image_HW3: Pixels, engine: Predictor, visit: RequestContext, gone: Gone, *, waited_s: float = 0.0
    ) -> Prediction:
        """Run a decoded image through the engine when its turn comes.

        Args:
            image_HW3: uint8 [H, W, 3], RGB.
            engine: Who answers; a swap meanwhile does not change it.
            visit: Gets `queue` and `infer`.
            gone: Whether the client has hung up; asked when the image's turn has come, and every second after that.
            waited_s: What it has waited already.

        Raises:
            ClientDisconnected: It has.
            ImageTooLarge: As the engine's budget says.
            OutOfMemory: The machine had none left.
            Overloaded: Its turn did not come in the time for which it may wait.
        """
        # Before it waits for a turn that it will not need.
        plan = engine.plan(*image_HW3.shape[:2])
        weight = plan.estimated_bytes
        if plan.max_batch > 1:
            await self._stay(gone)
            return await self._batched(image_HW3, engine, visit, gone, waited_s)
        turns, wanted = self._turns(engine, weight)
        with visit.stage("queue", already_s=waited_s):
            taken = await self._turn(turns, visit, wanted, weight=weight, waited_s=waited_s)
        threads = taken if turns is self._cpu else None
        work: asyncio.Future[Prediction] | None = None
        left = threading.Event()
        try:
            await self._stay(gone)
            with visit.stage("infer"):
                work = begin(self._inference, lambda: engine.run(image_HW3, threads, left.is_set))
                prediction = await self._watched(work, gone)
            self._pace.took(visit.seconds["infer"], threads or self._gpu_share)
            return prediction
        finally:
            left.set()
            after(work, lambda: turns.leave(taken, weight=weight))

    async def encode(self, render: Callable[[], T], visit: RequestContext) -> T:
        """Do the rendering of an answer beside the event loop; `visit` gets `encode`."""
        with visit.stage("encode"):
            return await within(self._images, render)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do other work of a request beside the event loop, among the decoding and encoding."""
        return await within(self._images, work)

    def close(self) -> None:
        """Wait for what is running, and drop what is not. May be called from another thread than the loop's."""
        self._closed = True
        for pool in (self._images, self._inference):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _turn(
        self,
        turnstile: PriorityLimiter,
        visit: RequestContext,
        wanted: Callable[[int], int] = lambda _: 1,
        *,
        weight: int,
        waited_s: float = 0.0,
    ) -> int:
        """Wait for a turn. The door expects how long that will be by what it has seen, and may have seen nothing yet.

        Raises:
            Overloaded: It took longer than one may wait.
        """
        longest_s = visit.max_wait_s
        try:
            async with asyncio.timeout(None if longest_s is None else longest_s - waited_s):
                return await turnstile.enter(visit.urgency, wanted, weight=weight)
        except TimeoutError:
            raise self._door.too_late() from None

    def _turns(self, engine: Predictor, weight: int) -> tuple[PriorityLimiter, Callable[[int], int]]:
        """Where an image waits for its turn, and how many places it takes there."""
        if engine.provider == CPU:
            return self._cpu, lambda free: self._width(engine, free, weight)
        return self._gpu, lambda _: 1

    def _width(self, engine: Predictor, free: int, weight: int) -> int:
        # Who is inside the door and not here yet, or not any more, has work for the cores as well; not so who waits for
        # the memory that this one takes.
        here = self._cpu.beside(weight)
        load = here if self._cpu.heavy(weight) else max(self._door.inside, here)
        return min(free, engine.threads_for(free=free, load=load))

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """Whoever leaves last sees to it that memory goes back, if nobody comes for a while."""
        if self._rest is not None:
            self._rest.cancel()
        try:
            yield
        finally:
            if self._door.inside == 1:
                self._rest = asyncio.get_running_loop().call_later(IDLE_S, self._give_back)

    def _give_back(self) -> None:
        # The timer is the loop's own, and not to be touched by the thread that closes us: so it asks.
        if not self._closed:
            begin(self._images, release_memory)

    async def _stay(self, gone: Gone) -> None:
        if await gone():
            self._metrics.rejected.labels("client_gone").inc()
            raise ClientDisconnected

    async def _watched(self, work: asyncio.Future[T], gone: Gone) -> T:
        """What comes of the work, unless the client leaves before."""
        while not work.done():
            # Unlike `wait_for`, it leaves the work alone when we are cancelled.
            await asyncio.wait([work], timeout=WATCH_S)
            if not work.done():
                await self._stay(gone)
        return work.result()

    async def _batched(
        self, image_HW3: Pixels, engine: Predictor, visit: RequestContext, gone: Gone, waited_s: float
    ) -> Prediction:
        member = asyncio.create_task(self._batches.predict(image_HW3, engine, visit, waited_s=waited_s))
        try:
            return await self._watched(member, gone)
        except TimeoutError:
            raise self._door.too_late() from None
        finally:
            # Who has left before the batch begins is left out of it.
            member.cancel()
            after(member, lambda: None)

    async def _run_batch(self, engine: Predictor, urgency: int, images: Callable[[], list[Pixels]]) -> list[Prediction]:
        taken = await self._gpu.enter(urgency)
        work: asyncio.Future[list[Prediction]] | None = None
        try:
            batch = images()
            if not batch:
                return []
            self._metrics.batch_images.observe(len(batch))
            since = time.perf_counter()
            work = begin(self._inference, lambda: engine.run_batch(batch))
            predictions = await asyncio.shield(work)
            self._pace.took((time.perf_counter() - since) / len(batch), self._gpu_share)
            return predictions
        finally:
            after(work, lambda: self._gpu.leave(taken))
