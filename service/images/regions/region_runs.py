"""Regions as runs: where each run of their pixels begins and ends, column by column.

Regions are drawn, joined and compared in this form, which takes memory for their outlines only.
"""

# N characters, R runs, B borders: beginnings and ends in turn, pixels counted column by column

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.classes.class_list import Ids

Ints = npt.NDArray[np.int64]

MAX_PIXELS, MAX_SHIFT = 1 << 40, 55
"""Beyond these, numbers are no run lengths, and could overflow."""


class RegionInvalid(Exception):  # noqa: N818 - named by what it is
    """A region that cannot be drawn; the message completes "The region ..."."""


def decode_counts(counts: str | bytes | Sequence[int], pixels: int) -> Ints:
    """Decode run lengths of COCO, compressed or not; return the borders, int64 [B].

    Raises RegionInvalid unless they fill `pixels` exactly: pycocotools leaves the pixels after the last run undefined.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    runs_R = _decompressed(text) if isinstance(text, bytes) else _listed(text)
    if runs_R.min(initial=0) < 0:
        raise RegionInvalid("has run lengths below 0")
    # The largest first: the sum of very large ones could overflow.
    if (total := max(int(runs_R.max(initial=0)), int(runs_R.sum()))) != pixels:
        raise RegionInvalid(f"has run lengths for {total} of {pixels} pixels")
    # The last run is outside if their number is odd.
    return np.cumsum(runs_R)[: len(runs_R) // 2 * 2]


def join(parts: Sequence[Ints], *, even_odd: bool) -> Ints:
    """Join regions: pixels in any of them, or (`even_odd`) in an odd number of them."""
    borders_B = np.concatenate(parts)
    if even_odd or len(parts) == 1:
        return np.sort(borders_B)
    steps_B = np.resize(np.array([1, -1]), len(borders_B))
    order_B = np.argsort(borders_B, kind="stable")
    depth_B = np.cumsum(steps_B[order_B])
    outer_B = (depth_B == 0) | (depth_B == steps_B[order_B])
    joined_B: Ints = borders_B[order_B][outer_B]
    return joined_B


def window_borders(mask_HW: npt.NDArray[np.bool_], left: int, top: int, height: int) -> Ints:
    """Borders of a mask, bool [H, W], at a place in an image of this height."""
    padded_WH = np.pad(mask_HW.T, ((0, 0), (1, 1))).astype(np.int8)
    columns, rows = np.nonzero(np.diff(padded_WH, axis=1))
    return (columns + left) * height + rows + top


def count_pixels(borders_B: Ints) -> int:
    """Number of pixels of a region."""
    return int((borders_B[1::2] - borders_B[::2]).sum())


def paint(ids_N: Ids, borders_B: Ints, class_id: int) -> None:
    """Set the pixels of a region, in ids that are flat, column by column."""
    # Faster than an array of indices, and without its memory.
    for begin, end in zip(borders_B[::2].tolist(), borders_B[1::2].tolist(), strict=True):
        ids_N[begin:end] = class_id


def _listed(counts: Sequence[int]) -> Ints:
    if not all(abs(run) < MAX_PIXELS for run in counts):
        raise RegionInvalid("has run lengths that are not numbers of pixels")
    return np.array(counts, dtype=np.int64)


def _decompressed(text: bytes) -> Ints:
    """Decode COCO's compressed string.

    A character is 48 plus 5 bits, the lowest of a number first, plus 32 if more follow; the last bit is the sign. From
    the fourth on, a number is the difference to the run length two before.
    """
    if not text:
        return np.zeros(0, dtype=np.int64)
    parts_N = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if parts_N.min() < 0 or parts_N.max() > 63 or parts_N[-1] & 32:
        raise RegionInvalid("has a string of run lengths that is damaged or incomplete")
    starts_R = np.flatnonzero(np.concatenate([[True], parts_N[:-1] & 32 == 0]))
    lengths_R = np.diff(np.append(starts_R, len(parts_N)))
    if lengths_R.max() * 5 > MAX_SHIFT:
        raise RegionInvalid("has run lengths that are not numbers of pixels")
    shifts_N = 5 * (np.arange(len(parts_N)) - np.repeat(starts_R, lengths_R))
    numbers_R = np.add.reduceat((parts_N & 31) << shifts_N, starts_R)
    negative_R = parts_N[starts_R + lengths_R - 1] & 16 != 0
    numbers_R -= negative_R.astype(np.int64) << (5 * lengths_R)
    if np.abs(numbers_R).max() > MAX_PIXELS:
        raise RegionInvalid("has run lengths that are not numbers of pixels")
    for first in (1, 2):
        numbers_R[first::2] = np.cumsum(numbers_R[first::2])
    return numbers_R
