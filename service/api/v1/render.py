"""The forms in which an answer leaves: a picture, numbers, or several files in a ZIP."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from typing import Any

from service.api.v1.segment_query import SegmentQuery
from service.segmentation.output.description import Description, OutputOptions, describe, mean_confidence
from service.segmentation.output.overlay import overlay_jpeg
from service.segmentation.output.png import confidence_png, mask_png, restricted
from service.segmentation.pipeline import Result

PNG, JSON, JPEG, ZIP = "image/png", "application/json", "image/jpeg", "application/zip"


@dataclass(frozen=True, slots=True)
class RenderedResult:
    """An answer's body, and what its headers say."""

    content: bytes
    confidence: float
    orientation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """Everything that an answer is written from: much work, to be done in one go beside the event loop.

    Attributes:
        answer: What the model said.
        asked: What of it is wanted.
        orientation: EXIF's, of the image as it was sent.
        key: Whether an overlay has one.
    """

    answer: Result
    asked: SegmentQuery
    orientation: int
    key: bool = True

    def render(self, media_type: str) -> RenderedResult:
        """Write the answer.

        Raises:
            ImageTooLarge: The form that was asked for cannot hold it.
        """
        content = {PNG: self._png, JSON: self._json, JPEG: self._jpeg, ZIP: self._zip}[media_type]()
        return RenderedResult(content, mean_confidence(self.answer.prediction), self.orientation)

    def describe(self, details: OutputOptions) -> Description:
        """The answer in words and numbers."""
        loaded, prediction = self.asked.loaded, self.answer.prediction
        return describe(
            prediction, loaded.class_table, model=loaded.version, details=details, orientation=self.orientation
        )

    def _png(self) -> bytes:
        loaded, details = self.asked.loaded, self.asked.details
        return mask_png(
            restricted(self.answer.prediction.mask_HW, details.only, loaded.class_table), loaded.class_table
        )

    def _json(self) -> bytes:
        return self.describe(self.asked.details).to_json()

    def _jpeg(self) -> bytes:
        answer, legend = self.answer, self.asked.loaded.class_table
        return overlay_jpeg(
            answer.image.image_HW3, answer.prediction.mask_HW, legend, only=self.asked.details.only, key=self.key
        )

    def _zip(self) -> bytes:
        details = self.asked.details
        # The maps are files of their own here.
        numbers = self.describe(dataclasses.replace(details, confidence=False, masks="rle"))
        files = {"mask.png": self._png(), "result.json": numbers.to_json()}
        if details.confidence:
            files["confidence.png"] = confidence_png(self.answer.prediction.confidence_HW)
        sink = io.BytesIO()
        # Stored: the PNGs are compressed already.
        with zipfile.ZipFile(sink, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return sink.getvalue()


def offers(details: OutputOptions) -> list[str]:
    """What can hold these details, in the order of preference where the client has none."""
    return [ZIP, JSON] if details.confidence else [PNG, JSON, JPEG, ZIP]


FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
HEADERS = {
    "X-Model-Version": "the version that answered",
    "X-Model-Precision": "the arithmetic of the graph that answered: fp32, fp16 or int8",
    "X-Confidence-Mean": "mean over the image, 0..1",
    "X-Mask-Scale": "below 1, and only then: the image was reduced to this part of its sides, the mask enlarged again",
    "X-Image-Orientation": "the EXIF orientation of the file, 1 to 8, which has been applied: the answer is upright",
    "X-Image-Id": "with `contribute=true`: of the image in the pool",
    "Server-Timing": "milliseconds of each stage",
}
ANSWER_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Description,
        "description": "By `Accept`: the mask as an indexed PNG (pixel = class id, palette = class colours; above 256 "
        "classes grey with 16 bits), the classes as JSON, the overlay as JPEG, or `mask.png` and `result.json` in a "
        "ZIP. With `confidence=true`: a ZIP that also holds `confidence.png`, or JSON; others are 406. All show the "
        "image upright, with its EXIF orientation applied.",
        "content": {PNG: FILE, JPEG: FILE, ZIP: FILE},
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
    }
}
