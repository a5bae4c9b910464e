"""Boundary IoU: intersection over union of the pixels near the outlines alone (arXiv 2103.16562).

Plain IoU hardly notices a frayed outline around a large object; this one sees nothing else.
"""

# K classes, H W pixels, L label maps

import math

import torch
from torch import Tensor

DIAGONAL_PART = 0.02
"""Width of the outline as a part of the image's diagonal (section 4 of the paper)."""


def boundary_counts(prediction_HW: Tensor, truth_HW: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Pixels of each class in the outlines of prediction and truth, of one image.

    A pixel without truth is in neither outline, and makes none: nobody said that the class ends there.
    Deviation: the paper has no pixels without truth.

    Args:
        prediction_HW: integer class ids.
        truth_HW: integer class ids, or `ignore_index`.
        classes: how many there are.
        ignore_index: value of the truth where there is none.

    Returns:
        int64 [2,K]: in both outlines with this class in both; in the outline of either.
    """
    maps_LHW = torch.stack([prediction_HW, truth_HW]).to(torch.int32)
    known_HW = truth_HW != ignore_index
    near_LHW = boundary(maps_LHW, known_HW, boundary_width(*truth_HW.shape)) & known_HW
    both_HW = near_LHW[0] & near_LHW[1] & (maps_LHW[0] == maps_LHW[1])
    intersection_K = count_by_class(maps_LHW[0], both_HW, classes)
    summed_K = count_by_class(maps_LHW[0], near_LHW[0], classes) + count_by_class(maps_LHW[1], near_LHW[1], classes)
    return torch.stack([intersection_K, summed_K - intersection_K])


def boundary_width(height: int, width: int) -> int:
    """Width of the outline of an image of this size, in pixels, at least one."""
    return max(1, round(DIAGONAL_PART * math.hypot(height, width)))


def boundary(maps_LHW: Tensor, known_HW: Tensor, distance: int) -> Tensor:
    """Which pixels go when each class's mask is eroded `distance` times by a 3x3 square, bool [L,H,W].

    They are those with another class, or the image's border, within `distance` rows and columns. So one look at the
    least and the greatest id around each pixel serves all classes. Pixels that are not known agree with everything.
    """
    height, width = maps_LHW.shape[1:]
    result_LHW = torch.ones_like(maps_LHW, dtype=torch.bool)
    span = 2 * distance + 1
    if height < span or width < span:
        return result_LHW  # every pixel is near the border
    none = torch.iinfo(maps_LHW.dtype).min
    highest = maps_LHW.masked_fill(~known_HW, none)
    lowest = (-maps_LHW).masked_fill(~known_HW, none)
    highest, lowest = (_window_max(_window_max(ids, span, dim=1), span, dim=2) for ids in (highest, lowest))
    result_LHW[:, distance : height - distance, distance : width - distance] = highest != -lowest
    return result_LHW


def count_by_class(labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """How many of the chosen pixels each class has, int64 [K]; the device is not waited for."""
    slots = torch.where(chosen, labels, classes).flatten().long()
    counts = torch.zeros(classes + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, slots, torch.ones_like(slots))[:classes]


def _window_max(values: Tensor, span: int, dim: int) -> Tensor:
    """Maximum over all runs of `span` values along a dimension, by doubling the run: log2(span) passes."""
    run = 1
    while run < span:
        ahead = min(run, span - run)
        kept = values.shape[dim] - ahead
        values = torch.maximum(values.narrow(dim, 0, kept), values.narrow(dim, ahead, kept))
        run += ahead
    return values
