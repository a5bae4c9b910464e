"""From a request for inference to its outputs: every image on its way through the segmenter, a few at a time."""

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
from service.open_inference.parameters import Urgency
from service.open_inference.statistics import Spent
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.decode import Pixels
from service.segmentation.output.description import mean_confidence
from service.segmentation.output.png import mask_png
from service.segmentation.pipeline import Pipeline

T = TypeVar("T")
Gone = Callable[[], Awaitable[bool]]
Row = dict[str, Any]
"""What the model says about one image, by output."""

AT_ONCE = 8
"""Images of one request that wait for the model at one time, where it is not less that keeps it busy, or more that go
through it together: those of others come in between."""


async def execute(
    request: InferRequest, loaded: LoadedModel, segmenter: Pipeline, *, visit: RequestContext, spent: Spent, gone: Gone
) -> list[Row]:
    """Carry out a request.

    Args:
        request: What is asked.
        loaded: Who answers.
        segmenter: The way there.
        visit: The request's; gets the stages, summed over its images.
        spent: Gets the stages of each image.
        gone: Whether the client has hung up.

    Returns:
        A row for each image, in their order.

    Raises:
        MaskloopError: What the segmenter says about the first image that fails; the others are given up.
        Overloaded: The turn of the first did not come in the time for which the request may wait.
        ClientDisconnected: Nobody waits any more.
    """
    one = _file if isinstance(request.images, list) else _pixels
    urgency = _heed(request.urgency, visit)
    visits = [RequestContext(visit.metrics, urgency, visit.model) for _ in request.images]
    # The others wait for those of their own request, which was foreseen by nobody but who sent them.
    visits[0].max_wait_s = visit.max_wait_s
    jobs = [
        partial(one, image, loaded, segmenter, own, gone) for image, own in zip(request.images, visits, strict=True)
    ]
    rows = await in_turn(jobs, max(min(AT_ONCE, segmenter.saturating_images), loaded.engine.max_batch))
    visit.seconds |= _together(visits)
    spent.on(visits)
    return rows


def check_pixels(request: InferRequest, max_pixels: int) -> None:
    """Refuse tensors whose images have too many pixels; those of files are counted when they are decoded.

    Raises:
        ImageTooLarge: They have.
    """
    if isinstance(request.images, list):
        return
    _, height, width, _ = request.shape
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"The images have {width}x{height} pixels and {max_pixels} in all are allowed: scale them down, or raise "
            "MASKLOOP_MAX_IMAGE_PIXELS."
        )


def assemble(request: InferRequest, rows: Sequence[Row]) -> list[Output]:
    """The outputs that were asked for, each for all images together."""
    outputs = []
    for wanted in request.outputs:
        values = [row[wanted.spec.name] for row in rows]
        if wanted.spec.datatype == "BYTES":
            outputs.append(Output(wanted=wanted, shape=request.shape, data=values))
            continue
        stacked = np.stack(values) if len(values) > 1 else np.asarray(values[0])[None]
        shape = request.shape if stacked.ndim == 1 else stacked.shape
        outputs.append(Output(wanted=wanted, shape=shape, data=stacked))
    return outputs


async def in_turn(jobs: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """Do some jobs, so many at one time. The first error is raised, and ends the others."""
    results: dict[int, T] = {}
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for number, job in waiting:
            results[number] = await job()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(jobs))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [results[number] for number in range(len(jobs))]


async def _pixels(
    image_HW3: Pixels, loaded: LoadedModel, segmenter: Pipeline, visit: RequestContext, gone: Gone
) -> Row:
    prediction = await segmenter.predict(image_HW3, loaded.engine, visit, gone)
    return {"mask": prediction.mask_HW, "confidence": prediction.confidence_HW}


async def _file(data: bytes, loaded: LoadedModel, segmenter: Pipeline, visit: RequestContext, gone: Gone) -> Row:
    prediction = (await segmenter.segment(data, loaded.engine, visit, gone)).prediction
    png = await segmenter.encode(lambda: mask_png(prediction.mask_HW, loaded.class_table), visit)
    return {"mask_png": png, "mean_confidence": np.float32(mean_confidence(prediction))}


def _heed(wanted: Urgency, visit: RequestContext) -> int:
    """Let the visit end when the request says, if that is sooner than what its headers said, and return its urgency."""
    if wanted.timeout_s is not None and (visit.timeout_s is None or wanted.timeout_s < visit.timeout_s):
        visit.set_deadline(wanted.timeout_s)
    return visit.urgency if wanted.level is None else wanted.level


def _together(visits: Sequence[RequestContext]) -> dict[str, float]:
    """Seconds by stage: added up, but the wait, which is over when the first image has its turn."""
    stages = dict.fromkeys(stage for own in visits for stage in own.seconds)
    added = {stage: sum(own.seconds.get(stage, 0.0) for own in visits) for stage in stages}
    return added | {"queue": min(own.seconds["queue"] for own in visits)}
