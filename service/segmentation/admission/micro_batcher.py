"""Dynamic batching for GPUs: images of one size and urgency go through the model together.

An image waits for others only while it waits for the GPU anyway, plus `delay_s`. On a CPU batching gains nothing:
images run one by one.
"""

# H W pixels

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from service.segmentation.admission.request_context import RequestContext
from service.segmentation.inference.predictor import Pixels, Prediction, Predictor

RunBatch = Callable[[Predictor, int, Callable[[], list[Pixels]]], Awaitable[list[Prediction]]]
"""Wait for the GPU by urgency, then call the function for the images, and run them."""

BatchKey = tuple[int, int, int, int]
"""Id of the predictor, height, width, urgency: images with the same key may share a batch."""


@dataclass(slots=True)
class _PendingImage:
    image_HW3: Pixels
    context: RequestContext
    prediction: asyncio.Future[Prediction]
    wait_timeout: asyncio.Timeout
    since: float


@dataclass(slots=True)
class _Batch:
    images: list[_PendingImage] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class MicroBatcher:
    """Forms batches; each waits `delay_s` seconds for more images, then for the GPU. Belongs to one event loop."""

    def __init__(self, run_batch: RunBatch, delay_s: float) -> None:
        self._run_batch = run_batch
        self._delay_s = delay_s
        self._batches: dict[BatchKey, _Batch] = {}

    async def predict(
        self, image_HW3: Pixels, predictor: Predictor, context: RequestContext, *, waited_s: float = 0.0
    ) -> Prediction:
        """Run an image, together with others of its size and urgency that arrive before the batch starts.

        The image is uint8 [H, W, 3] RGB and has waited `waited_s` seconds already. `context` receives the stages
        `queue` and `infer`; its `max_wait_s` limits the wait.

        Raises:
            TimeoutError: The batch did not start within `max_wait_s`.
            Others as `Predictor.run_batch`.
        """
        max_wait_s = context.max_wait_s
        async with asyncio.timeout(None if max_wait_s is None else max_wait_s - waited_s) as wait_timeout:
            prediction: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
            since = time.perf_counter() - waited_s
            self._add(_PendingImage(image_HW3, context, prediction, wait_timeout, since), predictor)
            return await prediction

    def _add(self, image: _PendingImage, predictor: Predictor) -> None:
        height, width = image.image_HW3.shape[:2]
        key = (id(predictor), height, width, image.context.urgency)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch()
            batch.task = asyncio.create_task(self._process(key, batch, predictor))
        batch.images.append(image)
        if len(batch.images) >= predictor.plan(height, width).max_batch:
            batch.full.set()
            self._close(key, batch)

    def _close(self, key: BatchKey, batch: _Batch) -> None:
        if self._batches.get(key) is batch:
            del self._batches[key]

    async def _process(self, key: BatchKey, batch: _Batch, predictor: Predictor) -> None:
        if self._delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(batch.full.wait(), self._delay_s)
        started: list[_PendingImage] = []

        def start() -> list[Pixels]:
            """Called when the GPU is free: take the images whose requests still wait."""
            self._close(key, batch)
            started.extend(image for image in batch.images if not image.prediction.done())
            for image in started:
                image.wait_timeout.reschedule(None)
                image.context.batch = len(started)
                image.context.record_stage("queue", time.perf_counter() - image.since)
                image.since = time.perf_counter()
            return [image.image_HW3 for image in started]

        try:
            predictions = await self._run_batch(predictor, key[-1], start)
        except Exception as error:
            self._close(key, batch)
            for image in batch.images:
                if not image.prediction.done():
                    image.prediction.set_exception(error)
            return
        for image, prediction in zip(started, predictions, strict=True):
            image.context.record_stage("infer", time.perf_counter() - image.since)
            if not image.prediction.done():
                image.prediction.set_result(prediction)
