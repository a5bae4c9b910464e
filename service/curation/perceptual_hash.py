"""A perceptual hash of 64 bits, which changes little when an image is scaled, compressed again or made brighter.

pHash (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2): the signs of the
lowest frequencies of a small grey image. It finds near-duplicates without a model.
"""

# N images, S side of the small image, F frequencies a side

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32
FREQUENCIES = 8
BITS = FREQUENCIES**2

Hashes = npt.NDArray[np.uint64]


def perceptual_hash(image_HW3: npt.NDArray[np.uint8]) -> int:
    """Hash of an RGB image, uint8 [H, W, 3]: 64 bits. An image of one colour has 0, which means: no hash.

    Deviation: the constant frequency is left out of the median, and its bit is 0, as brightness says nothing.
    """
    grey_SS = np.asarray(Image.fromarray(image_HW3).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    cosines_FS = _cosines()
    frequencies = (cosines_FS @ grey_SS @ cosines_FS.T).ravel().round(6)
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes())


def similarity(hashes_N: Hashes, other: int) -> npt.NDArray[np.float64]:
    """Share of equal bits of each hash and another one, 0..1, float64 [N]; 0 where either is 0, no hash."""
    differing_N = np.bitwise_count(hashes_N ^ np.uint64(other))
    shares_N: npt.NDArray[np.float64] = np.where((hashes_N != 0) & (other != 0), 1 - differing_N / BITS, 0.0)
    return shares_N


def _cosines() -> npt.NDArray[np.float64]:
    """The lowest basis functions of the discrete cosine transform (type II), float64 [F, S]."""
    positions, frequencies = np.arange(SIDE) + 0.5, np.arange(FREQUENCIES)
    return np.cos(np.pi / SIDE * frequencies[:, None] * positions[None])
