"""Run lengths to masks: COCO's two forms, and row by row in a box, as CVAT writes them."""

# H W pixels

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data.coco.coco_regions import RegionError, region
from trainer.data.imports.drawing.rasterise import Bitmap, ShapeError
from trainer.data.imports.source.annotated import Size


def coco_run_lengths(segmentation: dict[str, Any], size: Size) -> Bitmap:
    """A segmentation {"size": [H, W], "counts": list or compressed string}: column by column, background first.

    Raises ShapeError if `size` differs, or the runs do not fill it.
    """
    try:
        return Bitmap(region(segmentation, size))
    except RegionError as error:
        raise ShapeError(str(error)) from error


def row_run_lengths(runs: Sequence[int], left: int, top: int, width: int, height: int) -> Bitmap:
    """Run lengths of a box, row by row, background first. Raises ShapeError if they do not fill it."""
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ShapeError("has run lengths that are not numbers of pixels")
    if sum(runs) != width * height:
        raise ShapeError(f"has run lengths for {sum(runs)} of {width * height} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return Bitmap(values.reshape(height, width), left, top)
