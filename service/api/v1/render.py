"""Render a segmentation result as PNG, JSON, JPEG overlay or ZIP, chosen by the Accept header."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from service.api.v1.segment_query import SegmentQuery
from service.errors import NotAcceptable
from service.segmentation.output.description import Description, OutputOptions, describe
from service.segmentation.output.overlay import overlay_jpeg
from service.segmentation.output.png import confidence_png, keep_classes, mask_png
from service.segmentation.pipeline import Result

PNG, JSON, JPEG, ZIP = "image/png", "application/json", "image/jpeg", "application/zip"


def render(result: Result, query: SegmentQuery, media_type: str, *, legend: bool = True) -> bytes:
    """Render a result as one of `media_types(query.options)`. It takes milliseconds of CPU: call it in a thread.

    Raises ImageTooLarge if the format cannot hold the image or its outlines.
    """
    if media_type == JSON:
        return describe_result(result, query, query.options).to_json()
    if media_type == JPEG:
        return overlay_jpeg(
            result.image.image_HW3,
            result.prediction.mask_HW,
            query.model.class_table,
            classes=query.options.classes,
            legend=legend,
        )
    return _zip(result, query) if media_type == ZIP else _png(result, query)


def describe_result(result: Result, query: SegmentQuery, options: OutputOptions) -> Description:
    """Describe a result as JSON. Raises as `render`."""
    return describe(
        result.prediction,
        query.model.class_table,
        model=query.model.version,
        options=options,
        orientation=result.image.header.orientation,
        ignored=result.image.header.ignored,
    )


def media_types(options: OutputOptions) -> list[str]:
    """List the media types that can hold this output, the default first."""
    return [ZIP, JSON] if options.confidence else [PNG, JSON, JPEG, ZIP]


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """Choose a media type by RFC 9110, section 12.5.1; of equal quality, the first of `offers`.

    A missing or empty header accepts anything. Raises NotAcceptable if no offer has a quality above 0.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = dict(_parse_range(part) for part in accept.split(",") if part.strip())
    qualities = {offer: _quality(offer, ranges) for offer in offers}
    best = max(qualities, key=qualities.__getitem__)
    if qualities[best] <= 0:
        raise NotAcceptable(f"Accept: {accept!r} matches none of {', '.join(offers)}: request one of these.")
    return best


def _parse_range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            with suppress(ValueError):
                return media_range, min(1.0, max(0.0, float(value)))
            return media_range, 0.0
    return media_range, 1.0


def _quality(offer: str, ranges: dict[str, float]) -> float:
    matching = (offer, f"{offer.split('/', maxsplit=1)[0]}/*", "*/*")
    return next((ranges[media_range] for media_range in matching if media_range in ranges), 0.0)


def _png(result: Result, query: SegmentQuery) -> bytes:
    class_table = query.model.class_table
    return mask_png(keep_classes(result.prediction.mask_HW, query.options.classes, class_table), class_table)


def _zip(result: Result, query: SegmentQuery) -> bytes:
    description = describe_result(result, query, dataclasses.replace(query.options, confidence=False, masks="rle"))
    files = {"mask.png": _png(result, query), "result.json": description.to_json()}
    if query.options.confidence:
        files["confidence.png"] = confidence_png(result.prediction.confidence_HW)
    sink = io.BytesIO()
    # Stored: PNGs are compressed already.
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
HEADERS = {
    "X-Model-Version": "version of the model that computed the mask",
    "X-Model-Precision": "precision of the graph that computed the mask: fp32, fp16 or int8",
    "X-Confidence-Mean": "mean over the image, 0..1",
    "X-Mask-Scale": "only if below 1: the image was reduced to this fraction of its sides and the mask enlarged again",
    "X-Image-Orientation": "EXIF orientation of the file, 1 to 8; it has been applied, so the answer is upright",
    "X-Image-Ignored": "`fourth band`: the file is a GeoTIFF, and its fourth band was not taken for transparency",
    "X-Image-Warning": "`nearly black`: the file stores 16 bits, no value reaches 4096, and the model has no range",
    "X-Image-Id": "with `contribute=true`: id of the image in the pool",
    "X-Image-Error": "with `contribute=true`, instead of X-Image-Id: why the image could not be kept",
    "Server-Timing": "milliseconds of each stage",
}
RESULT_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Description,
        "description": "By `Accept`: the mask as an indexed PNG (pixel = class id, palette = class colours; above 256 "
        "classes 16-bit grey), the classes as JSON, the overlay as JPEG, or `mask.png` and `result.json` in a ZIP. "
        "With `confidence=true`: a ZIP that also holds `confidence.png`, or JSON; other types get 406. All show the "
        "upright image, with its EXIF orientation applied.",
        "content": {PNG: FILE, JPEG: FILE, ZIP: FILE},
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
    }
}
