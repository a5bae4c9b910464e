"""Execute an inference request: run its images through the pipeline, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from service.errors import ImageTooLarge
from service.models.loading import LoadedModel
from service.open_inference.infer_request import InferRequest
from service.open_inference.infer_response import Output
from service.open_inference.parameters import InferPriority
from service.open_inference.statistics import RequestTimings
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.decode import Pixels
from service.segmentation.inference.predictor import Mask
from service.segmentation.output.description import mean_confidence
from service.segmentation.output.png import mask_png
from service.segmentation.pipeline import DisconnectCheck, Pipeline

T = TypeVar("T")
Row = dict[str, Any]
"""Values for one image, by name of the output, and what of the file was `IGNORED`."""
IGNORED = "ignored"
OnResult = Callable[[Pixels, Mask], None]
MAX_CONCURRENT = 8
"""Concurrent images of a request, to leave room for others; more on a GPU with larger batches."""


async def execute(
    request: InferRequest,
    loaded: LoadedModel,
    pipeline: Pipeline,
    *,
    context: RequestContext,
    timings: RequestTimings,
    client_disconnected: DisconnectCheck,
    on_result: OnResult,
) -> list[Row]:
    """Run the images of a request through the model; return one row per image, in their order.

    `timings` receives the stages of each image, `context` their sum, and `on_result` each image with its mask.

    Raises MaskloopError of the first image that fails (the others are cancelled), Overloaded if the first image waited
    longer than `context.max_wait_s`, or ClientDisconnected.
    """
    urgency = _apply_priority(request.priority, context)
    contexts = [RequestContext(context.metrics, urgency, context.model) for _ in request.images]
    # Only the first image has a wait limit: the others wait for the images of their own request.
    contexts[0].max_wait_s = context.max_wait_s
    jobs = [
        partial(_run_image, image, loaded, pipeline, own, client_disconnected, on_result=on_result)
        for image, own in zip(request.images, contexts, strict=True)
    ]
    limit = max(min(MAX_CONCURRENT, pipeline.saturating_images), loaded.engine.max_batch)
    rows = await run_limited(jobs, limit)
    context.seconds |= _sum_stages(contexts)
    timings.add_images(contexts)
    return rows


def check_pixels(request: InferRequest, max_pixels: int) -> None:
    """Raise ImageTooLarge for a pixel tensor with more than `max_pixels` per image."""
    if isinstance(request.images, list):
        return
    _, height, width, _ = request.shape
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"The images have {width}x{height} pixels and {max_pixels} are allowed: scale them down, or raise "
            "MASKLOOP_MAX_IMAGE_PIXELS."
        )


def assemble(request: InferRequest, rows: Sequence[Row]) -> list[Output]:
    """Stack the values of all images into the requested outputs."""
    outputs = []
    for requested in request.outputs:
        values = [row[requested.spec.name] for row in rows]
        if requested.spec.datatype == "BYTES":
            outputs.append(Output(requested=requested, shape=request.shape, data=values))
            continue
        stacked = np.stack(values) if len(values) > 1 else np.asarray(values[0])[None]
        shape = request.shape if stacked.ndim == 1 else stacked.shape
        outputs.append(Output(requested=requested, shape=shape, data=stacked))
    return outputs


def describe_ignored(rows: Sequence[Row]) -> str | None:
    """Describe what was not used of the files: "fourth band", or of several images "fourth band (images 0, 2)"."""
    images = [number for number, row in enumerate(rows) if row.get(IGNORED)]
    if not images:
        return None
    what = str(rows[images[0]][IGNORED])
    return what if len(rows) == 1 else f"{what} (images {', '.join(map(str, images))})"


async def run_limited(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """Run jobs with limited concurrency; return the results in order. The first error cancels the others."""
    results: dict[int, T] = {}
    numbered = iter(enumerate(jobs))

    async def work() -> None:
        for number, job in numbered:
            results[number] = await job()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [results[number] for number in range(len(jobs))]


async def _run_image(
    image: Pixels | bytes,
    loaded: LoadedModel,
    pipeline: Pipeline,
    context: RequestContext,
    client_disconnected: DisconnectCheck,
    *,
    on_result: OnResult,
) -> Row:
    if not isinstance(image, bytes):
        prediction = await pipeline.predict(image, loaded.engine, context, client_disconnected)
        on_result(image, prediction.mask_HW)
        return {
            "mask": prediction.mask_HW,
            "confidence": prediction.confidence_HW,
            "embedding": prediction.embedding_D,
        }
    result = await pipeline.segment(image, loaded.engine, context, client_disconnected, loaded.value_range)
    prediction = result.prediction
    on_result(result.image.image_HW3, prediction.mask_HW)
    png = await pipeline.encode(lambda: mask_png(prediction.mask_HW, loaded.class_table), context)
    return {
        "mask_png": png,
        "mean_confidence": np.float32(mean_confidence(prediction)),
        "embedding": prediction.embedding_D,
        IGNORED: result.image.header.ignored,
    }


def _apply_priority(priority: InferPriority, context: RequestContext) -> int:
    """Return the request's urgency, and apply its deadline if that is earlier."""
    timeout_s = priority.timeout_s
    if timeout_s is not None and (context.timeout_s is None or timeout_s < context.timeout_s):
        context.set_deadline(timeout_s)
    return context.urgency if priority.urgency is None else priority.urgency


def _sum_stages(contexts: Sequence[RequestContext]) -> dict[str, float]:
    """Sum the seconds by stage. `queue` is that of the image that started first."""
    stages = dict.fromkeys(stage for context in contexts for stage in context.seconds)
    total = {stage: sum(context.seconds.get(stage, 0.0) for context in contexts) for stage in stages}
    return total | {"queue": min(context.seconds["queue"] for context in contexts)}
