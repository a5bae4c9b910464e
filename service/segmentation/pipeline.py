"""The path of a segmentation request: admit or reject, decode, queue, infer, encode.

Decoding and encoding share a small thread pool and inference has its own, so that one huge JPEG does not delay the
model. The event loop does none of this work, so that it answers health checks at any load.
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
from service.segmentation.decode import DecodedImage, EncodedImage, Limits, Pixels
from service.segmentation.executor_tasks import call_when_done, submit
from service.segmentation.formats.rgb import ValueRange
from service.segmentation.inference.arena import release_memory
from service.segmentation.inference.predictor import Prediction, Predictor
from service.segmentation.inference.providers import CPU
from service.settings import Settings

T = TypeVar("T")
DisconnectCheck = Callable[[], Awaitable[bool]]
"""Returns whether the client has closed its connection."""

# Images decoded ahead, so that inference never waits for decoding. A large one takes 72 MB.
DECODED_AHEAD = 2
# An image that needs at most 1/16 (decoding) or 1/4 (inference) of the memory limit does not count against it.
SMALL_DECODING_DIVISOR, SMALL_INFERENCE_DIVISOR = 16, 4
DISCONNECT_POLL_S = 1.0
# Batches in progress on a GPU: one computes while the next is copied.
CONCURRENT_GPU_BATCHES = 2
# Time without a request after which unused memory is returned to the system.
IDLE_S = 1.0


class ClientDisconnected(Exception):  # noqa: N818 - not an error: no client receives it
    """The client closed the connection; its inference is not started or, outside a GPU batch, is stopped."""


@dataclass(frozen=True, slots=True)
class Result:
    """A decoded image and its prediction."""

    image: DecodedImage
    prediction: Prediction


class Pipeline:
    """Run segmentation requests, from admission to encoding. Belongs to one event loop."""

    def __init__(
        self, settings: Settings, metrics: Metrics, limits: Limits, on_admission: Callable[[], None] = lambda: None
    ) -> None:
        """`on_admission` is called for each admitted request; work in the background stops then."""
        cores = settings.threads
        self._on_admission = on_admission
        self._limits = limits
        self._metrics = metrics
        self._wait_estimator = WaitEstimator(cores)
        policy = WaitPolicy(self._wait_estimator.wait_s, settings.max_wait_s, unlimited_requests=2 * cores)
        rejected = metrics.rejected.labels("overloaded")
        self._gate = AdmissionGate(settings.max_concurrent_requests, metrics.admitted, rejected, policy)
        metrics.capacity.set(settings.max_concurrent_requests)
        # The memory limit applies to large images, separately in decoding and in inference.
        memory_limit = settings.max_inference_bytes
        self._small_decoding_bytes = memory_limit // SMALL_DECODING_DIVISOR
        self._decode_slots = cores + DECODED_AHEAD
        self._decoding = PriorityLimiter(self._decode_slots)
        self._large_decoding = PriorityLimiter(self._decode_slots, memory_limit=memory_limit)
        self._cpu = PriorityLimiter(
            cores, memory_limit=memory_limit, small_bytes=memory_limit // SMALL_INFERENCE_DIVISOR
        )
        self._gpu = PriorityLimiter(CONCURRENT_GPU_BATCHES)
        # The wait estimator counts in cores: a GPU batch counts as this many.
        self._cores_per_gpu_batch = max(1, cores // CONCURRENT_GPU_BATCHES)
        self._micro_batcher = MicroBatcher(self._run_batch, settings.batch_delay_s)
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._image_pool = ThreadPoolExecutor(max(2, min(8, usable_cores())), thread_name_prefix="images")
        self._inference_pool = ThreadPoolExecutor(max(cores, CONCURRENT_GPU_BATCHES), thread_name_prefix="inference")

    @property
    def saturating_images(self) -> int:
        """Number of concurrent images that keeps a CPU busy."""
        return self._decode_slots

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress. May be read by any thread."""
        return self._gate.in_progress > 0

    def check_admission(self) -> None:
        """Raise Overloaded if a request would be rejected now."""
        self._gate.check()

    @asynccontextmanager
    async def admission(
        self,
        *,
        urgency: int = INTERACTIVE,
        timeout_s: float | None = None,
        model: str = "",
        wait_s: float | None = None,
    ) -> AsyncIterator[RequestContext]:
        """Admit a request for the duration of the block.

        Args:
            urgency: 0 to 7, lower goes first.
            timeout_s: Seconds after which the client no longer needs the answer; None: no deadline.
            model: Version of the model, for the metrics.
            wait_s: Longest wait for admission of a batch request, in seconds; None: interactive, admitted or
                rejected at once.

        Raises:
            Overloaded: The service is full, or the queueing time would be too long.
            DeadlinePassed: The block did not end within `timeout_s`.
        """
        deadline = asyncio.timeout(None)
        context = RequestContext(self._metrics, urgency, model, _deadline=deadline)
        admitted = self._gate.admit() if wait_s is None else self._gate.admit_queued(urgency, wait_s)
        try:
            async with deadline:
                if timeout_s is not None:
                    context.set_deadline(timeout_s)
                async with admitted as context.max_wait_s, self._release_memory_when_idle():
                    self._on_admission()
                    yield context
        except TimeoutError:
            if not deadline.expired():
                raise
            self._metrics.rejected.labels("deadline").inc()
            raise DeadlinePassed(
                f"The request's timeout of {context.timeout_s:g} s passed before the response was ready: allow more "
                "time, or try again when the load is lower."
            ) from None

    async def segment(
        self,
        data: bytes,
        predictor: Predictor,
        context: RequestContext,
        client_disconnected: DisconnectCheck,
        value_range: ValueRange | None = None,
    ) -> Result:
        """Decode an encoded image and run it through the model; `predictor` is used even if the active model changes.

        `context` receives the stages `decode`, `queue` and `infer`. `client_disconnected` is called as in `predict`.

        Raises:
            ImageTooLarge, ImageUnsupported, ImageUnreadable: See `decode`.
            ClientDisconnected, ImageTooLarge, OutOfMemory, Overloaded: See `predict`.
        """
        begin = time.perf_counter()
        encoded = await submit(self._image_pool, lambda: EncodedImage(data, self._limits, value_range))
        memory_bytes = encoded.decode_bytes
        # Large images have a limiter of their own, so that small ones do not wait for them.
        limiter = self._large_decoding if memory_bytes > self._small_decoding_bytes else self._decoding
        slots = await self._acquire(limiter, context, memory_bytes=memory_bytes)
        work: asyncio.Future[DecodedImage] | None = None
        cancelled = threading.Event()
        try:
            waited_s = time.perf_counter() - begin
            with context.stage("decode"):
                work = submit(self._image_pool, encoded.decode, cancelled.is_set)
                image = await asyncio.shield(work)
            limiter.shrink(memory_bytes, image.image_HW3.nbytes)
            memory_bytes = image.image_HW3.nbytes
            prediction = await self.predict(image.image_HW3, predictor, context, client_disconnected, waited_s=waited_s)
            return Result(image, prediction)
        finally:
            cancelled.set()
            call_when_done(work, lambda: limiter.release(slots, memory_bytes=memory_bytes))

    async def predict(
        self,
        image_HW3: Pixels,
        predictor: Predictor,
        context: RequestContext,
        client_disconnected: DisconnectCheck,
        *,
        waited_s: float = 0.0,
    ) -> Prediction:
        """Run the model on a decoded image, uint8 [H, W, 3] RGB, that has waited `waited_s` seconds already.

        `context` receives the stages `queue` and `infer`. `client_disconnected` is called before the inference and
        every second during it and while the image waits for its batch.

        Raises:
            ClientDisconnected: The client closed the connection.
            ImageTooLarge: Its inference needs more than `max_inference_bytes`.
            OutOfMemory: The machine lacks the memory.
            Overloaded: It waited in queues longer than `context.max_wait_s`.
        """
        # Plan before queueing: `plan` raises ImageTooLarge.
        plan = predictor.plan(*image_HW3.shape[:2])
        memory_bytes = plan.estimated_bytes
        if plan.max_batch > 1:
            await self._raise_if_disconnected(client_disconnected)
            return await self._predict_in_batch(image_HW3, predictor, context, client_disconnected, waited_s)
        limiter, wanted_slots = self._limiter_for(predictor, memory_bytes)
        with context.stage("queue", elapsed_s=waited_s):
            slots = await self._acquire(limiter, context, wanted_slots, memory_bytes=memory_bytes, waited_s=waited_s)
        threads = slots if limiter is self._cpu else None
        work: asyncio.Future[Prediction] | None = None
        cancelled = threading.Event()
        try:
            await self._raise_if_disconnected(client_disconnected)
            with context.stage("infer"):
                work = submit(self._inference_pool, lambda: predictor.run(image_HW3, threads, cancelled.is_set))
                prediction = await self._await_connected(work, client_disconnected)
            self._wait_estimator.record(context.seconds["infer"], threads or self._cores_per_gpu_batch)
            return prediction
        finally:
            cancelled.set()
            call_when_done(work, lambda: limiter.release(slots, memory_bytes=memory_bytes))

    async def encode(self, render: Callable[[], T], context: RequestContext) -> T:
        """Render the answer in a thread; `context` receives the stage `encode`."""
        with context.stage("encode"):
            return await submit(self._image_pool, render)

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Do other work in the threads that decode and encode."""
        return await submit(self._image_pool, work)

    def close(self) -> None:
        """Wait for running work and drop the rest. May be called from any thread."""
        self._closed = True
        for pool in (self._image_pool, self._inference_pool):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _acquire(
        self,
        limiter: PriorityLimiter,
        context: RequestContext,
        wanted_slots: Callable[[int], int] = lambda _: 1,
        *,
        memory_bytes: int,
        waited_s: float = 0.0,
    ) -> int:
        """Acquire slots, or raise Overloaded: the estimate at admission may have been wrong."""
        max_wait_s = context.max_wait_s
        try:
            async with asyncio.timeout(None if max_wait_s is None else max_wait_s - waited_s):
                return await limiter.acquire(context.urgency, wanted_slots, memory_bytes=memory_bytes)
        except TimeoutError:
            raise self._gate.wait_exceeded() from None

    def _limiter_for(self, predictor: Predictor, memory_bytes: int) -> tuple[PriorityLimiter, Callable[[int], int]]:
        if predictor.provider == CPU:
            return self._cpu, lambda free: self._threads_for(predictor, free, memory_bytes)
        return self._gpu, lambda _: 1

    def _threads_for(self, predictor: Predictor, free: int, memory_bytes: int) -> int:
        # Requests that decode or encode need cores as well. For a large image only the inferences count that fit into
        # memory beside it: all others wait for its end.
        inferences = self._cpu.max_concurrent(memory_bytes)
        load = inferences if self._cpu.is_large(memory_bytes) else max(self._gate.in_progress, inferences)
        return min(free, predictor.threads_for(free=free, load=load))

    @asynccontextmanager
    async def _release_memory_when_idle(self) -> AsyncIterator[None]:
        """Start a timer when the last request ends; if no other comes, unused memory is returned to the system."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        try:
            yield
        finally:
            # This request still counts.
            if self._gate.in_progress == 1:
                self._idle_timer = asyncio.get_running_loop().call_later(IDLE_S, self._return_memory)

    def _return_memory(self) -> None:
        # The timer belongs to the loop, so `close`, which may run in another thread, cannot cancel it.
        if not self._closed:
            submit(self._image_pool, release_memory)

    async def _raise_if_disconnected(self, client_disconnected: DisconnectCheck) -> None:
        if await client_disconnected():
            self._metrics.rejected.labels("client_gone").inc()
            raise ClientDisconnected

    async def _await_connected(self, work: asyncio.Future[T], client_disconnected: DisconnectCheck) -> T:
        while not work.done():
            # Unlike `wait_for`, this does not cancel the work on cancellation.
            await asyncio.wait([work], timeout=DISCONNECT_POLL_S)
            if not work.done():
                await self._raise_if_disconnected(client_disconnected)
        return work.result()

    async def _predict_in_batch(
        self,
        image_HW3: Pixels,
        predictor: Predictor,
        context: RequestContext,
        client_disconnected: DisconnectCheck,
        waited_s: float,
    ) -> Prediction:
        work = asyncio.create_task(self._micro_batcher.predict(image_HW3, predictor, context, waited_s=waited_s))
        try:
            return await self._await_connected(work, client_disconnected)
        except TimeoutError:
            raise self._gate.wait_exceeded() from None
        finally:
            # An image cancelled before its batch starts is left out of it.
            work.cancel()
            # Retrieves its exception.
            call_when_done(work, lambda: None)

    async def _run_batch(
        self, predictor: Predictor, urgency: int, take_images: Callable[[], list[Pixels]]
    ) -> list[Prediction]:
        slots = await self._gpu.acquire(urgency)
        work: asyncio.Future[list[Prediction]] | None = None
        try:
            images = take_images()
            if not images:
                return []
            self._metrics.batch_images.observe(len(images))
            begin = time.perf_counter()
            work = submit(self._inference_pool, lambda: predictor.run_batch(images))
            predictions = await asyncio.shield(work)
            self._wait_estimator.record((time.perf_counter() - begin) / len(images), self._cores_per_gpu_batch)
            return predictions
        finally:
            call_when_done(work, lambda: self._gpu.release(slots))
