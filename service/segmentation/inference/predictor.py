"""What answers for an image, whatever it does to come to it: one graph of whole images, or windows over them."""

# H W pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from service.segmentation.inference.cancellation import Gone
from service.segmentation.inference.prediction import Pixels, Prediction


class Predictor(Protocol):
    """A loaded model. Its methods may be called from several threads at one time."""

    @property
    def provider(self) -> str:
        """What it runs on, as onnxruntime calls it."""

    @property
    def max_batch(self) -> int:
        """Images that are worth running together, if they are small."""

    def batch(self, height: int, width: int) -> int:
        """Images of this size that may run together: at most `max_batch`, and what the memory allowed is enough for."""

    def width(self, *, free: int, load: int) -> int:
        """How many threads an image should have now; see `widths.width`."""

    def cost(self, height: int, width: int) -> int:
        """Bytes of memory that an image may be expected to take, told before anything is done about it; 0: unknown.

        Raises:
            ImageTooLarge: More than is allowed.
        """

    def run(self, image_HW3: Pixels, threads: int | None = None, gone: Gone = ...) -> Prediction:
        """Segment one image.

        Args:
            image_HW3: uint8 [H, W, 3], RGB, 0..255.
            threads: As `width` says; None: the most.
            gone: SegmentQuery between steps.

        Raises:
            ImageTooLarge: As `cost`.
            OutOfMemory: It cost more than the machine has.
            Unavailable: The GPU failed.
            InferenceCancelled: `gone` said so.
        """

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Segment images of one size together, where that is worth it. Raises as `run`."""
