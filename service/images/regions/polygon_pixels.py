"""Pixels of polygons, by pycocotools, or with their outline if their points are centres of pixels.

Two conventions exist for the same numbers, and the tool that wrote them decides which one is right. A polygon
0,0 10,0 10,10 0,10 is 100 pixels for COCO, CVAT and Label Studio, and 121 for labelme and OpenCV.
"""

# P points, 2 = x and y

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.images.regions.region_runs import Ints, RegionInvalid, decode_counts, window_borders

Points = npt.NDArray[np.float64]
Size = tuple[int, int]
"""Width and height in pixels."""


def read_points(polygon: Sequence[Any], size: Size) -> Points:
    """Return the points, float64 [P, 2]. Raises RegionInvalid unless they are in or near the image."""
    try:
        points_P2 = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except ValueError:
        raise RegionInvalid(
            f"has a polygon of {len(polygon)} numbers: x and y of each point are an even number"
        ) from None
    if len(points_P2) < 3:
        raise RegionInvalid(
            f"has a polygon of {points_P2.size} numbers: three points are 6 (`segmentation` is a list of polygons)"
        )
    if (points_P2 < -np.array(size)).any() or (points_P2 > 2 * np.array(size)).any():
        raise RegionInvalid(
            f"has points far outside the upright image of {size[0]}x{size[1]}: is it another image, or its size "
            "before scaling?"
        )
    if points_P2.max() <= 1 < min(size) and (points_P2 % 1).any():
        raise RegionInvalid(
            "lies in the first pixel: its coordinates look like fractions; multiply them by width and height"
        )
    return points_P2


def outline_length(points_P2: Points) -> float:
    """Length of the outline, in steps from pixel to pixel."""
    return float(np.abs(points_P2 - np.roll(points_P2, 1, axis=0)).max(axis=1).sum())


def polygon_borders(points_P2: Points, size: Size, *, pixel_centres: bool) -> Ints:
    """Borders of a polygon, int64 [B]; parts outside the image are cut off."""
    return _with_outline(points_P2, size) if pixel_centres else _as_in_coco(points_P2, size)


def _as_in_coco(points_P2: Points, size: Size) -> Ints:
    from pycocotools import mask as coco  # noqa: PLC0415 - takes 0.3 s to import

    width, height = size
    # Its types lack lists of floats.
    polygons: Any = [points_P2.ravel().tolist()]
    return decode_counts(coco.frPyObjects(polygons, height, width)[0]["counts"], width * height)


def _with_outline(points_P2: Points, size: Size) -> Ints:
    """Draw on a canvas of the polygon's size; a rare pixel differs from Pillow's drawing on the image."""
    first_2 = np.clip(np.floor(points_P2.min(axis=0)) - 1, 0, size).astype(int)
    end_2 = np.clip(np.ceil(points_P2.max(axis=0)) + 2, first_2, size).astype(int)
    if (first_2 == end_2).any():
        return np.zeros(0, np.int64)
    canvas = Image.new("1", tuple((end_2 - first_2).tolist()))
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in (points_P2 - first_2).tolist()], fill=1, outline=1)
    left, top = first_2.tolist()
    return window_borders(np.asarray(canvas, dtype=np.bool_), left, top, size[1])
