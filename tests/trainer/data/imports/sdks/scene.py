"""Pictures with regions that every tool's SDK writes in its own format, and the id masks that an import must give.

Needs NumPy and Pillow only: it runs in the virtual environment of each SDK.
"""

# H W pixels, C channels, N points

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = ("crop", "weed", "stone")
"""Their ids are 1, 2, 3; 0 is background."""
COLORS = ((0, 160, 0), (220, 40, 40), (90, 90, 200))

Bits = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.uint8]
Points = tuple[tuple[int, int], ...]
"""Corners (x, y) of a polygon, between pixels: 0, 0 is the upper left corner of the picture."""


@dataclass(frozen=True, slots=True)
class Region:
    """An area of a class with horizontal and vertical sides, perhaps with a hole."""

    name: str
    corners: Points
    hole: Points = ()

    @property
    def id(self) -> int:
        return CLASSES.index(self.name) + 1

    def bits(self, shape: tuple[int, int]) -> Bits:
        """Pixels of the region, bool [H, W]."""
        return inside(self.corners, shape) & ~inside(self.hole, shape)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's name with suffix, its (height, width) in pixels, and its regions: later ones cover earlier ones."""

    file_name: str
    shape: tuple[int, int]
    regions: tuple[Region, ...]

    @property
    def stem(self) -> str:
        return Path(self.file_name).stem

    def ids(self) -> Ids:
        """Class ids, uint8 [H, W]."""
        return painted(self.shape, [(region.id, region.bits(self.shape)) for region in self.regions])

    def save(self, path: Path) -> None:
        """Write the photograph: two gradients, so that it is small."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.indices(self.shape)
        channels = [rows * 4, columns * 4, np.full(self.shape, 90)]
        Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


def rectangle(left: int, top: int, right: int, bottom: int) -> Points:
    """Corners of a rectangle, clockwise."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def inside(corners: Sequence[tuple[float, float]], shape: tuple[int, int]) -> Bits:
    """Pixels whose centres are inside a polygon, by the even-odd rule, bool [H, W]."""
    y_HW, x_HW = np.indices(shape) + 0.5
    bits_HW = np.zeros(shape, dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        if y0 != y1:
            crossing_HW = x0 + (y_HW - y0) * (x1 - x0) / (y1 - y0)
            bits_HW ^= ((y0 > y_HW) != (y1 > y_HW)) & (x_HW < crossing_HW)
    return bits_HW


def through_centres(corners: Points) -> list[tuple[int, int]]:
    """The same region as indices (x, y) of the outermost pixels, as tools write it that draw the outline too."""
    shape = (max(y for _, y in corners) + 1, max(x for x, _ in corners) + 1)
    bits_HW = np.pad(inside(corners, shape), 1)
    points = []
    for x, y in corners:
        around = {(column, row): bits_HW[row + 1, column + 1] for row in (y - 1, y) for column in (x - 1, x)}
        # At a convex corner one of the four pixels is inside, at a concave one all but one.
        odd = next(place for place, bit in around.items() if bit == (sum(around.values()) == 1))
        convex = sum(around.values()) == 1
        points.append(odd if convex else (2 * x - 1 - odd[0], 2 * y - 1 - odd[1]))
    return points


def painted(shape: tuple[int, int], layers: Sequence[tuple[int, Bits]]) -> Ids:
    """Class ids of (id, pixels), later over earlier, on background, uint8 [H, W]."""
    ids_HW = np.zeros(shape, dtype=np.uint8)
    for index, bits_HW in layers:
        ids_HW[bits_HW] = index
    return ids_HW


FIELD_1 = Picture(
    "field_1.png",
    (30, 40),
    (
        Region("crop", rectangle(10, 5, 20, 15), hole=rectangle(13, 8, 16, 11)),
        # It covers a corner of the crop.
        Region("weed", rectangle(17, 12, 25, 20)),
        # It touches the right and the lower side of the picture.
        Region("stone", ((34, 20), (40, 20), (40, 30), (30, 30), (30, 26), (34, 26))),
    ),
)
FIELD_2 = Picture(
    "field 2.jpg",
    (47, 33),
    (
        # Larger than the crop: COCO has no drawing order, and the smaller one wins.
        Region("weed", ((2, 3), (22, 3), (22, 9), (12, 9), (12, 32), (2, 32))),
        Region("crop", rectangle(15, 20, 30, 44), hole=rectangle(18, 26, 22, 40)),
    ),
)
FIELD_3 = Picture("field_3.png", (24, 24), ())
PICTURES = (FIELD_1, FIELD_2, FIELD_3)
ANNOTATED = (FIELD_1, FIELD_2)
