"""What the batch calls share: the images of a form in files, and the problem of a single image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

import structlog
from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from service.api.dependencies import StateOf, receive_within
from service.api.docs.problem_docs import Problem
from service.api.forms import form_files, is_form
from service.api.problems import CLIENT_DISCONNECTED, INTERNAL_DETAIL, problem_body
from service.errors import BadInput, MaskloopError, names_only
from service.segmentation.pipeline import ClientDisconnected
from service.state import State
from service.storage.storage_faults import storage_fault

log = structlog.stdlib.get_logger(__name__)

NDJSON = "application/x-ndjson"
FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
}
BATCH_DOCS = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}


@asynccontextmanager
async def batch_files(request: Request, state: State) -> AsyncIterator[list[UploadFile]]:
    """Yield the images of a form, stored on disk until the end.

    Raises:
        Overloaded: Too many batch requests are in progress.
        BadInput: Not a form, no files, or too many.
        BodyTooSlow: The body did not arrive within the timeout, which grows with the size limit.
    """
    if not is_form(request):
        raise BadInput("A batch is a form (multipart/form-data): send each image as a part named `file`.")
    settings = state.settings
    remedy = f"send up to {settings.max_batch_images} parts named `file`, or raise MASKLOOP_MAX_BATCH_IMAGES"
    form = form_files(request, folder=settings.tmp_dir, most=settings.max_batch_images, remedy=remedy)
    timeout_s = settings.receive_timeout_s * max(1, settings.max_batch_bytes / settings.max_image_bytes)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(state.batch_gate.admit())
        yield await receive_within(stack.enter_async_context(form), timeout_s)


async def _receive_batch(request: Request, state: StateOf) -> AsyncIterator[list[UploadFile]]:
    async with batch_files(request, state) as files:
        yield files


BatchFiles = Annotated[list[UploadFile], Depends(_receive_batch)]


def problem_of(error: Exception, state: State) -> Problem:
    """Return the problem document of one image; an unexpected error is logged."""
    error = storage_fault(error, state.settings.data_dir) or error
    if isinstance(error, MaskloopError):
        return Problem(**problem_body(error.status, error.slug, error.title, names_only(error.message)))
    if isinstance(error, ClientDisconnected):
        return Problem(**problem_body(*CLIENT_DISCONNECTED))
    log.error("unexpected error in a batch", error=repr(error), exc_info=error)
    return Problem(**problem_body(500, MaskloopError.slug, MaskloopError.title, INTERNAL_DETAIL))
