"""`POST /v1/imports`: turn an archive of another tool into a data set, or add it to the pool."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.batches import NDJSON, problem_of
from service.api.conversions import CONVERSION_ERRORS, Conversion, ConversionOf
from service.api.dependencies import BINARY, StateOf, receive_within, upload_docs
from service.api.docs.problem_docs import Problem, problem_docs
from service.api.forms import upload_file
from service.api.v1.images import count_kept, count_labelled
from service.api.v1.render import negotiate
from service.conversion.add_dataset import AddedImage, DatasetAdder, LabelOutcome
from service.conversion.pool_classes import PoolClasses
from service.errors import (
    BadInput,
    BodyTooSlow,
    BundleInvalid,
    ClassUnknown,
    ConversionImpossible,
    EncodingUnsupported,
    NoModel,
    NotAcceptable,
)
from service.state import State
from service.storage.tables import Image

router = APIRouter(prefix="/v1/imports", tags=["labels"], dependencies=[needs("contribute")])

ZIP = "application/zip"
TOTALS = ("images", "known", "labels", "replaced", "kept", "rejected")
"""New images, images that the pool had, new and replaced labels, labels that were not added, and problems."""


class ImportQuery(BaseModel):
    """Decisions about an import, as the options of `python -m trainer import`."""

    model_config = ConfigDict(extra="forbid")

    format: str = Field("auto", pattern="^[a-z0-9-]{1,40}$", description="Format of the archive; `auto`: find out")
    images: str = Field("", max_length=500, description="Folder of the images in the archive, if masks have their own")
    masks: str = Field("", max_length=500, description="Folder of the masks in the archive")
    mask_pattern: str = Field("", max_length=200, description="Name of an image's mask, such as `{stem}_mask.png`")
    class_name: list[str] = Field(
        [], max_length=65_535, description="Names of the classes in the order of their values, if the archive has none"
    )
    ignore_class: list[str] = Field([], max_length=1000, description="Classes whose pixels are ignored")
    rest: Literal["background", "ignored"] = Field("background", description="Pixels that no region covers")
    empty: Literal["unlabelled", "background"] = Field("unlabelled", description="Images without an annotation")
    val_share: float = Field(0.2, ge=0, lt=1, description="Share for validation, if the archive has no such split")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of the drawing of the split `val`")
    add: bool = Field(False, description="Add the images and labels to the pool")
    replace: bool = Field(False, description="With `add`: replace the labels that images already have in the pool")

    def arguments(self) -> list[str]:
        """Return the options of the command. Each is one argument, so that no value is taken for an option."""
        single = {"format", "images", "masks", "mask_pattern", "rest", "empty", "val_share", "seed"}
        given = self.model_dump(include=single, exclude_defaults=True)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        options += [f"--ignore-class={name}" for name in self.ignore_class]
        return options + [f"--class-names={name}" for name in self.class_name]


QueryOf = Annotated[ImportQuery, Query()]


class ImportLine(BaseModel):
    """A line of the answer with media type NDJSON: an event of the import, or what became of an image in the pool."""

    model_config = ConfigDict(extra="allow")

    event: str = Field(
        description="`found` (the format), `loss` (what was lost or decided, with `count` and `examples`), `done` (the "
        "data set), with `add=true` also `image` for each image, and `added` (totals)"
    )


class ImageLine(BaseModel):
    """What became of an image of the data set."""

    event: Literal["image"] = "image"
    name: str = Field(description="name in the data set")
    id: str | None = Field(None, description="id in the pool")
    new: bool = Field(False, description="false: the pool had it")
    label: LabelOutcome | None = Field(None, description="kept: the image has another label, and `replace` is not set")
    problem: Problem | None = None


DATASET_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImportLine,
        "description": "By `Accept`: the data set as a ZIP archive, in which import.json says what became of each file "
        "and overview.jpg shows images with their masks; or the same report as one JSON document per line. With "
        "`add=true`: these lines, and one for each image.",
        "content": {ZIP: BINARY, NDJSON: {"schema": {"$ref": "#/components/schemas/ImportLine"}}},
    }
}


@router.post(
    "",
    response_class=Response,
    openapi_extra=upload_docs(ZIP),
    responses=DATASET_DOCS
    | problem_docs(
        *CONVERSION_ERRORS,
        BadInput,
        BodyTooSlow,
        EncodingUnsupported,
        NotAcceptable,
        ConversionImpossible,
        ClassUnknown,
        BundleInvalid,
        NoModel,
    ),
)
async def import_labels(
    state: StateOf,
    request: Request,
    conversion: ConversionOf,
    query: QueryOf,
) -> Response:
    """Turn a ZIP archive of images and labels of another tool into a data set, or add it to the pool.

    The answer begins when the data set is complete, which can take minutes.
    """
    wanted = negotiate(request.headers.get("accept"), (NDJSON,) if query.add else (ZIP, NDJSON))
    await _receive(request, state, archive := conversion.folder / "source.zip")
    result = conversion.folder / ("dataset.zip" if wanted == ZIP else "dataset")
    events = await _convert(conversion, archive, result, query)
    if wanted == ZIP:
        return FileResponse(result, media_type=ZIP, filename="dataset.zip")
    if not query.add:
        return StreamingResponse(iter([_joined(events)]), media_type=NDJSON)
    history, model = await run_in_threadpool(state.models.classes.history), state.active_model.current
    adder = DatasetAdder(
        folder=result,
        images=state.images,
        classes=PoolClasses(history),
        value_range=model.value_range if model else None,
        replace=query.replace,
        max_image_bytes=state.settings.max_image_bytes,
    )
    # Before the answer begins.
    await run_in_threadpool(lambda: adder.table)
    return StreamingResponse(_added_lines(state, adder, events), media_type=NDJSON)


async def _receive(request: Request, state: State, target: Path) -> None:
    settings = state.settings
    timeout_s = settings.receive_timeout_s * max(1, settings.max_import_bytes / settings.max_image_bytes)

    async def store() -> None:
        async with upload_file(request, settings.tmp_dir) as packed:
            await run_in_threadpool(_copy, packed, target)

    await receive_within(store(), timeout_s)


def _copy(packed: BinaryIO, target: Path) -> None:
    with target.open("xb") as sink:
        shutil.copyfileobj(packed, sink, 2**20)


async def _convert(conversion: Conversion, archive: Path, result: Path, query: ImportQuery) -> list[dict[str, Any]]:
    settings = conversion.settings
    limits = (
        f"--max-unpacked-gb={settings.max_import_bytes / 1e9}",
        f"--max-image-pixels={settings.max_image_pixels}",
    )
    target = f"--zip={result}" if result.suffix else f"--out={result}"
    process = await conversion.start("import", str(archive), target, "--json", *limits, *query.arguments())
    events = await process.events()
    # Its path is of no use to a client.
    return [{name: value for name, value in e.items() if name != "target"} for e in events if e["event"] != "progress"]


async def _added_lines(state: State, adder: DatasetAdder, events: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield the lines of the import, then those of the images. A run starts at the end, if one is due."""
    yield _joined(events)
    new: list[Image] = []
    totals: Counter[str] = Counter(dict.fromkeys(TOTALS, 0))
    for group in adder.groups():
        outcomes = await run_in_threadpool(adder.add, group)
        new += [each.image for each in outcomes if each.image and each.is_new]
        for each in outcomes:
            totals.update(_counted(each))
        yield b"".join(_line(each, state) for each in outcomes)
    await run_in_threadpool(count_kept, state, new)
    await run_in_threadpool(count_labelled, state)
    yield _joined([{"event": "added", **totals}])


def _counted(outcome: AddedImage) -> Iterator[str]:
    if outcome.error is not None:
        yield "rejected"
    if outcome.image is not None:
        yield "images" if outcome.is_new else "known"
    if outcome.label is not None:
        yield {"added": "labels", "replaced": "replaced", "kept": "kept"}[outcome.label]


def _line(outcome: AddedImage, state: State) -> bytes:
    problem = problem_of(outcome.error, state) if outcome.error else None
    image_id = outcome.image.id if outcome.image else None
    line = ImageLine(name=outcome.name, id=image_id, new=outcome.is_new, label=outcome.label, problem=problem)
    return line.model_dump_json().encode() + b"\n"


def _joined(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)
