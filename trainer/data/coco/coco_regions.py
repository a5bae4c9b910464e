"""Pixels of one annotation in COCO's format: polygons, or run lengths as a list or as a compressed string."""

# H W pixels, N characters, R runs

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

Shape = tuple[int, int]
"""Height and width in pixels."""
Runs = npt.NDArray[np.int64]
"""Run lengths in pixels, int64 [R], column by column, of background first."""

MAX_PIXELS, MAX_SHIFT = 1 << 40, 55
"""Beyond these, numbers are not run lengths, and could overflow."""


class RegionError(ValueError):
    """A segmentation that cannot be drawn; the message completes "the annotation ..."."""


def region(segmentation: Any, shape: Shape) -> npt.NDArray[np.bool_]:
    """Pixels of a segmentation, bool [H, W]. Raises RegionError."""
    if isinstance(segmentation, dict):
        runs_R = _checked_runs(segmentation, shape)
    else:
        _check_polygons(segmentation)
        # Not `decode`: pycocotools calls numpy in a way that it deprecates.
        merged: Any = rle.merge(rle.frPyObjects(segmentation, *shape))
        runs_R = _decompressed(merged["counts"])
    return np.repeat(np.arange(len(runs_R)) % 2 == 1, runs_R).reshape(shape[::-1]).T


def check_region(segmentation: Any, shape: Shape) -> None:
    """Raise RegionError if a segmentation cannot be drawn, without drawing it."""
    if isinstance(segmentation, dict):
        _checked_runs(segmentation, shape)
    else:
        _check_polygons(segmentation)


def _check_polygons(polygons: Any) -> None:
    if not polygons:
        raise RegionError("has no segmentation, only a box" if polygons is None else "has an empty segmentation")
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise RegionError("has a segmentation that is neither a list of polygons nor run lengths")
    for polygon in polygons:
        # pycocotools would read four numbers as a box.
        if len(polygon) < 6 or len(polygon) % 2:
            raise RegionError(f"has a polygon of {len(polygon)} numbers; three points or more are 6, 8, ... numbers")
        if not all(type(number) in {int, float} for number in polygon) or not np.isfinite(polygon).all():
            raise RegionError("has a polygon with coordinates that are not finite numbers")


def _checked_runs(segmentation: dict[str, Any], shape: Shape) -> Runs:
    """Run lengths that fill the image exactly: pycocotools leaves the pixels after the last run undefined."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(shape):
        raise RegionError(f"has run lengths for size {size}, and its image has {list(shape)} (height, width)")
    text = counts.encode() if isinstance(counts, str) else counts
    runs = _decompressed(text) if isinstance(text, bytes) else _listed(counts)
    if runs.min(initial=0) < 0:
        raise RegionError("has run lengths that are not numbers of pixels")
    if (total := int(runs.sum())) != shape[0] * shape[1]:
        raise RegionError(f"has run lengths for {total} of {shape[0] * shape[1]} pixels")
    return runs


def _listed(counts: Any) -> Runs:
    if not isinstance(counts, list) or not all(type(run) is int and abs(run) < MAX_PIXELS for run in counts):
        raise RegionError("has run lengths that are not numbers of pixels")
    return np.array(counts, dtype=np.int64)


def _decompressed(text: bytes) -> Runs:
    """Run lengths of COCO's compressed string.

    A character is 48 plus 5 bits, the lowest of a number first, plus 32 if more follow; the last bit is the sign. From
    the fourth on, a number is the difference to the run length two before.
    """
    if not text:
        return np.zeros(0, dtype=np.int64)
    parts_N = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    starts_R = np.flatnonzero(np.concatenate([[True], parts_N[:-1] & 32 == 0]))
    lengths_R = np.diff(np.append(starts_R, len(parts_N)))
    shifts_N = 5 * (np.arange(len(parts_N)) - np.repeat(starts_R, lengths_R))
    numbers_R = np.add.reduceat((parts_N & 31) << np.minimum(shifts_N, MAX_SHIFT), starts_R)
    negative_R = parts_N[starts_R + lengths_R - 1] & 16 != 0
    numbers_R -= negative_R.astype(np.int64) << np.minimum(5 * lengths_R, MAX_SHIFT)
    for first in (1, 2):
        numbers_R[first::2] = np.cumsum(numbers_R[first::2])
    return numbers_R
