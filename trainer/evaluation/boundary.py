"""Boundary IoU: intersection over union of the pixels near class boundaries only (arXiv 2103.16562)."""

# K classes, H W pixels, L label maps

import math

import torch
from torch import Tensor

DIAGONAL_PART = 0.02
"""Width of the boundary region as a fraction of the image diagonal (section 4)."""


def boundary_counts(prediction_HW: Tensor, truth_HW: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Intersection and union of the boundary regions of prediction and truth (integer ids) in one image, per class.

    Deviation: the paper has no ignored pixels. Here they neither belong to a boundary region nor create one, because
    the class may continue there.

    Returns:
        int64 [2,K]: pixels in both boundary regions with this class in both; pixels in either region.
    """
    maps_LHW = torch.stack([prediction_HW, truth_HW]).to(torch.int32)
    known_HW = truth_HW != ignore_index
    near_LHW = boundary(maps_LHW, known_HW, boundary_width(*truth_HW.shape)) & known_HW
    both_HW = near_LHW[0] & near_LHW[1] & (maps_LHW[0] == maps_LHW[1])
    intersection_K = count_by_class(maps_LHW[0], both_HW, classes)
    summed_K = count_by_class(maps_LHW[0], near_LHW[0], classes) + count_by_class(maps_LHW[1], near_LHW[1], classes)
    return torch.stack([intersection_K, summed_K - intersection_K])


def boundary_width(height: int, width: int) -> int:
    """Width of the boundary region of an image, in pixels, at least one."""
    return max(1, round(DIAGONAL_PART * math.hypot(height, width)))


def boundary(maps_LHW: Tensor, known_HW: Tensor, distance: int) -> Tensor:
    """Pixels removed by eroding each class's mask `distance` times with a 3x3 square, bool [L,H,W].

    These have another class or the image border within `distance` rows and columns, so the lowest and highest id of
    their window differ. Ignored pixels equal any class.
    """
    height, width = maps_LHW.shape[1:]
    result_LHW = torch.ones_like(maps_LHW, dtype=torch.bool)
    span = 2 * distance + 1
    if height < span or width < span:
        return result_LHW  # every pixel is within `distance` of the border
    none = torch.iinfo(maps_LHW.dtype).min
    highest = maps_LHW.masked_fill(~known_HW, none)
    lowest = (-maps_LHW).masked_fill(~known_HW, none)
    highest, lowest = (_window_max(_window_max(ids, span, dim=1), span, dim=2) for ids in (highest, lowest))
    result_LHW[:, distance : height - distance, distance : width - distance] = highest != -lowest
    return result_LHW


def count_by_class(labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """Count the chosen pixels per class, int64 [K], without a device synchronisation."""
    slots = torch.where(chosen, labels, classes).flatten().long()
    counts = torch.zeros(classes + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, slots, torch.ones_like(slots))[:classes]


def _window_max(values: Tensor, span: int, dim: int) -> Tensor:
    """Maximum over windows of `span` values along a dimension, in log2(span) passes by doubling."""
    covered = 1
    while covered < span:
        shift = min(covered, span - covered)
        length = values.shape[dim] - shift
        values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, shift, length))
        covered += shift
    return values
