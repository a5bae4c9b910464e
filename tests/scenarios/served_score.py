"""Score the masks that the service returns, and the difference of two versions, with the gate's own limits."""

# K classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.releases.gate.comparison import compare_counts
from service.releases.gate.statistics.class_counts import ClassCounts, count_classes, number_units
from service.releases.gate.verdict import Rule
from tests.scenarios.frames import Frame, image_file, mask_file

IGNORE_INDEX = 255
SECONDS = 5
"""Stretches of video of this length are independent units."""

Segment = Callable[[Path], npt.NDArray[np.uint8]]


def count_served(segment: Segment, data: Path, frames: Sequence[Frame], classes: int) -> ClassCounts:
    """Segment frames and count the pixels of each class."""
    rows = [
        count_classes(
            np.asarray(Image.open(mask_file(data, frame))), segment(image_file(data, frame)), classes, IGNORE_INDEX
        )
        for frame in frames
    ]
    tp_IK, truth_IK, found_IK = np.array(rows, dtype=np.int64).transpose(1, 0, 2)
    return ClassCounts(tp_IK, truth_IK, found_IK)


def compare_served(
    after: ClassCounts, before: ClassCounts, frames: Sequence[Frame], names: Sequence[str]
) -> dict[str, Any]:
    """Compare two versions on the same frames: mIoU before and after, the difference and its limits, and by class."""
    unit_I = number_units([frame.group(SECONDS) for frame in frames])
    found = compare_counts(after, before, unit_I, names, Rule(margin=0.01, level=0.05, mode="better"))
    classes = found.classes.values()
    return {
        "images": len(frames),
        "units": found.difference.units,
        "before": float(np.mean([each.other_iou for each in classes])),
        "after": float(np.mean([each.candidate_iou for each in classes])),
        "difference": found.difference.value,
        "lower": found.difference.lower,
        "upper": found.difference.upper,
        "classes": {name: [each.other_iou, each.candidate_iou] for name, each in found.classes.items()},
    }
