"""Label Studio's brush: a bit stream of run lengths over the interleaved RGBA values of the picture, row by row.

    32 bits  number of values, 4 * H * W
    5 bits   bits of a value, less 1
    4 x 4    bits of a count, less 1: four sizes
    then     1 bit: 1 = a run; 2 bits: which size; the count less 1; the value

The format is that of https://github.com/thi-ng/umbrella, package rle-pack. All four channels of a pixel are 255 in the
region, else 0.
"""

# H W pixels, N values, R runs

import numpy as np
import numpy.typing as npt

CHANNELS, VALUE_BITS = 4, 8
COUNT_BITS = (4, 8, 12, 16)
"""Sizes of counts: runs of a few pixels take few bits."""
MAX_RUN = 1 << COUNT_BITS[-1]


def brush_runs(mask_HW: npt.NDArray[np.bool_]) -> list[int]:
    """The bytes of the bit stream of a region, 0..255 each."""
    values_N = np.repeat(mask_HW.ravel(), CHANNELS)
    starts_R = np.concatenate([[0], np.flatnonzero(np.diff(values_N)) + 1])
    counts_R, inside_R = _split_long(np.diff(starts_R, append=values_N.size), values_N[starts_R])
    sizes_R = np.searchsorted(np.array([1 << bits for bits in COUNT_BITS]), counts_R)
    width_R = np.array(COUNT_BITS)[sizes_R]
    words_R = (4 + sizes_R) << (width_R + VALUE_BITS) | (counts_R - 1) << VALUE_BITS | inside_R * 255
    header = [(values_N.size, 32), (VALUE_BITS - 1, 5), *((bits - 1, 4) for bits in COUNT_BITS)]
    numbers, widths = zip(*header, strict=True)
    bits = np.concatenate([_bits(np.array(numbers), np.array(widths)), _bits(words_R, 3 + width_R + VALUE_BITS)])
    stream: list[int] = np.packbits(bits).tolist()
    return stream


def _split_long(
    counts_R: npt.NDArray[np.int64], inside_R: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Runs of at most MAX_RUN values."""
    parts_R = -(-counts_R // MAX_RUN)
    split_R = np.full(int(parts_R.sum()), MAX_RUN, dtype=np.int64)
    split_R[np.cumsum(parts_R) - 1] = counts_R - (parts_R - 1) * MAX_RUN
    return split_R, np.repeat(inside_R, parts_R)


def _bits(numbers: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The lowest `width` bits of each number, one after the other, the highest first."""
    bits = np.unpackbits(numbers.astype(">u4").view(np.uint8)).reshape(-1, 32)
    return bits[np.arange(32) >= 32 - widths[:, None]]
