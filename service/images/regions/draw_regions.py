"""Draw a label of regions to class ids."""

# H W pixels, B borders of runs

from __future__ import annotations

from difflib import get_close_matches
from typing import Any
from unicodedata import normalize

import numpy as np

from service.classes.class_list import ClassList, Ids
from service.classes.class_names import MAX_NAME
from service.errors import MaskInvalid
from service.images.regions.polygon_pixels import Size, outline_length, polygon_borders, read_points
from service.images.regions.region_label import Region, RegionLabel, RunLengths
from service.images.regions.region_runs import Ints, RegionInvalid, count_pixels, decode_counts, join, paint

MAX_POINTS = 200_000
MAX_OUTLINE_PX = 2_000_000
"""pycocotools takes 100 bytes for each pixel of an outline."""
MAX_COVER = 50
"""Pixels of all regions together, in images."""
MAX_NAMED, MAX_COMPARED = 50, 1000


def draw_regions(label: RegionLabel, size: Size, classes: ClassList) -> Ids:
    """Draw regions in their order to ids of a class list, uint8 (uint16 if needed) [H, W].

    `size` is width and height of the upright image. Raises MaskInvalid, which names the region by its index.
    """
    width, height = size
    rest = classes.ignore_index if label.rest is None else _class_id(label.rest, classes, "`rest`")
    ids = [_class_id(each.class_name, classes, f"`regions[{i}]`") for i, each in enumerate(label.regions)]
    wide = max([rest, *ids]) > np.iinfo(np.uint8).max
    ids_WH: Any = np.full((width, height), rest, np.uint16 if wide else np.uint8)
    budget = _Budget(MAX_COVER * width * height)
    for index, (region, class_id) in enumerate(zip(label.regions, ids, strict=True)):
        try:
            borders_B = _borders(region, size, budget, pixel_centres=label.pixel_centres)
            budget.take(pixels=count_pixels(borders_B))
        except RegionInvalid as error:
            raise MaskInvalid(f"The region `regions[{index}]` ({region.class_name!r}) {error}.") from None
        paint(ids_WH.reshape(-1), borders_B, class_id)
    return np.ascontiguousarray(ids_WH.T)


class _Budget:
    """Bounds the work for one label."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._points, self._outline = pixels, MAX_POINTS, float(MAX_OUTLINE_PX)

    def take(self, *, pixels: int = 0, points: int = 0, outline: float = 0.0) -> None:
        """Subtract work. Raises RegionInvalid if nothing is left."""
        self._pixels, self._points, self._outline = (
            self._pixels - pixels,
            self._points - points,
            self._outline - outline,
        )
        if self._points < 0:
            raise RegionInvalid(f"exceeds the limit of {MAX_POINTS} points in all: simplify the polygons")
        if self._outline < 0:
            raise RegionInvalid(f"exceeds the limit of {MAX_OUTLINE_PX} pixels of outlines in all: send run lengths")
        if self._pixels < 0:
            raise RegionInvalid(f"covers pixels once more, and {MAX_COVER} regions over each are the limit")


def _borders(region: Region, size: Size, budget: _Budget, *, pixel_centres: bool) -> Ints:
    if isinstance(region.segmentation, RunLengths):
        return _of_run_lengths(region.segmentation, size)
    parts = []
    for polygon in region.segmentation:
        points_P2 = read_points(polygon, size)
        budget.take(points=len(points_P2), outline=outline_length(points_P2))
        parts.append(polygon_borders(points_P2, size, pixel_centres=pixel_centres))
    return join(parts, even_odd=region.even_odd)


def _of_run_lengths(given: RunLengths, size: Size) -> Ints:
    width, height = size
    if given.size != [height, width]:
        raise RegionInvalid(
            f"has run lengths for an image of height {given.size[0]} and width {given.size[1]}; the upright image has "
            f"height {height} and width {width}"
        )
    return decode_counts(given.counts, width * height)


def _class_id(name: str, classes: ClassList, place: str) -> int:
    wanted = normalize("NFC", name)
    identity = classes.identities.get(wanted)
    if identity is not None:
        return classes.ids[identity]
    folded = {each.casefold(): each for each in classes.names[:MAX_COMPARED]}
    near = get_close_matches(wanted[:MAX_NAME].casefold(), folded, n=1, cutoff=0.75)
    meant = f"did you mean {folded[near[0]]!r}?" if near else f"it has {', '.join(classes.names[:MAX_NAMED])}."
    raise MaskInvalid(
        f"{place} has the class {name[:MAX_NAME]!r}, which version {classes.version} of the class list lacks: {meant} "
        "PUT /v1/classes adds classes."
    )
