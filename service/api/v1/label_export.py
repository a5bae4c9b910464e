"""`GET /v1/labels/export`: the labels of the pool in the format of another tool."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from service.api.auth import needs
from service.api.conversions import CONVERSION_ERRORS, ConversionOf
from service.api.dependencies import BINARY, StateOf
from service.api.docs.problem_docs import problem_docs
from service.conversion.pool_classes import PoolClasses
from service.conversion.pool_dataset import write_pool_dataset
from service.errors import BundleInvalid, ConversionImpossible, FileLost, NoModel, NothingLabelled

# As the list of images, which it shows with their labels.
router = APIRouter(prefix="/v1/labels", tags=["labels"], dependencies=[needs("contribute"), needs("train")])

ZIP = "application/zip"
ARCHIVE_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A ZIP archive, sent while it is written. README.md in it says how to load it, and what the "
        "format cannot hold. If the export fails after the first bytes, the connection ends early.",
        "content": {ZIP: BINARY},
    }
}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses=ARCHIVE_DOCS
    | problem_docs(*CONVERSION_ERRORS, ConversionImpossible, BundleInvalid, NoModel, NothingLabelled, FileLost),
)
async def export_labels(
    state: StateOf,
    conversion: ConversionOf,
    *,
    form: Annotated[
        Literal["folder", "coco", "cvat", "labelstudio", "huggingface"],
        Query(
            alias="format", description="`folder`: as the trainer reads it. `huggingface` needs the package `datasets`"
        ),
    ] = "folder",
    images: Annotated[bool, Query(description="Whether to send the images, or the labels only")] = True,
) -> StreamingResponse:
    """Export all labels, with their images, splits and groups, as a data set of another tool."""
    classes = PoolClasses(await run_in_threadpool(state.models.classes.history))
    dataset = conversion.folder / "dataset"
    await run_in_threadpool(write_pool_dataset, dataset, state.images, classes)
    options = () if images else ("--no-images",)
    process = await conversion.start("export-labels", str(dataset), f"--to={form}", "--out=-", "--json", *options)
    first = await process.first_bytes()
    headers = {"Content-Disposition": f'attachment; filename="labels-{form}.zip"'}
    return StreamingResponse(process.all_bytes(first), media_type=ZIP, headers=headers)
