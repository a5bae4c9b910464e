"""A label of regions: they are drawn in their order, so a later one wins where two overlap."""

# H W pixels

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trainer.data.imports.drawing.rasterise import Shape, ShapeError, is_outside, shape_pixels
from trainer.data.imports.source.annotated import REST, Ids, Size
from trainer.data.imports.source.loss_report import Losses

OVERLAP = "regions of different classes overlap; the one that is drawn later wins"
OUTSIDE = "a region reaches outside the image; that part is cut off"
NO_PIXELS = "a region has no pixels"
UNUSABLE = "a region cannot be drawn and is left out"


@dataclass(frozen=True, slots=True)
class Region:
    """A shape of one class.

    Attributes:
        shape: in pixels of the upright image.
        class_id: position in the source's list of classes, or VOID.
        name: what messages call it: "crack 3".
    """

    shape: Shape
    class_id: int
    name: str


@dataclass(frozen=True, slots=True)
class DrawnRegions:
    """Regions in drawing order, the lowest first.

    Attributes:
        name: what messages call the image.
        rest: id of the pixels that no region covers.
        overlap: the message about regions that overlap.
    """

    name: str
    regions: Iterable[Region]
    rest: int = REST
    overlap: str = OVERLAP

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label. Regions that cannot be drawn are reported and left out."""
        ids_HW = np.full(size, self.rest, dtype=np.uint16)
        # A region may have the id of the rest: an annotator drew background.
        covered_HW = np.zeros(size, dtype=np.bool_)
        for region in self.regions:
            example = f"{self.name}: {region.name}"
            try:
                inside_HW = shape_pixels(region.shape, size)
            except ShapeError as error:
                losses.add("unusable region", UNUSABLE, f"{example} {error}", remedy="correct it in the tool")
                continue
            if is_outside(region.shape, size):
                losses.add("points outside", OUTSIDE, example)
            if not inside_HW.any():
                losses.add("empty region", NO_PIXELS, example)
            overlap = int((covered_HW & inside_HW & (ids_HW != region.class_id)).sum())
            if overlap:
                losses.add("overlap", self.overlap, f"{example} ({overlap} pixels)")
            ids_HW[inside_HW] = region.class_id
            covered_HW |= inside_HW
        return ids_HW
