"""Describe a prediction as JSON: classes, pixel counts, confidence, and masks as COCO RLE, PNG or polygons."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from service.segmentation.inference.predictor import Prediction
from service.segmentation.output.class_table import ClassTable
from service.segmentation.output.png import confidence_png, keep_classes, mask_png
from service.segmentation.output.polygons import outlines
from service.segmentation.output.run_lengths import PixelRuns, find_runs

MaskForm = Literal["rle", "png"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputOptions:
    """What a response contains."""

    classes: frozenset[int] | None = None
    """None: all."""
    masks: MaskForm = "rle"
    """Masks in JSON: COCO RLE for each class, or one PNG for all."""
    polygons: bool = False
    """Outlines of each class, in JSON."""
    tolerance_px: float = 1.0
    """Largest distance of a polygon from the exact outline; 0 keeps every corner."""
    confidence: bool = False


class Rle(BaseModel):
    """COCO's compressed run-length encoding, column-major, as pycocotools reads it."""

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
    rle: Rle | None = Field(default=None, description="with `masks=rle`")
    polygons: list[list[list[int]]] | None = Field(
        default=None,
        description="with `polygons=true`: rings of [x, y] corners, even-odd: a hole is a ring inside a ring; "
        "simplified by up to `tolerance_px`, specks below 8 px left out",
    )


class Description(BaseModel):
    """The `application/json` response. Coordinates are pixels of the upright (EXIF-transposed) image."""

    model: str = Field(description="version of the model that computed the mask")
    width: int
    height: int
    orientation: int = Field(description="EXIF orientation of the file, 1 to 8; it has been applied")
    ignored: str | None = Field(
        default=None, description="`fourth band`: the file is a GeoTIFF, and its fourth band was not used"
    )
    confidence: float = Field(description="mean over the image, 0..1")
    classes: list[ClassRegion] = Field(description="the requested classes that occur, by id")
    mask_png: str | None = Field(
        default=None, description="with `masks=png`: an indexed PNG of class ids, as in `image/png`, in base64"
    )
    confidence_png: str | None = Field(
        default=None, description="with `confidence=true`: a grey PNG, 255 = 1.0, in base64"
    )

    def to_json(self) -> bytes:
        """Serialise the requested fields."""
        return self.model_dump_json(exclude_none=True).encode()


def describe(
    prediction: Prediction,
    class_table: ClassTable,
    *,
    model: str,
    options: OutputOptions,
    orientation: int = 1,
    ignored: str | None = None,
) -> Description:
    """Describe every requested class that occurs. Raises ImageTooLarge as `outlines`."""
    height, width = prediction.mask_HW.shape
    return Description(
        model=model,
        width=width,
        height=height,
        orientation=orientation,
        ignored=ignored,
        confidence=mean_confidence(prediction),
        classes=_regions(prediction, class_table, options),
        mask_png=_mask(prediction, class_table, options) if options.masks == "png" else None,
        confidence_png=_base64(confidence_png(prediction.confidence_HW)) if options.confidence else None,
    )


def mean_confidence(prediction: Prediction) -> float:
    """Mean confidence over the image, 0..1."""
    # An integer sum takes a third of the time of numpy's mean.
    confidence_HW = prediction.confidence_HW
    return round(int(confidence_HW.sum(dtype=np.uint64)) / confidence_HW.size / 255, 4)


def _regions(prediction: Prediction, class_table: ClassTable, options: OutputOptions) -> list[ClassRegion]:
    runs, classes = find_runs(prediction.mask_HW), len(class_table.names)
    pixels = runs.pixel_counts(classes)
    sums = runs.sums(prediction.confidence_HW, classes)
    rle = _encoded(runs) if options.masks == "rle" else {}
    rings = outlines(prediction.mask_HW, tolerance_px=options.tolerance_px) if options.polygons else None
    present = [i for i in np.flatnonzero(pixels).tolist() if options.classes is None or i in options.classes]
    return [
        ClassRegion(
            id=i,
            name=class_table.names[i],
            color=class_table.colors[i],
            pixels=int(pixels[i]),
            fraction=round(int(pixels[i]) / prediction.mask_HW.size, 6),
            confidence=round(float(sums[i]) / 255 / int(pixels[i]), 4),
            rle=rle.get(i),
            polygons=None if rings is None else [ring.tolist() for ring in rings.get(i, [])],
        )
        for i in present
    ]


def _encoded(runs: PixelRuns) -> dict[int, Rle]:
    return {i: Rle(size=(runs.height, runs.width), counts=counts) for i, counts in runs.rle().items()}


def _mask(prediction: Prediction, class_table: ClassTable, options: OutputOptions) -> str:
    return _base64(mask_png(keep_classes(prediction.mask_HW, options.classes, class_table), class_table))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
