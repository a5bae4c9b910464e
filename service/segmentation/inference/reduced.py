"""An image that costs too much memory as it is: made smaller, segmented, and the answer made larger again.

The graph brings an image to its `long_side` anyway. What is lost by being made smaller before is the exact line between
two classes, by about a pixel of the smaller image; the answer says so by its `scale`.
"""

# H W pixels

from __future__ import annotations

from collections.abc import Callable

from service.segmentation.inference.prediction import Pixels, Prediction
from service.segmentation.inference.resample import enlarged, resized


def segmented_at(size: tuple[int, int], image_HW3: Pixels, segment: Callable[[Pixels], Prediction]) -> Prediction:
    """An image's mask and confidence, by way of a smaller image.

    Args:
        size: Its height and width.
        image_HW3: uint8 [H, W, 3], RGB.
        segment: What segments the smaller one.
    """
    full = image_HW3.shape[0], image_HW3.shape[1]
    if size == full:
        return segment(image_HW3)
    small = segment(resized(image_HW3, size))
    mask_HW, confidence_HW = enlarged(small.mask_HW, full), enlarged(small.confidence_HW, full)
    return Prediction(mask_HW, confidence_HW, scale=max(size) / max(full))
