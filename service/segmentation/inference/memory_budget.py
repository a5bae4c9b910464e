"""What one inference may cost, held against a limit before it is begun: a machine out of memory answers nobody.

The arrays at the image's own size cost the most: scores of a few classes for every pixel. A transformer also compares
each of its patches with every other, and holds all these pairs where its attention is not fused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.errors import ImageTooLarge

# Measured by tests/benchmarks/graph_memory.py, on graphs of 2 to 150 classes at 1 to 16 megapixels, and rounded up.
# For each pixel of the image: of itself, and of each class while its score becomes a probability, a few at a time.
PIXEL_BYTES, CLASS_BYTES, CLASSES_AT_ONCE = 12, 16, 16
# For each pixel that the network sees: what it holds between its layers.
NETWORK_BYTES = 256
# For each pair of patches: float32 scores and their softmax, 8 bytes a head as measured, of 12 heads (ViT-B).
ATTENTION_BYTES = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBudget:
    """The limits of one graph.

    Attributes:
        max_bytes: Most memory that one inference may be expected to take.
        max_native_pixels: Largest image of a graph that runs at native size.
        classes: How many it tells apart.
        long_side: Pixels to which the graph brings the longer side; 0: it runs at native size.
        patch: Pixels of which the graph's sides are multiples; 1: it has no patches.
        fused_attention: Whether its attention never holds all pairs of patches.
    """

    max_bytes: int
    max_native_pixels: int
    classes: int
    long_side: int
    patch: int = 1
    fused_attention: bool = False

    def check(self, height: int, width: int) -> None:
        """Refuse an image that would cost too much as it is.

        Raises:
            ImageTooLarge: It would; the message says how large it may be.
        """
        if self.long_side == 0 and height * width > self.max_native_pixels:
            raise ImageTooLarge(
                f"This model works at the image's own size, up to {self.max_native_pixels} pixels; {width}x{height} "
                "came: scale the image down, or raise MASKLOOP_MAX_NATIVE_PIXELS."
            )
        scale = self._scale(height, width)
        if scale < 1:
            smaller = f"{max(1, int(width * scale))}x{max(1, int(height * scale))}"
            remedy = f"scale the image down to {smaller}, or " if scale > 0 else ""
            raise ImageTooLarge(
                f"At {width}x{height} pixels this model would take about {self.cost(height, width) / 1e9:.1f} GB of "
                f"memory and {self.max_bytes / 1e9:.1f} GB are allowed: {remedy}raise MASKLOOP_MAX_INFERENCE_BYTES "
                "where the machine has more."
            )

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """The largest size at which an image of this size may be asked about: its own, wherever that may be.

        A smaller one loses little where the graph would make the image smaller still, and only there it is offered.

        Raises:
            ImageTooLarge: There is none.
        """
        scale = self._scale(height, width)
        if self.long_side and scale < 1 and scale * max(height, width) >= self.long_side:
            # Once more: whole pixels are not quite in proportion, and the network may see a row more of them.
            return self.fitting(max(1, int(height * scale)), max(1, int(width * scale)))
        self.check(height, width)
        return height, width

    def cost(self, height: int, width: int) -> int:
        """Bytes that an image of this size may be expected to take, as it is."""
        return sum(self._needs(height, width))

    def _scale(self, height: int, width: int) -> float:
        """By how much the sides may be multiplied so that what is needed is what is allowed; 0: by nothing."""
        output, network, attention = self._needs(height, width)
        if self.long_side:
            return math.sqrt(max(0, self.max_bytes - network - attention) / output)
        # Memory grows with the second power of the sides, and that of attention with the fourth: o*s^2 + a*s^4 = max.
        output += network
        return math.sqrt(2 * self.max_bytes / (output + math.sqrt(output**2 + 4 * attention * self.max_bytes)))

    def _needs(self, height: int, width: int) -> tuple[int, int, int]:
        """Bytes at the image's size, at the size that the network sees, and for pairs of patches."""
        seen = self.long_side / max(height, width) if self.long_side else 1
        rows, columns = (max(1, math.ceil(side * seen / self.patch)) for side in (height, width))
        output = (PIXEL_BYTES + CLASS_BYTES * min(self.classes, CLASSES_AT_ONCE)) * height * width
        network = NETWORK_BYTES * rows * columns * self.patch**2
        attention = 0 if self.fused_attention or self.patch == 1 else ATTENTION_BYTES * (rows * columns) ** 2
        return output, network, attention
