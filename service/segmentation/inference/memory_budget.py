"""Estimate the memory of an inference and reject images that exceed the limit.

Most memory holds the scores of a few classes for every pixel of the image. A transformer without fused attention also
stores a score for every pair of patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.errors import ImageTooLarge

# Measured with tests/benchmarks/graph_memory.py on graphs of 2 to 150 classes at 1 to 16 megapixels, rounded up.
# Per pixel of the image: a fixed part, and a part for each class whose score becomes a probability at that moment.
PIXEL_BYTES, CLASS_BYTES, CLASSES_AT_ONCE = 12, 16, 16
# Per pixel of the network's input: feature maps.
NETWORK_BYTES = 256
# Per pair of patches: float32 scores and their softmax, measured as 8 bytes per head, times 12 heads (ViT-B).
ATTENTION_BYTES = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBudget:
    """The memory limit of one graph.

    Attributes:
        max_bytes: Maximum estimated memory of one inference.
        max_native_pixels: Maximum pixels of an image if the graph runs at the image's own size.
        long_side: Pixels to which the graph scales the longer side; 0: it runs at the image's own size.
        patch: Side of the network's patches, pixels; 1: no patches.
        fused_attention: Whether attention avoids storing all pairs of patches.
    """

    max_bytes: int
    max_native_pixels: int
    classes: int
    long_side: int
    patch: int = 1
    fused_attention: bool = False

    def check(self, height: int, width: int) -> None:
        """Check an image at its own size.

        Raises:
            ImageTooLarge: It exceeds a limit; the message suggests a size.
        """
        if self.long_side == 0 and height * width > self.max_native_pixels:
            raise ImageTooLarge(
                f"The image has {width}x{height} pixels; this model runs at the image's own size, up to "
                f"{self.max_native_pixels} pixels: scale the image down, or raise MASKLOOP_MAX_NATIVE_PIXELS."
            )
        scale = self._scale(height, width)
        if scale < 1:
            smaller = f"{max(1, int(width * scale))}x{max(1, int(height * scale))}"
            remedy = f"scale the image down to {smaller}, or " if scale > 0 else ""
            raise ImageTooLarge(
                f"At {width}x{height} pixels this model needs about {self.estimate(height, width) / 1e9:.1f} GB of "
                f"memory; the limit is {self.max_bytes / 1e9:.1f} GB: {remedy}raise MASKLOOP_MAX_INFERENCE_BYTES if "
                "the machine has more."
            )

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """The largest height and width within the limit, up to those of the image.

        A smaller size is returned only if the graph would scale down further anyway: little is lost.

        Raises:
            ImageTooLarge: There is no such size.
        """
        scale = self._scale(height, width)
        if self.long_side and scale < 1 and scale * max(height, width) >= self.long_side:
            # Repeat: rounding to whole pixels changes the aspect ratio, which may add a row of patches.
            return self.largest_size(max(1, int(height * scale)), max(1, int(width * scale)))
        self.check(height, width)
        return height, width

    def estimate(self, height: int, width: int) -> int:
        """Estimated memory of an image at its own size, bytes."""
        return sum(self._parts(height, width))

    def _scale(self, height: int, width: int) -> float:
        """Largest factor for both sides within the limit; above 1 if there is room, 0 if none fits."""
        output, network, attention = self._parts(height, width)
        if self.long_side:
            return math.sqrt(max(0, self.max_bytes - network - attention) / output)
        # Memory grows with the square of the sides, that of attention with the fourth power: solve o*s^2 + a*s^4 = max.
        output += network
        return math.sqrt(2 * self.max_bytes / (output + math.sqrt(output**2 + 4 * attention * self.max_bytes)))

    def _parts(self, height: int, width: int) -> tuple[int, int, int]:
        """Bytes of arrays at the image's size, of arrays at the network's size, and of pairs of patches."""
        factor = self.long_side / max(height, width) if self.long_side else 1
        rows, columns = (max(1, math.ceil(side * factor / self.patch)) for side in (height, width))
        output = (PIXEL_BYTES + CLASS_BYTES * min(self.classes, CLASSES_AT_ONCE)) * height * width
        network = NETWORK_BYTES * rows * columns * self.patch**2
        attention = 0 if self.fused_attention or self.patch == 1 else ATTENTION_BYTES * (rows * columns) ** 2
        return output, network, attention
