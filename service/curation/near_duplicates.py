"""When two images are near-duplicates: as similar as an image and an altered copy of it.

No fixed similarity suits every model: with one encoder, two photographs have a cosine of 0.3, with another 0.97. So the
threshold is measured for each model on images of the pool. Some models do not tell copies from other images at all.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating]

COPIES_WITHIN = 0.05
"""This share of altered copies may be less similar than the threshold."""
PAIRS_ABOVE = 0.005
"""At most this share of random pairs of images may be more similar: in a video, some are near-duplicates."""
JPEG_QUALITY = 60
BRIGHTNESS = 1.15
CROPPED = 40
"""One in so many pixels is cut off at each side."""


def altered_copies(image_HW3: Pixels) -> Iterator[Pixels]:
    """Yield copies as tools and cameras make them: compressed again, brighter, cropped; each uint8 [H, W, 3]."""
    image = Image.fromarray(image_HW3)
    width, height = image.size
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=JPEG_QUALITY)
    yield np.asarray(Image.open(sink))
    yield np.minimum(image_HW3 * BRIGHTNESS, 255).astype(np.uint8)
    left, top = width // CROPPED, height // CROPPED
    yield np.asarray(image.crop((left, top, width - left, height - top)).resize((width, height)))


def duplicate_threshold(copies: Values, pairs: Values) -> float | None:
    """Least similarity of near-duplicates; None if copies are no more similar than different images.

    Args:
        copies: Similarities of images and altered copies of them.
        pairs: Similarities of random pairs of different images.
    """
    threshold = float(np.quantile(copies, COPIES_WITHIN))
    return threshold if threshold > np.quantile(pairs, 1 - PAIRS_ABOVE) else None
