"""The interface of a loaded model, and its result types."""

# H W pixels, D channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.cancellation import CancelCheck

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.uint8]
Embedding = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Classes and confidences of one image, and its embedding."""

    mask_HW: Mask
    """Class ids, uint8 or (above 256 classes) uint16, at the size of the image."""
    confidence_HW: npt.NDArray[np.uint8]
    """Confidence of each pixel's class, 0..255 = 0.0..1.0."""
    embedding_D: Embedding | None = None
    """Features of the whole image, of length 1; None if the bundle has no embeddings."""
    scale: float = 1.0
    """Below 1: the image was scaled down by this factor to fit the memory limit, and the result scaled back up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How images of one size are run."""

    size: tuple[int, int]
    """Height and width at which an image reaches the graph, pixels."""
    estimated_bytes: int
    """Estimated memory of one image; 0: unknown."""
    max_batch: int
    """Most images of this size to run together."""


class Predictor(Protocol):
    """A loaded model. All methods are thread-safe."""

    @property
    def provider(self) -> str:
        """The execution provider, as onnxruntime names it."""

    @property
    def max_batch(self) -> int:
        """Upper bound of `Plan.max_batch`; 1 if batches are not faster."""

    def plan(self, height: int, width: int) -> Plan:
        """Plan how an image of this size will be run.

        Raises:
            ImageTooLarge: It exceeds the memory limit.
        """

    def threads_for(self, *, free: int, load: int) -> int:
        """Number of threads for the next inference; see `thread_counts.choose_threads`."""

    def run(self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = ...) -> Prediction:
        """Segment one image.

        Args:
            image_HW3: uint8 [H, W, 3], RGB, 0..255.
            threads: A result of `threads_for`; None: the most.
            is_cancelled: Called between steps. A `Cancellation` also stops the graph within a step.

        Raises:
            ImageTooLarge: It exceeds the memory limit.
            OutOfMemory: The machine ran out of memory.
            Unavailable: The GPU failed.
            InferenceCancelled: `is_cancelled` returned True.
        """

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Segment images of one size, together if the graph supports it. Raises as `run`."""
