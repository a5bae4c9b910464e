"""Calls of `/v1/segment`, and whether the service is ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from service.client.answers import ReadyState, Segmentation, SegmentedLine
from service.client.call import Call, Request, Stream, Upload, bytes_call, model_call

JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"


def ready() -> Call[ReadyState]:
    """Ask whether a model serves; Refused (503) if none does yet."""
    return model_call(ReadyState, Request(method="GET", path="/readyz", repeatable=True))


def segment(
    image: bytes,
    *,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    masks: Literal["rle", "png"] = "rle",
    polygons: bool = False,
    tolerance_px: float = 1.0,
    confidence: bool = False,
    contribute: bool = False,
) -> Call[Segmentation]:
    """Segment an image file: the classes that occur, with their masks as COCO RLE, or one PNG of class ids in base64.

    Args:
        image: The file, as it is.
        model: A version; None: the active one.
        classes: Only these, by name or id; None: all.
        masks: Form of the masks.
        polygons: Also return the outlines of each class, simplified by at most `tolerance_px` pixels.
        tolerance_px: See `polygons`; 0 to 1000.
        confidence: Also return the confidence of every pixel, as a grey PNG in base64.
        contribute: Keep the image in the pool (scope `contribute`), if the collection policy wants it.
    """
    params: dict[str, Any] = {"masks": masks, "polygons": polygons, "tolerance_px": tolerance_px}
    params |= {"model": model, "classes": classes, "confidence": confidence, "contribute": contribute}
    return model_call(Segmentation, _request(image, JSON, params))


def segment_mask(
    image: bytes, *, model: str | None = None, classes: Sequence[str] | None = None, contribute: bool = False
) -> Call[bytes]:
    """Segment an image file; return an indexed PNG of class ids (16-bit grey above 256 classes)."""
    return bytes_call(_request(image, PNG, {"model": model, "classes": classes, "contribute": contribute}))


def segment_overlay(
    image: bytes, *, model: str | None = None, classes: Sequence[str] | None = None, legend: bool = True
) -> Call[bytes]:
    """Segment an image file; return a JPEG of the image in the colours of its classes."""
    return bytes_call(_request(image, JPEG, {"model": model, "classes": classes, "legend": legend}))


def segment_batch(
    images: Sequence[Upload],
    *,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    masks: Literal["rle", "png"] = "rle",
) -> Stream[SegmentedLine]:
    """Segment many image files; yields one line for each, in the order in which they are finished."""
    params = {"model": model, "classes": classes, "masks": masks}
    request = Request(method="POST", path="/v1/segment/batch", params=params, form=images, repeatable=True)
    return Stream(request, SegmentedLine.model_validate_json)


def _request(image: bytes, accept: str, params: dict[str, Any]) -> Request:
    return Request(
        method="POST", path="/v1/segment", params=params, headers={"Accept": accept}, content=image, repeatable=True
    )
