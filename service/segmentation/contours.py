"""Outlines of a region as polygons, exact to the pixel and then simplified.

The outline runs along the cracks between pixels, so a single pixel is a square of four corners. Every crack is an
edge with the region on its right; where two pixels touch only at a corner the outline separates them. All edges are
linked at once with array operations (pointer doubling), so a noisy mask costs no Python loop over its outline.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# Steps by direction 0 right, 1 down, 2 left, 3 up.
DX = np.array([1, 0, -1, 0])
DY = np.array([0, 1, 0, -1])


def outline(region_HW: Bits, *, tolerance_px: float = 1.0, min_area_px: float = 8.0) -> list[Ring]:
    """The rings around a region, to be filled by the even-odd rule: a hole is a ring inside a ring.

    Args:
        region_HW: bool [H, W].
        tolerance_px: How far a simplified outline may leave the exact one; 0 keeps every corner.
        min_area_px: Rings around less than this are left out.

    Returns:
        int64 [N, 2] each: corners (x, y) in pixels, 0..W and 0..H, not repeating the first; the largest ring first.
    """
    keys, width = _cracks(region_HW)
    if keys.size == 0:
        return []
    order, starts = _rings(_successors(keys, width))
    vertex, direction = keys[order] // 4, keys[order] % 4
    points = np.stack([vertex % width, vertex // width], axis=1)
    found: list[tuple[float, Ring]] = []
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        turns = direction[begin:end] != np.roll(direction[begin:end], 1)
        ring = points[begin:end][turns]
        area = _area(ring)
        if area >= min_area_px:
            found.append((area, _simplify(ring, tolerance_px)))
    found.sort(key=lambda pair: -pair[0])
    return [ring for _, ring in found]


def _cracks(region_HW: Bits) -> tuple[Ints, int]:
    """Every crack as `start vertex * 4 + direction`, sorted; and the number of vertices in a row."""
    padded = np.pad(region_HW, 1)
    inside = padded[1:-1, 1:-1]
    width = region_HW.shape[1] + 1
    keys = []
    for direction, neighbour, (dy, dx) in (
        (0, padded[:-2, 1:-1], (0, 0)),
        (1, padded[1:-1, 2:], (0, 1)),
        (2, padded[2:, 1:-1], (1, 1)),
        (3, padded[1:-1, :-2], (1, 0)),
    ):
        y, x = np.nonzero(inside & ~neighbour)
        keys.append(((y + dy) * width + x + dx) * 4 + direction)
    return np.sort(np.concatenate(keys)), width


def _successors(keys: Ints, width: int) -> Ints:
    """For each crack the index of the one that follows: turning right (the same pixel), else straight, else left."""
    vertex, direction = keys // 4, keys % 4
    end = vertex + DX[direction] + DY[direction] * width
    following = np.full(len(keys), -1, dtype=np.int64)
    for turn in (3, 0, 1):
        wanted = end * 4 + (direction + turn) % 4
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        following = np.where(keys[at] == wanted, at, following)
    return following


def _rings(following: Ints) -> tuple[Ints, list[int]]:
    """Cut the permutation into its cycles: the indices in walking order, and where each cycle begins."""
    count = len(following)
    index = np.arange(count)
    first, jump = index.copy(), following.copy()
    for _ in range(count.bit_length()):
        first = np.minimum(first, first[jump])
        jump = jump[jump]
    # How many steps lie between an edge and the first of its ring; the first itself comes before all others.
    root = first == index
    steps = np.where(root, 0, 1)
    jump = np.where(root, index, following)
    for _ in range(count.bit_length()):
        steps = steps + steps[jump]
        jump = jump[jump]
    steps = np.where(root, count + 1, steps)
    order = np.lexsort((-steps, first))
    return order, np.flatnonzero(root[order]).tolist()


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))) / 2


def _simplify(ring: Ring, tolerance: float) -> Ring:
    """Douglas-Peucker on a closed ring, opened at its first corner and the one farthest from it."""
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    far = int(np.argmax(np.hypot(*(ring - ring[0]).T)))
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, len(ring)]] = True
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        begin, end = waiting.pop()
        if end - begin < 2:
            continue
        distances = _distances(closed[begin + 1 : end], closed[begin], closed[end])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            split = begin + 1 + worst
            keep[split] = True
            waiting += [(begin, split), (split, end)]
    kept = closed[:-1][keep[:-1]]
    return kept if len(kept) >= 3 else ring


def _distances(points: Ring, a: Ring, b: Ring) -> npt.NDArray[np.float64]:
    """From points to the line through a and b (to a, where they are one)."""
    along, offsets = b - a, points - a
    length = float(np.hypot(*along))
    if length == 0:
        return np.asarray(np.hypot(offsets[:, 0], offsets[:, 1]), dtype=np.float64)
    return np.asarray(np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]) / length, dtype=np.float64)
