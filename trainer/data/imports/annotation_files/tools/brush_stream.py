"""Label Studio's brush: a bit stream of run lengths over the interleaved RGBA values of the picture, row by row.

    32 bits  number of values, 4 * H * W
    5 bits   bits of a value, less 1
    4 x 4    bits of a count, less 1: four sizes
    then     1 bit: is it a run; 2 bits: which size; the count less 1; one value for a run, else `count` values

The format is that of https://github.com/thi-ng/umbrella, package rle-pack. A pixel belongs to the region if its alpha
is not 0.
"""

# H W pixels

import numpy as np
import numpy.typing as npt

from trainer.data.imports.drawing.rasterise import Bitmap, ShapeError
from trainer.data.imports.source.annotated import Size

HEADER_BITS = 32 + 5 + 4 * 4
CHANNELS = 4


def brush_mask(stream: bytes, size: Size) -> Bitmap:
    """The alpha channel of a brush in an image of `size`. Raises ShapeError if it is of another size, or damaged."""
    if len(stream) * 8 < HEADER_BITS:
        raise ShapeError("has a brush that ends too early")
    bits = _Bits(stream)
    total, value_bits = bits.read(32), bits.read(5) + 1
    if total != CHANNELS * size[0] * size[1]:
        pixels = total / CHANNELS
        raise ShapeError(f"has a brush of {pixels:g} pixels, and its image has {size[0] * size[1]}")
    count_bits = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(total, dtype=np.bool_)
    place = 0
    while place < total:
        is_run = bits.read(1)
        count = bits.read(count_bits[bits.read(2)]) + 1
        if place + count > total:
            raise ShapeError("has a brush with more values than it declares")
        values[place : place + count] = bits.read(value_bits) if is_run else bits.read_values(count, value_bits)
        place += count
    return Bitmap(values.reshape(*size, CHANNELS)[..., CHANNELS - 1])


class _Bits:
    """Reads numbers of any number of bits, the highest bit first. Raises ShapeError at the end."""

    def __init__(self, stream: bytes) -> None:
        self._stream, self._place = stream, 0

    def read(self, width: int) -> int:
        start, end = self._advance(width)
        part = int.from_bytes(self._stream[start >> 3 : (end + 7) >> 3])
        return part >> (-end % 8) & ((1 << width) - 1)

    def read_values(self, count: int, width: int) -> npt.NDArray[np.bool_]:
        """Whether each of `count` numbers of `width` bits is not 0."""
        start, end = self._advance(count * width)
        part = np.frombuffer(self._stream[start >> 3 : (end + 7) >> 3], dtype=np.uint8)
        bits = np.unpackbits(part)[start % 8 : start % 8 + count * width]
        return np.asarray(bits.reshape(count, width).any(axis=1))

    def _advance(self, width: int) -> tuple[int, int]:
        start = self._place
        self._place += width
        if self._place > len(self._stream) * 8:
            raise ShapeError("has a brush that ends too early")
        return start, self._place
