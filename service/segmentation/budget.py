"""What one inference may cost, held against a limit before it is begun: a machine out of memory answers nobody.

The arrays at the image's own size cost the most: scores of every class for every pixel. A transformer that sees the
image at its own size (`long_side` 0) also compares each of its patches with every other.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ImageTooLarge

# For each pixel and class: float32 scores, resized and turned into probabilities. Measured with 2, 11 and 21 classes.
OUTPUT_BYTES = 16
# For each pair of patches: float32 scores and their softmax, 8 bytes a head as measured, of 12 heads (ViT-B).
ATTENTION_BYTES = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The limits of one graph.

    Attributes:
        max_bytes: Most memory that one inference may be expected to take.
        max_native_pixels: Largest image of a graph that runs at native size; None: it does not.
        classes: How many it tells apart.
        patch: Pixels of which the graph's sides are multiples; 1: it has no patches.
    """

    max_bytes: int
    max_native_pixels: int | None
    classes: int
    patch: int = 1

    def check(self, height: int, width: int) -> None:
        """Refuse an image that would cost too much.

        Raises:
            ImageTooLarge: It would; the message says how large it may be.
        """
        if self.max_native_pixels is not None and height * width > self.max_native_pixels:
            raise ImageTooLarge(
                f"This model works at the image's own size, up to {self.max_native_pixels} pixels; {width}x{height} "
                "came: scale the image down, or raise MASKLOOP_MAX_NATIVE_PIXELS."
            )
        # Memory grows with the second power of the sides, and that of attention with the fourth.
        needs = ((self._output_bytes(height, width), 2), (self._attention_bytes(height, width), 4))
        scale = min((self.max_bytes / max(need, 1)) ** (1 / power) for need, power in needs)
        if scale < 1:
            most = max(need for need, _ in needs)
            raise ImageTooLarge(
                f"At {width}x{height} pixels this model would take about {most / 1e9:.1f} GB of memory and "
                f"{self.max_bytes / 1e9:.1f} GB are allowed: scale the image down to "
                f"{max(1, int(width * scale))}x{max(1, int(height * scale))}, or raise MASKLOOP_MAX_INFERENCE_BYTES "
                "where the machine has more."
            )

    def _output_bytes(self, height: int, width: int) -> int:
        return OUTPUT_BYTES * self.classes * height * width

    def _attention_bytes(self, height: int, width: int) -> int:
        if self.max_native_pixels is None or self.patch == 1:
            return 0
        patches = -(-height // self.patch) * -(-width // self.patch)
        return ATTENTION_BYTES * patches**2
