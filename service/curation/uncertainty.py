"""How uncertain a model is about an image: a number by which images are chosen for labelling, and drift is seen."""

# H W pixels

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CONFIDENT = 0.95
"""Confidence from which a pixel counts as certain; the trainer's threshold for pseudo-labels."""
BORDER_PX = 3
"""Pixels this close to another predicted class are left out: every model is uncertain there."""

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def uncertainty(
    mask_HW: Ids, confidence_HW: npt.NDArray[np.uint8], *, confident: float = CONFIDENT, border_px: int = BORDER_PX
) -> float:
    """Share of pixels whose confidence is below `confident`, averaged over the predicted classes, 0..1.

    With the mean over pixels, a large and easy class such as sky would hide the others.

    Args:
        mask_HW: Predicted class ids.
        confidence_HW: Confidence of each pixel's class, 0..255 = 0.0..1.0.
        confident: Confidence from which a pixel is certain, 0..1.
        border_px: Pixels with another class at most this many rows and columns away do not count. A class that has no
            others does not count either, unless no pixel of the image would count: then all do.
    """
    counted_HW = _far_from_borders(mask_HW, border_px)
    if not counted_HW.any():
        counted_HW = np.ones_like(counted_HW)
    unsure_HW = counted_HW & (confidence_HW < confident * 255)
    counted_K, unsure_K = np.bincount(mask_HW[counted_HW]), np.bincount(mask_HW[unsure_HW])
    present = np.flatnonzero(counted_K)
    unsure_K = np.pad(unsure_K, (0, len(counted_K) - len(unsure_K)))
    return float(np.mean(unsure_K[present] / counted_K[present]))


def _far_from_borders(mask_HW: Ids, border_px: int) -> npt.NDArray[np.bool_]:
    """Pixels whose neighbours, up to `border_px` rows and columns away, all have their class: bool [H, W]."""
    lowest_HW, highest_HW = mask_HW, mask_HW
    for axis in (0, 1):
        for step in _steps(border_px):
            lowest_HW = _spread(np.minimum, lowest_HW, step, axis)
            highest_HW = _spread(np.maximum, highest_HW, step, axis)
    same_HW: npt.NDArray[np.bool_] = lowest_HW == highest_HW
    return same_HW


def _steps(distance: int) -> list[int]:
    """Steps whose sum is `distance`, each at most twice the sum of the steps before it plus one: 1, 2 for 3."""
    steps, reached = [], 0
    while reached < distance:
        # A step beyond the window of the steps before it would leave gaps.
        step = min(2 * reached + 1, distance - reached)
        steps.append(step)
        reached += step
    return steps


def _spread(extreme: np.ufunc, values_HW: Ids, step: int, axis: int) -> Ids:
    """The extreme of each value and of those `step` before and after it along an axis; outside there are none."""
    values = np.moveaxis(values_HW, axis, 0)
    found = values.copy()
    extreme(found[step:], values[:-step], out=found[step:])
    extreme(found[:-step], values[step:], out=found[:-step])
    return np.moveaxis(found, 0, axis)
