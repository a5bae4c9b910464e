"""A bundle whose run judged by windows answers by windows: the mask that the run's figures are of, of any image.

Beside image and answer, memory holds one window's height of the class maps, and of a very wide image not even of all
its columns at once: blocks of columns follow each other then, and windows across their borders are asked twice.
"""

# K classes, H W pixels of the image, h w of what the windows lie over, r rows

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from service.segmentation.inference.cancellation import Gone, never_cancelled
from service.segmentation.inference.prediction import Pixels, Prediction
from service.segmentation.inference.resample import resized
from service.segmentation.inference.windows.sliding import Floats, Sweep
from service.segmentation.inference.windows.tiling import Tiling
from service.segmentation.inference.windows.upsampling import Line, upsampled

HELD_BYTES = 2**29
"""Most memory for the class maps of one sweep: 19 classes under windows of 768 pixels on 9200 columns."""
UINT8_CLASSES = 256


class WindowGraph(Protocol):
    """The network that is asked; `WindowSession` in onnxruntime."""

    @property
    def provider(self) -> str:
        """What it runs on, as onnxruntime calls it."""

    def width(self, *, free: int, load: int) -> int:
        """How many threads it should have now; see `widths.width`."""

    def probabilities(self, image_NTU3: Pixels, threads: int | None) -> Floats:
        """Windows uint8 [N, T, U, 3] to the softmax over the classes, float32 [N, K, T, U]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowedPredictor:
    """A `Predictor` that slides the graph of one window over the image.

    Attributes:
        graph: What each window goes through.
        tiling: How windows lie.
        classes: How many it tells apart.
        held_bytes: Most memory for the class maps of one sweep; those of one column are held in any case.
        max_batch: Images that go together: each has windows enough of its own.
    """

    graph: WindowGraph
    tiling: Tiling
    classes: int
    held_bytes: int = HELD_BYTES
    max_batch: int = field(default=1, init=False)

    @property
    def provider(self) -> str:
        """What it runs on, as onnxruntime calls it."""
        return self.graph.provider

    def width(self, *, free: int, load: int) -> int:
        """How many threads an image should have now; see `widths.width`."""
        return self.graph.width(free=free, load=load)

    def cost(self, height: int, width: int) -> int:
        """Bytes of the class maps. Every image is taken: it costs time, and little more than these."""
        return min(self.held_bytes, self.tiling.seen_size(height, width)[1] * self._column_bytes)

    def batch(self, height: int, width: int) -> int:  # noqa: ARG002 - of no size
        """See `Predictor`."""
        return self.max_batch

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Segment images one by one. See `Predictor`."""
        return [self.run(image_HW3) for image_HW3 in images]

    def run(self, image_HW3: Pixels, threads: int | None = None, gone: Gone = never_cancelled) -> Prediction:
        """Segment one image. See `Predictor`; `gone` is asked before each batch of windows."""
        height, width = image_HW3.shape[:2]
        seen_hw3 = resized(image_HW3, self.tiling.seen_size(height, width))
        ask = partial(self.graph.probabilities, threads=threads)
        sweep = Sweep(ask=ask, classes=self.classes, tiling=self.tiling, image_HW3=seen_hw3, gone=gone)
        rows, columns = Line.between(seen_hw3.shape[0], height), Line.between(seen_hw3.shape[1], width)
        mask_HW = np.empty((height, width), np.uint8 if self.classes <= UINT8_CLASSES else np.uint16)
        confidence_HW = np.empty((height, width), np.uint8)
        for begin, end in self._blocks(seen_hw3.shape[1], width):
            block = columns.part(begin, end)
            first, last = int(block.lower[0]), int(block.upper[-1]) + 1
            for top, probability_KrW in upsampled(sweep.bands(first, last), rows, block, first=first):
                place = slice(top, top + probability_KrW.shape[1]), slice(begin, end)
                best_rW = _most_likely(probability_KrW, mask_HW[place])
                confidence_HW[place] = np.rint(best_rW * 255)
        return Prediction(mask_HW, confidence_HW)

    @property
    def _column_bytes(self) -> int:
        return 4 * self.classes * self.tiling.window[0]

    def _blocks(self, seen: int, width: int) -> Iterator[tuple[int, int]]:
        """Columns of the image, as many at a time as may be held."""
        count = min(width, -(-seen * self._column_bytes // self.held_bytes))
        edges = [width * number // count for number in range(count + 1)]
        yield from itertools.pairwise(edges)


def _most_likely(probability_KrW: Floats, mask_rW: np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]) -> Floats:
    """Write the class of the largest probability into the mask, the first of equals, and return the probability."""
    best_rW: Floats = probability_KrW[0].copy()
    mask_rW[...] = 0
    for class_id, one_rW in enumerate(probability_KrW[1:], 1):
        mask_rW[one_rW > best_rW] = class_id
        np.maximum(best_rW, one_rW, out=best_rW)
    return best_rW
