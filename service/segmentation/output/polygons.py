"""Trace the outlines of the classes of a mask as polygons, exact to the pixel, then simplified.

An outline runs along pixel edges with the class on its right; where two pixels of a class touch only at a corner, it
separates them. The edges of all classes are processed together, with array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.errors import ImageTooLarge
from service.segmentation.inference.predictor import Mask

Bits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# A photograph has tens of thousands; a million take 300 MB to link.
MAX_CORNERS = 1_000_000
# Outlines are simplified in pieces of this many corners: Douglas-Peucker is quadratic for shapes such as a comb.
PIECE_CORNERS = 128


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed outlines, concatenated: `points` [N, 2] (x, y), the first point and the class of each ring."""

    points: Ints
    starts: Ints
    class_ids: Ints

    @property
    def lengths(self) -> Ints:
        """Number of points of each ring."""
        return np.diff(self.starts, append=len(self.points))

    def select(self, rings: Bits) -> Rings:
        """Return the rings for which `rings` is true."""
        lengths = self.lengths[rings]
        points = self.points[np.repeat(rings, self.lengths)]
        return Rings(points, np.cumsum(lengths) - lengths, self.class_ids[rings])

    def split(self) -> list[Ints]:
        """Return the points of each ring, [N, 2]."""
        return np.split(self.points, self.starts[1:])


def outlines(
    mask_HW: Mask, *, tolerance_px: float = 1.0, min_area_px: float = 8.0, max_corners: int = MAX_CORNERS
) -> dict[int, list[Ints]]:
    """Trace the rings around each class. Fill them by the even-odd rule: a hole is a ring inside a ring.

    Args:
        mask_HW: uint8 or uint16 [H, W], class ids.
        tolerance_px: Largest distance of a simplified outline from the exact one; 0 keeps every corner.
        min_area_px: Smaller rings are left out.
        max_corners: Limit on the corners of the exact outlines.

    Returns:
        The rings of each class that has any, the largest first: int64 [N, 2] corners (x, y) in pixels, 0..W and 0..H,
        without repeating the first.

    Raises:
        ImageTooLarge: The outlines of a noisy mask exceed `max_corners`.
    """
    rings = _link(*_edges(mask_HW, max_corners), mask_HW.shape)
    areas = _areas(rings)
    large = areas >= min_area_px
    rings, areas = rings.select(large), areas[large]
    polygons = _simplify(rings, tolerance_px)
    found: dict[int, list[Ints]] = {}
    for number in np.argsort(-areas, kind="stable").tolist():
        found.setdefault(int(rings.class_ids[number]), []).append(polygons[number])
    return found


def _edges(mask_HW: Mask, max_corners: int) -> tuple[Ints, Ints]:
    """Find the straight edges of all outlines; return the keys of their begins and ends.

    A key encodes class, vertex and direction (0 right, 1 down, 2 left, 3 up) in one number. The direction of an end is
    a right turn: the way on where two edges of one class leave a vertex.
    """
    height, width = mask_HW.shape
    mask_WH: Mask = mask_HW.T.copy()
    begins, ends, corners = [], [], 0
    # With the class on its right, its upper border runs right, its right border down, and so on.
    for direction, lines, after in ((0, mask_HW, False), (1, mask_WH, True), (2, mask_HW, True), (3, mask_WH, False)):
        first, last = _border_runs(lines, after=after)
        corners += int(np.count_nonzero(first))
        if corners > max_corners:
            raise ImageTooLarge(
                f"The outlines of this mask have more than {max_corners} corners: request the answer without polygons, "
                "or scale the image down."
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


def _border_runs(lines: Mask, *, after: bool) -> tuple[Bits, Bits]:
    """Mark the first and the last pixel of each run along a line that borders on the line before (or after) it."""
    border = np.ones(lines.shape, dtype=bool)
    np.not_equal(lines[1:], lines[:-1], out=border[:-1] if after else border[1:])
    continues = border[:, 1:] & border[:, :-1]
    continues &= lines[:, 1:] == lines[:, :-1]
    first, last = border.copy(), border
    first[:, 1:] &= ~continues
    last[:, :-1] &= ~continues
    return first, last


def _link(begins: Ints, ends: Ints, shape: tuple[int, int]) -> Rings:
    """Link edges to rings: at each vertex as many edges of a class end as begin, and the keys match them."""
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
    """Split a permutation into cycles by pointer doubling; return the indices in cycle order and where cycles begin."""
    index = np.arange(len(following))
    first, jump = np.minimum(index, following), following[following]
    while not np.array_equal(lower := np.minimum(first, first[jump]), first):
        first, jump = lower, jump[jump]
    # Number of steps from an edge to the first of its cycle; the first itself precedes all others.
    root = first == index
    steps, jump = np.where(root, 0, 1), np.where(root, index, following)
    while (further := steps[jump]).any():
        steps, jump = steps + further, jump[jump]
    order = np.lexsort((-np.where(root, len(index) + 1, steps), first))
    return order, np.flatnonzero(root[order])


def _areas(rings: Rings) -> npt.NDArray[np.float64]:
    if len(rings.starts) == 0:
        return np.zeros(0)
    x, y = rings.points.T
    following = _next(rings)
    return np.abs(np.add.reduceat(x * y[following] - x[following] * y, rings.starts)) / 2


def _next(rings: Rings) -> Ints:
    """Return the index of the point after each point; the first of a ring follows its last."""
    following = np.arange(1, len(rings.points) + 1)
    following[rings.starts + rings.lengths - 1] = rings.starts
    return following


def _simplify(rings: Rings, tolerance_px: float) -> list[Ints]:
    """Simplify by Douglas-Peucker. Rings of four corners, and those that would collapse to a line, stay exact."""
    exact = rings.split()
    if tolerance_px <= 0 or not (rings.lengths > 4).any():
        return exact
    import shapely  # noqa: PLC0415 - only polygons need it

    # A piece has the corners from its start to the start of the next one, or to the first corner of its ring.
    index = np.arange(len(rings.points))
    ring_of_point = np.repeat(np.arange(len(rings.starts)), rings.lengths)
    begins = np.flatnonzero((index - rings.starts[ring_of_point]) % PIECE_CORNERS == 0)
    ends = np.append(begins[1:], len(index))
    corners = np.insert(index, ends, _next(rings)[ends - 1])
    pieces = shapely.linestrings(
        rings.points[corners].astype(np.float64), indices=np.repeat(np.arange(len(begins)), ends - begins + 1)
    )
    points, piece_of_point = shapely.get_coordinates(
        shapely.simplify(pieces, tolerance_px, preserve_topology=False), return_index=True
    )
    # The last corner of a piece is the first of the next one.
    inner = piece_of_point == np.append(piece_of_point[1:], -1)
    lengths = np.bincount(ring_of_point[begins][piece_of_point[inner]], minlength=len(exact))
    simple = Rings(points[inner].astype(np.int64), np.cumsum(lengths) - lengths, rings.class_ids).split()
    return [s if len(e) > 4 and len(s) > 2 else e for e, s in zip(exact, simple, strict=True)]
