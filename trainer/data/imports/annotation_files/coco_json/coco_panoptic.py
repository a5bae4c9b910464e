"""The label of an image in COCO's panoptic form: a PNG whose colours are the ids of segments."""

# H W pixels, C channels

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.decode import ImageError, decode_colors
from trainer.data.imports.source.annotated import REST, VOID, Ids, Size
from trainer.data.imports.source.loss_report import Losses

FOREIGN = "a PNG has segments that the JSON does not list; their pixels are ignored"
OTHER_SIZE = "the PNG of an image has another size; export both again"


@dataclass(frozen=True, slots=True)
class PanopticLabel:
    """A PNG of segments.

    Attributes:
        png: its colours are r + 256 g + 65536 b; 0 = no segment.
        name: what messages call it.
        classes: position of the class, by segment id.
    """

    png: Path
    name: str
    classes: Mapping[int, int]

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label."""
        color_HWC = decode_colors(self.png, Path(self.name)).astype(np.int64)
        if color_HWC.shape[:2] != size:
            raise ImageError(f"{self.name}: {OTHER_SIZE}")
        segment_HW = color_HWC[..., 0] + (color_HWC[..., 1] << 8) + (color_HWC[..., 2] << 16)
        ids, place_HW = np.unique(segment_HW, return_inverse=True)
        known = {0: REST} | dict(self.classes)
        for unknown in (int(each) for each in ids if int(each) not in known):
            losses.add("foreign id", FOREIGN, f"{self.name}: segment {unknown}", remedy="export both again")
        values = np.array([known.get(int(each), VOID) for each in ids], dtype=np.uint16)
        mask_HW: Ids = values[place_HW.reshape(size)]
        return mask_HW
