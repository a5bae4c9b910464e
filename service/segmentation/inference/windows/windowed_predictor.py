"""Sliding-window inference of whole images, for a bundle whose metrics were measured that way.

Besides the image and its result, memory holds class maps of one window's height. If the image is too wide for that, it
is processed in blocks of columns; windows that span a border between blocks run twice.
"""

# K classes, H W pixels of the image, h w of the scaled image, r rows of a strip

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from service.segmentation.inference.cancellation import CancelCheck, never_cancelled
from service.segmentation.inference.predictor import Pixels, Plan, Prediction
from service.segmentation.inference.resample import resized
from service.segmentation.inference.windows.sliding import Floats, SlidingWindows, WindowOutputs
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.upsampling import Interpolation, upsampled

CLASS_MAP_BYTES = 2**29
"""Most memory for the class maps of one image: 19 classes, windows 768 pixels high, 9200 columns."""
UINT8_CLASSES = 256


class WindowGraph(Protocol):
    """The graph of one window: `WindowSession`."""

    @property
    def provider(self) -> str:
        """The execution provider, as onnxruntime names it."""

    def threads_for(self, *, free: int, load: int) -> int:
        """Number of threads for the next image."""

    def run(self, image_NTU3: Pixels, threads: int | None, is_cancelled: CancelCheck) -> WindowOutputs:
        """Run windows, uint8 [N, T, U, 3]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowedPredictor:
    """A `Predictor` that slides the graph of one window over the image.

    Attributes:
        max_map_bytes: Most memory for the class maps, which hold at least one column.
        max_batch: Always 1: the windows of a single image already form batches.
    """

    graph: WindowGraph
    tiling: Tiling
    classes: int
    max_map_bytes: int = CLASS_MAP_BYTES
    max_batch: int = field(default=1, init=False)

    @property
    def provider(self) -> str:
        """See `Predictor`."""
        return self.graph.provider

    def threads_for(self, *, free: int, load: int) -> int:
        """See `Predictor`."""
        return self.graph.threads_for(free=free, load=load)

    def plan(self, height: int, width: int) -> Plan:
        """See `Predictor`. No image is too large: a larger one takes more time, not more memory."""
        size = self.tiling.scaled_size(height, width)
        return Plan(size, min(self.max_map_bytes, size[1] * self._column_bytes), self.max_batch)

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """See `Predictor`. Runs the images one by one."""
        return [self.run(image_HW3) for image_HW3 in images]

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        """See `Predictor`. `is_cancelled` is called before each batch of windows."""
        height, width = image_HW3.shape[:2]
        image_hw3 = resized(image_HW3, self.plan(height, width).size)
        windows = SlidingWindows(
            network=partial(self.graph.run, threads=threads, is_cancelled=is_cancelled),
            classes=self.classes,
            tiling=self.tiling,
            image_HW3=image_hw3,
            is_cancelled=is_cancelled,
        )
        rows = Interpolation.resize(image_hw3.shape[0], height)
        all_columns = Interpolation.resize(image_hw3.shape[1], width)
        mask_HW = np.empty((height, width), np.uint8 if self.classes <= UINT8_CLASSES else np.uint16)
        confidence_HW = np.empty((height, width), np.uint8)
        for begin, end in self._column_blocks(image_hw3.shape[1], width):
            columns = all_columns.part(begin, end)
            first, last = int(columns.lower[0]), int(columns.upper[-1]) + 1
            for top, probability_KrW in upsampled(windows.finished_rows(first, last), rows, columns, first=first):
                place = slice(top, top + probability_KrW.shape[1]), slice(begin, end)
                best_rW = _argmax(probability_KrW, mask_HW[place])
                confidence_HW[place] = np.rint(best_rW * 255)
        return Prediction(mask_HW, confidence_HW, windows.embedding.result())

    @property
    def _column_bytes(self) -> int:
        return 4 * self.classes * self.tiling.window[0]

    def _column_blocks(self, scaled_width: int, width: int) -> Iterator[tuple[int, int]]:
        """Begin and end of blocks of columns of the image, as few as `max_map_bytes` allows."""
        count = min(width, -(-scaled_width * self._column_bytes // self.max_map_bytes))
        edges = [width * number // count for number in range(count + 1)]
        yield from itertools.pairwise(edges)


def _argmax(probability_KrW: Floats, mask_rW: np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]) -> Floats:
    """Write the most probable class to the mask, the first of equals, and return its probability."""
    best_rW: Floats = probability_KrW[0].copy()
    mask_rW[...] = 0
    for class_id, one_rW in enumerate(probability_KrW[1:], 1):
        mask_rW[one_rW > best_rW] = class_id
        np.maximum(best_rW, one_rW, out=best_rW)
    return best_rW
