"""Outlines of the regions of a mask as polygons, exact to the pixel and then simplified.

An outline runs along the cracks between pixels, so a single pixel is a square of four corners. Straight pieces of it
go from corner to corner with the region on their right; where two pixels touch only at a corner the outline separates
them. The pieces of all classes are found, linked and simplified together with array operations: neither many classes
nor a noisy mask cost a Python loop over their outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.errors import ImageTooLarge
from service.segmentation.inference.engine import Mask

Ring = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Corners of all exact outlines together. A photograph has tens of thousands; a million take some 300 MB to link.
MAX_CORNERS = 1_000_000
# Every so many corners one is kept for certain: else the equal teeth of a comb would be split off one by one.
STRETCH = 128


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed outlines one after another: `points` [N, 2] (x, y), where each begins, and of which class it is."""

    points: Ring
    starts: Ints
    class_ids: Ints

    @property
    def lengths(self) -> Ints:
        """How many points each has."""
        return np.diff(self.starts, append=len(self.points))

    def chosen(self, rings: Bits) -> Rings:
        """Some of them."""
        lengths = self.lengths[rings]
        points = self.points[np.repeat(rings, self.lengths)]
        return Rings(points, np.cumsum(lengths) - lengths, self.class_ids[rings])

    def thinned(self, kept: Bits) -> Rings:
        """All of them, with some of their points."""
        lengths = np.add.reduceat(kept, self.starts, dtype=np.int64) if len(kept) else self.starts
        return Rings(self.points[kept], np.cumsum(lengths) - lengths, self.class_ids)


def outlines(
    mask_HW: Mask, *, tolerance_px: float = 1.0, min_area_px: float = 8.0, max_corners: int = MAX_CORNERS
) -> dict[int, list[Ring]]:
    """The rings around each class, to be filled by the even-odd rule: a hole is a ring inside a ring.

    Args:
        mask_HW: uint8 or uint16 [H, W], class ids.
        tolerance_px: How far a simplified outline may leave the exact one; 0 keeps every corner.
        min_area_px: Rings around less than this are left out.
        max_corners: How many corners the exact outlines may have.

    Returns:
        For each class that has rings: int64 [N, 2] each, corners (x, y) in pixels, 0..W and 0..H, not repeating the
        first; the largest ring first.

    Raises:
        ImageTooLarge: The mask is so noisy that its outlines have more corners.
    """
    rings = _linked(*_pieces(mask_HW, max_corners), mask_HW.shape)
    areas = _areas(rings)
    large = areas >= min_area_px
    rings, areas = rings.chosen(large), areas[large]
    rings = rings.thinned(_worth_keeping(rings, tolerance_px))
    parts = np.split(rings.points, rings.starts[1:])
    found: dict[int, list[Ring]] = {}
    for number in np.argsort(-areas, kind="stable").tolist():
        found.setdefault(int(rings.class_ids[number]), []).append(parts[number])
    return found


def _pieces(mask_HW: Mask, max_corners: int) -> tuple[Ints, Ints]:
    """Every straight piece of an outline, as the keys of where it begins and where it ends.

    A key is class, vertex and direction in one number; directions are 0 right, 1 down, 2 left, 3 up. At an end it is
    the direction of a turn to the right, which is the way on where two pieces of one class leave a vertex.
    """
    height, width = mask_HW.shape
    mask_WH: Mask = mask_HW.T.copy()
    begins, ends, corners = [], [], 0
    # With the region on its right, its upper border runs right, its right one down, and so on.
    for direction, lines, after in ((0, mask_HW, False), (1, mask_WH, True), (2, mask_HW, True), (3, mask_WH, False)):
        first, last = _runs_of_border(lines, after=after)
        corners += int(np.count_nonzero(first))
        if corners > max_corners:
            raise ImageTooLarge(
                f"The outlines of this mask have more than {max_corners} corners: ask without polygons, or scale the "
                "image down."
            )
        at = np.flatnonzero(first)
        line, low = np.divmod(at, lines.shape[1])
        high = np.flatnonzero(last) % lines.shape[1] + 1
        border = line + after
        begin, end = (low, high) if direction in (0, 1) else (high, low)
        x_step, line_step = (1, width + 1) if direction in (0, 2) else (width + 1, 1)
        origin = lines.ravel()[at].astype(np.int64) * ((height + 1) * (width + 1)) + border * line_step
        begins.append((origin + begin * x_step) * 4 + direction)
        ends.append((origin + end * x_step) * 4 + (direction + 1) % 4)
    return np.concatenate(begins), np.concatenate(ends)


def _runs_of_border(lines: Mask, *, after: bool) -> tuple[Bits, Bits]:
    """Along each line, the first and the last pixel of every run that has the line before (or after) as a border."""
    border = np.ones(lines.shape, dtype=bool)
    np.not_equal(lines[1:], lines[:-1], out=border[:-1] if after else border[1:])
    goes_on = border[:, 1:] & border[:, :-1]
    goes_on &= lines[:, 1:] == lines[:, :-1]
    first, last = border.copy(), border
    first[:, 1:] &= ~goes_on
    last[:, :-1] &= ~goes_on
    return first, last


def _linked(begins: Ints, ends: Ints, shape: tuple[int, int]) -> Rings:
    """Pieces put one after another: as many of a class end at a vertex as begin there, and turn as the keys say."""
    in_order = np.argsort(begins)
    begins, ends = begins[in_order], ends[in_order]
    following = np.empty(len(begins), dtype=np.int64)
    following[np.argsort(ends)] = np.arange(len(begins))
    order, starts = _cycles(following)
    vertices = (shape[0] + 1) * (shape[1] + 1)
    class_id, vertex = np.divmod(begins[order] // 4, vertices)
    y, x = np.divmod(vertex, shape[1] + 1)
    return Rings(np.stack([x, y], axis=1), starts, class_id[starts])


def _cycles(following: Ints) -> tuple[Ints, Ints]:
    """Cut a permutation into its cycles, by pointer doubling: indices in walking order, and where cycles begin."""
    index = np.arange(len(following))
    first, jump = np.minimum(index, following), following[following]
    while not np.array_equal(lower := np.minimum(first, first[jump]), first):
        first, jump = lower, jump[jump]
    # How many steps lie between a piece and the first of its cycle; the first itself comes before all others.
    root = first == index
    steps, jump = np.where(root, 0, 1), np.where(root, index, following)
    while (further := steps[jump]).any():
        steps, jump = steps + further, jump[jump]
    order = np.lexsort((-np.where(root, len(index) + 1, steps), first))
    return order, np.flatnonzero(root[order])


def _areas(rings: Rings) -> Floats:
    if len(rings.starts) == 0:
        return np.zeros(0)
    x, y = rings.points.T
    following = _next(rings)
    return np.abs(np.add.reduceat(x * y[following] - x[following] * y, rings.starts)) / 2


def _next(rings: Rings) -> Ints:
    """For each point the index of the one behind it; behind the last of a ring is its first."""
    following = np.arange(1, len(rings.points) + 1)
    following[rings.starts + rings.lengths - 1] = rings.starts
    return following


def _worth_keeping(rings: Rings, tolerance: float) -> Bits:
    """Douglas-Peucker on all rings at once, each cut at its first corner, the one farthest from it and every 128th."""
    kept: Bits = np.ones(len(rings.points), dtype=bool)
    if tolerance <= 0 or not (rings.lengths > 4).any():
        return kept
    lengths, starts = rings.lengths, rings.starts
    far = _peaks(np.hypot(*(rings.points - np.repeat(rings.points[starts], lengths, axis=0)).T), starts)
    kept = (np.arange(len(kept)) - np.repeat(starts, lengths)) % STRETCH == 0
    kept[far] = True
    begin = np.flatnonzero(kept)
    kept |= lengths.repeat(lengths) <= 4
    # The end of a ring's last stretch is one beyond its last point, and stands for its first.
    end, closed = np.append(begin[1:], len(kept)), _next(rings)
    while (open_ := end - begin > 1).any():
        begin, end = begin[open_], end[open_]
        at, splits = _farthest(rings.points, begin, end, closed[end - 1], tolerance)
        kept[at] = True
        begin, end = np.concatenate([begin[splits], at]), np.concatenate([at, end[splits]])
    # What would shrink to a line stays as it is.
    thin: Bits = np.add.reduceat(kept, starts, dtype=np.int64) < 3
    kept |= np.repeat(thin, lengths)
    return kept


def _farthest(points: Ring, begin: Ints, end: Ints, behind: Ints, tolerance: float) -> tuple[Ints, Bits]:
    """In which stretches a point lies too far from the line from `begin` to `behind`, and the farthest there."""
    inner = end - begin - 1
    offsets = np.cumsum(inner) - inner
    between = np.repeat(begin + 1 - offsets, inner) + np.arange(inner.sum())
    line = (np.repeat(points[place], inner, axis=0) for place in (begin, behind))
    distances = _distances(points[between], *line)
    peak = _peaks(distances, offsets)
    splits = distances[peak] > tolerance
    return between[peak[splits]], splits


def _peaks(values: Floats, starts: Ints) -> Ints:
    """The index of the greatest value, the first of equals, in each stretch from one start to the next."""
    lengths = np.diff(starts, append=len(values))
    greatest = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, starts), lengths))
    owner = np.searchsorted(starts, greatest, side="right")
    return greatest[np.flatnonzero(np.diff(owner, prepend=0))]


def _distances(points: Ring, a: Ring, b: Ring) -> Floats:
    """From each point to the line through its a and b (to a, where they are one)."""
    along, offsets = b - a, points - a
    length = np.hypot(along[:, 0], along[:, 1])
    across = np.abs(along[:, 0] * offsets[:, 1] - along[:, 1] * offsets[:, 0])
    to_a = np.hypot(offsets[:, 0], offsets[:, 1])
    return np.asarray(np.where(length > 0, across / np.maximum(length, 1), to_a), dtype=np.float64)
