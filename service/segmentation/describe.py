"""An answer in words and numbers: which classes, how much of each, how sure, and where (COCO RLE and polygons)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from service.segmentation.contours import outline
from service.segmentation.engine import Prediction
from service.segmentation.legend import Legend


class Rle(BaseModel):
    """COCO's compressed run-length encoding, column by column; pycocotools and every COCO reader decode it."""

    size: tuple[int, int] = Field(description="height, width")
    counts: str


class ClassRegion(BaseModel):
    """One class that occurs in the image."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, 0..255")
    pixels: int
    fraction: float = Field(description="share of the image, 0..1")
    confidence: float = Field(description="mean over its pixels, 0..1")
    rle: Rle
    polygons: list[list[tuple[int, int]]] = Field(
        description="rings of (x, y) corners, even-odd: a hole is a ring inside a ring; simplified by up to 1 px, "
        "specks below 8 px left out"
    )


class Description(BaseModel):
    """What `application/json` holds. Coordinates are pixels of the upright (EXIF-transposed) image."""

    model: str = Field(description="version that answered")
    width: int
    height: int
    confidence: float = Field(description="mean over the image, 0..1")
    classes: list[ClassRegion] = Field(description="those present, by id")


def describe(prediction: Prediction, legend: Legend, *, model: str) -> Description:
    """Count, encode and outline every class that occurs."""
    mask_HW, confidence_HW = prediction.mask_HW, prediction.confidence_HW
    height, width = mask_HW.shape
    pixels = np.bincount(mask_HW.ravel(), minlength=len(legend.names))
    sums = np.bincount(mask_HW.ravel(), weights=confidence_HW.ravel(), minlength=len(legend.names))
    classes = [
        _region(mask_HW == i, i, legend, int(pixels[i]), float(sums[i])) for i in np.flatnonzero(pixels).tolist()
    ]
    return Description(model=model, width=width, height=height, confidence=mean_confidence(prediction), classes=classes)


def mean_confidence(prediction: Prediction) -> float:
    """The mean confidence over the image, 0..1."""
    return round(float(prediction.confidence_HW.mean()) / 255, 4)


def encode_rle(region_HW: npt.NDArray[np.bool_]) -> Rle:
    """A bool [H, W] region in COCO's compressed RLE."""
    from pycocotools import mask as coco  # noqa: PLC0415 - 0.3 s that only JSON needs

    encoded = coco.encode(np.asfortranarray(region_HW, dtype=np.uint8))
    height, width = region_HW.shape
    counts = encoded["counts"]
    return Rle(size=(height, width), counts=counts if isinstance(counts, str) else counts.decode("ascii"))


def _region(
    region_HW: npt.NDArray[np.bool_], class_id: int, legend: Legend, pixels: int, confidence_sum: float
) -> ClassRegion:
    return ClassRegion(
        id=class_id,
        name=legend.names[class_id],
        color=legend.colors[class_id],
        pixels=pixels,
        fraction=round(pixels / region_HW.size, 6),
        confidence=round(confidence_sum / 255 / pixels, 4),
        rle=encode_rle(region_HW),
        polygons=[[(x, y) for x, y in ring.tolist()] for ring in outline(region_HW)],
    )
